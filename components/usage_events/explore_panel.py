"""Explore on the Usage Events page: group the events of the filter by anything, in periods, beside another window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import streamlit as st

from billing_core.access import Principal
from billing_core.service import BillingService
from billing_core.types import GetUsageEventsParams
from billing_core.usage_events.explore_model import (
    COSTS,
    METRICS_OF_PARTS,
    Dimension,
    Exploration,
    ExploreQuestion,
    ExploreRow,
    Metric,
    PeriodLength,
)
from components.shared import after_paint, sign_in
from components.shared.chart import chart
from components.shared.data_grid import RowButton, data_grid
from components.shared.notice import plain
from components.shared.url_codec import Codec, number, one_of
from components.shared.url_state import UrlState
from components.usage_events import texts
from components.usage_events.errors import stop_on_error
from components.usage_events.explore_chart import explore_chart
from components.usage_events.explore_links import NoLink, filters_behind, unlinked, why_not
from components.usage_events.explore_rows import DIMENSIONS, METRICS, csv_bytes, figure_text, right_aligned, table_rows
from components.usage_events.query import Filters, as_changes
from components.usage_events.state import URL as EVENTS

BARS, LINES, TABLE = "bars", "lines", "table"
SHAPES = {BARS: "Bars", LINES: "Lines", TABLE: "Table only"}
GRAINS = {"": "No periods", PeriodLength.DAY: "Day", PeriodLength.WEEK: "Week", PeriodLength.MONTH: "Month"}
TOPS = (5, 8, 25, 100, 1000)

SHOW_EVENTS, EXPLORE = "events", "explore"
VIEWS = {SHOW_EVENTS: "Events", EXPLORE: "Explore"}

CHART_PIXELS = 380

MOST_ROWS = 12
"""Rows of the table in sight; the others are scrolled to."""

EVENTS_BUTTON = "Show"


@dataclass(frozen=True)
class ExploreView:
    """Which view the page shows, and what Explore shows. `then` is the second dimension; an empty text is none."""

    view: str = SHOW_EVENTS
    by: Dimension = Dimension.ORGANIZATION
    then: Dimension | Literal[""] = ""
    metric: Metric = Metric.CREDITS
    grain: PeriodLength | Literal[""] = ""
    top: int = 8
    shape: str = BARS


CODEC = Codec(
    ExploreView(),
    {
        "view": one_of(list(VIEWS)),
        "by": one_of(Dimension),
        "then": one_of({one.value: one for one in Dimension}),
        "metric": one_of(Metric),
        "grain": one_of({one.value: one for one in PeriodLength}),
        "top": number(1, TOPS[-1]),
        "shape": one_of(list(SHAPES)),
    },
)

URL = UrlState("explore", CODEC)


def question_of(view: ExploreView, compare: str | None) -> ExploreQuestion:
    """What is asked of the service.

    Raises BadParameter: if the dimensions are the same, or the metric cannot be told for one of them.
    """
    by = (view.by, view.then) if view.then else (view.by,)
    return ExploreQuestion(by, view.metric, view.grain or None, compare, view.top)


def metrics_for(view: ExploreView, principal: Principal) -> list[Metric]:
    """The metrics that can be told for the chosen dimensions, as far as the principal may see them."""
    asked = [METRICS_OF_PARTS[one] for one in (view.by, view.then) if one and one in METRICS_OF_PARTS]
    seen = [metric for metric in Metric if metric not in COSTS or principal.sees_costs]
    return [metric for metric in seen if all(metric in accepted for accepted in asked)]


def view_switch() -> str:
    """Draw the switch between the events and Explore; returns which is shown."""
    URL.radio("view", "View", list(VIEWS), format_func=VIEWS.__getitem__, label_visibility="collapsed")
    return URL.current().view


@st.fragment
def explore_panel(service: BillingService, params: GetUsageEventsParams, filters: Filters, compare: str | None) -> None:
    """Draw the choices of Explore and its answer about the events of `filters`, which `params` ask for."""
    principal = sign_in.guard()
    URL.told()
    _controls(principal)
    if URL.current().metric in COSTS and not principal.sees_costs:
        st.info(texts.COSTS_NOT_EXPLORED, icon=":material/visibility_off:")
        return
    with stop_on_error():
        asked = question_of(URL.current(), compare)
        found = service.explore(params, asked, principal)
        if not found.rows:
            st.info(texts.NOTHING_FOUND, icon=":material/search_off:")
            return
        _answer(found, filters)


def _controls(principal: Principal) -> None:
    view = URL.current()
    with st.container(horizontal=True, vertical_alignment="bottom", key="explore-controls"):
        URL.selectbox("by", "Group by", list(Dimension), format_func=DIMENSIONS.__getitem__, width=150)
        second = ["", *(one for one in Dimension if one is not view.by)]
        URL.selectbox("then", "Then by", second, format_func=_second_text, width=150)
        URL.selectbox("metric", "Figure", metrics_for(view, principal), format_func=METRICS.__getitem__, width=150)
        URL.selectbox("grain", "Per", list(GRAINS), format_func=GRAINS.__getitem__, width=120)
        tops = sorted({*TOPS, view.top})
        URL.selectbox("top", "Top", tops, format_func="{:,}".format, width=80)
        URL.selectbox("shape", "Show as", list(SHAPES), format_func=SHAPES.__getitem__, width=120)


def _second_text(dimension: Dimension | Literal[""]) -> str:
    return DIMENSIONS[dimension] if dimension else "Nothing"


def _answer(found: Exploration, filters: Filters) -> None:
    view = URL.current()
    st.markdown(plain(total_text(found)))
    if view.shape != TABLE:
        if after_paint.is_painted():
            _draw(found, filters, lines=view.shape == LINES)
        else:
            st.skeleton(height=CHART_PIXELS)
    _table(found, filters)
    st.download_button(
        "CSV",
        data=lambda: csv_bytes(found),
        file_name=f"explore_{'-'.join(found.question.by)}_{found.question.metric}.csv",
        mime="text/csv",
        icon=":material/download:",
        on_click="ignore",
        key="explore-csv",
        help=texts.EXPLORE_CSV_HELP,
    )


def _table(found: Exploration, filters: Filters) -> None:
    """Draw the groups with a button to the events of each, and why some have none."""
    cells, every = table_rows(found), [*found.rows, found.totals]
    right = right_aligned(list(cells))
    shown = [EVENTS_BUTTON if not why_not(found, row, filters) else "" for row in every]
    data_grid(
        cells,
        {name: st.column_config.TextColumn(name, alignment="right" if name in right else "left") for name in cells},
        key=f"explore-table-{URL.generation()}",
        alt=f"{METRICS[found.question.metric]} by group",
        rows=min(len(every), MOST_ROWS),
        buttons=[
            RowButton("behind", "Events", shown, lambda row: show_events(found, every[row], filters), is_pinned=True)
        ],
    )
    for reason in unlinked(found, filters):
        st.caption(reason)


def total_text(found: Exploration) -> str:
    """The total over all events of the filter, and whether the rows add up to it."""
    metric = found.question.metric
    total = f"{METRICS[metric]} of all events matching this filter: {figure_text(metric, found.totals.value)}"
    if found.question.is_additive:
        return f"{total}. The groups below add up to it."
    return f"{total}. {texts.NOT_ADDITIVE[metric]}"


def _draw(found: Exploration, filters: Filters, *, lines: bool) -> None:
    theme = st.context.theme.type or "light"
    named = " and ".join(DIMENSIONS[one].lower() for one in found.question.by)
    title = f"{METRICS[found.question.metric]} by {named}"
    with st.container(key="explore-chart"):
        chart(
            title,
            "explore",
            lambda: explore_chart(found, theme, lines=lines),
            None,
            alt=title,
            on_click=lambda point: show_events(found, found.rows[point[0]], filters),
            note=texts.EXPLORE_CLICK,
            generation=URL.generation(),
        )


def show_events(found: Exploration, row: ExploreRow, filters: Filters) -> None:
    """Callback: show the events of a row; where no filter selects them, the note below the table says why."""
    try:
        behind = filters_behind(found, row, filters)
    except NoLink as no:
        st.toast(str(no))
        return
    URL.change(view=SHOW_EVENTS)
    EVENTS.change(**as_changes(behind))
    st.rerun()
