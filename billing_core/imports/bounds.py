"""Limits for the parts of an imported file, and the error for a file that cannot be used."""

from __future__ import annotations

MOST_COLUMNS = 200

LARGEST_CELL = 100_000
"""Characters of one cell of CSV or Parquet."""

LARGEST_PIECE = 16 * 1024 * 1024
"""Characters that are read at once, whatever they stand for; one row may have more."""

MOST_MEMORY = 1 << 30
"""Bytes for a process that reads a Parquet file. An export of ours takes at most half of it."""

TOO_LARGE = f"takes more than {MOST_MEMORY >> 20:,} MB of memory to read; write it with smaller row groups and pages"

PARQUET_LIMITS = {"thrift_string_size_limit": 16 * 1024 * 1024, "schema_depth_limit": 8}
"""Of the footer of a Parquet file: the bytes of a text, and the levels of a column of lists of structures."""

_SHOWN = 60


class Unusable(Exception):
    """An imported file, or the rest of it, cannot be read: which row (0: all of it), which column, and why."""

    def __init__(self, reason: str, *, row: int = 0, field: str = "file") -> None:
        super().__init__(reason)
        self.row = row
        self.field = field
        self.reason = reason


def shown(value: object) -> str:
    """A value of a file as an error message may show it: one line, and only its beginning."""
    text = str(value)
    cut = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return repr(cut)
