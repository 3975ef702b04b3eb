"""Langfuse's daily sums against our own."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from billing_core.errors import UpstreamError
from billing_core.langfuse.metrics import DailyDifference, compare_daily, metrics_query
from billing_core.langfuse.rollup import DailyTotal
from billing_core.values.usage_frame import Window
from tests.langfuse.fake import Answer, FakeLangfuse

DAY = date(2026, 11, 1)
WINDOW = Window(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 3, tzinfo=UTC))


def total(observations: int, tokens: int | None, cost: str | None, day: date = DAY) -> DailyTotal:
    return DailyTotal(day, observations, tokens, None if cost is None else Decimal(cost))


def test_the_inclusive_upper_bound_is_moved_back_by_a_millisecond() -> None:
    query = json.loads(metrics_query(WINDOW))
    assert (query["fromTimestamp"], query["toTimestamp"]) == ("2026-11-01T00:00:00.000Z", "2026-11-02T23:59:59.999Z")
    assert query["config"] == {"row_limit": 1000}


def test_equal_days_and_rounding_differences_are_silent() -> None:
    assert compare_daily([total(3, 10, "0.5")], [total(3, 10, "0.500001")]) == []
    assert compare_daily([], [total(0, None, None)]) == []


def test_a_difference_is_langfuse_minus_ours() -> None:
    assert compare_daily([total(3, 10, "0.5")], [total(4, 12, "0.7")]) == [DailyDifference(DAY, 1, 2, Decimal("0.2"))]


def test_a_day_on_one_side_only_is_zero_on_the_other() -> None:
    later = date(2026, 11, 2)
    assert compare_daily([total(1, None, "1")], [total(1, None, "1", later)]) == [
        DailyDifference(DAY, -1, 0, Decimal(-1)),
        DailyDifference(later, 1, 0, Decimal(1)),
    ]


def test_the_official_sdk_reads_numbers_and_texts(langfuse: FakeLangfuse, connect) -> None:  # type: ignore[no-untyped-def]
    data = [
        {"time_dimension": "2026-11-02", "sum_totalCost": 0, "sum_totalTokens": None, "count_count": 0},
        {"time_dimension": "2026-11-01T00:00:00Z", "sum_totalCost": 0.25, "sum_totalTokens": "7", "count_count": "3"},
    ]
    langfuse.answer_times(1, Answer(body={"data": data}), "v2/metrics")
    assert connect().daily_totals(WINDOW) == [total(3, 7, "0.25"), DailyTotal(date(2026, 11, 2), 0, None, Decimal(0))]
    [asked] = langfuse.asked("v2/metrics")
    assert json.loads(asked.query["query"])["toTimestamp"] == "2026-11-02T23:59:59.999Z"


def test_a_used_up_quota_is_one_line(langfuse: FakeLangfuse, connect) -> None:  # type: ignore[no-untyped-def]
    langfuse.answer_times(9, Answer(422, {"message": "no"}), "v2/metrics")
    with pytest.raises(UpstreamError, match="v2/metrics answered 422"):
        connect().daily_totals(WINDOW)


def test_servers_without_metrics_have_no_daily_totals(langfuse: FakeLangfuse, connect) -> None:  # type: ignore[no-untyped-def]
    assert connect().daily_totals(WINDOW) is None
