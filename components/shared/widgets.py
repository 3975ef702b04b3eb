"""Building blocks of page sections: tiles, charts with their tables, errors of a section."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from billing_core.errors import AccessDenied, BillingError, WarehouseError
from components.shared.notice import notice_of_error, plain

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

READERS_NOTE = "You have read-only access to this page. Only admins can push, retry, hold and release."

CHART_CONFIG = {"displayModeBar": False, "displaylogo": False, "scrollZoom": False}


@contextmanager
def quiet() -> Iterator[None]:
    """A context for a section: one that cannot be read says so and leaves the others alone; a refusal of the reader
    ends the page.
    """
    try:
        yield
    except BillingError as error:
        notice_of_error(error)
        if isinstance(error, WarehouseError):
            st.caption(
                "Nothing is lost. Reload the page in a moment; if the problem persists, contact your administrator."
            )
        if isinstance(error, AccessDenied):
            st.stop()


def tile(
    place: DeltaGenerator, label: str, figure: str, details: Sequence[str], *, note: str, key: str
) -> DeltaGenerator:
    """Draw a box with a figure and its details; wraps where `st.metric` would cut off. Returns its container."""
    box = place.container(border=True, key=key, gap="xsmall", height="stretch")
    box.markdown(plain(label), help=plain(note))
    box.markdown(f"**{plain(figure)}**")
    for detail in details:
        box.caption(plain(detail))
    return box


def table(rows: Mapping[str, Sequence[str]], *, alt: str, key: str, right: Sequence[str] = (), **options: Any) -> None:
    """Draw columns of text as a table; those of `right` are figures."""
    config = {name: st.column_config.TextColumn(name, alignment="right" if name in right else "left") for name in rows}
    st.dataframe(dict(rows), hide_index=True, alt=alt, key=key, column_config=config, **options)


def draw_figure(figure: Figure, *, key: str, alt: str, **options: Any) -> None:
    """Draw a chart in its own height from the first moment: what is below must not move when Plotly arrives."""
    st.plotly_chart(figure, key=key, alt=alt, config=CHART_CONFIG, height=figure.layout.height, **options)


def chart(
    title: str,
    name: str,
    draw: Callable[[], Figure],
    rows: Mapping[str, Sequence[str]],
    *,
    alt: str,
    right: Sequence[str] = (),
    on_click: Callable[[Sequence[Any]], None] | None = None,
    hint: str | None = None,
) -> None:
    """Draw a heading and under it the chart or the table of its figures; a click hands over the point's
    `customdata`.
    """
    with st.container(horizontal=True, vertical_alignment="center", wrap=False, height=44, border=False):
        st.markdown(f"**{plain(title)}**", width="content", help=hint)
        st.space("stretch")
        as_table = st.toggle("Table", key=f"sync.as-table.{name}")
    if as_table:
        table(rows, alt=alt, key=f"sync-table-{name}", right=right)
        return
    key = f"sync-chart-{name}"
    if on_click is None:
        draw_figure(draw(), key=key, alt=alt)
        return

    def clicked() -> None:
        points = st.session_state[key]["selection"]["points"]
        if points:
            on_click(points[0]["customdata"])

    draw_figure(draw(), key=key, alt=alt, on_select=clicked, selection_mode="points")
