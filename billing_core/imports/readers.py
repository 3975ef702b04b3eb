"""Reads the rows of any table file as columns of text, in pieces: memory does not grow with the file.

Text is the common form because every rule about a value (`import_fields`) is then written once, and the reason for a
refusal can show what stands in the file. `None` is an empty cell, or null.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.imports.bounds import LARGEST_CELL, LARGEST_PIECE, MOST_COLUMNS, Unusable, shown
from billing_core.imports.detection import NUMBERS, TIMES, File, Form, is_local_time, without_helpers
from billing_core.imports.model import RejectedLine
from billing_core.imports.parquet_file import pieces
from billing_core.imports.times import as_utc
from billing_core.imports.xlsx_file import opened_workbook
from billing_core.values.csv_cells import EXACT, NEUTRALISED
from billing_core.values.csv_dialect import is_blank, is_separator_line

ROWS_AT_ONCE = 20_000

LARGEST_RECORD = 2_000_000
"""Characters of one CSV record, and of one JSON row."""

LARGEST_JSON = 256 * 1024 * 1024
"""Bytes. More is slow to read as JSON, for no gain over CSV or Parquet."""

JSON_PIECE = 1 << 18


@dataclass(slots=True)
class RowBatch:
    """Rows of a file: their numbers and text columns; `rejected` are rows of another shape than the header."""

    numbers: list[int]
    columns: dict[str, pa.Array]
    rejected: list[RejectedLine] = field(default_factory=list)


def batches(file: File, header: Sequence[str], *, rows: int = ROWS_AT_ONCE) -> Iterator[RowBatch]:
    """Every row of a table file with the columns `header`, in order, in pieces.

    Raises Unusable: from where on the file is no such file any more.
    """
    match file.form:
        case Form.PARQUET:
            found = _parquet_batches(file.path, rows)
        case Form.JSON:
            found = _gathered(_json_lines(file, header), rows, partial(_batch, header))
        case Form.XLSX:
            found = _gathered(_sheet_rows(file, header), rows, _text_batches(file, header))
        case _:
            found = _gathered(_records(file, header), rows, _text_batches(file, header))
    return found if without_helpers(header) == tuple(header) else map(_without_helpers, found)


# ── delimited text ───────────────────────────────────────────────────────────────────────────────


class _Lines:
    """Lines of a text file, for the csv reader. No line and no record is ever held whole if it is absurdly long."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self.held = 0
        self.row = 0

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(LARGEST_RECORD + 1):
            self.held += len(line)
            if self.held > LARGEST_RECORD:
                raise Unusable(
                    f"has more than {LARGEST_RECORD:,} characters: the file is damaged, or a quotation mark is missing",
                    row=self.row,
                    field="row",
                )
            yield line


def records(file: File) -> Iterator[tuple[int, list[str]]]:
    """The numbered records of a delimited text file: 0 is the header; rows without content do not count."""
    csv.field_size_limit(LARGEST_CELL)
    width = len(file.header)
    with file.path.open(encoding=file.encoding, newline="") as text:
        lines = _Lines(text)
        reader = csv.reader(lines, delimiter=file.separator, strict=True)
        number = 0
        while True:
            lines.held, lines.row = 0, number
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                raise Unusable(_csv_fault(error), row=number, field="row") from None
            except UnicodeDecodeError as error:
                raise Unusable(f"is not valid text in its encoding from here on: {error.reason}", row=number) from None
            if is_blank(cells) or (not number and is_separator_line(cells)):
                continue
            yield number, cells[:width] if len(cells) > width and is_blank(cells[width:]) else cells
            number += 1


def _csv_fault(error: csv.Error) -> str:
    text = str(error)
    if "field larger" in text:
        return f"has a cell of more than {LARGEST_CELL:,} characters"
    if "unexpected end of data" in text:
        return "a quotation mark is opened and never closed: the file is cut off or damaged"
    return f"is not valid CSV from here on: {text}"


Line = tuple[int, Sequence[str | None]] | RejectedLine
"""A numbered row with as many cells as the header has, or why there is none."""

MakeBatch = Callable[[list[int], list[Sequence[str | None]], list[RejectedLine]], RowBatch]
"""From numbers, cells row by row, and rejected rows."""


def _records(file: File, header: Sequence[str]) -> Iterator[Line]:
    width = len(header)
    body = records(file)
    next(body, None)
    for number, cells in body:
        if len(cells) == width:
            yield number, cells
        else:
            reason = (
                f"has {len(cells):,} cells where the header has {width:,}; text with {file.separator!r} in it is quoted"
            )
            yield RejectedLine(number, "row", reason)


def _sheet_rows(file: File, header: Sequence[str]) -> Iterator[Line]:
    """Rows of a workbook's sheet; row 1 is the one below the header."""
    width = len(header)
    with opened_workbook(file.path) as book:
        body = book.data().rows()
        first = next(body, None)
        for row in body:
            number = row.number - (first.number if first is not None else 0)
            cells = row.cells[:width]
            ids = [at for at in row.large if at < width and header[at] not in NUMBERS and header[at] not in TIMES]
            if row.faults:
                place, reason = row.faults[0]
                yield RejectedLine(number, header[place] if place < width else "row", reason)
            elif not is_blank(row.cells[width:]):
                yield RejectedLine(number, "row", f"has {len(row.cells):,} cells where the header has {width:,}")
            elif ids:
                reason = f"is the number {cells[ids[0]]}: a spreadsheet keeps 15 digits of it; ids of digits are text"
                yield RejectedLine(number, header[ids[0]], reason)
            else:
                yield number, cells + [""] * (width - len(cells))


def _gathered(lines: Iterator[Line], rows: int, made: MakeBatch) -> Iterator[RowBatch]:
    """Lines, as many at once as memory allows."""
    rejected: list[RejectedLine] = []
    numbers: list[int] = []
    held: list[Sequence[str | None]] = []
    characters = 0
    for line in lines:
        if isinstance(line, RejectedLine):
            rejected.append(line)
        else:
            numbers.append(line[0])
            held.append(line[1])
            characters += sum(len(cell) for cell in line[1] if cell)
        if len(held) + len(rejected) >= rows or characters > LARGEST_PIECE:
            yield made(numbers, held, rejected)
            rejected, numbers, held, characters = [], [], [], 0
    if held or rejected:
        yield made(numbers, held, rejected)


def _text_batches(file: File, header: Sequence[str]) -> MakeBatch:
    """What cells of CSV and of a sheet mean, in batches of one file."""
    marks = DecimalMarks(file.separator)

    def made(numbers: list[int], rows: list[Sequence[str | None]], rejected: list[RejectedLine]) -> RowBatch:
        batch = _batch(header, numbers, rows, rejected)
        batch.columns = {name: _as_meant(column) for name, column in batch.columns.items()}
        for name in file.in_utc:
            batch.columns[name] = as_utc(batch.columns[name])
        return marks.with_points(batch)

    return made


def _batch(
    header: Sequence[str], numbers: list[int], rows: list[Sequence[str | None]], rejected: list[RejectedLine]
) -> RowBatch:
    cells = zip(*rows, strict=True) if rows else [()] * len(header)
    columns = {name: pa.array(column, pa.string()) for name, column in zip(header, cells, strict=True)}
    return RowBatch(numbers, columns, rejected)


def _as_meant(column: pa.Array) -> pa.Array:
    """Empty cells as null, neutralised ones as the text they were (`cells.read_back`, a column at a time)."""
    column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    neutral = pc.match_substring_regex(column, NEUTRALISED)
    if not pc.any(neutral).as_py():
        return column
    return pc.if_else(neutral.fill_null(False), pc.utf8_slice_codeunits(column, 1), column)


ALIKE = 1e-14
"""How far fifteen digits may be from all of them."""


def _without_helpers(batch: RowBatch) -> RowBatch:
    """Rows without what columns say again: local times are dropped, and numbers get all their digits where a column
    `…_exact` beside them has those that they lack.

    A row whose two columns say different numbers is rejected: one of them was changed.
    """
    bad: dict[int, RejectedLine] = {}
    for name in [name for name in batch.columns if is_local_time(name, list(batch.columns))]:
        del batch.columns[name]
    for name in [name for name in batch.columns if name not in without_helpers(list(batch.columns))]:
        exact, plain = batch.columns.pop(name), name.removesuffix(EXACT)
        if plain not in batch.columns:
            raise Unusable(f"is there without {plain}, whose digits it holds", field=name)
        for place in np.flatnonzero(exact.is_valid().to_numpy(zero_copy_only=False)):
            said, digits = batch.columns[plain][int(place)].as_py(), exact[int(place)].as_py()
            if not _are_alike(said, digits):
                reason = f"{shown(said)} is not accepted; {name} says {shown(digits)}: change both, or empty that cell"
                bad.setdefault(int(place), RejectedLine(batch.numbers[place], plain, reason))
        batch.columns[plain] = pc.coalesce(exact, batch.columns[plain])
    if not bad:
        return batch
    keep = np.ones(len(batch.numbers), dtype=bool)
    keep[list(bad)] = False
    return RowBatch(
        [number for number, kept in zip(batch.numbers, keep, strict=True) if kept],
        {name: column.filter(pa.array(keep)) for name, column in batch.columns.items()},
        [*batch.rejected, *bad.values()],
    )


def _are_alike(said: str | None, digits: str) -> bool:
    try:
        return said is not None and math.isclose(float(said), float(digits), rel_tol=ALIKE)
    except ValueError:
        return False


class DecimalMarks:
    """Which of `,` and `.` a file uses as the decimal mark.

    Where commas separate cells, it is the point. Elsewhere it may be either, and all numbers of a file have the same: a
    file that mixes them, or has only numbers such as `1,234` that may be read both ways, is not read.
    """

    def __init__(self, separator: str) -> None:
        self._is_open = separator != ","
        self._first: dict[str, tuple[int, str, str]] = {}

    def with_points(self, batch: RowBatch) -> RowBatch:
        """The rows with decimal commas replaced by points.

        Raises Unusable: naming the first number from which on it cannot be told.
        """
        if not self._is_open:
            return batch
        names = [name for name in batch.columns if name in NUMBERS]
        is_comma = {name: pc.match_substring_regex(batch.columns[name], _DECIMAL_COMMA) for name in names}
        for name in names:
            self._meet(batch, name, ",", is_comma[name])
            self._meet(batch, name, ".", pc.match_substring(batch.columns[name], "."))
        if len(self._first) == 2:
            (at, _, one), (row, name, other) = sorted(self._first.values())
            raise Unusable(
                f"{shown(other)} stands where row {at:,} has {shown(one)}: it cannot be told which of , and . separates"
                " decimal places; write all numbers alike",
                row=row,
                field=name,
            )
        if "," not in self._first:
            return batch
        if not any(pc.any(pc.match_substring_regex(batch.columns[name], _SURELY_DECIMAL)).as_py() for name in names):
            row, name, text = self._first[","]
            raise Unusable(
                f"{shown(text)} may have a decimal comma or a thousands separator, and no number near it tells which; "
                "write it with a point",
                row=row,
                field=name,
            )
        for name in names:
            pointed = pc.replace_substring(batch.columns[name], ",", ".")
            batch.columns[name] = pc.if_else(is_comma[name].fill_null(False), pointed, batch.columns[name])
        return batch

    def _meet(self, batch: RowBatch, name: str, mark: str, mask: pa.Array) -> None:
        if mark not in self._first and (place := pc.index(mask, True).as_py()) >= 0:
            self._first[mark] = (batch.numbers[place], name, batch.columns[name][place].as_py())


_DECIMAL_COMMA = r"^[+-]?\d+,\d+([eE][+-]?\d{1,3})?$"
_SURELY_DECIMAL = r"^[+-]?(0\d*,\d+|\d{4,},\d+|\d+,\d{1,2}|\d+,\d{4,}|\d+,\d+[eE].*)$"
"""A comma that cannot separate thousands: after a zero or four digits, or before other than three."""


# ── Parquet ──────────────────────────────────────────────────────────────────────────────────────


def _parquet_batches(path: Path, rows: int) -> Iterator[RowBatch]:
    for first, columns in pieces(path, rows):
        yield RowBatch(list(range(first, first + len(next(iter(columns.values()))))), columns)


# ── JSON ─────────────────────────────────────────────────────────────────────────────────────────


class _Broken(ValueError):
    """What no JSON row may hold."""


def _refuse_constant(text: str) -> None:
    raise _Broken(f"{text} is not a JSON number")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise _Broken(f"the key {shown(twice)} occurs twice")
    return found


_DECODER = json.JSONDecoder(parse_float=Decimal, parse_constant=_refuse_constant, object_pairs_hook=_once)


class _Reader:
    """Values of a JSON text one after the other; what was read is forgotten.

    Not `ijson`: in its C parser half a character becomes "?", so two ids can become one; its Python one takes 17 times
    as long as this.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._is_whole = False
        self.row = 0

    def sign(self) -> str:
        """The next character that is no white space, not taken yet; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def take(self, accepted: str) -> str:
        """Take the next character, which must be one of `accepted`."""
        found = self.sign()
        if not found or found not in accepted:
            where = f"{found!r} stands" if found else "the file ends"
            raise Unusable(f"{where} where one of {' '.join(accepted)} is expected: cut off or damaged", row=self.row)
        self._at += 1
        return found

    def value(self) -> Any:
        """Take the next value, whole."""
        self.sign()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except _Broken as error:
                raise Unusable(str(error), row=self.row) from None
            except RecursionError:
                raise Unusable("is nested too deeply", row=self.row) from None
            except ValueError as error:
                if self._more():
                    continue
                raise Unusable(f"is not valid JSON ({error}): cut off or damaged", row=self.row) from None
            if end == len(self._text) and not isinstance(value, (dict, list, str)) and self._more():
                continue  # a number may go on
            self._at = end
            return value

    def _more(self) -> bool:
        """Read on; whether there was more."""
        if self._is_whole:
            return False
        if len(self._text) - self._at > LARGEST_RECORD:
            raise Unusable(f"has more than {LARGEST_RECORD:,} characters: damaged, or no row", row=self.row)
        piece = self._file.read(JSON_PIECE)
        self._is_whole = not piece
        self._text = self._text[self._at :] + piece
        self._at = 0
        return bool(piece)


def json_rows(file: File, meta: dict[str, Any] | None = None) -> Iterator[tuple[int, Any]]:
    """The numbered rows of a JSON file `{"meta": …, "rows": […]}`; its other members are put into `meta`."""
    if file.bytes > LARGEST_JSON:
        raise Unusable(
            f"has {file.bytes:,} bytes; JSON is read up to {LARGEST_JSON:,}: export as Parquet or CSV instead"
        )
    with file.path.open(encoding=file.encoding) as text:
        reader = _Reader(text)
        seen: set[str] = set()
        sign = reader.take("{")
        while sign != "}":
            name = reader.value()
            if not isinstance(name, str) or name in seen:
                raise Unusable(f"the key {shown(name)} is where another is expected", row=reader.row)
            seen.add(name)
            reader.take(":")
            if len(seen) > MOST_COLUMNS:
                raise Unusable(f"has more than {MOST_COLUMNS} keys beside its rows")
            if name == "rows":
                yield from _elements(reader)
            elif name == "meta" and meta is not None:
                meta["meta"] = reader.value()
            else:
                reader.value()
            sign = reader.take(",}")
        if reader.sign():
            raise Unusable("goes on after its end: damaged", row=reader.row)
        if "rows" not in seen:
            raise Unusable("has no rows")


def json_meta(file: File) -> dict[str, Any]:
    """The members of a JSON file beside its rows."""
    found: dict[str, Any] = {}
    for _ in json_rows(file, found):
        pass
    return found


def _elements(reader: _Reader) -> Iterator[tuple[int, Any]]:
    reader.take("[")
    if reader.sign() == "]":
        reader.take("]")
        return
    sign = ","
    while sign == ",":
        reader.row += 1
        yield reader.row, reader.value()
        sign = reader.take(",]")


def json_header(file: File) -> tuple[str, ...]:
    """The flat column names of a JSON file's first row; empty if there is none."""
    for _, row in json_rows(file):
        if not isinstance(row, dict):
            raise Unusable("is not an object with column names", row=1)
        header = tuple(_flat(row, lambda value: value))
        if not header:
            raise Unusable("is an object without names; expected the names of columns", row=1)
        if len(header) > MOST_COLUMNS:
            raise Unusable(f"has {len(header):,} names; at most {MOST_COLUMNS} are read", row=1)
        return header
    return ()


def _flat(row: dict[str, Any], text: Callable[[Any], Any]) -> dict[str, Any]:
    """A row whose nested credits have flat names."""
    nested = row.get("credits")
    if not isinstance(nested, dict):
        return {name: text(value) for name, value in row.items()}
    found: dict[str, Any] = {}
    for name, value in row.items():
        found |= (
            {f"credits_{part}": text(v) for part, v in nested.items()} if name == "credits" else {name: text(value)}
        )
    return found


def _json_lines(file: File, header: Sequence[str]) -> Iterator[Line]:
    names = set(header)
    for number, row in json_rows(file):
        if not isinstance(row, dict):
            yield RejectedLine(number, "row", "is not an object with column names")
            continue
        flat = _flat(row, _json_text)
        fault = _fault(flat, header, names)
        yield RejectedLine(number, *fault) if fault else (number, [flat[name] for name in header])


def _fault(flat: dict[str, str | None], header: Sequence[str], names: set[str]) -> tuple[str, str] | None:
    """The column at which a row cannot be used, and why."""
    if flat.keys() != names:
        for name in header:
            if name not in flat:
                return name, "is missing; every row has the same names"
        name = next(name for name in flat if name not in names)
        return shown(name), "no such column in the first row; every row has the same names"
    for name, text in flat.items():
        if text is not None and not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
            return name, f"{shown(text)} holds half a character"
    return None


def _json_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        exponent = value.as_tuple().exponent
        is_plain = isinstance(exponent, int) and -100 < exponent < 100
        return format(value, "f") if is_plain else str(value)
    if isinstance(value, int):
        return str(value)
    try:
        return json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        raise Unusable("is nested too deeply") from None


def texts(columns: Iterable[pa.Array]) -> Iterator[tuple[str | None, ...]]:
    """Text columns row by row."""
    yield from zip(*(column.to_pylist() for column in columns), strict=True)
