"""Cutting windows and asking for less."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.langfuse.spans import (
    DAY,
    HOUR,
    MINUTE,
    MOST_SLICES,
    ReadKind,
    ReadSlice,
    TimeRange,
    api_time,
    chunk_ids,
    milliseconds,
    shrink,
    slice_window,
)
from billing_core.values.usage_frame import Window


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_times_are_sent_in_utc_with_milliseconds_and_z() -> None:
    plus_two = datetime.fromisoformat("2026-11-01T02:00:00+02:00")
    assert api_time(milliseconds(plus_two)) == "2026-11-01T00:00:00.000Z"


def test_a_bound_between_two_milliseconds_is_the_later_one() -> None:
    assert milliseconds(utc("1970-01-01T00:00:00.000001")) == 1
    assert milliseconds(utc("1970-01-01T00:00:00.001")) == 1


@pytest.mark.parametrize(
    ("length", "step"), [(timedelta(hours=5), HOUR), (timedelta(days=1), 3 * HOUR), (timedelta(days=30), 2 * DAY)]
)
def test_a_window_is_cut_at_multiples_of_a_ladder_length(length: timedelta, step: int) -> None:
    start = utc("2026-10-01T10:20:00")
    edges = {edge for slice_ in slice_window(Window(start, start + length)) for edge in slice_}
    inner = edges - {min(edges), max(edges)}
    assert inner
    assert all(edge % step == 0 for edge in inner)


@given(st.integers(0, 10**12), st.integers(1, 400 * DAY))
def test_slices_cover_the_window_once_newest_first(start: int, length: int) -> None:
    begin = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=start)
    slices = slice_window(Window(begin, begin + timedelta(milliseconds=length)))
    assert 1 <= len(slices) <= MOST_SLICES
    assert (slices[-1][0], slices[0][1]) == (start, start + length)
    assert all(newer[0] == older[1] for newer, older in pairwise(slices))


def test_an_overloaded_server_is_asked_for_fewer_traces_first() -> None:
    assert shrink(TimeRange(0, 4 * DAY, ids=("a", "b"))) == [
        TimeRange(0, 2 * DAY, ("a", "b")),
        TimeRange(2 * DAY, 4 * DAY, ("a", "b")),
    ]
    assert [span.ids for span in shrink(TimeRange(0, DAY, ids=("a", "b", "c")))] == [("b", "c"), ("a",)]


def test_then_for_half_the_time_still_left() -> None:
    assert shrink(TimeRange(0, 100 * HOUR)) == [TimeRange(0, 50 * HOUR), TimeRange(50 * HOUR, 100 * HOUR)]
    half_read = TimeRange(0, 100 * HOUR, cursor="c", newest=20 * HOUR)
    assert shrink(half_read) == [
        TimeRange(0, 10 * HOUR),
        TimeRange(10 * HOUR, 100 * HOUR, cursor="c", newest=20 * HOUR),
    ]


def test_down_to_a_minute_and_then_for_fewer_rows_and_then_not_at_all() -> None:
    assert [span.limit for span in shrink(TimeRange(0, MINUTE))] == [500]
    assert shrink(TimeRange(0, MINUTE, limit=10)) == []
    assert [span.limit for span in shrink(TimeRange(0, DAY, cursor="order unknown"))] == [500]


def test_ids_share_a_request_up_to_a_hundred_and_up_to_the_length_of_a_url() -> None:
    assert [len(chunk) for chunk in chunk_ids(f"{i:032x}" for i in range(250))] == [100, 100, 50]
    assert [len(chunk) for chunk in chunk_ids(["é" * 500] * 3)] == [1, 1, 1]


def test_the_same_question_has_the_same_key() -> None:
    one = ReadSlice(ReadKind.WINDOW, (TimeRange(0, 5),))
    assert one.key == ReadSlice(ReadKind.WINDOW, (TimeRange(0, 5),)).key
    assert one.key != ReadSlice(ReadKind.ENDED, (TimeRange(0, 5),)).key
    assert one.key != ReadSlice(ReadKind.WINDOW, (TimeRange(0, 6),)).key
