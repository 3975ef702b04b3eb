"""The table beside a chart: its figures as columns of text, the same on every page. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from billing_core.types import Credits
from billing_core.usage_events.model import BreakdownRow, Summary
from billing_core.usage_events.ranking import Ranking, added
from components.shared.colours import CREDIT_PARTS
from components.shared.formats import count, credits_text, usd

FIGURE_COLUMNS = (*(part.label for part in CREDIT_PARTS), "Total credits", "Events")
"""Columns of `slice_rows`: all of them figures."""


READ = 2_000
"""Slices of a breakdown read at most; what is beyond is in "all others" too, as the difference to the total."""


def credit_cells(amounts: Sequence[Credits]) -> dict[str, list[str]]:
    """Columns with credits by type and their total, a row each."""
    return {
        **{part.label: [credits_text(getattr(held, part.field)) for held in amounts] for part in CREDIT_PARTS},
        "Total credits": [credits_text(held.total) for held in amounts],
    }


def slice_rows(slices: Sequence[BreakdownRow]) -> dict[str, list[str]]:
    """The figures of breakdown rows as columns of text."""
    return {**credit_cells([one.credits for one in slices]), "Events": [count(one.events) for one in slices]}


def day_rows(summary: Summary) -> dict[str, list[str]]:
    """Credits, amounts and events per day with any, as columns of text."""
    days = summary.days
    return {
        "Day": [day.day.isoformat() for day in days],
        **credit_cells([day.totals.credits for day in days]),
        "Amount": [usd(day.totals.amount_usd) for day in days],
        "Events": [count(day.events) for day in days],
    }


def sums_of(slices: Sequence[BreakdownRow], ranked: Ranking) -> list[Decimal]:
    """What a breakdown adds up to in credits: every slice read, or, of one too long to read whole, what is shown."""
    return [added(slices).total] if len(slices) < READ else [one.credits.total for one in ranked.rows]


def others_text(kind: str, slices: Sequence[BreakdownRow], ranked: Ranking) -> str | None:
    """What the bars of a ranking leave out, so that it still accounts for every credit."""
    if ranked.others is None:
        return None
    hidden = f"{len(slices) - len(ranked.largest):,}" if len(slices) < READ else "many"
    return f"All others ({hidden} {kind}): {credits_text(ranked.others.credits.total)} credits"
