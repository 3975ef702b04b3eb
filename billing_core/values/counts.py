"""Counts of things as text, with the noun in the right number."""

from __future__ import annotations


def count_of(value: int, noun: str) -> str:
    """A count with its noun: `1 event`, `12,345 events`."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"
