"""Every row of the sandbox in memory, in the API's fixed order."""

from __future__ import annotations

import base64
import binascii
from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias
from zlib import crc32

import msgspec

from billing_core.sandbox.data.plan import TracePlan
from billing_core.sandbox.langfuse.wire import (
    Observation,
    from_mapping,
    iso,
    milliseconds,
    observations_of,
    with_cut_metadata,
)

Check: TypeAlias = Callable[[Observation], bool]
Order: TypeAlias = tuple[int, ...]

ALL_TIME = (-(2**62), 2**62)


class BadCursor(ValueError):
    """The cursor did not come from this API."""


@dataclass(frozen=True, slots=True)
class Query:
    """Which rows are asked for; `start` is a half-open window of milliseconds since 1970."""

    start: tuple[int, int] = ALL_TIME
    traces: frozenset[str] | None = None
    checks: tuple[Check, ...] = ()
    cursor: str | None = None
    limit: int = 50


class StoredRow(msgspec.Struct, frozen=True, gc=False):
    """A row, its times in milliseconds since 1970, and which version of its id it is."""

    start: int
    written: int
    version: int
    whole: Observation
    shown: Observation
    """With cut metadata."""

    @property
    def order(self) -> Order:
        """What sorts rows: start, hash of the trace, id, all descending, then version (reference, section 1.7)."""
        return _order(self.start, self.whole.trace_id, self.whole.id, self.version)


def _order(start: int, trace_id: str, id_: str, version: int) -> Order:
    """The real server uses another hash with the same effect."""
    return -start, -crc32(trace_id.encode()), -int.from_bytes(id_.encode()[:64].ljust(64, b"\0")), version


def _before(start: int) -> Order:
    """Stands ahead of every row that starts before `start`, and of no other."""
    return (1 - start,)


@dataclass(frozen=True, slots=True)
class Page:
    """The rows of one page; `cursor` leads to the next one."""

    rows: list[StoredRow]
    cursor: str | None


class _Cursor(msgspec.Struct):
    start: int = msgspec.field(name="lastStartTimeTo")
    trace_id: str = msgspec.field(name="lastTraceId")
    id: str = msgspec.field(name="lastId")
    version: int = msgspec.field(name="lastVersion")


class RowStore:
    """Rows in the fixed order: `rows` is sorted by `StoredRow.order`."""

    def __init__(self, plans: Iterable[TracePlan] = ()) -> None:
        self.rows = [
            StoredRow(row.start, row.written, row.version, found, with_cut_metadata(found))
            for plan in plans
            for row, found in observations_of(plan)
        ]
        self.rows.sort(key=lambda row: row.order)
        self._of_traces: defaultdict[str, list[StoredRow]] = defaultdict(list)
        for row in self.rows:
            self._of_traces[row.whole.trace_id].append(row)
        self._starts: list[tuple[int, str]] = []

    # ---- reading ----------------------------------------------------------------------------------------

    def rows_of_trace(self, trace_id: str, now: int) -> list[StoredRow]:
        """One trace's rows that are written by `now`, in order; empty if there is none."""
        return [row for row in self._of_traces.get(trace_id, ()) if row.written <= now]

    def started(self, start: tuple[int, int], now: int, after: Order | None = None) -> Iterator[StoredRow]:
        """Rows that start in the half-open window and are written by `now`, behind `after` if it is given."""
        low, high = (bisect_left(self.rows, _before(bound), key=_sort_key) for bound in reversed(start))
        if after is not None:
            low = max(low, bisect_right(self.rows, after, key=_sort_key))
        return (row for row in islice(self.rows, low, high) if row.written <= now)

    def traces_started(self, start: tuple[int, int], now: int) -> list[str]:
        """Traces whose first row starts in the half-open window and that have a row by `now`, oldest first."""
        if not self._starts:
            self._starts = sorted((rows[-1].start, trace_id) for trace_id, rows in self._of_traces.items())
        low, high = (bisect_left(self._starts, (bound, "")) for bound in start)
        found = (trace_id for _, trace_id in self._starts[low:high])
        return [trace_id for trace_id in found if any(row.written <= now for row in self._of_traces[trace_id])]

    def page(self, query: Query, now: int) -> Page:
        """The next rows for `query` that are visible at `now`.

        Raises BadCursor: if the cursor cannot be read.
        """
        after = None if query.cursor is None else _after(query.cursor)
        if query.traces is None:
            rows = self.started(query.start, now, after)
        else:
            of_traces = (row for trace_id in query.traces for row in self.rows_of_trace(trace_id, now))
            inside = (row for row in of_traces if query.start[0] <= row.start < query.start[1])
            rows = iter(sorted((row for row in inside if after is None or row.order > after), key=_sort_key))
        if query.checks:
            rows = (row for row in rows if all(check(row.whole) for check in query.checks))
        found = list(islice(rows, query.limit + 1))
        if len(found) <= query.limit:
            return Page(found, None)
        return Page(found[: query.limit], _cursor(found[query.limit - 1]))

    # ---- writing ----------------------------------------------------------------------------------------

    def append(self, rows: Sequence[Mapping[str, Any]], now: int) -> None:
        """Add rows given by their wire keys; `id`, `traceId` and `startTime` are needed.

        `createdAt` and `updatedAt` default to `now`. A row with a known id is one more version of it: like the
        real server, the sandbox serves both.

        Raises ValueError: naming what is missing or unreadable; nothing is added then.
        """
        for found in [_completed(row, now) for row in rows]:
            of_trace = self._of_traces[found.trace_id]
            known = sum(row.whole.id == found.id for row in of_trace)
            row = StoredRow(
                milliseconds(found.start_time),
                milliseconds(found.created_at),
                known and known + 1,
                found,
                with_cut_metadata(found),
            )
            insort(self.rows, row, key=_sort_key)
            insort(of_trace, row, key=_sort_key)
        self._starts = []


def _sort_key(row: StoredRow) -> Order:
    return row.order


def _cursor(row: StoredRow) -> str:
    last = _Cursor(row.start, row.whole.trace_id, row.whole.id, row.version)
    return base64.b64encode(msgspec.json.encode(last)).decode()


def _after(cursor: str) -> Order:
    """Where the row stands that the cursor names, whether or not it still exists."""
    try:
        last = msgspec.json.decode(base64.b64decode(cursor, validate=True), type=_Cursor)
    except (binascii.Error, msgspec.MsgspecError, UnicodeDecodeError):
        raise BadCursor(cursor) from None
    return _order(last.start, last.trace_id, last.id, last.version)


def _completed(row: Mapping[str, Any], now: int) -> Observation:
    for key in ("id", "traceId", "startTime"):
        if not isinstance(row.get(key), str) or not row[key]:
            raise ValueError(f"{key}: missing; a row needs id, traceId and startTime as texts")
    complete = {"createdAt": iso(now), **row}
    complete.setdefault("updatedAt", complete["createdAt"])
    for key in ("startTime", "endTime", "createdAt", "updatedAt"):
        if complete.get(key) is not None:
            complete[key] = iso(milliseconds(complete[key]))
    return from_mapping(complete)
