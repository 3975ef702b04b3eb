"""The chart that splits anomalies into their reasons. Pure; imports Plotly only when called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from billing_core.organizations.anomalies import Anomaly
from billing_core.organizations.table import label
from components.organizations.formats import signed_amount
from components.shared.chart import base_figure
from components.shared.colours import Shade
from components.usage_events.charts import label_of

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PARTS = (
    ("volume", "Volume", Shade("#0072B2", "#56B4E9")),
    ("price", "Price", Shade("#B4540A", "#F2A24E")),
    ("mix", "Mix", Shade("#8A4F7D", "#CC79A7")),
)
"""Okabe and Ito's hues, as everywhere."""

ROW_PIXELS = 26
LONGEST_LABEL = 24


def split_figure(rows: Sequence[Anomaly], names: Mapping[str, str], theme: str) -> Figure:
    """A chart with one horizontal bar per anomaly: parts that add to the right of the line, parts that take away to the
    left.
    """
    figure = base_figure(theme, height=90 + ROW_PIXELS * max(3, len(rows)), barmode="relative", bargap=0.25)
    split = [(place, row, row.split) for place, row in enumerate(rows) if row.split is not None]
    for field, name, shade in PARTS:
        figure.add_bar(
            name=name,
            orientation="h",
            y=[place for place, _, _ in split],
            x=[float(getattr(one, field)) for _, _, one in split],
            customdata=[
                [label_of(label(row.organization_id, names)), row.day.isoformat(), signed_amount(getattr(one, field))]
                for _, row, one in split
            ],
            marker={"color": shade.on(theme), "line": {"width": 0}},
            hovertemplate="%{customdata[0]}, %{customdata[1]}<br>%{fullData.name}: %{customdata[2]} credits"
            "<extra></extra>",
        )
    figure.update_yaxes(
        tickvals=list(range(len(rows))),
        ticktext=[_name(row, names) for row in rows],
        range=[max(3, len(rows)) - 0.5, -0.5],
        fixedrange=True,
        showgrid=False,
        zeroline=False,
        automargin=True,
    )
    figure.update_xaxes(title="Credits against an average day before", fixedrange=True, zeroline=True)
    return figure


def _name(row: Anomaly, names: Mapping[str, str]) -> str:
    text = label(row.organization_id, names)
    short = text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"
    return f"{label_of(short)} · {row.day.day} {row.day:%b}"
