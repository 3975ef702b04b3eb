"""Finds out what an uploaded file is by its content: size, hash, encoding, and which kind of import it holds.

Nothing here trusts a name, a declared size or an encoding; a file is looked at in pieces, never whole.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from billing_core.errors import BadParameter
from billing_core.imports.archives import DAMAGED, PIECE, opened_zip
from billing_core.imports.bounds import MOST_COLUMNS, Unusable, shown
from billing_core.imports.model import FileKind
from billing_core.imports.parquet_file import column_names
from billing_core.imports.xlsx_file import opened_workbook
from billing_core.types import FLAT_FIELDS
from billing_core.values.csv_cells import EXACT, IN_UTC
from billing_core.values.csv_dialect import SEPARATORS, dialect_of, encoding_of, in_windows

LARGEST_HEADER = 1 << 20
"""Characters of a first line; more is no header."""

LARGEST_DOCUMENT = 1 << 20
"""Bytes of a YAML or JSON rate card: a card is some hundred lines."""

EXTRA_FIELDS = (
    "project_id",
    "trace_base",
    "usage",
    "observations",
    "has_error",
    "problems",
    "updated_at",
    "credit_price_usd",
    "active_seconds",
    "usage_lines",
)
"""Columns that a bundle's events have after the published ones; any of them may be missing."""

MAP_COLUMNS = ("organization_id", "name", "customer_id")

CARD_COLUMNS = (
    "id",
    "effective_from",
    "effective_to",
    "credit_price_usd",
    "margin",
    "ai",
    "compute_credits_per_minute",
    "storage_credits_per_gb_month",
    "compute_basis",
    "exclude",
    "token_classes",
    "units",
    "sha256",
)
"""A rate card as a row, as it is exported; `effective_to`, `margin` and what follows the prices may be missing."""

TIMES = ("timestamp", "ended_at", "synced_at", "updated_at")

NUMBERS = frozenset(
    {
        "tokens_in",
        "tokens_out",
        "tokens_total",
        "observations",
        "latency_seconds",
        "storage_gb",
        "cost_usd",
        "credits_ai_tokens",
        "credits_compute",
        "credits_storage",
        "credits_total",
        "amount_usd",
        "credit_price_usd",
        "margin",
        "compute_credits_per_minute",
        "storage_credits_per_gb_month",
    }
)
"""Columns that hold numbers, of every kind of table."""

_NAMES = frozenset({*FLAT_FIELDS, *EXTRA_FIELDS, *MAP_COLUMNS, *CARD_COLUMNS})

_ACCEPTED = (
    "usage events (CSV, XLSX, JSON or Parquet as exported), a rate card (YAML, JSON, CSV or XLSX), "
    "a customer map (CSV or XLSX) or a bundle (zip with manifest.json)"
)


class Form(StrEnum):
    """The format of an imported file."""

    DELIMITED = "delimited"
    JSON = "json"
    PARQUET = "parquet"
    DOCUMENT = "document"
    XLSX = "xlsx"
    ZIP = "zip"


@dataclass(frozen=True, slots=True)
class File:
    """An imported file on disk: path, name, size, hash, format and kind.

    encoding: As Python names it; for binary forms empty.
    separator, header: Of delimited text; `header` are the names in its first row.
    in_utc: Columns whose heading says that their times are UTC: `timestamp (UTC)`.
    """

    path: Path
    name: str
    bytes: int
    sha256: str
    form: Form
    kind: FileKind
    encoding: str = ""
    separator: str = ","
    header: tuple[str, ...] = ()
    in_utc: frozenset[str] = frozenset()


def detect_file(
    path: Path, name: str | None = None, on_bytes_read: Callable[[int], None] | None = None
) -> tuple[File, str | None]:
    """What an uploaded file is, and why it cannot be imported (`None`: no fault found so far).

    `on_bytes_read` is called with how many bytes were read so far.

    Raises BadParameter: if there is no such file, or it cannot be opened.
    """
    named = _plain_name(name or path.name)
    if path.exists() and not path.is_file():
        raise BadParameter("file", named, "a file; this is a folder, a device or a pipe, which may have no end")
    try:
        with path.open("rb") as file:
            head = file.read(4)
        encoding = "" if head in {b"PK\x03\x04", b"PK\x05\x06", b"PAR1"} else encoding_of(head)
        size, digest, fault = _read_through(path, encoding, on_bytes_read)
    except OSError as error:
        raise BadParameter("file", named, f"a file that can be read ({error.strerror or error})") from None

    def found(form: Form, kind: FileKind, **more: object) -> File:
        return File(path, named, size, digest, form, kind, encoding, **more)  # type: ignore[arg-type]

    if not size:
        return found(Form.DOCUMENT, FileKind.UNKNOWN), f"the file is empty: 0 rows and no header; expected {_ACCEPTED}"
    if head == b"\xd0\xcf\x11\xe0":
        fault = "is an Excel 97–2003 workbook, or one with a password; save it as XLSX without one, or as CSV UTF-8"
        return found(Form.DOCUMENT, FileKind.UNKNOWN), fault
    if head == b"PAR1":
        return _parquet(path, found)
    if not encoding:
        return _zipped(path, found)
    if fault is not None:
        return found(Form.DOCUMENT, FileKind.UNKNOWN), fault
    return _text(path, encoding, found)


def kind_of_columns(names: Sequence[str]) -> FileKind:
    """The kind of import that a table with these columns holds."""
    present = set(names)
    if "day" not in present and {"credits_total", "timestamp"} & present and {"id", "sync_status"} & present:
        return FileKind.USAGE_EVENTS
    if {"credit_price_usd", "effective_from"} <= present:
        return FileKind.RATE_CARD
    if "organization_id" in present and present & {"name", "customer_id"} and "events" not in present:
        return FileKind.CUSTOMERS
    return FileKind.UNKNOWN


def unknown_table(names: Sequence[str], separator: str = "") -> str:
    """The reason why a table cannot be imported; `separator` is what its cells were split by."""
    if "day" in names and "events" in names:
        return "holds sums per day, from which no events can be made; export the events themselves (grain event)"
    listed = ", ".join(shown(name) for name in names[:8]) + (", …" if len(names) > 8 else "")
    cut = f", told apart by {separator!r}" if separator else ""
    return f"its columns ({listed}{cut}) are none that can be imported; expected {_ACCEPTED}"


def _plain_name(name: str) -> str:
    """The last part of a name, as it may stand in the audit log."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(c if c.isprintable() else "?" for c in last)[:200] or "file"


def _read_through(
    path: Path, encoding: str, on_bytes_read: Callable[[int], None] | None
) -> tuple[int, str, str | None]:
    """Bytes, SHA-256, and of text the first byte that is none of its encoding, in words."""
    digest, size, fault = sha256(), 0, None
    decoder = codecs.getincrementaldecoder(encoding.removesuffix("-sig"))() if encoding else None
    with path.open("rb") as file:
        while True:
            piece = file.read(PIECE)
            digest.update(piece)
            if decoder is not None and fault is None:
                waiting = len(decoder.getstate()[0])
                try:
                    decoder.decode(piece, final=not piece)
                except UnicodeDecodeError as error:
                    fault = _bad_byte(error, size - waiting, encoding)
            size += len(piece)
            if on_bytes_read is not None:
                on_bytes_read(size)
            if not piece:
                return size, digest.hexdigest(), fault


def _bad_byte(error: UnicodeDecodeError, start: int, encoding: str) -> str:
    where, value = start + error.start, error.object[error.start]
    kind = encoding.removesuffix("-sig").upper()
    said = in_windows(value) if kind == "UTF-8" else ""
    return (
        f"byte {where + 1:,} is 0x{value:02X}{said}, which is not {kind} text; save the file as CSV UTF-8 "
        "(UTF-16 with a byte order mark is understood as well)"
    )


def _parquet(path: Path, found: Callable[..., File]) -> tuple[File, str | None]:
    try:
        header = column_names(path)
    except Unusable as fault:
        return found(Form.PARQUET, FileKind.UNKNOWN), fault.reason
    kind = kind_of_columns(header)
    return found(Form.PARQUET, kind, header=header), None if kind is not FileKind.UNKNOWN else unknown_table(header)


def _zipped(path: Path, found: Callable[..., File]) -> tuple[File, str | None]:
    try:
        with opened_zip(path) as archive:
            names = set(archive.namelist())
    except Unusable as fault:
        return found(Form.ZIP, FileKind.UNKNOWN), fault.reason
    except DAMAGED as error:
        return found(Form.ZIP, FileKind.UNKNOWN), f"is a damaged zip file ({error}); export or copy it again"
    if "manifest.json" in names:
        return found(Form.ZIP, FileKind.BUNDLE), None
    if "[Content_Types].xml" in names:
        return _workbook(path, found)
    if "mimetype" in names:
        return found(Form.ZIP, FileKind.UNKNOWN), "is an OpenDocument file; save it as XLSX or CSV UTF-8"
    return found(Form.ZIP, FileKind.UNKNOWN), f"is a zip file without manifest.json; expected {_ACCEPTED}"


def _workbook(path: Path, found: Callable[..., File]) -> tuple[File, str | None]:
    try:
        with opened_workbook(path) as book:
            header, in_utc = plain_header(book.data().header())
            if book.times_are_utc():
                in_utc = frozenset(TIMES) & frozenset(header)
    except Unusable as fault:
        return found(Form.XLSX, FileKind.UNKNOWN), fault.reason
    if not header:
        return found(Form.XLSX, FileKind.UNKNOWN), f"its sheet is empty: 0 rows and no header; expected {_ACCEPTED}"
    kind = kind_of_columns(header)
    fault_of_kind = None if kind is not FileKind.UNKNOWN else unknown_table(header)
    return found(Form.XLSX, kind, header=header, in_utc=in_utc), fault_of_kind


def _text(path: Path, encoding: str, found: Callable[..., File]) -> tuple[File, str | None]:
    with path.open(encoding=encoding, newline="") as file:
        start = file.read(LARGEST_HEADER)
    first = start.lstrip()[:1]
    if first in {"{", "["}:
        return _json(start, found)
    if "\0" in start[:LARGEST_HEADER]:
        return found(Form.DELIMITED, FileKind.UNKNOWN), (
            "holds NUL characters: it is not text, or is UTF-16 without a byte order mark; save the file as CSV UTF-8"
        )
    dialect = dialect_of(start, {name for plain in _NAMES for name in (plain, plain + IN_UTC)})
    if not dialect.header:
        return found(Form.DELIMITED, FileKind.UNKNOWN), f"the file is empty: 0 rows and no header; expected {_ACCEPTED}"
    if not dialect.is_complete and len(start) >= LARGEST_HEADER:
        return found(
            Form.DELIMITED, FileKind.UNKNOWN
        ), "its first line does not end; expected a header with column names"
    separator, (header, in_utc) = dialect.separator, plain_header(dialect.header)
    if separator not in SEPARATORS:
        fault = f"its first line says that {separator!r} separates its cells; a comma, a semicolon, a tab or | may"
        return found(Form.DELIMITED, FileKind.UNKNOWN), fault
    if len(header) > MOST_COLUMNS:
        return found(Form.DELIMITED, FileKind.UNKNOWN), f"has {len(header):,} columns; at most {MOST_COLUMNS} are read"
    kind = kind_of_columns(header)
    if kind is not FileKind.UNKNOWN:
        return found(Form.DELIMITED, kind, separator=separator, header=header, in_utc=in_utc), None
    if any(
        text.lstrip("- ").startswith(("cards:", "ai:", "id:", "plans:", "effective_from:")) for text in _lines(start)
    ):
        return found(Form.DOCUMENT, FileKind.RATE_CARD), None
    fault = unknown_table(header, separator)
    return found(Form.DELIMITED, FileKind.UNKNOWN, separator=separator, header=header), fault


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()[:1000]]


def without_helpers(names: Sequence[str]) -> tuple[str, ...]:
    """Column names without those that say again what another column says: digits which a number column has no room for,
    and the local time of a time in UTC.
    """
    return tuple(
        name
        for name in names
        if not (name.endswith(EXACT) and name.removesuffix(EXACT) in NUMBERS) and not is_local_time(name, names)
    )


_LOCAL_TIME = re.compile(rf"({'|'.join(TIMES)})\s*\([A-Za-z0-9_+/-]+\)")


def is_local_time(name: str, names: Sequence[str]) -> bool:
    """Whether a column has local times, as its heading says, of another column's times."""
    found = _LOCAL_TIME.fullmatch(name)
    return found is not None and found[1] in names and _OF_UTC.fullmatch(name) is None


_OF_UTC = re.compile(rf"({'|'.join(TIMES)})\s*(?i:{re.escape(IN_UTC.strip())})")
"""A heading as ours, with whatever a spreadsheet or a person made of the blank and the letters of `(UTC)`."""


def plain_header(names: Sequence[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Column names without their timezone suffix, and which of them said that they are UTC."""
    found = [None if is_local_time(name, names) else _OF_UTC.fullmatch(name) for name in names]
    plain = tuple(name if of_utc is None else of_utc[1] for name, of_utc in zip(names, found, strict=True))
    return plain, frozenset(of_utc[1] for of_utc in found if of_utc is not None)


def _json(start: str, found: Callable[..., File]) -> tuple[File, str | None]:
    """Tables have `rows`; a rate card has cards. Whatever it is, reading it to its end says whether it is sound."""
    head = start.lstrip()
    if head.startswith("["):
        return found(Form.JSON, FileKind.UNKNOWN), 'is a JSON list; expected {"meta": …, "rows": […]} as exported'
    at, kind = head.find('"rows"'), FileKind.UNKNOWN
    if at >= 0:
        kind = _kind_of_rows(head, at)
    elif '"cards"' in head or '"ai"' in head:
        return found(Form.DOCUMENT, FileKind.RATE_CARD), None
    if kind is FileKind.UNKNOWN:
        return found(Form.JSON, kind), f"is JSON of another kind; expected {_ACCEPTED}"
    return found(Form.JSON, kind), None


def _kind_of_rows(head: str, at: int) -> FileKind:
    """By the data set that is named before the rows, else by the keys of the first one."""
    for kind in (FileKind.USAGE_EVENTS, FileKind.RATE_CARD, FileKind.CUSTOMERS):
        if f'"{kind.value}"' in head[:at]:
            return kind
    opening = head.find("{", at)
    if opening < 0:
        return FileKind.UNKNOWN
    try:
        first, _ = json.JSONDecoder().raw_decode(head, opening)
    except (ValueError, RecursionError):
        return FileKind.USAGE_EVENTS if '"sync_status"' in head else FileKind.UNKNOWN
    names = [*first, "credits_total"] if "credits" in first else list(first)
    return kind_of_columns(names)
