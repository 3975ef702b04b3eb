"""Reads the cells of one XLSX sheet as text, row by row, in bounded memory whatever the file claims.

openpyxl knows what number formats and escapes mean. The parts themselves are read as a stream: its own reader, also the
read-only one, holds all shared texts and an element per row, which a small hostile file makes gigabytes of.
"""

from __future__ import annotations

import math
import zipfile
from array import array
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from posixpath import join, normpath
from typing import IO
from xml.parsers import expat

from billing_core.imports.archives import DAMAGED, opened_zip
from billing_core.imports.bounds import LARGEST_CELL, MOST_COLUMNS, Unusable, shown
from billing_core.values.csv_dialect import is_blank, trimmed

PIECE = 1 << 16
"""Bytes that are parsed at once."""

LARGEST_TOKEN = 1 << 20
"""Bytes of a tag, a comment or whatever else a parser holds until it ends."""

MOST_PARTS = 2_000
LARGEST_PART = 4 * 1024 * 1024
"""Bytes of a part that says how the workbook is made: its sheets and its number formats."""

LARGEST_SHEET = 4 * 1024**3
MOST_TIMES = 200
"""A part may unpack to so many times its packed size; sheets of ours pack about fifteen times smaller."""

FREE = 16 * 1024 * 1024
"""Bytes up to which the ratio says nothing."""

MOST_ROWS = 1_048_576
MOST_TEXTS = 5_000_000
LARGEST_TEXTS = 128 * 1024 * 1024
"""Shared texts of a workbook, and bytes of them: they are held in memory."""

LARGEST_ROW = 2_000_000
"""Characters."""

DIGITS = 15
"""Decimal digits of a number that a spreadsheet keeps and shows."""

LARGEST_NUMBER = 10**DIGITS

_SHEET, _STRINGS, _STYLES = "/worksheet", "/sharedStrings", "/styles"
_DAMAGED = "is a damaged workbook ({}); save or export it again"
_AGAIN = "save it as CSV UTF-8 or export it as Parquet instead"
_SINCE_1900, _SINCE_1904 = datetime.fromisoformat("1899-12-30"), datetime.fromisoformat("1904-01-01")

Attributes = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SheetRow:
    """A non-empty row of a sheet: its number as the spreadsheet shows it, its cells as text, and which of them are bad.

    `large` are the columns with a number of more digits than a spreadsheet keeps.
    """

    number: int
    cells: list[str]
    faults: list[tuple[int, str]]
    large: list[int]


# ── XML as a stream ──────────────────────────────────────────────────────────────────────────────


class _Walk:
    """Elements of a part, told one after the other; nothing is kept. Local names only."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._since = 0
        self.path: list[str] = []
        parser = expat.ParserCreate(namespace_separator="}")
        parser.buffer_text = False
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.DefaultHandler = self._other
        self._parser = parser

    def parse(self, stream: IO[bytes]) -> Iterator[None]:
        """Read the part in pieces; yields after each."""
        try:
            while piece := stream.read(PIECE):
                self._since += len(piece)
                self._parser.Parse(piece, False)
                if self._since > LARGEST_TOKEN:
                    raise Unusable(f"{self._what} holds a tag of more than {LARGEST_TOKEN:,} bytes")
                yield
            self._parser.Parse(b"", True)
            yield
        except expat.ExpatError as error:
            raise Unusable(_DAMAGED.format(f"{self._what}: {error}")) from None

    def _refuse(self, *_: object) -> None:
        raise Unusable(f"{self._what} declares a document type, which no spreadsheet writes; nothing of it was read")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._since = 0
        local = name.rpartition("}")[2]
        self.path.append(local)
        if len(self.path) > 64:
            raise Unusable(f"{self._what} is nested too deeply")
        self.begin(local, attributes)

    def _end(self, _: str) -> None:
        self._since = 0
        self.end(self.path[-1])
        self.path.pop()

    def _text(self, text: str) -> None:
        self._since = 0
        self.text(text)

    def _other(self, _: str) -> None:
        self._since = 0

    def begin(self, name: str, attributes: Attributes) -> None:
        """An element begins; it is the last of `path`."""

    def end(self, name: str) -> None:
        """An element ends."""

    def text(self, text: str) -> None:
        """Text within the last element of `path`."""


class _Collected(_Walk):
    """The attributes of some elements, in order."""

    def __init__(self, what: str, *wanted: str) -> None:
        super().__init__(what)
        self._wanted = wanted
        self.found: dict[str, list[Attributes]] = {name: [] for name in wanted}

    def begin(self, name: str, attributes: Attributes) -> None:
        where = "/".join([*self.path[-2:-1], name])
        if where in self._wanted:
            self.found[where].append({key.rpartition("}")[2]: value for key, value in attributes.items()})


class _Texts(_Walk):
    """Shared texts, one after another in one piece of memory."""

    def __init__(self) -> None:
        super().__init__("its list of texts")
        self._bytes = bytearray()
        self._ends = array("Q", [0])
        self._length = 0

    def begin(self, name: str, attributes: Attributes) -> None:  # noqa: ARG002
        if name == "si":
            self._length = 0
            if len(self._ends) > MOST_TEXTS:
                raise Unusable(f"holds more than {MOST_TEXTS:,} different texts; {_AGAIN}")

    def text(self, text: str) -> None:
        if self.path[-1] == "t" and "rPh" not in self.path:
            self._length += len(text)
            if self._length > LARGEST_CELL:
                raise Unusable(f"has a cell of more than {LARGEST_CELL:,} characters")
            self._bytes += text.encode()
            if len(self._bytes) > LARGEST_TEXTS:
                raise Unusable(f"holds more than {LARGEST_TEXTS:,} bytes of different texts; {_AGAIN}")

    def end(self, name: str) -> None:
        if name == "si":
            self._ends.append(len(self._bytes))

    def __getitem__(self, place: int) -> str:
        if not 0 <= place < len(self._ends) - 1:
            raise IndexError(place)
        return self._bytes[self._ends[place] : self._ends[place + 1]].decode()


@dataclass(slots=True)
class _Cell:
    column: int
    kind: str
    style: str
    parts: list[str] = field(default_factory=list)
    length: int = 0


class _Rows(_Walk):
    """Rows of a sheet, as far as they were parsed: number, and its cells that hold something."""

    def __init__(self) -> None:
        super().__init__("its sheet")
        self.ready: list[tuple[int, list[_Cell]]] = []
        self._number = 0
        self._cells: list[_Cell] = []
        self._column = -1
        self._length = 0
        self._cell: _Cell | None = None

    def begin(self, name: str, attributes: Attributes) -> None:
        if name == "row":
            number = _whole(attributes.get("r"), self._number + 1)
            if not self._number < number <= MOST_ROWS:
                raise Unusable(_DAMAGED.format(f"row {number:,} follows row {self._number:,}"), row=self._number)
            self._number, self._cells, self._column, self._length = number, [], -1, 0
        elif name == "c" and self.path[-2:-1] == ["row"]:
            column = _column_of(attributes.get("r"), self._column + 1)
            if column <= self._column:
                raise Unusable(_DAMAGED.format("cells out of order"), row=self._number)
            self._column = column
            self._cell = _Cell(column, attributes.get("t", "n"), attributes.get("s", "0"))

    def text(self, text: str) -> None:
        cell = self._cell
        if cell is None or (self.path[-1] != "v" and (self.path[-1] != "t" or "rPh" in self.path)):
            return
        if cell.column >= MOST_COLUMNS:
            raise Unusable(f"has more than {MOST_COLUMNS} columns", row=self._number)
        cell.length += len(text)
        self._length += len(text)
        if cell.length > LARGEST_CELL:
            raise Unusable(f"has a cell of more than {LARGEST_CELL:,} characters", row=self._number)
        if self._length > LARGEST_ROW:
            raise Unusable(f"has more than {LARGEST_ROW:,} characters", row=self._number)
        cell.parts.append(text)

    def end(self, name: str) -> None:
        if name == "c" and self._cell is not None:
            if self._cell.parts:
                self._cells.append(self._cell)
            self._cell = None
        elif name == "row" and self._cells:
            self.ready.append((self._number, self._cells))
            self._cells = []


def _whole(text: str | None, otherwise: int) -> int:
    if text is None:
        return otherwise
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Unusable(_DAMAGED.format(f"{shown(text)} is not a row, text or style number"))
    return int(text)


def _column_of(reference: str | None, otherwise: int) -> int:
    """`C12` → 2."""
    if reference is None:
        return otherwise
    letters = reference.rstrip("0123456789")
    if not 0 < len(letters) <= 3 or not letters.isascii() or not letters.isalpha():
        raise Unusable(_DAMAGED.format(f"{shown(reference)} is not a cell"))
    column = 0
    for letter in letters.upper():
        column = column * 26 + ord(letter) - ord("A") + 1
    return column - 1


# ── the workbook ─────────────────────────────────────────────────────────────────────────────────


@dataclass(slots=True)
class Workbook:
    """An open XLSX workbook: its sheets, which cell styles show times, its shared texts."""

    archive: zipfile.ZipFile
    sheets: dict[str, str]
    dates: frozenset[int]
    begins: datetime
    texts_at: str | None
    _texts: _Texts | None = None

    def data(self) -> Sheet:
        """The sheet named `data`, or else the first one."""
        return self._sheet("data") or Sheet(self, next(iter(self.sheets.values())))

    def times_are_utc(self) -> bool:
        """Whether the sheet `meta` of an export says that times are UTC."""
        meta = self._sheet("meta")
        return meta is not None and any(row.cells[:2] == ["times", "UTC"] for row in islice(meta.rows(), 100))

    def _sheet(self, name: str) -> Sheet | None:
        path = next((path for one, path in self.sheets.items() if one.strip().lower() == name), None)
        return None if path is None else Sheet(self, path)

    def texts(self) -> _Texts:
        """The workbook's shared texts, read when the first is asked for."""
        if self._texts is None:
            self._texts = _Texts()
            if self.texts_at is not None:
                for _ in self._texts.parse(_opened(self.archive, self.texts_at, LARGEST_SHEET)):
                    pass
        return self._texts


@dataclass(frozen=True, slots=True)
class Sheet:
    """A sheet of an XLSX workbook."""

    book: Workbook
    path: str

    def rows(self) -> Iterator[SheetRow]:
        """The non-empty rows of the sheet, in order.

        Raises Unusable: from where on it is damaged, or larger than any table.
        """
        from openpyxl.utils.escape import unescape

        walk = _Rows()
        for _ in walk.parse(_opened(self.book.archive, self.path, LARGEST_SHEET)):
            for number, cells in walk.ready:
                row = self._row(number, cells, unescape)
                if not is_blank(row.cells) or row.faults:
                    yield row
            walk.ready.clear()

    def header(self) -> tuple[str, ...]:
        """The column names: the cells of the sheet's first non-empty row."""
        for row in self.rows():
            return tuple(cell.strip() for cell in trimmed(row.cells))
        return ()

    def _row(self, number: int, cells: list[_Cell], unescape: Callable[[str], str]) -> SheetRow:
        made = SheetRow(number, [""] * (cells[-1].column + 1), [], [])
        length = 0
        for cell in cells:
            text = "".join(cell.parts)
            if cell.kind == "s":
                try:
                    text = unescape(self.book.texts()[_whole(text, -1)])
                except IndexError:
                    raise Unusable(_DAMAGED.format(f"it has no text {text}"), row=number) from None
            elif cell.kind in {"inlineStr", "str"}:
                text = unescape(text)
            elif cell.kind == "b":
                text = {"1": "true", "0": "false"}.get(text, text)
            elif cell.kind == "e":
                made.faults.append((cell.column, f"holds the error {shown(text)}"))
            elif cell.kind == "n":
                text = self._number(text, cell, made)
            if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
                made.faults.append((cell.column, "holds half a character"))
                text = ""
            length += len(text)
            if length > LARGEST_ROW:
                raise Unusable(f"has more than {LARGEST_ROW:,} characters", row=number)
            made.cells[cell.column] = text
        return made

    def _number(self, text: str, cell: _Cell, made: SheetRow) -> str:
        """A number as a spreadsheet shows it: a date, or fifteen digits."""
        try:
            value = float(text)
        except ValueError:
            return text
        if not math.isfinite(value):
            return text
        if _whole(cell.style, 0) in self.book.dates:
            try:
                moment = self.book.begins + timedelta(milliseconds=round(value * 86_400_000))
            except OverflowError:
                return text
            return moment.isoformat(sep="T", timespec="milliseconds")
        if abs(value) >= LARGEST_NUMBER:
            made.large.append(cell.column)
        return f"{value:.{DIGITS}g}"


@contextmanager
def opened_workbook(path: Path) -> Iterator[Workbook]:
    """The XLSX workbook at a path; one with parts too large to read is refused.

    Raises Unusable: if it is none, damaged, encrypted or dangerous.
    """
    try:
        with opened_zip(path) as archive:
            if len(archive.infolist()) > MOST_PARTS:
                raise Unusable(f"holds {len(archive.infolist()):,} parts; a workbook has at most {MOST_PARTS:,}")
            main = next(iter(_related(archive, "").get("/officeDocument", {}).values()), "xl/workbook.xml")
            if main.endswith(".bin"):
                raise Unusable("is a binary workbook (XLSB); save it as XLSX or CSV UTF-8")
            related = _related(archive, main)
            said = _collected(archive, main, "sheets/sheet", "workbook/workbookPr")
            paths = related.get(_SHEET, {})
            sheets = {one.get("name", ""): paths[one["id"]] for one in said["sheets/sheet"] if one.get("id") in paths}
            if not sheets:
                raise Unusable("is a workbook without sheets")
            is_1904 = any(one.get("date1904") in {"1", "true"} for one in said["workbook/workbookPr"])
            styles = next(iter(related.get(_STYLES, {}).values()), None)
            yield Workbook(
                archive,
                sheets,
                _dates(archive, styles),
                _SINCE_1904 if is_1904 else _SINCE_1900,
                next(iter(related.get(_STRINGS, {}).values()), None),
            )
    except DAMAGED as error:
        raise Unusable(_DAMAGED.format(" ".join(str(error).split())[:120])) from None


def _opened(archive: zipfile.ZipFile, name: str, most: int) -> IO[bytes]:
    """A part; what comes out of it is at most what it declares."""
    try:
        entry = archive.getinfo(name)
    except KeyError:
        raise Unusable(_DAMAGED.format(f"it lacks {shown(name)}")) from None
    if entry.flag_bits & 1:
        raise Unusable("is encrypted; save it without a password")
    if entry.file_size > most or entry.file_size > max(entry.compress_size * MOST_TIMES, FREE):
        raise Unusable(
            f"{shown(name)} says it unpacks from {entry.compress_size:,} to {entry.file_size:,} bytes, which no "
            f"workbook of a table does; {_AGAIN}"
        )
    return archive.open(entry)


def _collected(archive: zipfile.ZipFile, name: str, *wanted: str) -> dict[str, list[Attributes]]:
    walk = _Collected(name, *wanted)
    for _ in walk.parse(_opened(archive, name, LARGEST_PART)):
        pass
    return walk.found


def _related(archive: zipfile.ZipFile, name: str) -> dict[str, dict[str, str]]:
    """Parts that a part names, by the end of their type: id → path inside the archive."""
    folder, _, last = name.rpartition("/")
    path = join(folder, "_rels", f"{last}.rels")
    found: dict[str, dict[str, str]] = {}
    if path not in archive.NameToInfo:
        return found
    for one in _collected(archive, path, "Relationships/Relationship")["Relationships/Relationship"]:
        kind = "/" + one.get("Type", "").rpartition("/")[2]
        target = one.get("Target", "")
        if one.get("TargetMode") != "External":
            inside = target[1:] if target.startswith("/") else normpath(join(folder, target))
            found.setdefault(kind, {})[one.get("Id", "")] = inside
    return found


def _dates(archive: zipfile.ZipFile, styles: str | None) -> frozenset[int]:
    """The numbers of cell styles that show a number as a date."""
    if styles is None:
        return frozenset()
    from openpyxl.styles.numbers import builtin_format_code, is_date_format, is_timedelta_format

    said = _collected(archive, styles, "numFmts/numFmt", "cellXfs/xf")
    codes = {one.get("numFmtId"): one.get("formatCode", "") for one in said["numFmts/numFmt"]}

    def is_date(number: str) -> bool:
        code = codes[number] if number in codes else builtin_format_code(_whole(number, 0))
        return code is not None and bool(is_date_format(code[:255])) and not is_timedelta_format(code[:255])

    known = {number: is_date(number) for number in {one.get("numFmtId", "0") for one in said["cellXfs/xf"]}}
    return frozenset(place for place, one in enumerate(said["cellXfs/xf"]) if known[one.get("numFmtId", "0")])
