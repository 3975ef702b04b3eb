"""The frame of every chart: its heading, the figure or the table of the same figures, and a note under it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import streamlit as st

from components.shared.notice import plain
from components.shared.widgets import table

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

CHART_CONFIG = {"displayModeBar": False, "displaylogo": False, "scrollZoom": False}


def base_figure(theme: str, *, height: int, **layout: Any) -> Figure:
    """An empty chart with the common layout; Plotly is imported here."""
    from plotly.graph_objects import Figure

    common = {
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        "hoverlabel": {"namelength": -1},
        "dragmode": False,
        "meta": {"theme": theme},
    }
    figure = Figure()
    figure.update_layout(height=height, **{**common, **layout})
    return figure


def draw_figure(figure: Figure, *, key: str, alt: str, **options: Any) -> None:
    """Draw a chart in its own height from the first moment: what is below must not move when Plotly arrives."""
    st.plotly_chart(figure, key=key, alt=alt, config=CHART_CONFIG, height=figure.layout.height, **options)


def chart(
    title: str,
    name: str,
    draw: Callable[[], Figure],
    rows: Mapping[str, Sequence[str]] | None,
    *,
    alt: str,
    right: Sequence[str] = (),
    on_click: Callable[[Sequence[Any]], None] | None = None,
    hint: str | None = None,
    control: Callable[[], None] | None = None,
    note: str | None = None,
    generation: int = 0,
    height: int | None = None,
) -> None:
    """Draw a heading and under it the chart or the table of its figures, of which `right` are aligned so; without
    `rows` there is no table to switch to.

    A click hands over the point's `customdata`; `generation` changes when the chart must forget what was clicked.
    `control` draws a choice beside the heading; `height` is that of the table, where it may not be as high as its rows.
    """
    with st.container(horizontal=True, vertical_alignment="center", wrap=False, height=44, border=False):
        st.markdown(f"**{plain(title)}**", width="content", help=hint)
        if control is not None:
            control()
        st.space("stretch")
        as_table = rows is not None and st.toggle("Table", key=f"as-table-{name}")
    key = f"chart-{name}-{generation}"

    def clicked() -> None:
        points = st.session_state[key]["selection"]["points"]
        if points and on_click is not None:
            on_click(points[0]["customdata"])

    if rows is not None and as_table:
        table(rows, alt=alt, key=f"table-{name}", right=right, **({} if height is None else {"height": height}))
    elif on_click is None:
        draw_figure(draw(), key=key, alt=alt)
    else:
        draw_figure(draw(), key=key, alt=alt, on_select=clicked, selection_mode="points")
    if note is not None:
        st.caption(plain(note))
