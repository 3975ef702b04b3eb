"""How far a plan reaches: shares, pace and thresholds are exact, and unknown where a side of them is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.organizations.limits import Limit, PlanTotal, by_plan, is_too_early, pace_of, percent_of, reached

START, END = datetime(2026, 11, 3, 8, 15, 30, tzinfo=UTC), datetime(2026, 12, 3, 8, 15, 30, tzinfo=UTC)
DAY = timedelta(days=1)

amounts = st.integers(0, 10**15).map(lambda units: Decimal(units).scaleb(-6))
plans = st.integers(1, 10**9)


def limit(used="100", included=1000, organization="org_a", customer="cus_a", plan="Pro", state="active", **changes):
    used = None if used is None else Decimal(used)
    return Limit(organization, customer, plan, state, included, used, changes.pop("own_used", used), (), START, END)


# ── share ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("used", "included", "percent"),
    [
        ("250", 1000, "25.00"),
        ("1234.5", 1000, "123.45"),
        ("0", 1000, "0.00"),
        ("999.999999", 1000, "99.99"),
        ("1", 3, "33.33"),
    ],
)
def test_the_share_goes_beyond_100_and_is_cut_so_that_100_means_all_of_it(used, included, percent):
    assert str(percent_of(Decimal(used), included)) == percent


@pytest.mark.parametrize(("used", "included"), [(None, 1000), (Decimal(5), None), (Decimal(5), 0), (None, None)])
def test_a_share_of_something_unknown_or_of_nothing_is_unknown_and_never_0(used, included):
    assert percent_of(used, included) is None
    assert reached(used, included, (1, 100)) == ()


@given(amounts, plans, st.lists(st.integers(1, 1000), max_size=5, unique=True))
def test_a_threshold_is_reached_exactly_when_the_share_shown_says_so(used, included, thresholds):
    shown = percent_of(used, included)
    assert reached(used, included, thresholds) == tuple(sorted(t for t in thresholds if shown >= t))


def test_a_threshold_is_reached_by_the_last_millionth_of_a_credit_and_not_before():
    assert reached(Decimal("899.999999"), 1000, (75, 90, 100)) == (75,)
    assert reached(Decimal("900.000000"), 1000, (75, 90, 100)) == (75, 90)


# ── pace ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_pace_is_a_straight_line_through_what_was_used():
    assert pace_of(Decimal(100), START, END, START + 10 * DAY) == 300
    assert pace_of(Decimal(1), START, END, START + 9 * DAY) == Decimal("3.333333")
    assert pace_of(Decimal(0), START, END, START + 9 * DAY) == 0


def test_in_the_first_twentieth_of_a_period_it_is_too_early_to_say():
    edge = START + 1.5 * DAY
    assert is_too_early(START, END, edge - timedelta(microseconds=1))
    assert pace_of(Decimal(100), START, END, edge - timedelta(microseconds=1)) is None
    assert pace_of(Decimal(100), START, END, edge) == 2000


def test_at_the_end_and_after_it_the_pace_is_what_was_used():
    assert pace_of(Decimal("7.25"), START, END, END) == Decimal("7.25")
    assert pace_of(Decimal("7.25"), START, END, END + DAY) == Decimal("7.25")


@given(amounts, st.integers(1, 100 * 86400), st.fractions(0, 1))
def test_the_pace_is_never_below_what_was_used_and_right_to_half_a_millionth(used, seconds, part):
    length = timedelta(seconds=seconds)
    elapsed = timedelta(microseconds=int(part * (length // timedelta(microseconds=1))))
    pace = pace_of(used, START, START + length, START + elapsed)
    if pace is None:
        assert elapsed * 20 < length
    else:
        assert pace >= used
        assert abs(
            Fraction(pace) - Fraction(used) * Fraction(length // elapsed.resolution, elapsed // elapsed.resolution)
        ) <= Fraction(1, 2 * 10**6)


def test_a_limit_knows_its_pace_share_and_time_left():
    found, now = limit("300", 1000), START + 15 * DAY
    assert (found.pace(now), found.pace_percent(now), found.time_left(now)) == (600, 60, 15 * DAY)
    assert found.time_left(END + DAY) == timedelta()
    assert not found.is_too_early(now)


def test_without_a_period_there_is_neither_pace_nor_time_left():
    found = Limit("org_a", "cus_a", "Pro", "active", 1000, None, None, (), None, None)
    assert (found.pace(END), found.pace_percent(END), found.time_left(END), found.urgency(END)) == (None,) * 4
    assert not found.is_too_early(END)


def test_while_it_is_too_early_for_a_pace_the_share_used_says_how_urgent_it_is():
    assert limit("1200", 1000).urgency(START + DAY) == 120
    assert limit("300", 1000).urgency(START + 15 * DAY) == 60


# ── totals by plan ───────────────────────────────────────────────────────────────────────────────


def test_totals_by_plan_count_a_shared_customer_once_and_keep_unknown_plans_apart():
    rows = [
        limit("300", organization="org_a", own_used=Decimal(100)),
        limit("300", organization="org_b", own_used=Decimal(200)),
        limit("900", customer="cus_b"),
        limit("5", included=10, customer="cus_f", plan="Free"),
        limit("5", included=None, customer="cus_u", plan=None),
        limit(None, included=None, customer="cus_n", plan=None, state="none"),
        limit(None, included=None, customer="cus_x", plan=None, state="unknown"),
        limit(None, included=None, customer="cus_c", state="canceled"),
        limit(None, included=1000, customer="cus_p"),
        limit(None, included=None, customer=None, plan=None, state="none"),
    ]
    assert by_plan(rows) == (
        PlanTotal("Pro", None, 3, 2, 2000, Decimal(1200)),
        PlanTotal("Free", None, 1, 1, 10, Decimal(5)),
        PlanTotal(None, None, 1, 0, 0, Decimal(0)),
        PlanTotal(None, "canceled", 1, 0, 0, Decimal(0)),
        PlanTotal(None, "none", 1, 0, 0, Decimal(0)),
        PlanTotal(None, "unknown", 1, 0, 0, Decimal(0)),
    )
    assert by_plan(rows)[0].percent_used == 60
    assert by_plan(rows)[2].percent_used is None
