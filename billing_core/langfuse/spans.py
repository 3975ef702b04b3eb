"""Time ranges of reads: how a window is cut for parallel reading and what to ask when the server is overloaded.

All times are whole milliseconds since 1970 UTC, the precision of the API; intervals are half open.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from urllib.parse import quote

from billing_core.values.usage_frame import Window

MINUTE = 60_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR

LADDER = (HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, *(DAY * 2**step for step in range(12)))
"""Slice lengths. Boundaries are multiples of the length, so that a rerun cuts at the same places."""

MOST_SLICES = 16

REACH = 93 * DAY
"""How far from the window rows of its traces are asked for where a server refuses to answer about more: a quarter, and
far beyond what Stripe still bills."""

SMALLEST_LIMIT = 10
"""Rows per page below which asking for less has no point."""

IDS_PER_REQUEST = 100
ID_BYTES_PER_REQUEST = 6_000
"""The ids travel in the URL of a GET: bounded in number and in encoded length."""


class ReadKind(StrEnum):
    """The reason why rows are read: those of the window, other rows of its traces, repeats in full."""

    WINDOW = "window"
    TRACES = "traces"  # trace records of the legacy API
    ENDED = "ended"  # rows that started before the window and ended lately
    EARLIER = "earlier"  # rows before the window of traces seen in it
    LATER = "later"  # rows after it
    COMPLETE = "complete"  # rows of traces by id, whenever they are dated
    ASTRAY = "astray"  # rows dated when nothing can have been used: 1970, 2106
    EXPAND = "expand"  # again, with metadata values in full
    WHOLE = "whole"  # one trace by id, legacy API

    @property
    def is_repeat(self) -> bool:
        """Whether these rows are read a second time on purpose and count neither as read nor as duplicates."""
        return self in {ReadKind.ENDED, ReadKind.EXPAND, ReadKind.WHOLE}


@dataclass(frozen=True, slots=True)
class TimeRange:
    """A time range to ask for, possibly half read.

    ids: Only rows of these traces; empty for all.
    cursor: Where the next page begins; `None` for the first one.
    newest: The newest start time that can still come, known when pages arrive newest first.
    """

    start: int
    end: int
    ids: tuple[str, ...] = ()
    cursor: str | None = None
    newest: int | None = None
    limit: int = 1000

    @classmethod
    def from_json(cls, values: dict[str, object]) -> TimeRange:
        """A time range from what `as_json` wrote."""
        return cls(**{**values, "ids": tuple(values["ids"])})  # type: ignore[arg-type]

    def as_json(self) -> dict[str, object]:
        """The time range as the spool stores it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ReadSlice:
    """A slice of a read, the unit of parallel work and of resuming: one thread reads its time ranges, newest first."""

    kind: ReadKind
    spans: tuple[TimeRange, ...]
    ended_since: int | None = None

    @property
    def start(self) -> int:
        """The oldest start time the slice asks for."""
        return min(span.start for span in self.spans)

    @property
    def end(self) -> int:
        """The end (exclusive) of the newest start times the slice asks for."""
        return max(span.end for span in self.spans)

    @property
    def key(self) -> str:
        """A key of the slice: the same request has the same key in every run."""
        text = json.dumps([self.kind, [span.as_json() for span in self.spans], self.ended_since])
        return f"{self.kind}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


def milliseconds(moment: datetime) -> int:
    """A time in milliseconds since 1970, rounded up: rows carry whole milliseconds, so comparisons with it agree."""
    microseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return -(-microseconds // 1000)


def api_time(value: int) -> str:
    """Milliseconds since 1970 as the API's time text: `1793491200000` → `2026-11-01T00:00:00.000Z`."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=value)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def slice_window(window: Window, *, longest: int | None = None) -> list[tuple[int, int]]:
    """Slices of a window, cut at multiples of the first ladder length that gives at most `MOST_SLICES` of them.

    `longest` fixes the length instead. Newest first: what people look at arrives first.
    """
    start, end = milliseconds(window.start), milliseconds(window.end)
    length = longest or next((step for step in LADDER if -(-end // step) - start // step <= MOST_SLICES), LADDER[-1])
    edges = [start, *range((start // length + 1) * length, end, length), end]
    return [(a, b) for a, b in pairwise(edges) if a < b][::-1]


def chunk_ids(ids: Iterable[str]) -> list[tuple[str, ...]]:
    """Ids in groups that fit into one request's URL."""
    chunks: list[tuple[str, ...]] = []
    chunk: list[str] = []
    size = 0
    for trace_id in ids:
        length = len(quote(trace_id)) + len(quote('"",'))
        if chunk and (len(chunk) == IDS_PER_REQUEST or size + length > ID_BYTES_PER_REQUEST):
            chunks.append(tuple(chunk))
            chunk, size = [], 0
        chunk.append(trace_id)
        size += length
    if chunk:
        chunks.append(tuple(chunk))
    return chunks


def length(span: TimeRange) -> int:
    """The milliseconds of start times that are left to ask for."""
    return (span.end if span.newest is None else min(span.newest, span.end)) - span.start


def halved(span: TimeRange) -> Sequence[TimeRange]:
    """The rest of a time range in two halves, older half first; empty at a minute or where the position in it is not
    known.

    A cursor is a position in the fixed order (newest start first) and stays valid when older rows are left out.
    """
    if length(span) <= MINUTE or (span.cursor is not None and span.newest is None):
        return []
    middle = span.start + length(span) // 2
    return [replace(span, end=middle, cursor=None, newest=None), replace(span, start=middle)]


def nearer(kind: ReadKind, span: TimeRange) -> TimeRange | None:
    """The part of a time range for other rows of traces that is no further than `REACH` from the window.

    `None` if it does not reach further, or is none of that kind.
    """
    if kind is ReadKind.EARLIER and span.end - span.start > REACH:
        return replace(span, start=span.end - REACH)
    if kind is ReadKind.LATER and span.end - span.start > REACH:
        end = span.start + REACH
        if span.newest is not None and span.newest <= end:
            return replace(span, end=end)
        return replace(span, end=end, cursor=None, newest=None)
    return None


def shrink(span: TimeRange) -> Sequence[TimeRange]:
    """Smaller time ranges that together ask the same, oldest first; empty when it cannot get smaller.

    Half the remaining time down to a day, then fewer ids, then less time down to a minute, then fewer rows per page:
    the time range is what a server pays for, and splitting it costs less than asking for traces one by one.
    """
    halves = halved(span)
    if halves and (length(span) > DAY or len(span.ids) <= 1 or span.cursor is not None):
        return halves
    if span.cursor is None and len(span.ids) > 1:
        middle = len(span.ids) // 2
        return [replace(span, ids=span.ids[middle:]), replace(span, ids=span.ids[:middle])]
    if span.limit > SMALLEST_LIMIT:
        return [replace(span, limit=max(span.limit // 2, SMALLEST_LIMIT))]
    return []
