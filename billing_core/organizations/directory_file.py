"""Reads and writes the organization directory as a CSV file: what is written is exactly what is read back. Pure.

Columns `organization_id`, `name`, `customer_id`; one of the last two may be missing. An empty cell leaves things as
they are, a single `-` clears. All or nothing: one row that cannot be used and none is.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from billing_core.values.csv_cells import csv_line, read_back
from billing_core.values.csv_dialect import SEPARATORS, dialect_of, encoding_of, in_windows, is_blank, is_separator_line

COLUMNS = ("organization_id", "name", "customer_id")

LARGEST_FILE = 5 * 1024 * 1024
"""Bytes."""

MOST_ROWS = 100_000
LONGEST = 200
"""Characters of an id or a name."""

CLEARS = "-"
_SHOWN = 60
_UNPRINTABLE = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories of control characters, halves of characters, and line and paragraph separators."""
_TURNS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
"""Marks with which a name could show another than it is."""


@dataclass(frozen=True, slots=True)
class Change:
    """A wanted change of an organization's line: `None` leaves a part as it is, empty text clears it."""

    organization_id: str
    name: str | None = None
    customer_id: str | None = None


@dataclass(frozen=True, slots=True)
class RejectedDirectoryRow:
    """A row of a directory file that cannot be used: its number (the header is row 1), the column, and why."""

    row: int
    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """The content of a directory file: the changes it asks for, or what is wrong with it. `rows` counts rows below the
    header, `sha256` is in hex.
    """

    changes: tuple[Change, ...]
    rejected: tuple[RejectedDirectoryRow, ...]
    rows: int
    sha256: str


class _Unusable(Exception):
    """The file as a whole cannot be read."""

    def __init__(self, row: int, field: str, reason: str) -> None:
        self.rejected = RejectedDirectoryRow(row, field, reason)


def parse(data: bytes) -> Parsed:
    """Read a directory file: CSV as any spreadsheet saves it (`csv_dialect`), at most 5 MB and 100,000 rows."""
    digest = sha256(data).hexdigest()
    try:
        header, body = _records(data)
        rejected = list(_faults_of_header(header))
        if rejected:
            return Parsed((), tuple(rejected), 0, digest)
        changes: list[Change] = []
        first_row: dict[str, int] = {}
        rows = 0
        for number, cells in body:
            rows += 1
            if rows > MOST_ROWS:
                raise _Unusable(number, "file", f"more than {MOST_ROWS:,} rows; cut the file into several")
            found = list(_faults_of_row(number, cells, header))
            if not found:
                change = _change(dict(zip(header, cells, strict=True)))
                found = [
                    RejectedDirectoryRow(
                        number, field, f"{shown(getattr(change, field))!r} is not accepted; expected {expected}"
                    )
                    for field, expected in faults(change)
                ]
                if not found and (before := first_row.setdefault(change.organization_id, number)) != number:
                    text = f"{shown(change.organization_id)!r} is already in row {before:,}; keep one of them"
                    found = [RejectedDirectoryRow(number, "organization_id", text)]
                changes.append(change)
            rejected += found
    except _Unusable as whole:
        return Parsed((), (whole.rejected,), 0, digest)
    return Parsed(() if rejected else tuple(changes), tuple(rejected), rows, digest)


def faults(change: Change) -> Iterator[tuple[str, str]]:
    """What is wrong with a wanted change: the part, and what is expected of it."""
    if not change.organization_id.strip():
        yield "organization_id", "the id of an organization"
    for field in COLUMNS:
        text = getattr(change, field)
        if text and (expected := _expected(text)) is not None:
            yield field, expected
    if change.name and change.name != change.name.strip():
        yield "name", "no white space at its beginning and end"
    if change.customer_id and not _is_visible_ascii(change.customer_id):
        yield "customer_id", "a Stripe customer id such as cus_…: letters, digits and signs of ASCII, no white space"
    if change.name and any(unicodedata.bidirectional(character) in _TURNS for character in change.name):
        yield "name", "text without marks that turn the direction of writing"


def _is_visible_ascii(text: str) -> bool:
    """No white space, no dash that a spreadsheet made of a hyphen, nothing invisible."""
    return all("!" <= character <= "~" for character in text)


def can_be_written(organization_id: str) -> bool:
    """Whether a CSV file can name this organization: an id may be anything a trace says."""
    return not any(faults(Change(organization_id)))


def csv_lines(lines: Iterable[tuple[str, str | None, str | None]]) -> Iterator[str]:
    """The directory as CSV lines (organization, name, customer) that `parse` reads back; formulas are neutralised."""
    yield csv_line(COLUMNS)
    for line in lines:
        yield csv_line(line)


def shown(text: str) -> str:
    """The text of a cell, shortened for a message: a cell may hold megabytes."""
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _expected(text: str) -> str | None:
    """What is expected of a text that cannot be used."""
    if len(text) > LONGEST:
        return f"at most {LONGEST} characters, not {len(text):,}"
    if any(unicodedata.category(character) in _UNPRINTABLE for character in text):
        return "one line of text without control characters"
    return None


def _records(data: bytes) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """The header and the numbered rows below it that hold anything."""
    if len(data) > LARGEST_FILE:
        raise _Unusable(1, "file", f"has {len(data):,} bytes; at most {LARGEST_FILE:,} are accepted")
    encoding = encoding_of(data[:4])
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        row, byte = data[: error.start].count(b"\n") + 1, data[error.start]
        said = in_windows(byte) if encoding.startswith("utf-8") else ""
        reason = f"is not {encoding.removesuffix('-sig').upper()}: byte {error.start + 1:,} is 0x{byte:02X}{said}"
        raise _Unusable(row, "file", f"{reason}; save it as CSV UTF-8") from None
    dialect = dialect_of(text, COLUMNS)
    if dialect.separator not in SEPARATORS:
        raise _Unusable(1, "file", f"says that {dialect.separator!r} separates its cells; expected a comma, ; tab or |")
    width = len(dialect.header)
    records = _numbered(csv.reader(io.StringIO(text, newline=""), delimiter=dialect.separator, strict=True), width)
    _, header = next(records, (1, []))
    return [name.strip() for name in header], records


def _numbered(reader: Iterator[list[str]], width: int) -> Iterator[tuple[int, list[str]]]:
    """Rows that hold anything, without empty cells beyond the header's; numbered as a spreadsheet numbers them."""
    number = 0
    has_header = False
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise _Unusable(number + 1, "file", f"is not valid CSV from here on: {error}") from None
        if cells and not has_header and is_separator_line(cells):
            continue
        number += 1
        if not is_blank(cells):
            has_header = True
            yield number, cells[:width] if len(cells) > width and is_blank(cells[width:]) else cells


def _faults_of_header(header: Sequence[str]) -> Iterator[RejectedDirectoryRow]:
    expected = "expected organization_id, name, customer_id (name or customer_id may be missing)"
    if "organization_id" not in header:
        yield RejectedDirectoryRow(1, "organization_id", f"the first row does not name this column; {expected}")
    elif len(header) == 1:
        yield RejectedDirectoryRow(1, "name", f"neither name nor customer_id is there; {expected}")
    for name in dict.fromkeys(header):
        if name not in COLUMNS:
            yield RejectedDirectoryRow(1, shown(name), f"no such column; {expected}")
        elif header.count(name) > 1:
            yield RejectedDirectoryRow(1, name, f"the column is there {header.count(name)} times")


def _faults_of_row(number: int, cells: Sequence[str], header: Sequence[str]) -> Iterator[RejectedDirectoryRow]:
    if len(cells) != len(header):
        yield RejectedDirectoryRow(number, "row", f"has {len(cells):,} cells where the header has {len(header):,}")


def _change(cells: dict[str, str]) -> Change:
    return Change(
        read_back(cells["organization_id"]), _wanted(cells.get("name", "")), _wanted(cells.get("customer_id", ""))
    )


def _wanted(cell: str) -> str | None:
    if cell == CLEARS:
        return ""
    return read_back(cell) or None
