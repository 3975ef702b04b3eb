"""The close of a month: what stands against it, the manifest, and the proof that nothing changed since."""
