"""The Usage Events table: one page of rows, sorted and paged in the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.access import Principal
from billing_core.service import BillingService
from billing_core.types import GetUsageEventsParams, SyncStatus, UsageEvent, UsageEventsResponse
from billing_core.values.counts import count_of
from components.shared.colours import CREDIT_PARTS, STATUS_MARKS
from components.shared.formats import count, credits_text, rows_range, usd
from components.usage_events.columns import (
    COLUMNS,
    DEFAULT_COLUMNS,
    SORT_LABELS,
    EventColumn,
    cells,
    column_of,
    sort_field,
)
from components.usage_events.details import open_event
from components.usage_events.query import Paging, csv_query
from components.usage_events.state import ASCENDING, DESCENDING, generation, order_changed, set_sort, unpin

PAGE_SIZES = (5, 10, 25, 50, 100)
DEFAULT_PAGE_SIZE = 25
DEFAULT_SORT = "Time"

CSV_PATH = "/download/usage-events.csv"

DETAILS = "details"
"""The grid's own column of buttons; no field of an event is called so."""

ROW_PIXELS = 35
HEADER_PIXELS = 38


def paging() -> Paging:
    """Order, page and page size as the widgets have them. The URL's page is known once its control is drawn."""
    state = st.session_state
    return Paging(
        sort=sort_field(state.get("sort", DEFAULT_SORT)),
        order="asc" if state.get("order", DESCENDING) == ASCENDING else "desc",
        page=int(state.get("page", 1)),
        limit=int(state.get("rows", DEFAULT_PAGE_SIZE)),
    )


def table_controls() -> None:
    """Draw sort box (for keyboards and phones; a click on a header does the same), page size and choice of columns."""
    st.selectbox(
        "Sort by",
        SORT_LABELS,
        index=SORT_LABELS.index(DEFAULT_SORT),
        key="sort",
        bind="query-params",
        on_change=order_changed,
        width=160,
    )
    st.selectbox(
        "Order",
        (DESCENDING, ASCENDING),
        key="order",
        bind="query-params",
        on_change=order_changed,
        width=130,
        filter_mode=None,
    )
    st.selectbox(
        "Rows",
        PAGE_SIZES,
        index=PAGE_SIZES.index(DEFAULT_PAGE_SIZE),
        key="rows",
        bind="query-params",
        on_change=order_changed,
        width=90,
        filter_mode=None,
    )
    with st.popover("Columns", icon=":material/view_column:", key="columns-open"):
        st.multiselect(
            "Columns",
            [column.label for column in COLUMNS],
            default=list(DEFAULT_COLUMNS),
            key="columns",
            bind="query-params",
            select_all=True,
            wrap=True,
            placeholder="All columns",
        )


def csv_link(params: GetUsageEventsParams) -> None:
    """Draw the link that downloads all events of the filter as CSV, by a route that asks the session's cookie who is
    reading.
    """
    base = st.get_option("server.baseUrlPath").strip("/")
    st.link_button(
        "CSV",
        f"{f'/{base}' if base else ''}{CSV_PATH}?{csv_query(params)}",
        icon=":material/download:",
        help="All events matching this filter with exact figures, in time order.",
    )


def new_data_notice(service: BillingService, principal: Principal, shown: GetUsageEventsParams) -> None:
    """Draw a notice that there is something newer than the pinned view, if it concerns this filter and this reader."""
    place = st.container(horizontal=True, vertical_alignment="center", key="new-data")
    if shown.as_of is None or service.version() <= shown.as_of:
        return
    newest = service.summary(shown.model_copy(update={"as_of": None}), principal)
    if newest.days == service.summary(shown, principal).days:
        return
    with place:
        st.caption("New events have arrived since this view was opened.", width="content")
        # The whole page has to follow, so the click runs it and not only the table.
        st.button("Show them", icon=":material/sync:", key="show-new", on_click=_show_new)


def _show_new() -> None:
    unpin()
    st.rerun()


def chosen_columns() -> list[EventColumn]:
    """The columns to show, in the table's own order; choosing none means all."""
    chosen = set(st.session_state.get("columns", DEFAULT_COLUMNS))
    return [column for column in COLUMNS if not chosen or column.label in chosen]


def toggled(sort: str, order: str, clicked: str) -> tuple[str, str]:
    """The order after a click on a header: the same column reverses, another one starts with the largest."""
    if clicked != sort:
        return clicked, DESCENDING
    return clicked, ASCENDING if order == DESCENDING else DESCENDING


def _on_header(key: str) -> None:
    columns = st.session_state[key]["selection"]["columns"]
    if columns and columns[0] != DETAILS:
        state = st.session_state
        label = column_of(columns[0]).label
        set_sort(*toggled(state.get("sort", DEFAULT_SORT), state.get("order", DESCENDING), label))


def _on_details(key: str, ids: Sequence[str]) -> None:
    click = st.session_state[key]
    if click is not None:
        open_event(ids[click["row"]])


def event_grid(response: UsageEventsResponse, sorted_by: Paging, zone: ZoneInfo) -> None:
    """Draw the rows. The grid's key changes with order and page: a selection must not outlive its rows. The grid's
    identity changes with order and page: a selection must not outlive its rows.
    """
    columns = chosen_columns()
    identity = f"{generation()}-{response.pagination.page}-{response.pagination.as_of}"
    key, button = f"grid-{identity}", f"details-{identity}"
    ids = [event.id for event in response.events]
    st.dataframe(
        _frame(response.events, columns, zone),
        key=key,
        hide_index=True,
        alt="Usage events",
        placeholder="",
        height=HEADER_PIXELS + ROW_PIXELS * max(1, len(ids)),
        row_height=ROW_PIXELS,
        on_select=lambda: _on_header(key),
        selection_mode="single-column",  # also turns off the grid's own sort, which would order this page only
        column_config=_config(columns, sorted_by, button, ids),
    )


def _frame(events: list[UsageEvent], columns: list[EventColumn], zone: ZoneInfo) -> Any:
    import pyarrow as pa  # here: the sign-in form must not wait for it

    return pa.table({DETAILS: ["Details"] * len(events), **cells(events, columns, zone)})


def _config(columns: list[EventColumn], sorted_by: Paging, button: str, ids: Sequence[str]) -> dict[str, Any]:
    config: dict[str, Any] = {
        DETAILS: st.column_config.ButtonColumn(
            "Event", width=70, type="tertiary", key=button, on_click=_on_details, args=(button, ids)
        )
    }
    for column in columns:
        arrow = ""
        if column.field == sorted_by.sort:
            arrow = " ↓" if sorted_by.order == "desc" else " ↑"
        config[column.field] = _column_config(column, column.label + arrow)
    return config


def _column_config(column: EventColumn, label: str) -> Any:
    help_text = f"{column.help or column.label} Click to sort." if column.help else "Click to sort."
    if column.field == "sync_status":
        return st.column_config.MultiselectColumn(
            label,
            options=[status.value for status in SyncStatus],
            color=[STATUS_MARKS[status].colour for status in SyncStatus],
            format_func=lambda status: STATUS_MARKS[SyncStatus(status)].text,
            pinned=True,
            width=column.width,
            help=help_text,
        )
    if column.field == "trace_url":
        return st.column_config.LinkColumn(label, display_text="Open", width=column.width, help=help_text)
    return st.column_config.TextColumn(label, width=column.width, alignment=column.align, help=help_text)


def footer(response: UsageEventsResponse) -> None:
    """Draw the sums over the whole filter, not of the page."""
    totals, held = response.totals, response.totals.credits
    parts = " + ".join(f"{part.label} {credits_text(getattr(held, part.field))}" for part in CREDIT_PARTS)
    text = (
        f"**All {count_of(response.pagination.total_items, 'event')} of this filter:** {parts} = "
        f"**{credits_text(held.total)} credits** · {usd(totals.amount_usd)} · "
        f"tokens in {count(totals.tokens_in)}, out {count(totals.tokens_out)} · "
        f"Langfuse cost {usd(totals.cost_usd)}"
    )
    st.markdown(text.replace("$", r"\$"))


def page_control(response: UsageEventsResponse) -> int:
    """Draw which rows are shown and the buttons to others; returns the page to show: one that exists. Returns the page
    to show: one that there is.
    """
    where = response.pagination
    with st.container(horizontal=True, vertical_alignment="center", key="paging"):
        rows = st.container(width="content")
        # Stretched: sized by its content it would hide page numbers for want of a room that it never asks for.
        page = st.pagination(max(1, where.total_pages), key="page", bind="query-params", width="stretch")
        rows.text(rows_range(page, where.limit, where.total_items))
    return page
