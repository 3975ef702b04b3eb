"""Detects how a CSV file is written from its beginning: encoding, separator, header. Pure.

What spreadsheets of every country save is understood: byte order marks, UTF-16, semicolons, tabs, a line `sep=;`, line
ends of any kind, rows and trailing columns without content.
"""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

SEPARATORS = (",", ";", "\t", "|")

_LINE_END = re.compile(r"\r\n|\r|\n")
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?[,;\t|]*\Z', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a CSV file is written: encoding, separator, header.

    separator: Between its cells.
    header: The names in its first row that holds anything, without blanks around them; empty if there is no such row.
    is_complete: Whether the line of the header ends within the text that was looked at.
    """

    separator: str
    header: tuple[str, ...]
    is_complete: bool = True


def encoding_of(head: bytes) -> str:
    """The encoding that a byte order mark among a file's first four bytes names, else UTF-8; as Python names it."""
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if head.startswith(codecs.BOM_UTF8):
        return "utf-8-sig"
    return "utf-16" if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"


def in_windows(byte: int) -> str:
    """A hint with the character that a byte is in Windows-1252, as older spreadsheets save."""
    try:
        return f" ({bytes([byte]).decode('cp1252')!r} in Windows-1252)"
    except UnicodeDecodeError:
        return ""


def dialect_of(start: str, known: Collection[str]) -> Dialect:
    """The dialect of a CSV file: the separator its `start` names, else the one of most `known` columns."""
    separator = ""
    lines = _LINE_END.split(start)
    for number, line in enumerate(lines):
        if named := _SEPARATOR_LINE.match(line.strip(" ")):
            separator = named[1]
        elif line.strip("".join(SEPARATORS) + '" '):
            found, header = _header(line, known, separator)
            return Dialect(found, header, number + 1 < len(lines))
    return Dialect(separator or ",", ())


def _header(line: str, known: Collection[str], separator: str) -> tuple[str, tuple[str, ...]]:
    best: tuple[int, int, str, tuple[str, ...]] = (-1, 0, separator or ",", (line.strip(),))
    for order, one in enumerate((separator,) if separator else SEPARATORS):
        try:
            cells = next(csv.reader([line], delimiter=one), [])
        except (csv.Error, TypeError, ValueError):  # a sign that no table is separated by
            continue
        names = tuple(cell.strip() for cell in trimmed(cells))
        best = max(best, (sum(name in known for name in names), -order, one, names))
    return best[2], best[3]


def is_separator_line(cells: Sequence[str]) -> bool:
    """Whether a record is the line that names the separator (`sep=;`), however it was split."""
    return cells[0].strip().lower().startswith("sep=") and not "".join(cells[1:]).strip(" ,;\t|")


def is_blank(cells: Sequence[str]) -> bool:
    """Whether a row holds nothing but separators and blanks."""
    return not any(cell.strip() for cell in cells)


def trimmed(cells: Sequence[str]) -> Sequence[str]:
    """A row without the empty cells at its end."""
    last = len(cells)
    while last and not cells[last - 1].strip():
        last -= 1
    return cells[:last]
