"""The header figures: which there are, in which unit, how they changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import partial
from zoneinfo import ZoneInfo

from billing_core.types import SyncStatus
from billing_core.usage_events.model import Summary
from billing_core.usage_events.totals import Sums
from components.shared.comparison import days_text
from components.shared.formats import NOTHING_EARLIER, change, compact, count, exact
from components.shared.metric_tiles import MetricTile, metric_tiles
from components.usage_events.state import show_statuses

Figure = Decimal | int | None


@dataclass(frozen=True, slots=True)
class Tile:
    """A header figure; `exact` writes its whole value for the help text, `growth_is_bad` colours a rise.
    `statuses` are those of the events that it counts, where it does not count all.
    """

    label: str
    value: Callable[[Sums], Figure]
    exact: Callable[..., str]
    meaning: str
    prefix: str = ""
    growth_is_bad: bool = False
    statuses: tuple[SyncStatus, ...] = ()


TILES = (
    Tile(
        "Credits",
        lambda sums: sums.totals.credits.total,
        lambda value: f"{exact(value)} credits",
        "AI token, compute and storage credits of all events matching this filter.",
    ),
    Tile(
        "Amount",
        lambda sums: sums.totals.amount_usd,
        lambda value: f"{exact(value)} US dollars",
        "Credits times the credit price of the rate card each event was rated with.",
        prefix="$",
    ),
    Tile(
        "Events", lambda sums: sums.events, lambda value: f"{count(value)} events", "One event is one Langfuse trace."
    ),
    Tile(
        "Tokens",
        lambda sums: sums.totals.tokens_total,
        lambda value: "unknown: no event reports tokens" if value is None else f"{count(value)} tokens",
        "Input, output, cache and reasoning tokens, as reported by Langfuse.",
    ),
    Tile(
        "Not yet in Stripe",
        lambda sums: sums.unsynced_credits,
        lambda value: f"{exact(value)} credits",
        "Credits of events that Stripe has not accepted yet: pending, sending or in error.",
        growth_is_bad=True,
        statuses=(SyncStatus.PENDING, SyncStatus.SENDING, SyncStatus.ERROR),
    ),
    Tile(
        "Errors",
        lambda sums: sums.errors,
        lambda value: f"{count(value)} events",
        "Events that Stripe rejected or that cannot be sent; the table says why for each.",
        growth_is_bad=True,
        statuses=(SyncStatus.ERROR,),
    ),
)


def comparison(tile: Tile, summary: Summary) -> str | None:
    """The change shown under a figure; `None` where it is compared with nothing."""
    if summary.previous is None:
        return None
    if summary.previous.events == 0:
        return NOTHING_EARLIER
    return change(tile.value(summary.totals), tile.value(summary.previous))


def daily_points(tile: Tile, summary: Summary) -> list[float]:
    """The values of a figure per day from the first with events to the last; the summary leaves out days without
    any.
    """
    if not summary.days:
        return []
    values = {day.day: float(tile.value(day) or 0) for day in summary.days}
    first, last = summary.days[0].day, summary.days[-1].day
    return [values.get(first + timedelta(days=n), 0.0) for n in range((last - first).days + 1)]


def kpi_tiles(summary: Summary, zone: ZoneInfo) -> None:
    """Draw six header figures as tiles, as many side by side as the screen holds."""
    metric_tiles([_tile(tile, summary, zone) for tile in TILES], key="kpi-tiles")


def _tile(tile: Tile, summary: Summary, zone: ZoneInfo) -> MetricTile:
    value, before = tile.value(summary.totals), summary.previous
    return MetricTile(
        label=tile.label,
        value=compact(value, prefix=tile.prefix),
        exact=tile.exact(value),
        meaning=tile.meaning,
        moved=comparison(tile, summary),
        before=tile.exact(tile.value(before)) if before is not None and before.events else None,
        against=days_text(summary.previous_window, zone),
        points=daily_points(tile, summary),
        growth_is_bad=tile.growth_is_bad,
        show=partial(show_statuses, tile.statuses) if tile.statuses and value else None,
    )
