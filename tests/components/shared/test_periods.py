from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from billing_core.errors import BadParameter
from components.shared.periods import Days, Period, days_of, window_of

BERLIN = ZoneInfo("Europe/Berlin")
TODAY = date(2026, 11, 22)


@pytest.mark.parametrize(
    ("period", "first", "last"),
    [
        (Period.TODAY, date(2026, 11, 22), date(2026, 11, 22)),
        (Period.YESTERDAY, date(2026, 11, 21), date(2026, 11, 21)),
        (Period.LAST_7_DAYS, date(2026, 11, 16), date(2026, 11, 22)),
        (Period.LAST_30_DAYS, date(2026, 10, 24), date(2026, 11, 22)),
        (Period.LAST_90_DAYS, date(2026, 8, 25), date(2026, 11, 22)),
        (Period.THIS_QUARTER, date(2026, 10, 1), date(2026, 11, 22)),
        (Period.YEAR_TO_DATE, date(2026, 1, 1), date(2026, 11, 22)),
        (Period.THIS_MONTH, date(2026, 11, 1), date(2026, 11, 22)),
        (Period.LAST_MONTH, date(2026, 10, 1), date(2026, 10, 31)),
        (Period.ALL_TIME, None, None),
    ],
)
def test_a_preset_means_whole_days_that_end_with_today(period, first, last):
    assert days_of(period, TODAY) == Days(first, last)


def test_last_month_of_january_is_december_of_the_year_before():
    assert days_of(Period.LAST_MONTH, date(2027, 1, 1)) == Days(date(2026, 12, 1), date(2026, 12, 31))


def test_a_window_runs_from_midnight_to_the_midnight_after_the_last_day():
    start, end = window_of(Days(date(2026, 11, 22), date(2026, 11, 22)), BERLIN)
    assert start.astimezone(UTC) == datetime(2026, 11, 21, 23, tzinfo=UTC)
    assert end.astimezone(UTC) == datetime(2026, 11, 22, 23, tzinfo=UTC)


@pytest.mark.parametrize(("day", "hours"), [(date(2026, 3, 29), 23), (date(2026, 10, 25), 25), (date(2026, 6, 1), 24)])
def test_the_days_on_which_clocks_change_have_23_and_25_hours(day, hours):
    start, end = window_of(Days(day, day), BERLIN)
    assert end.astimezone(UTC) - start.astimezone(UTC) == timedelta(hours=hours)


def test_a_day_whose_midnight_does_not_exist_starts_when_it_begins():
    # Santiago's clocks went from 24:00 to 01:00 on 6 September 2026.
    start, _ = window_of(Days(date(2026, 9, 6), date(2026, 9, 6)), ZoneInfo("America/Santiago"))
    assert start.astimezone(UTC) == datetime(2026, 9, 6, 4, tzinfo=UTC)


def test_an_open_end_stays_open():
    assert window_of(Days(None, None), BERLIN) == (None, None)
    assert window_of(days_of(Period.CUSTOM, TODAY, date(2026, 11, 1), None), BERLIN)[1] is None


def test_a_custom_period_that_ends_before_it_starts_is_refused_by_name():
    with pytest.raises(
        BadParameter, match=r"End date must be on or after the start date: 2026-11-01 is before 2026-11-05"
    ):
        days_of(Period.CUSTOM, TODAY, date(2026, 11, 5), date(2026, 11, 1))


@pytest.mark.parametrize(
    ("days", "text"),
    [
        (Days(None, None), "all days"),
        (Days(date(2026, 11, 1), None), "since 1 Nov 2026"),
        (Days(None, date(2026, 11, 1)), "until 1 Nov 2026"),
        (Days(date(2026, 11, 1), date(2026, 11, 1)), "1 Nov 2026"),
        (Days(date(2026, 10, 24), date(2026, 11, 22)), "24 Oct 2026 – 22 Nov 2026"),
    ],
)
def test_days_read_as_words(days, text):
    assert str(days) == text
