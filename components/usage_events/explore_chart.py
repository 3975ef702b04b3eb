"""Explore: the chart of an answer. Pure; imports Plotly only when called. A click carries the number of the row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing_core.usage_events.explore_model import Exploration
from components.shared.chart import base_figure
from components.shared.colours import RANKED, SERIES
from components.usage_events.charts import day_axes, label_of, short_label
from components.usage_events.explore_rows import Series, axis_title, figure_text, series

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PATTERNS, DASHES = ("", "/", "x", "."), ("solid", "dash", "dot", "dashdot")
"""What tells groups of one colour apart where there are more groups than colours."""

BAR_PIXELS, LEAST_PIXELS, MOST_PIXELS = 26, 220, 620


def explore_chart(found: Exploration, theme: str, *, lines: bool) -> Figure:
    """Groups over periods as stacked bars or as lines; without periods as bars beside each other's names."""
    groups = series(found)
    if found.question.grain is None:
        return _bars(found, groups, theme)
    figure = base_figure(theme, height=380, barmode=_barmode(found), bargap=0.15)
    periods = sorted({place for group in groups for place in group.rows})
    for number, group in enumerate(groups):
        figure.add_trace(
            {
                "type": "scatter" if lines else "bar",
                **_drawn(found, group, number, theme, lines=lines),
                "x": list(group.rows),
                "y": [_height(found, row) for row in group.rows.values()],
                "hovertemplate": "%{x}<br>%{customdata[1]}: %{customdata[2]}<extra></extra>",
            }
        )
    day_axes(figure, periods, found.zone, axis_title(found.question.metric), found.question.grain.capitalize())
    return figure


def _bars(found: Exploration, groups: list[Series], theme: str) -> Figure:
    places = list(dict.fromkeys(place for group in groups for place in group.rows))
    height = min(MOST_PIXELS, max(LEAST_PIXELS, 90 + BAR_PIXELS * len(places)))
    figure = base_figure(theme, height=height, barmode=_barmode(found), bargap=0.25)
    for number, group in enumerate(groups):
        figure.add_trace(
            {
                "type": "bar",
                "orientation": "h",
                **_drawn(found, group, number, theme),
                "y": [places.index(place) for place in group.rows],
                "x": [_height(found, row) for row in group.rows.values()],
                "hovertemplate": "%{customdata[1]}: %{customdata[2]}<extra></extra>",
            }
        )
    figure.update_yaxes(
        tickvals=list(range(len(places))),
        ticktext=[short_label(place) for place in places],
        range=[len(places) - 0.5, -0.5],
        showgrid=False,
        fixedrange=True,
        automargin=True,
    )
    figure.update_xaxes(title=axis_title(found.question.metric), fixedrange=True, rangemode="tozero")
    figure.update_layout(showlegend=len(found.question.by) > 1)
    return figure


def _barmode(found: Exploration) -> str:
    """Bars stand on each other only where their sum means something."""
    return "relative" if found.question.is_additive else "group"


def _drawn(found: Exploration, group: Series, number: int, theme: str, *, lines: bool = False) -> dict[str, object]:
    colour = (RANKED if group.is_rest else SERIES[number % len(SERIES)]).on(theme)
    turn, metric = number // len(SERIES) % len(PATTERNS), found.question.metric
    looks: dict[str, object] = {"marker": {"color": colour, "pattern": {"shape": PATTERNS[turn]}}}
    if lines:
        looks = {"mode": "lines+markers", "line": {"color": colour, "dash": DASHES[turn]}}
    return {
        "name": short_label(group.name),
        **looks,
        "customdata": [
            [row, label_of(group.name), figure_text(metric, found.rows[row].value)] for row in group.rows.values()
        ],
    }


def _height(found: Exploration, row: int) -> float | None:
    value = found.rows[row].value
    return None if value is None else float(value)
