"""What will be used by the end of a period, and when the plan runs out."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_core.organizations.forecast import Exhaustion, Forecast, ForecastInput, NotEnough, forecast
from tests.examples import examples

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)
WORKING_WEEK = (120, 100, 110, 100, 90, 10, 5)
"""Credits from Tuesday on: 10 November 2026 is a Tuesday, so whole weeks before it begin with one."""


def question(days, **facts) -> ForecastInput:
    """Half of 10 November has passed; 20 whole days of November are to come."""
    known = {
        "at": NOON,
        "zone": ZoneInfo("UTC"),
        "days": tuple(Decimal(str(day)) for day in days),
        "today": Decimal(0),
        "period_start": datetime(2026, 11, 1, tzinfo=UTC),
        "period_end": DECEMBER,
        "used": Decimal(1000),
        "included": None,
    }
    return ForecastInput(**{**known, **facts})


def answered(days, **facts) -> Forecast:
    answer = forecast(question(days, **facts))
    assert isinstance(answer, Forecast), answer
    return answer


def noisy(days: int) -> list[float]:
    """About 100 credits a day, give or take 20, without any rhythm."""
    return [100 + (index * 7919 % 41) - 20 for index in range(days)]


# ── what comes out ───────────────────────────────────────────────────────────────────────────────


def test_a_constant_use_goes_on_for_the_half_day_and_the_twenty_days_that_are_left():
    found = answered([100] * 60)
    assert (found.low, found.expected, found.high) == (Decimal(3050), Decimal(3050), Decimal(3050))
    assert found.history_days == 60


def test_the_weekdays_keep_their_rhythm():
    found = answered(WORKING_WEEK * 9)
    by_day = {one.day: one.credits for one in found.days}
    assert by_day[date(2026, 11, 11)] == 100  # Wednesday
    assert by_day[date(2026, 11, 14)] == 90  # Saturday: the fifth of the pattern from Tuesday on
    assert by_day[date(2026, 11, 15)] == 10
    assert by_day[date(2026, 11, 16)] == 5


def test_what_today_brought_already_is_part_of_today_and_is_not_counted_twice():
    found = answered([100] * 60, today=Decimal(70))
    assert found.days[0].day == date(2026, 11, 10)
    assert found.days[0].credits == 120  # 70 so far, 50 in the half of the day that is left
    assert found.expected == 3050


def test_a_period_that_ends_in_the_middle_of_a_day_takes_that_part_of_it():
    found = answered([100] * 60, period_end=datetime(2026, 11, 12, 6, tzinfo=UTC))
    assert [one.credits for one in found.days] == [50, 100, 25]
    assert found.expected == 1175


def test_a_day_of_25_hours_is_just_a_day():
    berlin = ZoneInfo("Europe/Berlin")
    found = answered(
        [100] * 60,
        zone=berlin,
        at=datetime(2026, 10, 25, 12, 30, tzinfo=berlin),  # 13.5 of 25 hours have passed
        period_start=None,
        period_end=datetime(2026, 10, 27, tzinfo=berlin),
    )
    assert [one.day for one in found.days] == [date(2026, 10, 25), date(2026, 10, 26)]
    assert [one.credits for one in found.days] == [46, 100]


def test_usage_between_an_old_reading_and_the_beginning_of_the_period_is_not_of_the_period():
    found = answered([100] * 60, period_start=datetime(2026, 11, 12, tzinfo=UTC), used=Decimal(0))
    assert found.expected == 1900


def test_the_interval_of_a_noisy_history_holds_the_expected_sum_and_is_wider_than_nothing():
    found = answered(noisy(90))
    assert found.low < found.expected < found.high
    assert 2900 < found.expected < 3200
    assert [one.sum_low <= one.sum_credits <= one.sum_high for one in found.days] == [True] * 21


def test_the_same_history_gives_the_same_forecast():
    assert forecast(question(noisy(90))) == forecast(question(noisy(90)))


def test_a_clear_growth_is_followed_and_the_method_says_so():
    found = answered([10 * 1.02**day * (1 + day % 7 / 10) for day in range(112)])
    assert "a damped trend" in found.method
    assert found.expected > 1000 + 20.5 * 10 * 1.02**112  # not below the level of the last day


def test_credits_have_six_places():
    found = answered(noisy(40))
    assert {value.as_tuple().exponent for value in (found.low, found.expected, found.high)} == {-6}


# ── when the plan runs out ───────────────────────────────────────────────────────────────────────


def test_a_constant_use_runs_out_on_the_day_that_can_be_counted():
    found = answered([100] * 60, included=1650)  # 50 today, 600 in the six days after
    assert found.exhaustion == Exhaustion(False, *[date(2026, 11, 16)] * 3)


def test_what_is_enough_does_not_run_out_before_the_period_ends():
    assert answered([100] * 60, included=3051).exhaustion == Exhaustion(False, None, None, None)


def test_what_is_used_up_is_used_up_already():
    assert answered([100] * 60, included=1000).exhaustion == Exhaustion(already=True)


def test_without_a_known_limit_nothing_is_said_about_its_end():
    assert answered([100] * 60).exhaustion is None


def test_the_early_date_comes_before_the_late_one_and_agrees_with_the_interval():
    plain = answered(noisy(90))
    tight = answered(noisy(90), included=int(plain.high))  # one future in ten gets there
    assert tight.exhaustion.early == date(2026, 11, 30)
    assert (tight.exhaustion.expected, tight.exhaustion.late) == (None, None)
    sure = answered(noisy(90), included=2000).exhaustion
    assert date(2026, 11, 18) <= sure.early <= sure.expected <= sure.late <= date(2026, 11, 22)


# ── not enough data ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("days", "facts", "reason"),
    [
        ([100] * 20, {}, "20 days of history; a forecast needs 21 complete ones."),
        ([], {}, "0 days of history; a forecast needs 21 complete ones."),
        ([0] * 21 + [5] * 9, {}, "Usage on 9 days of the last 30; a forecast needs 10 days with usage."),
        ([100] * 60, {"period_end": None}, "No billing period is known."),
        (
            [100] * 60,
            {"period_end": datetime(2026, 11, 10, 9, tzinfo=UTC)},
            "The billing period that was last read ended on 2026-11-10 09:00 UTC.",
        ),
    ],
)
def test_what_is_missing_is_named_instead_of_a_number(days, facts, reason):
    answer = forecast(question(days, **facts))
    assert isinstance(answer, NotEnough)
    assert answer.reason == reason


# ── odd histories ────────────────────────────────────────────────────────────────────────────────


def test_weeks_without_any_use_at_the_end_expect_next_to_nothing():
    found = answered([*[100] * 60, *[0] * 40])
    assert found.low < 1001
    assert found.expected < 1000 + 20.5 * 20  # a fifth of what it was


@pytest.mark.parametrize("place", [60, 88, 89])
def test_one_huge_day_is_a_one_off_that_widens_the_interval_and_moves_nothing_else(place):
    history = noisy(90)
    history[place] = 1_000_000
    found = answered(history)
    assert found.expected < 4000
    assert found.high > 4000 or found.days[-1].high > 200 or place == 60
    assert "1 day far above the usual counted as one-off" in found.method


def test_two_huge_days_in_a_row_may_be_a_new_level():
    found = answered([*noisy(88), 900, 1000])
    assert "one-off" not in found.method


def test_a_job_that_runs_once_a_week_is_a_rhythm_and_no_spike():
    found = answered(([0] * 6 + [500]) * 12)
    assert found.expected == 2500  # three Mondays: 16, 23 and 30 November
    assert "one-off" not in found.method


def test_a_model_that_does_not_converge_is_replaced_and_named(monkeypatch):
    from statsmodels.tsa.exponential_smoothing.ets import ETSModel

    def fail(*_args, **_more):
        raise ValueError("no")

    monkeypatch.setattr(ETSModel, "fit", fail)
    found = answered(WORKING_WEEK * 9)
    assert found.method == (
        "averages of the same weekday over the last 8 weeks, because the smoothing model did not converge"
    )
    assert [one.credits for one in found.days[1:4]] == [100, 110, 100]


# ── back-tests ───────────────────────────────────────────────────────────────────────────────────


def test_a_rhythm_without_surprises_was_never_off():
    found = answered([100] * 60)
    assert (found.back_test.error, found.back_test.origins) == (0, 4)


def test_a_jump_last_week_shows_in_the_error_of_the_one_test_it_concerns():
    found = answered([*[100] * 53, *[200] * 7])
    assert (found.back_test.error, found.back_test.origins) == (Decimal("0.1250"), 4)  # (1/2 + 0 + 0 + 0) / 4


def test_weeks_without_usage_are_no_tests():
    found = answered([*[100] * 60, *[0] * 28])
    assert (found.back_test.error, found.back_test.origins) == (None, 0)


def test_a_short_history_allows_fewer_tests():
    assert answered([100] * 27).back_test.origins == 0
    assert answered([100] * 28).back_test.origins == 1


# ── whatever comes ───────────────────────────────────────────────────────────────────────────────

amounts = st.decimals(min_value=0, max_value=10**9, places=6)


@settings(max_examples=examples(40))
@given(
    days=st.one_of(
        st.lists(amounts, min_size=21, max_size=70),
        st.lists(st.sampled_from([Decimal(0), Decimal("0.000001"), Decimal(10) ** 11]), min_size=21, max_size=70),
    ),
    used=amounts,
    included=st.none() | st.integers(min_value=0, max_value=10**9),
    ahead=st.integers(min_value=1, max_value=400 * 24),
)
def test_whatever_was_used_nothing_negative_or_unordered_comes_out(days, used, included, ahead):
    answer = forecast(question(days, used=used, included=included, period_end=NOON + timedelta(hours=ahead)))
    if isinstance(answer, NotEnough):
        assert "10 days with usage" in answer.reason
        return
    assert used <= answer.low <= answer.expected <= answer.high
    for one in answer.days:
        assert 0 <= one.low <= one.credits <= one.high
    sums = [one.sum_credits for one in answer.days]
    assert sums == sorted(sums)
    if included is not None and used < included and abs(answer.expected - included) > Decimal("0.00001"):
        assert (answer.exhaustion.expected is not None) == (answer.expected >= included)
    assert answer.back_test.error is None or answer.back_test.error >= 0
