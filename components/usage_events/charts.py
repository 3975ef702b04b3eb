"""Charts of the Usage Events page: numbers in, Plotly out. Pure; imports Plotly only when called.

Text from outside reaches Plotly escaped, because Plotly reads tags in labels. What a click stands for travels in
`customdata`, never in a label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING

from billing_core.usage_events.model import BreakdownRow
from billing_core.usage_events.ranking import Ranking
from billing_core.usage_events.totals import DayTotals
from components.shared.chart import base_figure
from components.shared.colours import CREDIT_PARTS, HEAT, RANKED
from components.shared.formats import percent, short_credits
from components.usage_events.credit_rows import BEFORE

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")

NAMELESS = "unknown"
"""What stands for a value that no event named."""

FEW_DAYS = 10
"""Up to so many days each has its own mark on the axis; beyond, Plotly chooses."""

MINIMUM_ROWS = 10
"""Room for bars of a ranking, so that a single one is not as thick as the chart is high."""

LONGEST_LABEL = 28
"""Characters of a name beside a bar; the hover text has it whole."""


def label_of(value: str | None) -> str:
    """A name as a label that Plotly shows literally."""
    return escape(value, quote=False) if value else NAMELESS


def short_label(value: str | None) -> str:
    """A name as a label beside a bar or a line, shown literally and cut where it would take the chart's room."""
    text = value or NAMELESS
    return escape(text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…", quote=False)


def credits_per_day(
    days: Sequence[DayTotals], zone_name: str, theme: str, height: int = 320, earlier: Sequence[DayTotals] = ()
) -> Figure:
    """A chart of stacked bars, one per day of the reporting timezone; a click carries the day. `earlier` days are a
    dotted line, each at the day that it is compared with.
    """
    figure = base_figure(theme, height=height, barmode="stack", bargap=0.15)
    names = [day.day.isoformat() for day in days]
    for part in CREDIT_PARTS:
        values = [getattr(day.totals.credits, part.field) for day in days]
        figure.add_bar(
            name=part.label,
            x=names,
            y=[float(value) for value in values],
            customdata=[[name, short_credits(value)] for name, value in zip(names, values, strict=True)],
            marker_color=part.shade.on(theme),
            hovertemplate="%{customdata[0]}<br>%{fullData.name}: %{customdata[1]} credits<extra></extra>",
        )
    if earlier:
        before = [(day.day.isoformat(), day.totals.credits.total) for day in earlier]
        names = sorted({*names, *(name for name, _ in before)})
        figure.add_scatter(
            name=BEFORE,
            mode="lines+markers",
            x=[name for name, _ in before],
            y=[float(value) for _, value in before],
            customdata=[[name, short_credits(value)] for name, value in before],
            line={"color": RANKED.on(theme), "dash": "dot", "width": 2},
            marker={"size": 4},
            hovertemplate="Compared with %{customdata[0]}: %{customdata[1]} credits<extra></extra>",
        )
    day_axes(figure, names, zone_name)
    return figure


def day_axes(figure: Figure, days: Sequence[str], zone_name: str, title: str = "Credits", period: str = "Day") -> None:
    """Set the axes of a chart: periods of the reporting timezone along the bottom, amounts from zero up the side."""
    figure.update_xaxes(
        type="date",
        tickformat="%-d %b",
        tickvals=days if len(days) <= FEW_DAYS else None,
        fixedrange=True,
        title=f"{period} ({zone_name})",
    )
    figure.update_yaxes(title=title, fixedrange=True, rangemode="tozero")


def top(
    ranking: Ranking,
    theme: str,
    names: Sequence[str] | None = None,
    *,
    height: int = 360,
    has_legend: bool = True,
    before: Sequence[Decimal | None] = (),
) -> Figure:
    """A chart of stacked horizontal bars, the largest on top; a click carries the first of the row's values, and last
    its place.

    "All others" is not a bar: it would often dwarf the ones people came to compare. `names` are the bars' own, where
    the slices' values do not say enough. `before` are the credits each bar is compared with, marked by a line.
    """
    bars = ranking.largest
    called: Sequence[str | None] = [_name(one) for one in bars] if names is None else names
    figure = base_figure(theme, height=height, barmode="stack", bargap=0.25, showlegend=has_legend)
    places = list(range(len(bars)))
    for part in CREDIT_PARTS:
        values = [getattr(one.credits, part.field) for one in bars]
        figure.add_bar(
            name=part.label,
            orientation="h",
            y=places,
            x=[float(value) for value in values],
            customdata=[
                [one.values[0], short_credits(amount), label_of(name), f"{one.events:,}", place]
                for place, one, name, amount in zip(places, bars, called, values, strict=True)
            ],
            marker_color=part.shade.on(theme),
            hovertemplate=(
                "%{customdata[2]}<br>%{fullData.name}: %{customdata[1]} credits<br>%{customdata[3]} events"
                "<extra></extra>"
            ),
        )
    if known := [(place, value) for place, value in zip(places, before, strict=False) if value is not None]:
        figure.add_scatter(
            name=BEFORE,
            mode="markers",
            y=[place for place, _ in known],
            x=[float(value) for _, value in known],
            customdata=[
                [bars[place].values[0], short_credits(value), label_of(called[place]), "", place]
                for place, value in known
            ],
            marker={"symbol": "line-ns", "size": 14, "line": {"color": RANKED.on(theme), "width": 2}},
            hovertemplate="%{customdata[2]}<br>Before: %{customdata[1]} credits<extra></extra>",
        )
    figure.update_yaxes(
        tickvals=places,
        ticktext=[short_label(name) for name in called],
        range=[max(MINIMUM_ROWS, len(bars)) - 0.5, -0.5],
        showgrid=False,
        fixedrange=True,
        automargin=True,
    )
    figure.update_xaxes(title="Credits", fixedrange=True, rangemode="tozero")
    return figure


def _name(one: BreakdownRow) -> str | None:
    """The most telling of a slice's values: a chatflow's name before its id."""
    return next((value for value in reversed(one.values) if value), None)


@dataclass(frozen=True, slots=True)
class Area:
    """An area of a tree map: its id and its parent's (`all` at the top), its name as Plotly shows it, the credits that
    it holds outside of the areas within it, and all that it holds.
    """

    id: str
    parent: str
    label: str
    own: Decimal
    whole: Decimal


def area_tree(areas: Sequence[Area], others: BreakdownRow | None, theme: str, *, levels: int = -1) -> Figure:
    """A tree map of areas within areas, the darker the more they hold; "all others" beside them.

    With `levels`, only so many are shown at once; a click looks into an area, and a bar above it leads back.
    """
    nodes = [Area("all", "", "All", Decimal(0), Decimal(0)), *areas]
    if others is not None and others.credits.total:
        nodes.append(Area("others", "all", "all others", others.credits.total, others.credits.total))
    whole = sum((node.own for node in nodes), Decimal(0))
    figure = base_figure(theme, height=380)
    figure.add_treemap(
        ids=[node.id for node in nodes],
        labels=[node.label for node in nodes],
        parents=[node.parent for node in nodes],
        values=[float(node.own) for node in nodes],
        customdata=[
            ["", ""]
            if node.id == "all"
            else [short_credits(node.whole), percent(node.whole / whole if whole else None)]
            for node in nodes
        ],
        branchvalues="remainder",
        pathbar={"visible": levels > 0},
        maxdepth=levels,
        tiling={"pad": 2},
        marker={
            "colors": [0.0 if node.id in {"all", "others"} else float(node.whole) for node in nodes],
            "colorscale": [list(step) for step in HEAT[theme == "dark"]],
            "cmin": 0,
            "cmax": max([float(area.whole) for area in areas] + [0.000001]),
            "line": {"width": 1, "color": RANKED.on(theme)},
        },
        texttemplate="%{label}<br>%{customdata[0]}",
        hovertemplate="%{label}<br>%{customdata[0]} credits, %{customdata[1]} of all<extra></extra>",
    )
    return figure


def hour_of_week(held: Mapping[tuple[int, int], Decimal], zone_name: str, theme: str, height: int = 360) -> Figure:
    """A heat map of credits by weekday and hour of the reporting timezone."""
    figure = base_figure(theme, height=height)
    rows = [[held.get((weekday, hour)) for hour in range(24)] for weekday in range(7)]
    figure.add_heatmap(
        x=list(range(24)),
        y=list(WEEKDAYS),
        z=[[None if value is None else float(value) for value in row] for row in rows],
        customdata=[["none" if value is None else short_credits(value) for value in row] for row in rows],
        colorscale=[list(step) for step in HEAT[theme == "dark"]],
        zmin=0,
        zmax=max([float(value) for value in held.values()], default=1.0),
        xgap=1,
        ygap=1,
        colorbar={"title": {"text": "Credits"}, "thickness": 12},
        hovertemplate="%{y}, %{x}:00–%{x}:59<br>%{customdata} credits<extra></extra>",
    )
    figure.update_xaxes(title=f"Hour of the day ({zone_name})", dtick=3, fixedrange=True, showgrid=False)
    figure.update_yaxes(autorange="reversed", fixedrange=True, showgrid=False)
    return figure
