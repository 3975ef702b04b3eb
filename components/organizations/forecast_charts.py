"""Charts of a forecast: days, and the period's sum against its limit. Pure; imports Plotly only when called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from billing_core.organizations.forecast import Forecast, ForecastInput
from components.organizations.forecast_rows import sums_so_far
from components.shared.chart import base_figure
from components.shared.colours import Shade
from components.shared.formats import short_credits

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SHOWN_DAYS = 56
"""Past days in the chart: eight weeks of rhythm; the forecast looks at more."""

USED = Shade("#0072B2", "#56B4E9")
EXPECTED = Shade("#B4540A", "#F2A24E")
BAND = Shade("rgba(180,84,10,0.20)", "rgba(242,162,78,0.25)")
LIMIT = Shade("#0F1720", "#E6EBF0")


def _base(theme: str, zone_name: str) -> Figure:
    figure = base_figure(theme, height=300, bargap=0.15)
    figure.update_xaxes(type="date", tickformat="%-d %b", fixedrange=True, title=f"Day ({zone_name})")
    figure.update_yaxes(title="Credits", fixedrange=True, rangemode="tozero")
    return figure


def _past_bars(figure: Figure, question: ForecastInput, theme: str) -> None:
    first = max(0, len(question.days) - SHOWN_DAYS)
    days = [question.day(at).isoformat() for at in range(first, len(question.days))]
    values = question.days[first:]
    figure.add_bar(
        name="Used",
        x=days,
        y=[float(value) for value in values],
        customdata=[[day, short_credits(value)] for day, value in zip(days, values, strict=True)],
        marker_color=USED.on(theme),
        hovertemplate="%{customdata[0]}<br>used: %{customdata[1]} credits<extra></extra>",
    )


def history_figure(question: ForecastInput, theme: str) -> Figure:
    """A chart of the days so far, where a forecast is not possible."""
    figure = _base(theme, question.zone.key)
    _past_bars(figure, question, theme)
    return figure


def days_figure(found: Forecast, theme: str) -> Figure:
    """A chart of credits per day: bars of what was, a line in its interval of what is expected; the last day may be a
    part.
    """
    figure = _base(theme, found.asked.zone.key)
    _past_bars(figure, found.asked, theme)
    days = [one.day.isoformat() for one in found.days]
    _ahead(figure, days, [(one.low, one.credits, one.high) for one in found.days], theme)
    return figure


def sum_figure(found: Forecast, theme: str) -> Figure:
    """A chart of the period's sum at the end of each day: as it was, as it is expected, and the limit."""
    figure = _base(theme, found.asked.zone.key)
    past = sums_so_far(found)
    days = [one.day.isoformat() for one in found.days]
    figure.add_scatter(
        name="Used",
        x=[day for day, _ in past],
        y=[float(value) for _, value in past],
        customdata=[[day, short_credits(value)] for day, value in past],
        mode="lines+markers",
        marker={"size": 4},
        line={"color": USED.on(theme), "width": 2},
        hovertemplate="%{customdata[0]}<br>used so far: %{customdata[1]} credits<extra></extra>",
    )
    _ahead(figure, days, [(one.sum_low, one.sum_credits, one.sum_high) for one in found.days], theme)
    included = found.asked.included
    if included is not None:
        figure.add_scatter(
            name="Included",
            x=[past[0][0] if past else days[0], days[-1]],
            y=[included, included],
            mode="lines",
            line={"color": LIMIT.on(theme), "width": 2, "dash": "dash"},
            hovertemplate=f"included: {included:,} credits<extra></extra>",
        )
    return figure


def _ahead(figure: Figure, days: list[str], values: list[tuple[Any, Any, Any]], theme: str) -> None:
    """A line with its interval as an area around it."""
    texts = [[day, *map(short_credits, three)] for day, three in zip(days, values, strict=True)]
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "x": days}
    figure.add_scatter(name="high", y=[float(high) for _, _, high in values], showlegend=False, **edge)
    figure.add_scatter(
        name="80 % interval", y=[float(low) for low, _, _ in values], fill="tonexty", fillcolor=BAND.on(theme), **edge
    )
    figure.add_scatter(
        name="Expected",
        x=days,
        y=[float(middle) for _, middle, _ in values],
        customdata=texts,
        mode="lines+markers",
        marker={"size": 5, "symbol": "diamond"},
        line={"color": EXPECTED.on(theme), "width": 2, "dash": "dot"},
        hovertemplate="%{customdata[0]}<br>expected: %{customdata[2]} credits<br>"
        "80 % interval: %{customdata[1]} to %{customdata[3]}<extra></extra>",
    )
