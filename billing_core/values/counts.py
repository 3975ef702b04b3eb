"""Counts as text."""

from __future__ import annotations


def counted(value: int, noun: str) -> str:
    """`1 event`, `12,345 events`."""
    return f"{value:,} {noun}" if value == 1 else f"{value:,} {noun}s"
