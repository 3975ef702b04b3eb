"""Which days and periods are outside what is usual."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from billing_core.ledger.anomaly_marks import AnomalyMark
from billing_core.organizations.anomalies import ActOn, expected_day, expected_period, range_around
from billing_core.organizations.anomaly_detection import judge
from billing_core.organizations.daily import DailyHistory, DailyUsage

MONDAY = date(2026, 8, 3)
WEEK = [5000, 6000, 6000, 6000, 5000, 0, 0]


def usage(days, first_day=MONDAY, is_older=False) -> DailyUsage:
    held = tuple(Decimal(str(value)) for value in days)
    return DailyUsage(first_day, is_older, held, tuple(value * Decimal("0.00004") for value in held))


def past(**organizations) -> DailyHistory:
    """Histories that end with an unfinished day of no usage."""
    found = {name: usage([*days, 0]) for name, days in organizations.items()}
    last = max(one.first_day + timedelta(days=len(one.credits) - 1) for one in found.values())
    at = datetime(last.year, last.month, last.day, 12, tzinfo=UTC)
    return DailyHistory(at, MONDAY, last, found, {})


def judged(first: int, last: int, **organizations):
    """The report on the days at these positions."""
    return judge(past(**organizations), MONDAY + timedelta(days=first), MONDAY + timedelta(days=last), as_of=1)


# ── what is worth a person's time ────────────────────────────────────────────────────────────────


def test_a_deviation_below_the_floor_is_counted_and_not_listed():
    """Of 40,000 usual credits a day: 20,000 more are $0.80, 30,000 more $1.20."""
    days = [40_000] * 40
    days[30], days[35] = 60_000, 70_000
    one = past(org_a=days)
    window = (MONDAY + timedelta(days=28), MONDAY + timedelta(days=39))
    everything = judge(one, *window, as_of=1)
    assert [row.usd_at_stake for row in everything.rows] == [Decimal("1.2"), Decimal("0.8")]
    report = judge(one, *window, as_of=1, act_on=ActOn(Decimal(1), 5))
    assert [row.credits for row in report.rows] == [70_000]
    assert (report.minor, everything.minor) == (1, 0)


def test_of_one_day_the_largest_are_listed_whatever_else_the_window_holds():
    organizations = {f"org_{n}": [40_000] * 35 + [90_000 + n * 1000] + [40_000] * 4 for n in range(8)}
    report = judge(
        past(**organizations),
        MONDAY + timedelta(days=28),
        MONDAY + timedelta(days=39),
        as_of=1,
        act_on=ActOn(Decimal(1), 3),
    )
    assert [row.organization_id for row in report.rows] == ["org_7", "org_6", "org_5"]
    assert report.minor == 5


def test_a_deviation_without_a_known_price_is_listed():
    days = [40_000] * 35 + [90_000]
    one = past(org_a=days)
    (row,) = judge(one, MONDAY + timedelta(days=35), MONDAY + timedelta(days=35), as_of=1).rows
    assert ActOn(Decimal(1000)).of([replace(row, usd_at_stake=None)])
    assert not ActOn(Decimal(1000)).of([row])


# ── the usual range ──────────────────────────────────────────────────────────────────────────────


def test_the_range_is_three_and_a_half_robust_deviations_around_the_median():
    values = [Decimal(value) for value in (10_000, 12_000, 9_000, 10_000, 14_000)]
    level, low, high = range_around(values)
    # distances from 10,000: 0, 2,000, 1,000, 0, 4,000; their median is 1,000
    assert (level, low, high) == (10_000, Decimal("4810.9"), Decimal("15189.1"))


def test_days_that_are_all_alike_have_a_quarter_of_room():
    assert range_around([Decimal(10_000)] * 8) == (10_000, 7_500, 12_500)


def test_small_usage_has_a_thousand_credits_of_room_and_no_range_goes_below_nothing():
    assert range_around([Decimal(40)] * 8) == (40, 0, 1_040)


def test_the_median_of_an_even_number_is_exactly_between_the_middle_two():
    assert range_around([Decimal("1.000001"), Decimal("2")])[0] == Decimal("1.5000005")


def test_a_day_is_compared_with_the_same_weekday_of_the_last_eight_weeks():
    days = [Decimal(value) for value in WEEK * 10]
    found = expected_day(days, 63)
    assert found.sample == (56, 49, 42, 35, 28, 21, 14, 7)
    assert found.is_weekday
    assert (found.level, found.low, found.high) == (5_000, 3_750, 6_250)


def test_with_fewer_than_four_of_the_weekday_all_of_the_last_28_days_are_compared():
    days = [Decimal(value) for value in WEEK * 10]
    assert expected_day(days, 28).is_weekday
    young = expected_day(days, 27)
    assert not young.is_weekday
    assert young.sample == tuple(range(27))


def test_with_fewer_than_14_days_nothing_is_judged():
    days = [Decimal(100)] * 20
    assert expected_day(days, 13) is None
    assert expected_day(days, 14) is not None


def test_a_period_is_compared_with_at_least_three_equally_long_ones_before():
    days = [Decimal(100)] * 35
    assert expected_period(days, 20, 7) is None
    found = expected_period(days, 28, 7)
    assert (found.level, found.sample) == (700, (1, 2, 3, 4))


amounts = st.decimals(min_value=0, max_value=10**12, places=6)


@given(st.lists(amounts, min_size=1, max_size=28))
def test_the_level_is_always_within_its_own_range(values):
    level, low, high = range_around(values)
    assert 0 <= low <= level < high
    assert min(values) <= level <= max(values)


@given(st.lists(amounts, min_size=14, max_size=70), amounts)
def test_a_day_is_judged_by_the_days_before_it_alone(days, value):
    assert expected_day([*days, value], len(days)) == expected_day([*days, value + 1, value], len(days))


# ── judging ──────────────────────────────────────────────────────────────────────────────────────


def test_usual_days_are_no_anomalies():
    report = judged(56, 69, a=WEEK * 10)
    assert (report.rows, report.periods, report.not_judged) == ((), (), ())


def test_an_unusual_monday_is_one_with_what_is_at_stake():
    report = judged(63, 69, a=[*WEEK * 9, 9000, *WEEK[1:]])
    [row] = report.rows
    assert (row.organization_id, row.day) == ("a", MONDAY + timedelta(days=63))
    assert (row.credits, row.expected.level, row.credits_at_stake) == (9_000, 5_000, 4_000)
    assert row.usd_at_stake == Decimal("0.16")
    assert row.credits > row.expected.level
    assert row.compared[0] == MONDAY + timedelta(days=7)
    assert len(row.compared) == 8


def test_a_busy_saturday_is_unusual_where_saturdays_are_quiet():
    report = judged(68, 68, a=[*WEEK * 9, *WEEK[:5], 5000, 0])
    assert [row.credits_at_stake for row in report.rows] == [5_000]


def test_a_silent_day_counts_too():
    [row] = judged(64, 64, a=[*WEEK * 9, 5000, 0, *WEEK[2:]]).rows
    assert row.credits == 0 < row.expected.level
    assert row.credits_at_stake == 6_000
    assert row.usd_at_stake == Decimal("0.24")


def test_the_most_credits_at_stake_come_first():
    usual = [10_000] * 63
    report = judged(56, 62, a=[*usual[:-1], 20_000], b=[*usual[:-2], 0, 10_000], c=[*usual[:-1], 50_000])
    assert [(row.organization_id, row.credits_at_stake) for row in report.rows] == [
        ("c", 40_000),
        ("a", 10_000),
        ("b", 10_000),
    ]


def test_organizations_younger_than_two_weeks_are_named_and_not_judged():
    report = judge(
        DailyHistory(
            datetime(2026, 8, 20, 12, tzinfo=UTC),
            MONDAY,
            date(2026, 8, 20),
            {"new": usage([5000] * 8, date(2026, 8, 13)), "old": usage([5000] * 18)},
            {},
        ),
        date(2026, 8, 14),
        date(2026, 8, 19),
        as_of=1,
    )
    [one] = report.not_judged
    assert one.organization_id == "new"
    assert one.reason == ("6 days of history before the last assessed day (first usage on 2026-08-13); 14 are needed.")


def test_a_week_that_is_unusual_as_a_whole_is_named():
    report = judged(56, 62, a=[*[10_000] * 56, *[12_500] * 7], b=[*[10_000] * 56, *[12_600] * 7])
    assert {row.organization_id for row in report.rows} == {"b"}
    [period] = report.periods
    assert (period.organization_id, period.credits, period.credits_at_stake) == ("b", 88_200, 18_200)
    assert (period.first_day, period.last_day) == (MONDAY + timedelta(days=56), MONDAY + timedelta(days=62))


# ── marks ────────────────────────────────────────────────────────────────────────────────────────


def test_seen_is_what_is_marked_and_still_the_same():
    [row] = judged(63, 63, a=[*WEEK * 9, 9000]).rows
    now = datetime(2026, 11, 1, tzinfo=UTC)
    seen = replace(row, mark=AnomalyMark(Decimal(9000), now, "ann", ""))
    changed = replace(row, mark=AnomalyMark(Decimal(8999), now, "ann", ""))
    assert (row.is_seen, row.has_changed) == (False, False)
    assert (seen.is_seen, seen.has_changed) == (True, False)
    assert (changed.is_seen, changed.has_changed) == (False, True)
