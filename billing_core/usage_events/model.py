"""Answers to questions about usage events: header figures, and rows of a breakdown."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from billing_core.types import Credits
from billing_core.usage_events.totals import DayTotals, Sums


@dataclass(frozen=True, slots=True)
class Summary:
    """Header figures of a selection; `previous` are those of what it is compared with, if anything.

    `previous_window` is its window, `previous_days` its days, each as the day of this window that it is compared with:
    the first with the first. Without a first day there are none.
    `ties_out` says whether the days, which charts draw, add up to the sums over the rows, which the table shows.
    """

    totals: Sums
    days: tuple[DayTotals, ...]
    previous: Sums | None
    ties_out: bool
    previous_window: tuple[datetime | None, datetime | None] | None = None
    previous_days: tuple[DayTotals, ...] = ()


@dataclass(frozen=True, slots=True)
class BreakdownRow:
    """Credits of one combination of breakdown values (`None`: unknown)."""

    values: tuple[str | None, ...]
    events: int
    credits: Credits
