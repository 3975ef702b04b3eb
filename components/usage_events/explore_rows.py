"""Explore: an answer as series of a chart and as rows of a table and of a file. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from billing_core.usage_events.explore_model import Dimension, Exploration, ExploreRow, Metric
from billing_core.values.csv_cells import csv_line
from components.shared.colours import CREDIT_PARTS
from components.shared.formats import UNKNOWN, change, count, duration, short_credits, short_usd

DIMENSIONS: dict[Dimension, str] = {
    Dimension.ORGANIZATION: "Organization",
    Dimension.CUSTOMER: "Customer",
    Dimension.USER: "User",
    Dimension.CHATFLOW: "Chatflow",
    Dimension.MODEL: "Model",
    Dimension.ENVIRONMENT: "Environment",
    Dimension.STATUS: "Sync status",
    Dimension.TOKEN_CLASS: "Token class",
    Dimension.CREDIT_TYPE: "Credit type",
}

METRICS: dict[Metric, str] = {
    Metric.CREDITS: "Credits",
    Metric.AMOUNT_USD: "Amount",
    Metric.COST_USD: "Langfuse cost",
    Metric.MARGIN_USD: "Margin",
    Metric.EVENTS: "Events",
    Metric.TOKENS: "Tokens",
    Metric.USERS: "Users",
    Metric.LATENCY: "Average latency",
}

_UNITS: dict[Metric, Callable[[Decimal | None], str]] = {
    Metric.CREDITS: short_credits,
    Metric.AMOUNT_USD: short_usd,
    Metric.COST_USD: short_usd,
    Metric.MARGIN_USD: short_usd,
    Metric.LATENCY: duration,
}

_AXES = {
    Metric.AMOUNT_USD: "US dollars",
    Metric.COST_USD: "US dollars",
    Metric.MARGIN_USD: "US dollars",
    Metric.LATENCY: "seconds",
}


@dataclass(frozen=True, slots=True)
class Series:
    """One colour of a chart: its name, and which row of the answer stands at each place.

    Places are periods or, without a grain, values of the first dimension. `is_rest`: what is below the top.
    """

    name: str
    rows: dict[str, int]
    is_rest: bool = False


def figure_text(metric: Metric, value: Decimal | None) -> str:
    """A figure of a metric with its unit, for people; unknown is said."""
    if metric in _UNITS:
        return _UNITS[metric](value)
    return count(None if value is None else int(value))


def axis_title(metric: Metric) -> str:
    """The title of a chart's axis: the metric with its unit."""
    return f"{METRICS[metric]} ({_AXES[metric]})" if metric in _AXES else METRICS[metric]


def value_name(dimension: Dimension, value: str | None) -> str:
    """A value of a dimension for people; what events without one are called."""
    if value is None:
        return f"no {DIMENSIONS[dimension].lower()}"
    if dimension is Dimension.CREDIT_TYPE:
        return next((part.label for part in CREDIT_PARTS if part.field == value), value)
    return value.replace("_", " ") if dimension is Dimension.TOKEN_CLASS else value


def row_name(found: Exploration, row: ExploreRow) -> str:
    """The name of a row's group: its values, or how many groups it stands for."""
    if row.others is not None:
        return f"{row.others:,} others"
    return " · ".join(value_name(one, value) for one, value in zip(found.question.by, row.values, strict=True))


def series(found: Exploration) -> list[Series]:
    """The groups of a chart in the order of the answer: over periods each group is one; without periods the second
    dimension divides the bars of the first. A row whose figure is unknown is not drawn.
    """
    asked = found.question
    groups: dict[str, Series] = {}
    for number, row in enumerate(found.rows):
        if row.value is None:
            continue
        is_rest = row.others is not None
        if asked.grain is not None:
            name, place = row_name(found, row), "" if row.period is None else row.period.isoformat()
        elif is_rest:
            name = place = row_name(found, row)
        else:
            place = value_name(asked.by[0], row.values[0])
            name = value_name(asked.by[1], row.values[1]) if len(asked.by) > 1 else METRICS[asked.metric]
        groups.setdefault(name, Series(name, {}, is_rest)).rows[place] = number
    return list(groups.values())


def table_rows(found: Exploration) -> dict[str, list[str]]:
    """The answer as columns of text, the totals last."""
    asked = found.question
    columns: dict[str, list[str]] = {
        DIMENSIONS[dimension]: [
            *(
                row_name(found, row) if row.others is not None and place == 0 else _cell(dimension, row, place)
                for row in found.rows
            ),
            "All" if place == 0 else "",
        ]
        for place, dimension in enumerate(asked.by)
    }
    if asked.grain is not None:
        columns[asked.grain.capitalize()] = [*(_day(row.period) for row in found.rows), ""]
    every = [*found.rows, found.totals]
    columns[METRICS[asked.metric]] = [figure_text(asked.metric, row.value) for row in every]
    if asked.metric is Metric.LATENCY:
        columns["p95"] = [duration(row.p95) for row in every]
    if asked.metric in {Metric.COST_USD, Metric.MARGIN_USD}:
        columns["Amount of unknown cost"] = [short_usd(row.unknown_cost_amount_usd) for row in every]
    if asked.compare is not None:
        columns["Before"] = [figure_text(asked.metric, row.previous) for row in every]
        columns["Change"] = [change(row.value, row.previous) for row in every]
    return columns


def csv_bytes(found: Exploration) -> bytes:
    """The answer as CSV with exact figures, without the totals; empty cells are unknown or have no value."""
    asked = found.question
    names = [*asked.by, *([asked.grain] if asked.grain else []), "others", asked.metric]
    names += ["previous", "change"] if asked.compare is not None else []
    lines = [csv_line(names)]
    for row in found.rows:
        cells: list[object] = [*row.values]
        if asked.grain is not None:
            cells.append(None if row.period is None else row.period.isoformat())
        cells += [row.others, row.value]
        if asked.compare is not None:
            cells += [row.previous, row.change]
        lines.append(csv_line(cells))
    return "".join(lines).encode()


def right_aligned(columns: Sequence[str]) -> list[str]:
    """Which columns of the table are figures."""
    texts = {*DIMENSIONS.values(), "Day", "Week", "Month"}
    return [name for name in columns if name not in texts]


def _cell(dimension: Dimension, row: ExploreRow, place: int) -> str:
    return "" if row.others is not None else value_name(dimension, row.values[place])


def _day(period: date | None) -> str:
    return UNKNOWN if period is None else period.isoformat()
