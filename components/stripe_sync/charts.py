"""Charts of the Stripe Sync page: numbers in, Plotly out. Pure; imports Plotly only when called.

Text from outside reaches Plotly escaped. What a click stands for travels in `customdata`, never in a label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING

from billing_core.stripe_sync.pipeline import Pipeline
from components.shared.chart import base_figure
from components.shared.colours import STAGE_MARKS, Shade
from components.shared.formats import compact, rounded, signed_rounded
from components.stripe_sync.marks import STAGE_SHADES
from components.stripe_sync.rows import NOBODY, HeatGrid, Measure, difference, step_label
from components.usage_events.charts import label_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from billing_core.reconcile.report import CustomerDay

MORE = Shade("#B4540A", "#F2A24E")
"""The earlier book has more: usage that has not arrived."""

LESS = Shade("#0A63A5", "#5BB2EE")
"""The later book has more."""

WHOLE = Shade("#57606A", "#97A3AF")
"""Totals of a book."""

SAME = Shade("#E9EEF2", "#27323D")
"""No difference."""

INK = Shade("#0F1720", "#E6EBF0")

LONGEST_LABEL = 22
"""Characters of a customer beside the map; the hover text has it whole."""

CELL_PIXELS = 26

FARTHEST = 300
"""Pixels from the middle of a cell to where the hand may point: cells are wide when days are few."""

STEP_PIXELS = 34


def stage_bar(pipeline: Pipeline, theme: str) -> Figure:
    """A chart of every credit of the ledger as one bar, cut into stages."""
    figure = base_figure(theme, showlegend=True, height=88, barmode="stack", bargap=0)
    figure.update_layout(
        margin={"l": 0, "r": 0, "t": 4, "b": 36},
        legend={"orientation": "h", "x": 0, "y": -0.1, "yanchor": "top", "traceorder": "normal"},
    )
    for stage, amounts in pipeline.stages.items():
        if amounts.credits <= 0:
            continue
        figure.add_bar(
            name=STAGE_MARKS[stage].word,
            orientation="h",
            y=[0],
            x=[float(amounts.credits)],
            customdata=[[rounded(amounts.credits), f"{amounts.events:,}"]],
            marker={"color": STAGE_SHADES[stage].on(theme), "line": {"width": 0}},
            hovertemplate="%{fullData.name}: %{customdata[0]} credits, %{customdata[1]} events<extra></extra>",
        )
    figure.update_xaxes(visible=False, fixedrange=True, range=[0, float(pipeline.total.credits)])
    figure.update_yaxes(visible=False, fixedrange=True)
    return figure


# ── reconciliation ───────────────────────────────────────────────────────────────────────────────


def _shade(value: float) -> float:
    """Sizes differ by orders of magnitude: colour follows the logarithm, so that small differences show."""
    return math.copysign(math.log10(1 + abs(value)), value)


def _shade_of(row: CustomerDay | None, value: Decimal | None) -> float | None:
    """Nothing where there was no activity; neutral where the difference is unknown."""
    if row is None:
        return None
    return 0.0 if value is None else _shade(float(value))


def _mark(row: CustomerDay | None, value: Decimal | None) -> str:
    """What stands in a cell: colour never carries the news alone."""
    if row is None:
        return ""
    if row.unexplained_credits:
        return "!"
    return "?" if value is None else ""


def heat_map(grid: HeatGrid, measure: Measure, theme: str) -> Figure:
    """A heat map of differences by customer and UTC day; a click on a cell carries customer and day.

    Heat maps of Plotly know no clicks, so an invisible marker lies on every cell.
    """
    places = list(range(len(grid.customers)))
    cells = [[grid.rows.get((customer, day)) for day in grid.days] for customer in grid.customers]
    values = [[None if row is None else difference(row, measure) for row in line] for line in cells]
    shades = [[_shade_of(*pair) for pair in zip(*lines, strict=True)] for lines in zip(cells, values, strict=True)]
    most = max((abs(shade) for line in shades for shade in line if shade is not None), default=0.0) or 1.0
    days = [f"{day:%-d %b}" for day in grid.days]
    figure = base_figure(
        theme,
        showlegend=False,
        height=96 + CELL_PIXELS * max(4, len(places)),
        hovermode="closest",
        hoverdistance=FARTHEST,
    )
    ticks = _ticks(most)
    figure.add_heatmap(
        x=days,
        y=places,
        z=shades,
        text=[[_mark(*pair) for pair in zip(*line, strict=True)] for line in zip(cells, values, strict=True)],
        texttemplate="<b>%{text}</b>",
        textfont={"color": INK.on(theme), "size": 14},
        colorscale=[[0.0, LESS.on(theme)], [0.5, SAME.on(theme)], [1.0, MORE.on(theme)]],
        zmid=0,
        zmin=-most,
        zmax=most,
        xgap=2,
        ygap=2,
        hoverinfo="skip",
        colorbar={
            "thickness": 12,
            "tickvals": [_shade(tick) for tick in ticks],
            "ticktext": [compact(tick) for tick in ticks],
        },
    )
    spots = [(column, place) for place in places for column in range(len(days))]
    figure.add_scatter(
        x=[days[column] for column, _ in spots],
        y=[place for _, place in spots],
        mode="markers",
        customdata=[[grid.customers[place] or "", grid.days[column].isoformat()] for column, place in spots],
        hovertext=[
            _hover_text(grid.customers[place], grid.days[column], cells[place][column], measure)
            for column, place in spots
        ],
        marker={"size": CELL_PIXELS - 4, "symbol": "square", "opacity": 0},
        selected={"marker": {"opacity": 0}},
        unselected={"marker": {"opacity": 0}},
        hovertemplate="%{hovertext}<extra></extra>",
    )
    figure.update_xaxes(type="category", fixedrange=True, showgrid=False, title="Day (UTC)")
    figure.update_yaxes(
        tickvals=places,
        ticktext=[_short(customer) for customer in grid.customers],
        range=[max(4, len(places)) - 0.5, -0.5],
        fixedrange=True,
        showgrid=False,
        zeroline=False,
        automargin=True,
    )
    return figure


def _hover_text(customer: str | None, day: date, row: CustomerDay | None, measure: Measure) -> str:
    """A cell in words, for the hand that points at it."""
    where = f"{label_of(customer or NOBODY)}, {day.isoformat()} (UTC)"
    if row is None:
        return f"{where}<br>no activity"
    return (
        f"{where}<br>{measure.value}: {signed_rounded(difference(row, measure))} credits<br>"
        f"Langfuse {rounded(row.langfuse_credits)} · ledger {rounded(row.ledger_credits)} · "
        f"sent {rounded(row.sent_credits)} · Stripe {rounded(row.stripe_credits)}<br>"
        f"unexplained {rounded(row.unexplained_credits)}"
    )


def _short(customer: str | None) -> str:
    text = customer or NOBODY
    return label_of(text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…")


def _ticks(most: float) -> list[int]:
    """Powers of ten up to the largest size, both ways, at most seven."""
    highest = math.floor(most)
    powers = [10**n for n in range(highest, 0, -max(1, math.ceil(highest / 3)))] if highest >= 1 else [1]
    return [-power for power in powers] + [0, *reversed(powers)]


def waterfall_figure(steps: Sequence[tuple[str, Decimal]], theme: str) -> Figure:
    """A waterfall chart from Langfuse's credits to Stripe's, one bar per step; lying, so that names can be read on a
    phone.
    """
    figure = base_figure(theme, showlegend=False, height=60 + STEP_PIXELS * len(steps))
    ends = {0, len(steps) - 1}
    texts = [rounded(value) if place in ends else signed_rounded(value) for place, (_, value) in enumerate(steps)]
    figure.add_waterfall(
        orientation="h",
        y=list(range(len(steps))),
        x=[float(value) for _, value in steps],
        measure=["absolute" if place == 0 else "total" if place in ends else "relative" for place in range(len(steps))],
        text=[compact(value) if place in ends else _step_text(value) for place, (_, value) in enumerate(steps)],
        textposition="outside",
        cliponaxis=False,
        customdata=[
            [label_of(step_label(name, is_end=place in ends)), texts[place]] for place, (name, _) in enumerate(steps)
        ],
        hovertemplate="%{customdata[0]}: %{customdata[1]} credits<extra></extra>",
        connector={"line": {"width": 1, "color": WHOLE.on(theme)}},
        increasing={"marker": {"color": LESS.on(theme)}},
        decreasing={"marker": {"color": MORE.on(theme)}},
        totals={"marker": {"color": WHOLE.on(theme)}},
    )
    figure.update_yaxes(
        tickvals=list(range(len(steps))),
        ticktext=[label_of(step_label(name, is_end=place in ends)) for place, (name, _) in enumerate(steps)],
        autorange="reversed",
        fixedrange=True,
        showgrid=False,
        automargin=True,
    )
    figure.update_xaxes(title="Credits", fixedrange=True, range=_room(steps))
    return figure


def _room(steps: Sequence[tuple[str, Decimal]]) -> list[float]:
    """The axis with room for the figures beside the bars; it always holds 0, or the totals' lengths would lie."""
    level, levels = 0.0, [0.0]
    for _, value in steps[:-1]:
        level += float(value)
        levels.append(level)
    low, high = min(levels), max(levels)
    margin = 0.14 * ((high - low) or 1.0)
    return [low - margin if low < 0 else 0.0, high + margin]


def _step_text(value: Decimal) -> str:
    return f"+{compact(value)}" if value > 0 else compact(value)


# ── customers ────────────────────────────────────────────────────────────────────────────────────


def used_bar(used: Decimal, included: int, theme: str) -> Figure:
    """A chart of credits used of a plan; what lies beyond it is a part of its own, behind a line at 100 %."""
    within, beyond = min(used, Decimal(included)), max(used - included, Decimal(0))
    figure = base_figure(theme, showlegend=False, height=84, barmode="stack", bargap=0.1)
    figure.update_layout(margin={"l": 16, "r": 16, "b": 32})  # too low for margins that fit themselves
    for name, value, shade in (
        ("within the plan", within, LESS),
        ("left", Decimal(included) - within, SAME),
        ("over the plan", beyond, MORE),
    ):
        figure.add_bar(
            name=name,
            orientation="h",
            y=[0],
            x=[float(value)],
            customdata=[rounded(value)],
            marker={"color": shade.on(theme), "line": {"width": 0}},
            hovertemplate="%{fullData.name}: %{customdata} credits<extra></extra>",
        )
    figure.add_vline(x=float(included), line={"width": 2, "color": INK.on(theme)})
    figure.update_xaxes(
        range=[0, float(max(used, Decimal(included)))],
        tickvals=[0, float(included)],
        ticktext=["0", "100 %"],
        fixedrange=True,
        showgrid=False,
        zeroline=False,
    )
    figure.update_yaxes(visible=False, fixedrange=True)
    return figure
