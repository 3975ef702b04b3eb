"""Helpers for a running process: the clock, locks, pacing, bounded HTTP, private files, faults said in one line."""
