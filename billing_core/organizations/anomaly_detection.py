"""Checks every organization's days and whole period against its usual range. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction

from billing_core.organizations.anomalies import (
    FEWEST_DAYS,
    WEEK,
    WEEKS,
    ActOn,
    Anomaly,
    AnomalyReport,
    NotJudged,
    PeriodAnomaly,
    expected_day,
    expected_period,
    rank,
)
from billing_core.organizations.daily import DailyHistory, DailyUsage
from billing_core.organizations.variance import rounded
from billing_core.values.decimals import EXACT, exact_sum

LOOK_BACK = WEEK * WEEKS
"""Days read before the first judged one."""

PERIOD_LENGTHS = range(7, 32)
"""Days a window must have for it to be compared with those before: shorter ones are days, longer ones need years."""

USD_PLACES = 12

EVERYTHING = ActOn()


def judge(past: DailyHistory, first: date, last: date, *, as_of: int, act_on: ActOn = EVERYTHING) -> AnomalyReport:
    """The anomalies among the days from `first` to `last`, both over, by the history before each day."""
    rows: list[Anomaly] = []
    periods: list[PeriodAnomaly] = []
    left_out: list[NotJudged] = []
    for organization, usage in past.organizations.items():
        if usage.first_day > last:
            continue
        start, end = (first - usage.first_day).days, (last - usage.first_day).days + 1
        if end - 1 < FEWEST_DAYS:
            left_out.append(NotJudged(organization, _too_young(usage, end - 1)))
            continue
        rows += _outside(organization, usage, range(max(start, FEWEST_DAYS), end))
        if end - start in PERIOD_LENGTHS:
            periods += _period(organization, usage, start, end)
    kept = act_on.of(rows)
    periods = sorted(filter(act_on.is_large, periods), key=rank)
    left_out.sort(key=lambda one: one.organization_id or "")
    minor = len(rows) - len(kept)
    return AnomalyReport(tuple(kept), tuple(periods), tuple(left_out), first, last, as_of, minor=minor)


def _outside(organization: str | None, usage: DailyUsage, positions: range) -> list[Anomaly]:
    found = []
    for at in positions:
        expected = expected_day(usage.credits, at)
        if expected is None or expected.has(usage.credits[at]):
            continue
        compared = sorted(expected.sample)
        at_stake = abs(EXACT.subtract(usage.credits[at], expected.level))
        found.append(
            Anomaly(
                organization,
                usage.first_day + timedelta(days=at),
                usage.credits[at],
                expected,
                tuple(usage.first_day + timedelta(days=one) for one in compared),
                at_stake,
                _price(usage, [at, *compared], at_stake),
            )
        )
    return found


def _period(organization: str | None, usage: DailyUsage, start: int, end: int) -> list[PeriodAnomaly]:
    length = end - start
    if start < 0 or (expected := expected_period(usage.credits, start, length)) is None:
        return []
    held = exact_sum(usage.credits[start:end])
    if expected.has(held):
        return []
    at_stake = abs(EXACT.subtract(held, expected.level))
    first = start - length * len(expected.sample)
    return [
        PeriodAnomaly(
            organization,
            usage.first_day + timedelta(days=start),
            usage.first_day + timedelta(days=end - 1),
            held,
            expected,
            at_stake,
            _price(usage, range(first, end), at_stake),
        )
    ]


def _price(usage: DailyUsage, positions: Sequence[int], held: Decimal) -> Decimal | None:
    """US dollars of so many credits (`held`) at what a credit cost on these days; `None` if they had none."""
    basis = exact_sum([usage.credits[at] for at in positions])
    if not basis:
        return None
    dollars = exact_sum([usage.amounts_usd[at] for at in positions])
    return rounded(Fraction(dollars) / Fraction(basis) * Fraction(held), USD_PLACES)


def _too_young(usage: DailyUsage, days: int) -> str:
    history = "1 day" if days == 1 else f"{days} days"
    return (
        f"{history} of history before the last assessed day (first usage on {usage.first_day.isoformat()}); "
        f"{FEWEST_DAYS} are needed."
    )
