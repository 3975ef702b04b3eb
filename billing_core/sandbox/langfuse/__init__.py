"""The sandbox's Langfuse: its legacy API and v2."""
