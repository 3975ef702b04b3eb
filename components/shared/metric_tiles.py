"""Header figures as tiles: a figure, its change, and its exact value as help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import streamlit as st

TILE_PIXELS = 150
"""Two beside each other on a phone."""


@dataclass(frozen=True, slots=True)
class MetricTile:
    """A header figure as texts: `value` rounded for the eye, `exact` in full, `moved` against the period before (or
    `None`).

    `before` is the exact value of that period. `points` draw a little chart, one bar each; `growth_is_bad` colours a
    rise.
    """

    label: str
    value: str
    exact: str
    meaning: str
    moved: str | None = None
    before: str | None = None
    points: Sequence[float] = ()
    growth_is_bad: bool = False


def metric_tiles(tiles: Sequence[MetricTile], *, key: str) -> None:
    """Draw tiles, as many side by side as the screen holds."""
    grid = st.grid("auto", min_column_width=TILE_PIXELS, key=key)
    for tile in tiles:
        grid.metric(
            tile.label,
            tile.value,
            delta=tile.moved,
            delta_color=_colour(tile),
            delta_arrow=_ARROWS.get(tile.moved[0], "off") if tile.moved else "off",
            help=_explained(tile),
            border=True,
            height="stretch",
            chart_data=list(tile.points) if len(tile.points) > 1 else None,
            chart_type="bar",
        )


def _explained(tile: MetricTile) -> str:
    compared = "" if tile.moved is None else " Compared with the previous period of equal length"
    if compared:
        compared += "." if tile.before is None else f", which had {tile.before}."
    return f"{tile.meaning} Exactly: {tile.exact}.{compared}".replace("$", r"\$")


_ARROWS: dict[str, Literal["up", "down"]] = {"+": "up", "−": "down"}


def _colour(tile: MetricTile) -> Literal["red", "gray", "blue"]:
    """More credits is neither good nor bad news; more errors is bad."""
    if not tile.growth_is_bad:
        return "blue"
    return "red" if tile.moved is not None and tile.moved.startswith("+") else "gray"
