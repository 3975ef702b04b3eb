"""The requests of a read of Langfuse, as slices: pure functions of window, time and what was found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from billing_core.langfuse.spans import DAY, HOUR, ReadKind, ReadSlice, TimeRange, chunk_ids, milliseconds, slice_window
from billing_core.values.usage_frame import Window

ENDED_REACH = timedelta(days=30)
"""How long before the window a row may have started and still end in it."""

LEGACY_BEFORE = timedelta(hours=1)
LEGACY_AFTER = timedelta(hours=6)
"""How far around the window legacy observations are read; what lies further off is found by its trace's sums."""

CHUNKS_PER_SLICE = 16
"""Requests by id that share one slice: few enough to run in parallel, enough to be worth a file."""

LANGFUSE_BEGAN = milliseconds(datetime.fromisoformat("2020-01-01T00:00:00+00:00"))
"""No observation is older than the product."""


END_OF_TIME = milliseconds(datetime.fromisoformat("2200-01-01T00:00:00+00:00"))
"""Times beyond are refused by databases."""


def observation_slices(window: Window, ended_since: datetime | None) -> list[ReadSlice]:
    """The slices of a window: its rows, and those that started before it and ended since `ended_since`."""
    slices = [ReadSlice(ReadKind.WINDOW, (TimeRange(start, end),)) for start, end in slice_window(window)]
    if ended_since is not None:
        before = Window(window.start - ENDED_REACH, window.start)
        since = milliseconds(ended_since)
        slices += [ReadSlice(ReadKind.ENDED, (TimeRange(start, end),), since) for start, end in slice_window(before)]
    return slices


def completion_slices(ids: Iterable[str], window: Window, now: datetime) -> list[ReadSlice]:
    """The slices that complete traces seen in a window: their rows before it, and after it up to now."""
    bounds = [
        (ReadKind.EARLIER, LANGFUSE_BEGAN, milliseconds(window.start)),
        (ReadKind.LATER, milliseconds(window.end), milliseconds(now)),
    ]
    return [piece for kind, start, end in bounds if start < end for piece in _by_id(kind, start, end, ids)]


def elsewhere_slices(ids: Iterable[str], now: datetime) -> list[ReadSlice]:
    """The slices that look for traces of which no row was seen, at all times they may have."""
    return _by_id(ReadKind.EARLIER, LANGFUSE_BEGAN, milliseconds(now) + DAY, ids)


def _by_id(kind: ReadKind, start: int, end: int, ids: Iterable[str]) -> list[ReadSlice]:
    chunks = chunk_ids(sorted(ids))
    return [
        ReadSlice(kind, tuple(TimeRange(start, end, ids=chunk) for chunk in chunks[first : first + CHUNKS_PER_SLICE]))
        for first in range(0, len(chunks), CHUNKS_PER_SLICE)
    ]


def astray_after(window: Window, now: datetime) -> int:
    """The time (milliseconds) from which on a row is dated in the future, clocks that differ set aside."""
    return max(milliseconds(now), milliseconds(window.end)) + DAY


def astray_slices(window: Window, now: datetime, limit: int) -> list[ReadSlice]:
    """The slices for rows dated before Langfuse was made or in the future, of any trace: normally none, one page each.

    Clients that lose a start send 0, clients that misread one send a time decades away. Such a row is found neither in
    the window nor near it, and its usage would be missing in silence.
    """
    bounds = [(0, LANGFUSE_BEGAN), (min(astray_after(window, now), END_OF_TIME - 1), END_OF_TIME)]
    outside = [(a, min(b, milliseconds(window.start))) for a, b in bounds[:1]] + bounds[1:]
    return [ReadSlice(ReadKind.ASTRAY, (TimeRange(a, b, limit=limit),)) for a, b in outside if a < b]


def expansion_slices(cut: Mapping[str, tuple[int, int]]) -> list[ReadSlice]:
    """The slices that read rows with shortened metadata again, in full; `cut` gives each trace's first and last such
    start time.

    Traces close in time share a request, so that its bounds stay narrow.
    """
    ordered = sorted(cut, key=lambda trace_id: (cut[trace_id], trace_id))
    spans = [
        TimeRange(min(cut[i][0] for i in chunk), max(cut[i][1] for i in chunk) + 1, ids=chunk)
        for chunk in chunk_ids(ordered)
    ]
    return [
        ReadSlice(ReadKind.EXPAND, tuple(spans[first : first + CHUNKS_PER_SLICE]))
        for first in range(0, len(spans), CHUNKS_PER_SLICE)
    ]


def legacy_slices(window: Window, ended_since: datetime | None, now: datetime, limit: int) -> list[ReadSlice]:
    """The slices of the legacy API, an hour at most: the window's trace records, observations around it."""
    around = Window(window.start - LEGACY_BEFORE, max(window.end, min(window.end + LEGACY_AFTER, now)))
    slices = [
        ReadSlice(ReadKind.TRACES, (TimeRange(a, b, limit=limit),)) for a, b in slice_window(window, longest=HOUR)
    ]
    slices += [
        ReadSlice(ReadKind.WINDOW, (TimeRange(a, b, limit=limit),)) for a, b in slice_window(around, longest=HOUR)
    ]
    if ended_since is not None:
        before = Window(window.start - ENDED_REACH, window.start)
        since = milliseconds(ended_since)
        slices += [
            ReadSlice(ReadKind.ENDED, (TimeRange(a, b, limit=limit),), since)
            for a, b in slice_window(before, longest=DAY)
        ]
    return slices


def whole_trace_slices(ids: Iterable[str], now: datetime, limit: int) -> list[ReadSlice]:
    """The slices that read legacy traces one by one."""
    end = milliseconds(now) + DAY
    spans = [TimeRange(LANGFUSE_BEGAN, end, ids=(trace_id,), limit=limit) for trace_id in sorted(ids)]
    return [
        ReadSlice(ReadKind.WHOLE, tuple(spans[first : first + CHUNKS_PER_SLICE]))
        for first in range(0, len(spans), CHUNKS_PER_SLICE)
    ]


def trace_slice(trace_id: str, now: datetime) -> ReadSlice:
    """The slice that reads one trace complete, metadata in full."""
    return ReadSlice(ReadKind.EXPAND, (TimeRange(LANGFUSE_BEGAN, milliseconds(now) + DAY, ids=(trace_id,)),))
