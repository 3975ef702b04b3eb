"""Texts and tables of a forecast. Pure: values in, plain text out; escape it before it becomes Markdown."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

from billing_core.organizations.drivers import SLOPE_DAYS, UsageChange
from billing_core.organizations.forecast import BackTest, Exhaustion, Forecast
from billing_core.values.counts import count_of
from billing_core.values.decimals import EXACT
from components.shared.formats import UNKNOWN, credits_text, day_text, moment

LONGEST_NAME = 60
"""Characters of a name inside a sentence."""

WHOLE = Decimal(1)
TENTH = Decimal("0.1")


def percent(share: Decimal | Fraction) -> str:
    """A share as percent: `0.0912` → `9.1 %`, `0.42` → `42 %`."""
    value = Decimal(share.numerator) / Decimal(share.denominator) * 100 if isinstance(share, Fraction) else share * 100
    places = TENTH if abs(value) < 10 else WHOLE
    text = f"{value.quantize(places, ROUND_HALF_EVEN):,}"
    return f"{text.removesuffix('.0')} %".replace("-", "−")


def interval_text(found: Forecast) -> str:
    """The 80 % interval of the sum at the period's end, in words."""
    if found.low == found.high:
        return "no day of the history differed from the weekly pattern"
    return f"80 % likely between {credits_text(found.low)} and {credits_text(found.high)}"


def period_text(found: Forecast, zone: ZoneInfo) -> str:
    """When the period ends, in the reporting timezone."""
    return f"The period ends at {moment(found.asked.period_end, zone)[:16]} {zone.key}."


def exhaustion_text(exhaustion: Exhaustion | None, included: int | None) -> tuple[str, str]:
    """When the included credits will be used up, as a headline and a sentence."""
    if exhaustion is None or included is None:
        return UNKNOWN, "No plan limit is known."
    limit = f"{included:,} included credits"
    if exhaustion.already:
        return "already", f"The {limit} are used up."
    if exhaustion.early is None:
        return "not in this period", f"The {limit} last until the period ends."
    early = day_text(exhaustion.early)
    if exhaustion.expected is None:
        return "probably not", f"The {limit} probably last; with high usage they run out on {early}."
    late = "not before the period ends" if exhaustion.late is None else f"as late as {day_text(exhaustion.late)}"
    return day_text(exhaustion.expected), f"The {limit} may run out as early as {early}, or {late}."


def error_text(tested: BackTest) -> str:
    """The error of earlier forecasts of this kind, in words."""
    if tested.error is None:
        return "There is not enough history to back-test this forecast, so its error is unknown."
    return (
        f"In back-tests 7-day sums were off by {percent(tested.error)} on average ({count_of(tested.origins, 'test')})."
    )


def driver_text(slope: UsageChange | None) -> str:
    """What drives a change of credits, in one sentence."""
    days = f"the last {SLOPE_DAYS} complete days"
    if slope is None:
        return f"No change of 10 % or more in {days} compared with the {SLOPE_DAYS} before."
    driver = slope.driver
    kind = driver.dimension
    named = f"events without a {kind}" if driver.value is None else f"{kind} {_called(driver.name, driver.value)}"
    moved = "rose" if slope.change > 0 else "fell"
    size = "from nothing" if slope.relative is None else f"by {percent(abs(slope.relative))}"
    return (
        f"Credits of {days} {moved} {size} compared with the {SLOPE_DAYS} before, from "
        f"{credits_text(slope.before)} to {credits_text(slope.now)}. Main driver: {named}, {percent(slope.share)} of "
        "the change."
    )


def _called(name: str | None, value: str) -> str:
    return f"{_short(name)} ({_short(value)})" if name and name != value else _short(value)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"


def forecast_rows(found: Forecast, shown: int) -> dict[str, list[str]]:
    """The days of a forecast as a table: the last `shown` of those that were, and those expected."""
    question = found.asked
    first = max(0, len(question.days) - shown)
    past = [(question.day(at), question.days[at]) for at in range(first, len(question.days))]
    return {
        "Day": [day.isoformat() for day, _ in past] + [one.day.isoformat() for one in found.days],
        "Credits": [credits_text(value) for _, value in past] + [""] * len(found.days),
        "Expected": [""] * len(past) + [credits_text(one.credits) for one in found.days],
        "Low": [""] * len(past) + [credits_text(one.low) for one in found.days],
        "High": [""] * len(past) + [credits_text(one.high) for one in found.days],
    }


def sums_so_far(found: Forecast) -> list[tuple[str, Decimal]]:
    """The sum of the period at the end of each of its days so far, counted back from what is used now.

    A period may begin in the middle of a day: what it brought before is not part of the first sum.
    """
    question = found.asked
    start = question.period_start
    if start is None:
        return []
    first = start.astimezone(question.zone).date()
    after = EXACT.subtract(question.used, question.today)
    sums = []
    for at in range(len(question.days) - 1, -1, -1):
        if question.day(at) < first:
            break
        sums.append((question.day(at).isoformat(), max(after, Decimal(0))))
        after = EXACT.subtract(after, question.days[at])
    return sums[::-1]


def sum_rows(found: Forecast) -> dict[str, list[str]]:
    """The period's sum per day as a table, as it was and as it is expected."""
    past = sums_so_far(found)

    def column(pick: str) -> list[str]:
        return [""] * len(past) + [credits_text(getattr(one, pick)) for one in found.days]

    return {
        "Day": [day for day, _ in past] + [one.day.isoformat() for one in found.days],
        "Used": [credits_text(value) for _, value in past] + [""] * len(found.days),
        "Expected": column("sum_credits"),
        "Low": column("sum_low"),
        "High": column("sum_high"),
    }
