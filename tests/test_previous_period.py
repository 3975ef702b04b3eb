"""What a period is compared with: the equally long one before, as far as the present one has come."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from billing_core.access import scope_of
from billing_core.ledger.queries import Selection, Snapshot
from billing_core.usage_events.selection import period_before
from tests.factories import EVERYONE

UTC_ZONE, BERLIN = ZoneInfo("UTC"), ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 22, 9, 20, tzinfo=UTC)


def day(number: int, hour: int = 0) -> datetime:
    return datetime(2026, 11, number, hour, tzinfo=UTC)


def before(
    start: datetime | None, end: datetime | None, zone: ZoneInfo = UTC_ZONE
) -> tuple[datetime | None, datetime | None] | None:
    found = period_before(Selection(scope_of(EVERYONE), Snapshot(1, 1), start, end), NOW, zone)
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


def berlin(month: int, number: int, hour: int = 0, minute: int = 0, fold: int = 0) -> datetime:
    return datetime(2026, month, number, hour, minute, tzinfo=BERLIN, fold=fold).astimezone(UTC)


def test_a_week_of_seven_days_is_compared_with_seven_whole_days_across_a_change_of_clocks():
    assert before(berlin(10, 19), berlin(10, 26), BERLIN) == (berlin(10, 12), berlin(10, 19))
    assert before(berlin(10, 26), berlin(11, 2), BERLIN) == (berlin(10, 19), berlin(10, 26))
    assert before(berlin(10, 1), berlin(11, 1), BERLIN) == (berlin(8, 31), berlin(10, 1))


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (berlin(10, 25, 2, 30), berlin(10, 25, 2, 15, fold=1)),  # 45 minutes, though the clock goes back
        (berlin(3, 29, 3), berlin(3, 29, 3, 30)),  # the half hour before is not on any clock
    ],
    ids=["an hour that is there twice", "an hour that is not there"],
)
def test_a_window_at_a_change_of_clocks_has_one_as_long_before_it(start, end):
    found = before(start, end, BERLIN)
    assert found is not None
    assert found[0] < found[1] <= start
