"""The close of a month: what prevents it, the manifest, and the proof that nothing changed since."""
