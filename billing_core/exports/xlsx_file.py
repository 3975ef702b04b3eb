"""Writes XLSX files: sheets `data` with typed cells under a frozen header, `totals` and `meta`; never a formula or a
link. No formula, no link, ever.

Every number is a number, so that a spreadsheet can add it up. Its numbers are binary with fifteen digits: where one has
more, a further column holds it as text with every digit. Times are UTC, and so say their headings and their cells.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from billing_core.errors import BadParameter
from billing_core.exports.arrow_text import texts
from billing_core.exports.hashing_file import HashingSink
from billing_core.exports.running_totals import Value
from billing_core.exports.source import RowSource
from billing_core.types import plain_decimal
from billing_core.values.csv_cells import EXACT, IN_UTC, neutralised

if TYPE_CHECKING:  # the sign-in form must not wait for it
    import xlsxwriter
    from xlsxwriter.format import Format
    from xlsxwriter.worksheet import Worksheet

MOST_ROWS = 1_048_575
"""Below the header; a sheet ends there."""

LONGEST_TEXT = 32_767
"""Characters of a cell."""

DIGITS = 15
"""Decimal digits that a binary number of 64 bits always keeps."""

TIME_FORMAT = 'yyyy-mm-dd hh:mm:ss.000"Z"'
"""With the offset, so that a sheet that is saved as CSV says it as well."""

DATE_FORMAT = "yyyy-mm-dd"
MADE_AT = datetime(2000, 1, 1)  # noqa: DTZ001  (a file says nothing of when it was made: equal content, equal bytes)

_WIDTHS: Mapping[str, int] = {"id": 34, "timestamp": 24, "ended_at": 24, "synced_at": 24, "trace_url": 40, "name": 28}
_WIDTH = 16

Write = Callable[["Worksheet", int, int, Any], None]


def refuse_too_many(rows: int) -> None:
    """Check that so many rows fit into an XLSX sheet.

    Raises BadParameter: Saying what to do instead.
    """
    if rows > MOST_ROWS:
        raise BadParameter(
            "format",
            "xlsx",
            f"at most {MOST_ROWS:,} rows, and these are {rows:,}: choose csv or parquet, a shorter period, or the "
            "grain day",
        )


def write_xlsx(sink: HashingSink, source: RowSource, tables: Iterable[pa.Table], document: Mapping[str, Any]) -> None:
    """Write a whole XLSX workbook; `document` is what the sheet `meta` says.

    Raises BadParameter: if there are more rows than a sheet has, or a text is longer than a cell.
    """
    import xlsxwriter

    refuse_too_many(source.rows)
    with TemporaryDirectory(prefix="billing-xlsx-") as folder:  # of its own: removed whatever happens
        options = {"constant_memory": True, "use_zip64": True, "tmpdir": folder}
        book = xlsxwriter.Workbook(sink, options)
        book.set_properties({"created": MADE_AT})
        head = book.add_format({"bold": True})
        sheets = [book.add_worksheet(name) for name in ("data", "totals", "meta")]
        data, totals, meta = sheets
        try:
            _fill_data(data, source, tables, head, _writers(book, source.schema))
            _fill_totals(totals, source.totals, document["rows"], head)
            _fill_meta(meta, document, head)
        except BaseException:
            for sheet in sheets:
                sheet.row_data_fh.close()
            raise
        book.close()


def _writers(book: xlsxwriter.Workbook, schema: pa.Schema) -> list[Write]:
    times = book.add_format({"num_format": TIME_FORMAT})
    days = book.add_format({"num_format": DATE_FORMAT})
    # Their own format, because the general one shows eleven digits, and what is saved as CSV is what is shown.
    whole = book.add_format({"num_format": "0"})
    places = {
        scale: book.add_format({"num_format": "0.0" + "#" * (scale - 1)})
        for scale in {field.type.scale for field in schema if pa.types.is_decimal(field.type)}
        if scale > 0
    }

    def writer(kind: pa.DataType, name: str) -> Write:
        if pa.types.is_decimal(kind) or pa.types.is_integer(kind):
            form = places.get(getattr(kind, "scale", 0), whole)
            return lambda sheet, row, column, value: _number(sheet, row, column, value, form)
        if pa.types.is_timestamp(kind):
            return lambda sheet, row, column, value: _moment(sheet, row, column, value, times)
        if pa.types.is_date(kind):
            return lambda sheet, row, column, value: _moment(sheet, row, column, value, days)
        if pa.types.is_boolean(kind):
            return lambda sheet, row, column, value: _text(sheet, row, column, str(value).lower(), name)
        return lambda sheet, row, column, value: _text(sheet, row, column, value, name)

    return [writer(field.type, field.name) for field in schema]


def _fill_data(
    sheet: Worksheet, source: RowSource, tables: Iterable[pa.Table], head: Format, writers: list[Write]
) -> None:
    further = _too_long(source)
    place_of = {place: len(source.names) + order for order, place in enumerate(further)}
    sheet.freeze_panes(1, 0)
    headings = [
        name + IN_UTC if pa.types.is_timestamp(source.schema.field(name).type) else name for name in source.names
    ]
    for column, name in enumerate([*headings, *(source.names[place] + EXACT for place in further)]):
        sheet.set_column(column, column, _WIDTHS.get(name.removesuffix(IN_UTC), max(_WIDTH, len(name) + 2)))
        sheet.write_string(0, column, name, head)
    if source.names:
        sheet.autofilter(0, 0, source.rows, len(source.names) + len(further) - 1)
    for row, values in enumerate(_rows(tables), start=1):
        for column, value in enumerate(values):
            if value is not None:
                writers[column](sheet, row, column, value)
        for place, column in place_of.items():
            value = values[place]
            if value is not None and _digits(value) > DIGITS:
                sheet.write_string(row, column, plain_decimal(Decimal(value)))


def _too_long(source: RowSource) -> list[int]:
    """The places of number columns with a number of more digits than a cell keeps. Rows are looked at once more for it:
    a sheet is written from its first line on."""
    names = [
        field.name for field in source.schema if pa.types.is_decimal(field.type) or pa.types.is_integer(field.type)
    ]
    found: set[str] = set()
    for table in source.tables():
        for name in names:
            if name not in found and _has_too_long(table[name]):
                found.add(name)
    return [place for place, name in enumerate(source.names) if name in found]


def _has_too_long(column: pa.ChunkedArray) -> bool:
    digits = pc.replace_substring_regex(texts(column), r"^-?[0.]*|\.", "")
    return bool(pc.any(pc.greater(pc.utf8_length(digits), DIGITS)).as_py())


def _digits(value: Decimal | int) -> int:
    """How many digits a number has, without zeros before them."""
    return len(plain_decimal(Decimal(value)).lstrip("-").replace(".", "").lstrip("0"))


def _rows(tables: Iterable[pa.Table]) -> Iterator[tuple[Any, ...]]:
    for table in tables:
        yield from zip(*(column.to_pylist() for column in table.columns), strict=True)


def _fill_totals(sheet: Worksheet, totals: Mapping[str, Value], rows: int, head: Format) -> None:
    """The sums as numbers; those that a cell cannot hold also as text, in a further column."""
    said = {"rows": rows, **totals}
    columns = ["name", "value"]
    if any(value is not None and _digits(value) > DIGITS for value in said.values()):
        columns.append("exact")
    _start(sheet, columns, head)
    for row, (name, value) in enumerate(said.items(), start=1):
        sheet.write_string(row, 0, name)
        if value is None:
            continue
        sheet.write_number(row, 1, float(value))
        if _digits(value) > DIGITS:
            sheet.write_string(row, 2, plain_decimal(Decimal(value)))


def _fill_meta(sheet: Worksheet, document: Mapping[str, Any], head: Format) -> None:
    """Of what the file is made. `times` is the timezone of its times, `timezone` that of its days and its window."""
    _start(sheet, ["name", "value"], head)
    said = {"times": "UTC", **{name: value for name, value in document.items() if name not in {"rows", "totals"}}}
    for row, (name, value) in enumerate(said.items(), start=1):
        sheet.write_string(row, 0, name)
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
            _text(sheet, row, 1, text, name)


def _start(sheet: Worksheet, columns: Sequence[str], head: Format) -> None:
    sheet.freeze_panes(1, 0)
    for column, name in enumerate(columns):
        sheet.set_column(column, column, 48 if column else 24)
        sheet.write_string(0, column, name, head)


def _number(sheet: Worksheet, row: int, column: int, value: Decimal | int, form: Format) -> None:
    sheet.write_number(row, column, float(value), form)


def _moment(sheet: Worksheet, row: int, column: int, value: datetime | date, form: Format) -> None:
    if isinstance(value, datetime):  # like every other form: whole milliseconds, UTC
        value = value.astimezone(UTC).replace(tzinfo=None, microsecond=value.microsecond // 1000 * 1000)
    sheet.write_datetime(row, column, value, form)


def _text(sheet: Worksheet, row: int, column: int, value: str, name: str) -> None:
    text = neutralised(value)
    if len(text) > LONGEST_TEXT:
        raise BadParameter(
            "format",
            "xlsx",
            f"texts of at most {LONGEST_TEXT:,} characters, and {name} in row {row:,} has {len(text):,}: choose csv, "
            "parquet or json",
        )
    sheet.write_string(row, column, text)
