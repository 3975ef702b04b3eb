"""What a period is compared with: the equally long one before, as far as the present one has come."""

from datetime import UTC, datetime, timedelta

import pytest

from billing_core.access import scope_of
from billing_core.ledger.queries import Selection, Snapshot
from billing_core.usage_events.selection import period_before
from tests.factories import EVERYONE

NOW = datetime(2026, 11, 22, 9, 20, tzinfo=UTC)


def day(number: int, hour: int = 0) -> datetime:
    return datetime(2026, 11, number, hour, tzinfo=UTC)


def before(start: datetime | None, end: datetime | None) -> tuple[datetime | None, datetime | None] | None:
    found = period_before(Selection(scope_of(EVERYONE), Snapshot(1, 1), start, end), NOW)
    return None if found is None else (found.start, found.end)


def test_a_week_that_is_over_is_compared_with_the_week_before():
    assert before(day(8), day(15)) == (day(1), day(8))


def test_today_at_nine_is_compared_with_yesterday_until_that_hour():
    assert before(day(22), day(23)) == (day(21), day(21, 10))


def test_the_last_seven_days_leave_out_the_rest_of_the_seventh_before():
    assert before(day(16), day(23)) == (day(9), day(15, 10))


def test_a_period_without_an_end_ends_now():
    assert before(day(22), None) == (day(22, 10) - 2 * timedelta(hours=10), day(22))


@pytest.mark.parametrize("end", [None, day(22)])
def test_nothing_comes_before_a_period_without_a_beginning(end):
    assert before(None, end) is None
