"""Answers to questions about usage events: header figures, and rows of a breakdown."""

from __future__ import annotations

from dataclasses import dataclass

from billing_core.types import Credits
from billing_core.usage_events.totals import DayTotals, Sums


@dataclass(frozen=True, slots=True)
class Summary:
    """Header figures of a selection; `previous` is the equally long period before, if the window is bounded.

    `ties_out` says whether the days, which charts draw, add up to the sums over the rows, which the table shows.
    """

    totals: Sums
    days: tuple[DayTotals, ...]
    previous: Sums | None
    ties_out: bool


@dataclass(frozen=True, slots=True)
class BreakdownRow:
    """Credits of one combination of breakdown values (`None`: unknown)."""

    values: tuple[str | None, ...]
    events: int
    credits: Credits
