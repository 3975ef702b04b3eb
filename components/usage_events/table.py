"""The Usage Events table: one page of rows, sorted and paged in the engine."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.access import Principal
from billing_core.service import BillingService
from billing_core.types import GetUsageEventsParams, SyncStatus, UsageEventsResponse
from billing_core.values.counts import count_of
from components.shared.colours import CREDIT_PARTS, STATUS_MARKS
from components.shared.data_grid import RowButton, column_box, data_grid, order_boxes, sort_by
from components.shared.formats import count, short_credits, short_usd
from components.shared.links import file_link
from components.usage_events import texts
from components.usage_events.columns import COST, EventColumn, cells, column_of, columns_for, sort_fields_for
from components.usage_events.details import open_event
from components.usage_events.query import Paging, csv_query
from components.usage_events.state import PAGE_SIZES, URL, EventsView, unpin

CSV_PATH = "/download/usage-events.csv"

DETAILS = "details"
"""The grid's own column of buttons; no field of an event is called so."""


def paging(principal: Principal) -> Paging:
    """Order, page and page size that the URL asks for; by time if the principal may not see what it sorts by."""
    view = URL.current()
    sort = view.sort if view.sort in sort_fields_for(principal) else EventsView().sort
    return Paging(sort=sort, order="asc" if view.ascending else "desc", page=view.page, limit=view.rows)


def table_options(principal: Principal) -> None:
    """Draw the panel with order, page size and columns, for a toolbar; a click on a header sorts, too."""
    with st.popover("Table", icon=":material/table_rows:", key="columns-open"):
        order_boxes(URL, sort_fields_for(principal), _label, PAGE_SIZES, width="stretch")
        offered = [column.field for column in columns_for(principal)]
        column_box(URL, offered, _label, placeholder="All columns")


def _label(field: str) -> str:
    return column_of(field).label


def csv_link(params: GetUsageEventsParams) -> None:
    """Draw the link that downloads all events of the filter as CSV, by a route that asks the session's cookie who is
    reading.
    """
    note = texts.CSV_NOTE
    file_link("CSV", f"{CSV_PATH}?{csv_query(params)}", note=note, key="usage-csv")


def new_data_notice(service: BillingService, principal: Principal, shown: GetUsageEventsParams) -> None:
    """Draw a notice that there is something newer than the pinned view, if it concerns this filter and this reader."""
    place = st.container(horizontal=True, vertical_alignment="center", key="new-data")
    if shown.as_of is None or service.version() <= shown.as_of:
        return
    newest = service.summary(shown.model_copy(update={"as_of": None}), principal, None)
    if newest.days == service.summary(shown, principal, None).days:
        return
    with place:
        st.caption(texts.NEW_EVENTS, width="content")
        # The whole page has to follow, so the click runs it and not only the table.
        st.button("Show them", icon=":material/sync:", key="show-new", on_click=_show_new)


def _show_new() -> None:
    unpin()
    st.rerun()


def costs_notice(principal: Principal) -> None:
    """Draw why the view has no costs, if its address asks for some and the principal may not see them."""
    view = URL.current()
    if not principal.sees_costs and COST in (view.sort, *view.columns):
        st.info(texts.COSTS_HIDDEN, icon=":material/visibility_off:")


def chosen_columns(principal: Principal) -> list[EventColumn]:
    """The columns to show, in the table's own order; choosing none means all."""
    chosen = URL.current().columns
    return [column for column in columns_for(principal) if not chosen or column.field in chosen]


def event_grid(response: UsageEventsResponse, principal: Principal, zone: ZoneInfo) -> None:
    """Draw the rows."""
    columns, ids = chosen_columns(principal), [event.id for event in response.events]
    data_grid(
        cells(response.events, columns, zone),
        {column.field: _column_config(column) for column in columns},
        key=f"grid-{URL.generation()}-{response.pagination.page}-{response.pagination.as_of}",
        alt="Usage events",
        rows=len(ids),
        buttons=[RowButton(DETAILS, "Event", "Details", lambda row: open_event(ids[row]))],
        on_header=lambda field: sort_by(URL, field),
    )


def _column_config(column: EventColumn) -> Any:
    header = column.header(URL.current())
    if column.field == "sync_status":
        return st.column_config.MultiselectColumn(
            options=[status.value for status in SyncStatus],
            color=[STATUS_MARKS[status].colour for status in SyncStatus],
            format_func=lambda status: STATUS_MARKS[SyncStatus(status)].text,
            pinned=True,
            **header,
        )
    if column.field == "trace_url":
        return st.column_config.LinkColumn(display_text="Open", **header)
    return st.column_config.TextColumn(alignment=column.align, **header)


def footer(response: UsageEventsResponse, principal: Principal) -> None:
    """Draw the sums over the whole filter, not of the page."""
    totals, held = response.totals, response.totals.credits
    parts = " + ".join(f"{part.label} {short_credits(getattr(held, part.field))}" for part in CREDIT_PARTS)
    text = (
        f"**All {count_of(response.pagination.total_items, 'event')} matching this filter:** {parts} = "
        f"**{short_credits(held.total)} credits** · {short_usd(totals.amount_usd)} · "
        f"tokens in {count(totals.tokens_in)}, out {count(totals.tokens_out)}"
    )
    if principal.sees_costs:
        text += f" · Langfuse cost {short_usd(totals.cost_usd)}"
    st.markdown(text.replace("$", r"\$"))
