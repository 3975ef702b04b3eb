"""The table beside a chart: its figures as columns of text, the same on every page. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from billing_core.types import Credits
from billing_core.usage_events.model import BreakdownRow, Summary
from billing_core.usage_events.ranking import Ranking, added
from billing_core.values.decimals import EXACT, exact_sum
from components.shared.colours import CREDIT_PARTS
from components.shared.formats import change, count, short_credits, short_usd

FIGURE_COLUMNS = (*(part.label for part in CREDIT_PARTS), "Total credits", "Events")
"""Columns of `slice_rows`: all of them figures."""


NO_CREDITS = Credits(ai_tokens=Decimal(0), compute=Decimal(0), storage=Decimal(0), total=Decimal(0))

BEFORE = "Before"
"""What figures are compared with, in legends and tables."""

COMPARED = (BEFORE, "Change")
"""Columns of `compared_cells`."""

READ = 2_000
"""Slices of a breakdown read at most; what is beyond is in "all others" too, as the difference to the total."""


def credit_cells(amounts: Sequence[Credits]) -> dict[str, list[str]]:
    """Columns with credits by type and their total, a row each."""
    return {
        **{part.label: [short_credits(getattr(held, part.field)) for held in amounts] for part in CREDIT_PARTS},
        "Total credits": [short_credits(held.total) for held in amounts],
    }


def slice_rows(slices: Sequence[BreakdownRow]) -> dict[str, list[str]]:
    """The figures of breakdown rows as columns of text."""
    return {**credit_cells([one.credits for one in slices]), "Events": [count(one.events) for one in slices]}


def day_rows(summary: Summary) -> dict[str, list[str]]:
    """Credits, amounts and events per day with any, as columns of text; compared days beside them."""
    now = {day.day: day for day in summary.days}
    before = {day.day: day.totals.credits.total for day in summary.previous_days}
    names = sorted({*now, *before})
    days = [now.get(name) for name in names]
    credits_ = [NO_CREDITS if day is None else day.totals.credits for day in days]
    compared = {}
    if before:
        compared = compared_cells([one.total for one in credits_], [before.get(name, Decimal(0)) for name in names])
    return {
        "Day": [name.isoformat() for name in names],
        **credit_cells(credits_),
        "Amount": [short_usd(Decimal(0) if day is None else day.totals.amount_usd) for day in days],
        "Events": [count(0 if day is None else day.events) for day in days],
        **compared,
    }


def compared_cells(now: Sequence[Decimal], before: Sequence[Decimal | None]) -> dict[str, list[str]]:
    """Columns with what credits are compared with and how they changed, a row each."""
    return {
        BEFORE: [short_credits(value) for value in before],
        "Change": [change(value, earlier) for value, earlier in zip(now, before, strict=True)],
    }


def credits_before(slices: Sequence[BreakdownRow], ranked: Ranking, whole: Decimal) -> list[Decimal | None]:
    """The credits that each row of a ranking is compared with, `whole` in all; `slices` are the breakdown of then.

    A slice that is not among the first `READ` of then is unknown, and so is the rest.
    """
    then = {one.values: one.credits.total for one in slices}
    missing = None if len(slices) >= READ else Decimal(0)
    found = [then.get(one.values, missing) for one in ranked.largest]
    known = [value for value in found if value is not None]
    rest = EXACT.subtract(whole, exact_sum(known)) if len(known) == len(found) else None
    return [*found, *([] if ranked.others is None else [rest])]


def sums_of(slices: Sequence[BreakdownRow], ranked: Ranking) -> list[Decimal]:
    """What a breakdown adds up to in credits: every slice read, or, of one too long to read whole, what is shown."""
    return [added(slices).total] if len(slices) < READ else [one.credits.total for one in ranked.rows]


def others_text(kind: str, slices: Sequence[BreakdownRow], ranked: Ranking) -> str | None:
    """What the bars of a ranking leave out, so that it still accounts for every credit."""
    if ranked.others is None:
        return None
    hidden = f"{len(slices) - len(ranked.largest):,}" if len(slices) < READ else "many"
    return f"All others ({hidden} {kind}): {short_credits(ranked.others.credits.total)} credits"
