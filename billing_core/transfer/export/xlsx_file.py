"""XLSX: a sheet `data` with typed cells under a frozen header, and a sheet `totals`. No formula, no link, ever.

Excel's numbers are binary with fifteen digits: a number that has more is written as text, so that no digit is lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from billing_core.cells import neutralised
from billing_core.errors import BadParameter
from billing_core.transfer.export.running import Value
from billing_core.transfer.export.sink import HashingSink
from billing_core.transfer.export.source import Source
from billing_core.types import plain_decimal

if TYPE_CHECKING:  # the sign-in form must not wait for it
    import xlsxwriter
    from xlsxwriter.format import Format
    from xlsxwriter.worksheet import Worksheet

__all__ = ["MOST_ROWS", "refuse_too_many", "write_xlsx"]

MOST_ROWS = 1_048_575
"""Below the header; a sheet ends there."""

LONGEST_TEXT = 32_767
"""Characters of a cell."""

DIGITS = 15
"""Decimal digits that a binary number of 64 bits always keeps."""

TIME_FORMAT = "yyyy-mm-dd hh:mm:ss.000"
DATE_FORMAT = "yyyy-mm-dd"
MADE_AT = datetime(2000, 1, 1)  # noqa: DTZ001  (a file says nothing of when it was made: equal content, equal bytes)

_WIDTHS: Mapping[str, int] = {"id": 34, "timestamp": 24, "ended_at": 24, "synced_at": 24, "trace_url": 40, "name": 28}
_WIDTH = 16

Write = Callable[["Worksheet", int, int, Any], None]


def refuse_too_many(rows: int) -> None:
    """Return if so many rows fit into a sheet.

    Raises
    ------
    BadParameter
        Saying what to do instead.
    """
    if rows > MOST_ROWS:
        raise BadParameter(
            "format", "xlsx",
            f"at most {MOST_ROWS:,} rows, and these are {rows:,}: choose csv or parquet, a shorter period, or the "
            "grain day",
        )  # fmt: skip


def write_xlsx(sink: HashingSink, source: Source, tables: Iterable[pa.Table], document: Mapping[str, Any]) -> None:
    """The whole workbook; `document` is what the sheet `totals` says beside the sums.

    Raises
    ------
    BadParameter
        If there are more rows than a sheet has, or a text is longer than a cell.
    """
    import xlsxwriter

    refuse_too_many(source.rows)
    with TemporaryDirectory(prefix="billing-xlsx-") as folder:  # of its own: removed whatever happens
        options = {"constant_memory": True, "use_zip64": True, "tmpdir": folder}
        book = xlsxwriter.Workbook(sink, options)
        book.set_properties({"created": MADE_AT})
        head = book.add_format({"bold": True})
        data, totals = book.add_worksheet("data"), book.add_worksheet("totals")
        try:
            _fill_data(data, source, tables, head, _writers(book, source.schema))
            _fill_totals(totals, source.totals, document, head)
        except BaseException:
            for sheet in (data, totals):
                sheet.row_data_fh.close()
            raise
        book.close()


def _writers(book: xlsxwriter.Workbook, schema: pa.Schema) -> list[Write]:
    times = book.add_format({"num_format": TIME_FORMAT})
    days = book.add_format({"num_format": DATE_FORMAT})
    return [_writer(field.type, field.name, times, days) for field in schema]


def _writer(kind: pa.DataType, name: str, times: Format, days: Format) -> Write:
    if pa.types.is_decimal(kind) or pa.types.is_integer(kind):
        return _number
    if pa.types.is_timestamp(kind):
        return lambda sheet, row, column, value: _moment(sheet, row, column, value, times)
    if pa.types.is_date(kind):
        return lambda sheet, row, column, value: _moment(sheet, row, column, value, days)
    if pa.types.is_boolean(kind):
        return lambda sheet, row, column, value: _text(sheet, row, column, str(value).lower(), name)
    return lambda sheet, row, column, value: _text(sheet, row, column, value, name)


def _fill_data(
    sheet: Worksheet, source: Source, tables: Iterable[pa.Table], head: Format, writers: list[Write]
) -> None:
    sheet.freeze_panes(1, 0)
    for column, name in enumerate(source.names):
        sheet.set_column(column, column, _WIDTHS.get(name, max(_WIDTH, len(name) + 2)))
        sheet.write_string(0, column, name, head)
    if source.names:
        sheet.autofilter(0, 0, source.rows, len(source.names) - 1)
    for row, values in enumerate(_rows(tables), start=1):
        for column, value in enumerate(values):
            if value is not None:
                writers[column](sheet, row, column, value)


def _rows(tables: Iterable[pa.Table]) -> Iterator[tuple[Any, ...]]:
    for table in tables:
        yield from zip(*(column.to_pylist() for column in table.columns), strict=True)


def _fill_totals(sheet: Worksheet, totals: Mapping[str, Value], document: Mapping[str, Any], head: Format) -> None:
    sheet.set_column(0, 0, 24)
    sheet.set_column(1, 1, 48)
    sheet.freeze_panes(1, 0)
    for column, name in enumerate(("name", "value")):
        sheet.write_string(0, column, name, head)
    said = {"rows": document["rows"], **totals}
    others = {name: value for name, value in document.items() if name not in {"rows", "totals"}}
    for row, (name, value) in enumerate((said | others).items(), start=1):
        sheet.write_string(row, 0, name)
        if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
            _number(sheet, row, 1, value)
        elif value is not None:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
            _text(sheet, row, 1, text, name)


def _number(sheet: Worksheet, row: int, column: int, value: Decimal | int) -> None:
    digits = plain_decimal(Decimal(value))
    if len(digits.lstrip("-").replace(".", "").lstrip("0")) <= DIGITS:
        sheet.write_number(row, column, float(value))
    else:
        sheet.write_string(row, column, digits)


def _moment(sheet: Worksheet, row: int, column: int, value: datetime | date, form: Format) -> None:
    if isinstance(value, datetime):  # like every other form: whole milliseconds, UTC
        value = value.astimezone(UTC).replace(tzinfo=None, microsecond=value.microsecond // 1000 * 1000)
    sheet.write_datetime(row, column, value, form)


def _text(sheet: Worksheet, row: int, column: int, value: str, name: str) -> None:
    text = neutralised(value)
    if len(text) > LONGEST_TEXT:
        raise BadParameter(
            "format", "xlsx",
            f"texts of at most {LONGEST_TEXT:,} characters, and {name} in row {row:,} has {len(text):,}: choose csv, "
            "parquet or json",
        )  # fmt: skip
    sheet.write_string(row, column, text)
