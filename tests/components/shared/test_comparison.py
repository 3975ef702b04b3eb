"""What a page compares its period with, and what it says where that cannot be."""

from __future__ import annotations

from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

import pytest

from billing_core.errors import BadParameter
from components.shared.comparison import Comparison, ComparisonChoice, days_text

BERLIN = ZoneInfo("Europe/Berlin")
NOVEMBER = datetime(2026, 11, 1, tzinfo=BERLIN), datetime(2026, 11, 8, tzinfo=BERLIN)
OPEN = None, None


def test_the_usual_comparison_is_the_period_before_and_none_before_all_time():
    assert ComparisonChoice().asked(NOVEMBER, BERLIN) == "previous"
    assert ComparisonChoice().asked(OPEN, BERLIN) is None
    assert ComparisonChoice(Comparison.NOTHING).asked(NOVEMBER, BERLIN) is None


def test_the_same_days_last_month_are_days_of_the_reporting_timezone():
    asked = ComparisonChoice(Comparison.LAST_MONTH).asked(NOVEMBER, BERLIN)
    assert asked == "2026-10-01T00:00:00+02:00..2026-10-08T00:00:00+02:00"


def test_chosen_days_are_whole_days_and_compare_with_any_period():
    chosen = ComparisonChoice(Comparison.DAYS, date(2026, 10, 25), date(2026, 10, 25))
    assert chosen.asked(OPEN, BERLIN) == "2026-10-25T00:00:00+02:00..2026-10-26T00:00:00+01:00"


@pytest.mark.parametrize(
    ("choice", "window", "says"),
    [
        (ComparisonChoice(Comparison.LAST_MONTH), OPEN, "a start date and an end date"),
        (ComparisonChoice(Comparison.DAYS), NOVEMBER, "first and the last day"),
        (ComparisonChoice(Comparison.DAYS, date(2026, 10, 2)), NOVEMBER, "first and the last day"),
        (
            ComparisonChoice(Comparison.DAYS, date(2026, 10, 2), date(2026, 10, 1)),
            NOVEMBER,
            "2026-10-01 is before 2026-10-02",
        ),
    ],
)
def test_what_cannot_be_compared_is_said_in_the_words_of_its_fields(choice, window, says):
    with pytest.raises(BadParameter, match=says):
        choice.asked(window, BERLIN)


def test_what_is_compared_with_is_named_by_its_days():
    assert days_text(None, BERLIN) == ""
    window = datetime(2026, 9, 30, 22, tzinfo=UTC), datetime(2026, 10, 31, 23, tzinfo=UTC)
    assert days_text(window, BERLIN) == "1 Oct 2026 – 31 Oct 2026"
