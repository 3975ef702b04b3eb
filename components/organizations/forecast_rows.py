"""Tables of a forecast. Pure."""

from __future__ import annotations

from decimal import Decimal

from billing_core.organizations.forecast import Forecast
from billing_core.values.decimals import EXACT
from components.shared.formats import short_credits


def forecast_rows(found: Forecast, shown: int) -> dict[str, list[str]]:
    """The days of a forecast as a table: the last `shown` of those that were, and those expected."""
    question = found.asked
    first = max(0, len(question.days) - shown)
    past = [(question.day(at), question.days[at]) for at in range(first, len(question.days))]
    return {
        "Day": [day.isoformat() for day, _ in past] + [one.day.isoformat() for one in found.days],
        "Credits": [short_credits(value) for _, value in past] + [""] * len(found.days),
        "Expected": [""] * len(past) + [short_credits(one.credits) for one in found.days],
        "Low": [""] * len(past) + [short_credits(one.low) for one in found.days],
        "High": [""] * len(past) + [short_credits(one.high) for one in found.days],
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
        return [""] * len(past) + [short_credits(getattr(one, pick)) for one in found.days]

    return {
        "Day": [day for day, _ in past] + [one.day.isoformat() for one in found.days],
        "Used": [short_credits(value) for _, value in past] + [""] * len(found.days),
        "Expected": column("sum_credits"),
        "Low": column("sum_low"),
        "High": column("sum_high"),
    }
