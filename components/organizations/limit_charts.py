"""The chart of a limit: credits used, included and expected. Numbers in, Plotly out; imports it late."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from components.shared.chart import base_figure
from components.shared.colours import RANKED, Shade
from components.shared.formats import compact, rounded, short_credits

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

WITHIN = Shade("#0072B2", "#56B4E9")
BEYOND = Shade("#B4540A", "#F2A24E")
ROOM = Shade("#E9EEF2", "#27323D")
INK = Shade("#0F1720", "#E6EBF0")

NARROWEST = 0.07
"""Part of the axis between two words below it, so that they do not run into each other on a phone."""


@dataclass(frozen=True, slots=True)
class ExpectedCredits:
    """Credits expected at the period's end, with their interval."""

    credits: Decimal
    low: Decimal
    high: Decimal


def bullet(
    used: Decimal, included: int, thresholds: Sequence[int], expected: ExpectedCredits | None, theme: str
) -> Figure:
    """A bullet chart: credits used within and beyond the plan, thresholds as lines, the forecast as a diamond with its
    interval.
    """
    shown = [t for t in thresholds if t <= 100 or Decimal(t) * included <= 120 * used]
    ends = [Decimal(included), used, *(Decimal(t) * included / 100 for t in shown)]
    if expected is not None:
        ends += [expected.high]
    right = float(max(ends)) * 1.02
    within, over = min(used, Decimal(included)), max(used - included, Decimal(0))
    margin = {"l": 16, "r": 16, "t": 8, "b": 36}
    figure = base_figure(theme, height=104, barmode="overlay", showlegend=False, margin=margin)
    figure.add_bar(
        name="included",
        orientation="h",
        y=[0],
        x=[float(included)],
        width=0.9,
        customdata=[rounded(included)],
        marker={"color": ROOM.on(theme), "line": {"width": 0}},
        hovertemplate="included: %{customdata} credits<extra></extra>",
    )
    for name, base, value, shade in (("used", Decimal(0), within, WITHIN), ("over the plan", within, over, BEYOND)):
        figure.add_bar(
            name=name,
            orientation="h",
            y=[0],
            x=[float(value)],
            base=[float(base)],
            width=0.45,
            customdata=[rounded(value)],
            marker={"color": shade.on(theme), "line": {"width": 0}},
            hovertemplate="%{fullData.name}: %{customdata} credits<extra></extra>",
        )
    if expected is not None:
        figure.add_scatter(
            name="expected",
            y=[0],
            x=[float(expected.credits)],
            mode="markers",
            cliponaxis=False,
            customdata=[[short_credits(value) for value in (expected.credits, expected.low, expected.high)]],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [float(expected.high - expected.credits)],
                "arrayminus": [float(expected.credits - expected.low)],
                "color": INK.on(theme),
                "thickness": 2,
            },
            marker={"symbol": "diamond", "size": 11, "color": INK.on(theme)},
            hovertemplate="expected at the period's end: %{customdata[0]} credits "
            "(%{customdata[1]} – %{customdata[2]})<extra></extra>",
        )
    marks = sorted({*shown, 100})
    for threshold in marks:
        figure.add_vline(
            x=included * threshold / 100,
            line={
                "width": 2 if threshold == 100 else 1,
                "dash": "solid" if threshold == 100 else "dot",
                "color": INK.on(theme) if threshold == 100 else RANKED.on(theme),
            },
        )
    written = _far_apart(marks, right * 100 / included if included else 0)
    figure.update_xaxes(
        range=[0, right],
        fixedrange=True,
        showgrid=False,
        zeroline=False,
        tickvals=[0, *(included * threshold / 100 for threshold in written)],
        ticktext=["0", *(_tick(threshold, included) for threshold in written)],
    )
    figure.update_yaxes(visible=False, fixedrange=True, range=[-0.6, 0.6])
    return figure


def _far_apart(marks: Sequence[int], right: float) -> list[int]:
    """The plan itself and the thresholds whose words have room beside it and each other; `right` ends the axis."""
    chosen = [100]
    for mark in sorted(marks, reverse=True):
        if all(abs(mark - other) >= NARROWEST * right for other in (0, *chosen)):
            chosen.append(mark)
    return sorted(chosen)


def _tick(threshold: int, included: int) -> str:
    return f"100 %<br>{compact(included)}" if threshold == 100 else f"{threshold} %"
