"""Header figures as tiles: a figure, its change, and its exact value as help."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import streamlit as st

TILE_PIXELS = 150
"""Two beside each other on a phone."""

SPARKLINE_PIXELS = 28


@dataclass(frozen=True, slots=True)
class TileLink:
    """A link below a figure: what it says, the page, and the parameters that show exactly what the figure counts."""

    label: str
    page: str
    query: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MetricTile:
    """A header figure as texts: `value` rounded for the eye, `exact` in full, `moved` against what it is compared with
    (or `None`).

    `before` is the exact value of that period, `against` its days in words. `points` draw a sparkline, one bar
    each; `growth_is_bad` colours a rise; `show` is what a click on "Show" does: the view of exactly what the figure
    counts.
    """

    label: str
    value: str
    exact: str
    meaning: str
    moved: str | None = None
    before: str | None = None
    against: str = ""
    points: Sequence[float] = ()
    growth_is_bad: bool = False
    link: TileLink | None = None
    show: Callable[[], None] | None = None


def metric_tiles(tiles: Sequence[MetricTile], *, key: str, pixels: int = TILE_PIXELS) -> None:
    """Draw tiles, as many side by side as the screen holds; each is at least `pixels` wide."""
    grid = st.grid("auto", min_column_width=pixels, key=key)
    for tile in tiles:
        with grid.container(border=True, height="stretch", gap="xsmall"):
            st.metric(
                tile.label,
                tile.value,
                delta=tile.moved,
                delta_color=_colour(tile),
                delta_arrow=_ARROWS.get(tile.moved[0], "off") if tile.moved else "off",
                help=_explained(tile),
            )
            with st.container(horizontal=True, vertical_alignment="center", wrap=False, border=False):
                if len(tile.points) > 1:
                    st.html(sparkline(tile.points))
                if tile.show is not None:
                    st.button("Show", type="tertiary", key=f"show-{key}-{tile.label}", on_click=tile.show)
            if tile.link is not None:
                icon = ":material/arrow_outward:"
                st.page_link(tile.link.page, label=tile.link.label, icon=icon, query_params=tile.link.query)


def sparkline(points: Sequence[float]) -> str:
    """A small bar chart as HTML, decoration beside a figure that is written out.

    Streamlit's own would make every first visit load Vega, 0.8 MB, before the table is drawn; `st.html` takes no SVG.
    """
    top, bottom = max(0.0, *points), min(0.0, *points)
    span = (top - bottom) or 1.0
    bars = "".join(
        f'<div style="flex:1;background:currentColor;height:{abs(value) / span * SPARKLINE_PIXELS:.1f}px;'
        f'margin-top:{(top - max(value, 0.0)) / span * SPARKLINE_PIXELS:.1f}px"></div>'
        for value in points
    )
    style = f"display:flex;align-items:flex-start;gap:1px;height:{SPARKLINE_PIXELS}px;opacity:0.35"
    return f'<div aria-hidden="true" style="{style}">{bars}</div>'


def _explained(tile: MetricTile) -> str:
    compared = "" if tile.moved is None else f" Compared with {tile.against}"
    if compared:
        compared += "." if tile.before is None else f", which had {tile.before}."
    return f"{tile.meaning} Exactly: {tile.exact}.{compared}".replace("$", r"\$")


_ARROWS: dict[str, Literal["up", "down"]] = {"+": "up", "−": "down"}


def _colour(tile: MetricTile) -> Literal["red", "gray", "blue"]:
    """More credits is neither good nor bad news; more errors is bad."""
    if not tile.growth_is_bad:
        return "blue"
    return "red" if tile.moved is not None and tile.moved.startswith("+") else "gray"
