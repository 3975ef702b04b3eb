"""Writes CSV files column by column: UTF-8, RFC 4180, no cell that a spreadsheet would run as a formula."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.errors import BadParameter
from billing_core.exports.arrow_text import changed_where, first_bytes, texts, whole, with_any_of
from billing_core.exports.hashing_file import HashingSink
from billing_core.exports.prefetch import ahead
from billing_core.exports.source import RowSource
from billing_core.values.csv_cells import APOSTROPHE, FORMULA_START, FORMULA_STARTS, QUOTED, neutralised, quoted

SEPARATORS = (",", ";", "\t", "|")

PIECE_ROWS = 50_000
PIECE_BYTES = 128 * 1024 * 1024
"""A piece of a document is at most so long, or one row: Arrow's texts end at 2 GB."""

END = "\r\n"

_IS_START = np.isin(np.arange(256), [start.encode()[0] for start in (*FORMULA_STARTS, APOSTROPHE)])
_NEEDS_CARE = f"^{APOSTROPHE}*{FORMULA_START}|[{{separator}}{QUOTED}]"


def checked_separator(separator: str) -> str:
    """The separator, if CSV files may have it; raises otherwise.

    Raises BadParameter: if it is another one.
    """
    if separator not in SEPARATORS:
        raise BadParameter("separator", separator, "a comma, a semicolon, a tab or |")
    return separator


def csv_header(names: Sequence[str], separator: str = ",", *, bom: bool = False) -> bytes:
    """The header record of a CSV file; with a byte order mark, spreadsheets read the file as UTF-8."""
    line = separator.join(quoted(name, separator) for name in names) + END
    return (codecs.BOM_UTF8 if bom else b"") + line.encode()


def csv_pieces(
    tables: Iterable[pa.Table], separator: str = ",", as_text: Callable[[pa.Table], pa.Table] | None = None
) -> Iterator[bytes]:
    """The records of tables as CSV, piece by piece; `as_text` where a format writes numbers and times in its own way.

    Only what is text in the tables may be a formula: a negative number stays one.
    """

    def text(piece: pa.Table) -> Callable[[], bytes]:
        return lambda: _records(piece, piece if as_text is None else as_text(piece), separator)

    return ahead(text(piece) for table in tables for piece in pieces_of(table))


def write_csv(
    sink: HashingSink, source: RowSource, tables: Iterable[pa.Table], separator: str = ",", *, bom: bool = False
) -> None:
    """Write a whole CSV file: header and all rows."""
    sink.write(csv_header(source.names, separator, bom=bom))
    for piece in csv_pieces(tables, separator, source.text):
        sink.write(piece)


def pieces_of(table: pa.Table) -> Iterator[pa.Table]:
    """The table in parts small enough to become text one at a time."""
    rows = min(PIECE_ROWS, max(1, table.num_rows * PIECE_BYTES // max(table.nbytes, 1)))
    for start in range(0, table.num_rows, rows):
        yield table.slice(start, rows)


def text_of(lines: pa.Array) -> bytes:
    """The texts of a column joined into one, as bytes."""
    _, ends, data = lines.buffers()
    if ends is None or data is None:
        return b""
    last = int(np.frombuffer(ends, np.int32)[len(lines)])  # a buffer may be longer than what it holds
    text: bytes = data[:last].to_pybytes()
    return text


def _records(typed: pa.Table, table: pa.Table, separator: str) -> bytes:
    cells = [
        _cells(whole(column), separator) if pa.types.is_string(given.type) else texts(column)
        for given, column in zip(typed.schema, table.columns, strict=True)
    ]
    cells[-1] = pc.binary_join_element_wise(cells[-1], END, "", null_handling="replace")
    return text_of(pc.binary_join_element_wise(*cells, separator, null_handling="replace"))


def _cells(array: pa.Array, separator: str) -> pa.Array:
    if not with_any_of(array, QUOTED + separator) and not _IS_START[first_bytes(array)].any():
        return array
    mask = pc.match_substring_regex(array, _NEEDS_CARE.format(separator=separator))
    return changed_where(array, mask, lambda text: quoted(neutralised(text), separator))
