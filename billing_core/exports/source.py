"""The rows an export writes, whatever its format: typed columns, and rows that come a table at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from billing_core.errors import BadParameter
from billing_core.exports.model import Cancelled, ExportProgress
from billing_core.exports.running_totals import Value


@dataclass(frozen=True, slots=True)
class RowSource:
    """The rows of an export: columns, metadata, and tables to write one after the other.

    schema: Columns and their types; of text columns only, cells are neutralised for spreadsheets.
    rows: How many there will be.
    totals: Exact sums over them.
    meta: Of what the file is made; no clock in it.
    tables: The rows in order, read as they are asked for. Ends with an error if they are not what `totals` says.
    text: The rows of a table as CSV has them, where a form has rules of its own for numbers and times.
    head: The first rows, where there is a quicker way to them than `tables`.
    file: The whole file of the rows, where a form is no table of this program's.
    """

    schema: pa.Schema
    rows: int
    totals: Mapping[str, Value]
    meta: Mapping[str, Any]
    tables: Callable[[], Iterator[pa.Table]]
    text: Callable[[pa.Table], pa.Table] | None = None
    head: Callable[[int], pa.Table] | None = None
    file: Callable[[], bytes] | None = None

    def first(self, rows: int) -> pa.Table:
        """The first `rows` rows of the export."""
        if self.head is not None:
            return self.head(rows).slice(0, rows)
        coming = self.tables()
        found = [next(coming, self.schema.empty_table()).slice(0, rows)]
        while found and sum(table.num_rows for table in found) < rows and (more := next(coming, None)) is not None:
            found.append(more)
        return pa.concat_tables(found).slice(0, rows)

    @property
    def names(self) -> tuple[str, ...]:
        """The column names of the export, in order."""
        return tuple(self.schema.names)


def keeping(source: RowSource, columns: tuple[str, ...]) -> RowSource:
    """The export's rows with these columns only, in this order; totals stay those of all rows.

    Raises BadParameter: if there is no such column, or one is named twice.
    """
    if not columns:
        return source
    for name in columns:
        if name not in source.names:
            raise BadParameter("columns", name, "one of " + ", ".join(source.names))
    if len(set(columns)) < len(columns):
        raise BadParameter("columns", ",".join(columns), "each column once")
    schema = pa.schema([source.schema.field(name) for name in columns])

    def tables() -> Iterator[pa.Table]:
        for table in source.tables():
            yield table.select(list(columns)).cast(schema)

    head = source.head
    first = None if head is None else lambda rows: head(rows).select(list(columns)).cast(schema)
    return replace(source, schema=schema, tables=tables, head=first)


class ExportWatch:
    """Reports the progress of an export while rows are written, and stops it when somebody cancels.

    total: Rows there will be.
    progress, cancelled: Called between two pieces, in the thread that writes.
    """

    def __init__(
        self, total: int | None, progress: Callable[[ExportProgress], None] | None, cancelled: Callable[[], bool] | None
    ) -> None:
        self._total = total
        self._progress = progress or (lambda _: None)
        self._cancelled = cancelled or (lambda: False)
        self.rows = 0

    def set_total(self, rows: int) -> None:
        """Set how many rows the export will have in all."""
        self._total = rows

    def report(self, doing: str, *, more: int = 0) -> None:
        """Report that `more` rows were written; raises `Cancelled` if somebody stopped the export.

        Raises Cancelled: if somebody asked for it.
        """
        self.rows += more
        if self._cancelled():
            raise Cancelled("the export was cancelled; no file was written")
        self._progress(ExportProgress(self.rows, self._total, doing))

    def observe(self, tables: Iterable[pa.Table], piece_rows: int, doing: str) -> Iterator[pa.Table]:
        """The tables in pieces of at most `piece_rows`, each reported as progress."""
        self.report(doing)
        for piece in in_pieces(tables, piece_rows):
            yield piece
            self.report(doing, more=piece.num_rows)


def in_pieces(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The rows of tables in tables of at most `rows`."""
    for table in tables:
        for start in range(0, table.num_rows, rows):
            yield table.slice(start, rows)
