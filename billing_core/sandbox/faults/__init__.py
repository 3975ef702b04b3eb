"""Faults that a test or a person plants in the sandbox."""
