"""Charts of the Organization Stats page: numbers in, Plotly out. Pure; imports Plotly only when called.

Text from outside reaches Plotly escaped. What a click stands for travels in `customdata`, never in a label.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from decimal import Decimal
from functools import reduce
from typing import TYPE_CHECKING, Any

from billing_core.organizations.figures import OrganizationFigures
from billing_core.organizations.service import ActiveUsers
from billing_core.organizations.table import label
from billing_core.usage_events.model import BreakdownRow
from billing_core.values.decimals import EXACT
from components.shared.chart import base_figure
from components.shared.colours import RANKED, SERIES
from components.shared.formats import UNKNOWN, short_credits
from components.usage_events.charts import Area, area_tree, day_axes, label_of, short_label

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

ALL_OTHERS = "all others"

OTHERS_CLICK = "others"
"""What a bar of several organizations carries: it leads nowhere."""

TREE_LEVELS = 3
"""Shown at once: everything, organizations, chatflows. Models are too small until somebody looks into a chatflow."""

WEEK = 7

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
"""Lines differ in more than colour."""


@dataclass(frozen=True, slots=True)
class TrendLine:
    """A line of a trend: credits per day of one organization (`is_others`: of several together)."""

    organization_id: str | None
    daily: tuple[Decimal, ...]
    is_others: bool = False


@dataclass(frozen=True, slots=True)
class Trend:
    """The credits per day of the largest organizations and of the rest: together every credit of the period."""

    days: tuple[str, ...]
    lines: tuple[TrendLine, ...]


def day_names(first_day: str | None, length: int) -> list[str]:
    """Consecutive days in ISO format."""
    if first_day is None:
        return []
    first = date.fromisoformat(first_day)
    return [(first + timedelta(days=n)).isoformat() for n in range(length)]


def trend_of(organizations: Sequence[OrganizationFigures], first_day: str | None, *, shown: int) -> Trend:
    """The trend of the `shown` organizations with most credits; the credits of all others are added up exactly, day by
    day.
    """
    length = max((len(one.daily) for one in organizations), default=0)
    ranked = sorted(organizations, key=lambda one: -one.now.credits.total)
    lines = [TrendLine(one.organization_id, one.daily) for one in ranked[:shown] if any(one.daily)]
    rest = [one.daily for one in ranked[shown:]]
    sums = tuple(reduce(EXACT.add, day, Decimal(0)) for day in zip(*rest, strict=True))
    if any(sums):
        lines.append(TrendLine(None, sums, is_others=True))
    return Trend(tuple(day_names(first_day, length)), tuple(lines))


def line_label(line: TrendLine, names: Mapping[str, str]) -> str:
    """The name of a line of a trend."""
    return ALL_OTHERS if line.is_others else label(line.organization_id, names)


def _marker(line: TrendLine, place: int, theme: str) -> dict[str, Any]:
    if line.is_others:
        return {"color": RANKED.on(theme), "pattern": {"shape": "/"}}
    return {"color": SERIES[place % len(SERIES)].on(theme)}


def trend_bars(trend: Trend, names: Mapping[str, str], zone_name: str, theme: str) -> Figure:
    """A chart of stacked bars per day; a click carries the organization's place in the trend, or that it is several."""
    figure = base_figure(theme, height=400, barmode="stack", bargap=0.15)
    for place, line in enumerate(trend.lines):
        called = label_of(line_label(line, names))
        figure.add_bar(
            name=short_label(line_label(line, names)),
            x=list(trend.days),
            y=[float(value) for value in line.daily],
            customdata=[
                [OTHERS_CLICK if line.is_others else place, day, short_credits(value), called]
                for day, value in zip(trend.days, line.daily, strict=True)
            ],
            marker=_marker(line, place, theme),
            hovertemplate="%{customdata[1]}<br>%{customdata[3]}: %{customdata[2]} credits<extra></extra>",
        )
    day_axes(figure, trend.days, zone_name)
    return figure


def daily_lines(
    chosen: Sequence[OrganizationFigures], first_day: str | None, names: Mapping[str, str], zone_name: str, theme: str
) -> Figure:
    """A chart with a line per organization, told apart by colour and dashes."""
    figure = base_figure(theme, height=360)
    days = day_names(first_day, max((len(one.daily) for one in chosen), default=0))
    for place, one in enumerate(chosen):
        called = label(one.organization_id, names)
        figure.add_scatter(
            name=short_label(called),
            x=days,
            y=[float(value) for value in one.daily],
            mode="lines+markers" if len(days) == 1 else "lines",
            line={"dash": DASHES[place % len(DASHES)], "width": 2, "color": SERIES[place % len(SERIES)].on(theme)},
            customdata=[
                [day, short_credits(value), label_of(called)] for day, value in zip(days, one.daily, strict=True)
            ],
            hovertemplate="%{customdata[0]}<br>%{customdata[2]}: %{customdata[1]} credits<extra></extra>",
        )
    day_axes(figure, days, zone_name)
    return figure


def organization_tree(
    slices: Sequence[BreakdownRow], others: BreakdownRow | None, names: Mapping[str, str], theme: str
) -> Figure:
    """A tree map: organizations as areas, their chatflows inside, the models of those inside them.

    `slices` hold organization, chatflow id, chatflow name and models, in this order.
    """
    areas: dict[tuple[str | None, ...], Area] = {}
    for one in slices:
        organization, chatflow, flow_name, model = one.values
        steps = (
            (one.values[:1], label(organization, names)),
            (one.values[:3], flow_name or chatflow or UNKNOWN),
            (one.values, model or UNKNOWN),
        )
        parent = "all"
        for path, name in steps:
            known = areas.get(path) or Area(f"a{len(areas)}", parent, label_of(name), Decimal(0), Decimal(0))
            own = one.credits.total if path == one.values else Decimal(0)
            areas[path] = replace(known, own=own, whole=EXACT.add(known.whole, one.credits.total))
            parent = known.id
    return area_tree(list(areas.values()), others, theme, levels=TREE_LEVELS)


def user_name(one: BreakdownRow, names: Mapping[str, str]) -> str:
    """A user with the organization: the same id under two organizations is two users."""
    organization, user = one.values
    return f"{user or UNKNOWN} · {label(organization, names)}"


def every_day(found: Sequence[ActiveUsers]) -> list[ActiveUsers]:
    """Active users of every day from the first to the last; days without any are 0."""
    if not found:
        return []
    known = {one.day: one for one in found}
    first, last = found[0].day, found[-1].day
    days = (first + timedelta(days=n) for n in range((last - first).days + 1))
    return [known.get(day, ActiveUsers(day, 0, 0)) for day in days]


def moving_average(values: Iterable[int], width: int = WEEK) -> list[Decimal | None]:
    """The moving average of values: each with those before it, `width` in all; unknown until there are so many."""
    kept = list(values)
    return [None if end < width else Decimal(sum(kept[end - width : end])) / width for end in range(1, len(kept) + 1)]


def active_users_figure(days: Sequence[ActiveUsers], zone_name: str, theme: str) -> Figure:
    """A chart of active and of new users per day and the mean of the last seven days; a click carries the day."""
    figure = base_figure(theme, height=340)
    names = [one.day.isoformat() for one in days]
    averages = moving_average(one.active for one in days)
    lines: Sequence[tuple[str, str, Sequence[int | Decimal | None]]] = (
        ("Active users", "solid", [one.active for one in days]),
        ("New users", "dot", [one.new for one in days]),
        ("7-day average", "dash", averages),
    )
    for (name, dash, values), shade in zip(lines, SERIES, strict=False):
        figure.add_scatter(
            name=name,
            x=names,
            y=[None if value is None else float(value) for value in values],
            mode="lines+markers",
            marker={"size": 5},
            line={"dash": dash, "width": 2, "color": shade.on(theme)},
            customdata=[
                [day, "" if value is None else f"{value:,.1f}".removesuffix(".0")]
                for day, value in zip(names, values, strict=True)
            ],
            hovertemplate="%{customdata[0]}<br>%{fullData.name}: %{customdata[1]}<extra></extra>",
        )
    day_axes(figure, names, zone_name, "Users")
    return figure
