"""The header figures: what they are, in which unit, how they moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from billing_core.service import DayTotals, Summary
from components.formats import NOTHING_EARLIER, change, compact, count, credits_text, usd

__all__ = ["TILES", "Tile", "comparison", "kpi_tiles", "kpi_tiles_slot"]

Figure = Decimal | int | None

DRAWN = "usage.tiles-drawn"
"""Session state: the tiles were there before, so their old figures stay until the new ones come."""

TILES_PIXELS = 170


@dataclass(frozen=True, slots=True)
class Tile:
    """A header figure; `exact` writes its whole value for the help text, `growth_is_bad` colours a rise."""

    label: str
    value: Callable[[DayTotals], Figure]
    exact: Callable[..., str]
    meaning: str
    prefix: str = ""
    growth_is_bad: bool = False


TILES = (
    Tile(
        "Credits",
        lambda day: day.totals.credits.total,
        lambda value: f"{credits_text(value)} credits",
        "AI token, compute and storage credits of every event of this filter.",
    ),
    Tile(
        "Amount",
        lambda day: day.totals.amount_usd,
        lambda value: f"{usd(value)} US dollars",
        "Credits times the credit price of the rate card each event was rated with.",
        prefix="$",
    ),
    Tile("Events", lambda day: day.events, lambda value: f"{count(value)} events", "One event is one Langfuse trace."),
    Tile(
        "Tokens",
        lambda day: day.totals.tokens_total,
        lambda value: "unknown: no event names any" if value is None else f"{count(value)} tokens",
        "Input, output, cache and reasoning tokens, as far as Langfuse knows them.",
    ),
    Tile(
        "Unsynced credits",
        lambda day: day.unsynced_credits,
        lambda value: f"{credits_text(value)} credits",
        "Credits of events that Stripe has not accepted yet: pending, sending or in error.",
        growth_is_bad=True,
    ),
    Tile(
        "Errors",
        lambda day: day.errors,
        lambda value: f"{count(value)} events",
        "Events that Stripe rejected or that cannot be sent; the table says why for each.",
        growth_is_bad=True,
    ),
)


def comparison(tile: Tile, summary: Summary) -> str | None:
    """What stands under the figure; `None` where the period has no beginning and so nothing before it."""
    if summary.previous is None:
        return None
    if summary.previous.events == 0:
        return NOTHING_EARLIER
    now = tile.value(summary.totals) if summary.totals else 0
    return change(now, tile.value(summary.previous))


def kpi_tiles_slot() -> DeltaGenerator:
    """A place above the table for tiles that are drawn after it; before the first drawing, their skeleton."""
    slot = st.container()
    if not st.session_state.get(DRAWN):
        return slot.skeleton(height=TILES_PIXELS)
    return slot


def kpi_tiles(summary: Summary, slot: DeltaGenerator) -> None:
    """Six tiles, as many beside each other as the screen holds."""
    st.session_state[DRAWN] = True
    grid = slot.container().grid("auto", min_column_width=150, key="kpi-tiles")
    for tile in TILES:
        value = tile.value(summary.totals) if summary.totals else 0
        moved = comparison(tile, summary)
        points = [tile.value(day) for day in summary.days]
        grid.metric(
            tile.label,
            compact(value, prefix=tile.prefix),
            delta=moved,
            delta_color=_colour(tile, moved),
            delta_arrow="auto" if moved and moved[0] in "+−" else "off",
            delta_description="vs. the period before" if moved and moved[0] in "+−" else None,
            help=f"{tile.meaning} Exactly: {tile.exact(value)}.".replace("$", r"\$"),
            border=True,
            height="stretch",
            chart_data=[float(point or 0) for point in points] if len(points) > 1 else None,
            chart_type="bar",
        )


def _colour(tile: Tile, moved: str | None) -> Literal["inverse", "blue", "gray"]:
    if moved is None or moved[0] not in "+−":
        return "gray"
    return "inverse" if tile.growth_is_bad else "blue"
