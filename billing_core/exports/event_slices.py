"""Reads usage events in slices of time: a file of ten million takes no more memory than one of a million.

Slices are cut from one count per quarter of an hour; the next ones are read while the present one is written (`ahead`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.ledger import export_queries
from billing_core.ledger.compiled import Question
from billing_core.ledger.journal import Ledger
from billing_core.ledger.queries import Selection
from billing_core.ledger.schema import QUARTER_HOUR_SECONDS

SLICE_ROWS = 200_000
"""Rows that are read and written at a time."""

ORDER = ("moment", "id")
"""How files are ordered."""

TIE_BREAKERS = ("credits_total", "latency_seconds", "tokens_total", "customer_id")
"""An id is there once, but where months are closed."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class TimeSpan:
    """A span of time with `rows` events in it: whole seconds since 1970, `[start, end)`."""

    start: int
    end: int
    rows: int


def pinned(selection: Selection) -> Selection:
    """The same selection, fixed to the ledger as it is now, whatever is booked while it is read slice by slice."""
    now = selection.snapshot
    return replace(selection, snapshot=replace(now, latest=max(now.latest, now.as_of + 1)))


def read_at(ledger: Ledger, selection: Selection, question: Callable[[Selection], Question]) -> pa.Table:
    """The answer to a question about a pinned selection, at its state of the ledger.

    While nothing is booked, what is asked for is simply what is there, which is half the work to read. Whether
    anything was booked is looked at before and after: then the answer is thrown away, and asked of the past.
    """
    as_of = selection.snapshot.as_of
    if ledger.version() == as_of:
        present = replace(selection, snapshot=replace(selection.snapshot, latest=as_of))
        found = ledger.engine.read(question(present))
        if ledger.version() == as_of:
            return found
    return ledger.engine.read(question(selection))


def plan(cells: Iterable[TimeSpan], most: int) -> list[TimeSpan]:
    """Neighbouring spans joined, in order, while they hold at most `most` rows; a larger one stays alone."""
    slices: list[TimeSpan] = []
    for cell in sorted(cells, key=lambda span: span.start):
        last = slices[-1] if slices else None
        if last is not None and last.rows + cell.rows <= most:
            slices[-1] = TimeSpan(last.start, cell.end, last.rows + cell.rows)
        else:
            slices.append(cell)
    return slices


def spans_of(ledger: Ledger, selection: Selection, most: int = SLICE_ROWS) -> list[TimeSpan]:
    """The spans that a selection is read in: cut by quarters of an hour, a crowded quarter by seconds."""
    cells: list[TimeSpan] = []
    for cell in _counted(ledger, selection, QUARTER_HOUR_SECONDS):
        crowded = cell.rows > most
        cells += _counted(ledger, within(selection, cell), 1) if crowded else [cell]
    return plan(cells, most)


def within(selection: Selection, span: TimeSpan) -> Selection:
    """The selection limited to the events that count within a span."""
    start, end = EPOCH + timedelta(seconds=span.start), EPOCH + timedelta(seconds=span.end)
    return replace(
        selection,
        start=start if selection.start is None else max(start, selection.start),
        end=end if selection.end is None else min(end, selection.end),
    )


def in_order(selection: Selection, columns: Sequence[str], rows: int) -> Question:
    """A question: the first `rows` events of a selection in the order of files: by when they count, then by id.

    What takes back an event of a closed month has its id and its time: it comes first, having fewer credits, or where
    nothing was charged, no latency.
    """
    return export_queries.first_rows(selection, _keys(selection), (*columns, "moment"), limit=rows)


def unordered(selection: Selection, columns: Sequence[str]) -> Question:
    """A question: the events of a selection with the columns they are ordered by, in any order: for `sorted_slice`."""
    return export_queries.all_rows(selection, (*dict.fromkeys((*columns, *_keys(selection)[1:])), "moment"))


def sorted_slice(table: pa.Table, selection: Selection) -> pa.Table:
    """The rows of `unordered` in the order of `in_order`.

    The ledger holds events by time, so mostly they come in order: an engine would carry every column through a sort to
    find that out.
    """
    keys = _keys(selection)
    moments = table["moment"].cast(pa.int64()).to_numpy()
    if len(keys) == len(ORDER) and (moments[1:] > moments[:-1]).all():
        return table
    places = pc.sort_indices(table.select(list(keys)), [(key, "ascending") for key in keys])
    in_place = bool((places.to_numpy() == np.arange(table.num_rows)).all())
    return table if in_place else table.take(places)


def _keys(selection: Selection) -> tuple[str, ...]:
    return (*ORDER, *(TIE_BREAKERS if selection.snapshot.closed else ()))


def _counted(ledger: Ledger, selection: Selection, seconds: int) -> list[TimeSpan]:
    cells = ledger.read_rows(export_queries.cells(selection, seconds))
    return [TimeSpan(row["cell"] * seconds, (row["cell"] + 1) * seconds, row["rows"]) for row in cells]
