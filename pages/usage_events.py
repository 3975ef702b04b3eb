"""Usage events: what was used, what it cost in credits, how far it got."""

from __future__ import annotations

import streamlit as st

from billing_core.service import BillingService
from billing_core.web import wiring
from components import gate
from components.chart_panel import chart_panel
from components.event_details import requested_event, show_event
from components.event_table import csv_link, event_grid, footer, new_data_notice, page_control, paging, table_controls
from components.filter_bar import active_filters, filter_bar
from components.freshness import freshness_row, show_what_the_refresh_brought
from components.kpi_tiles import kpi_tiles, kpi_tiles_slot
from components.remedy import calm
from components.usage_query import Filters, question
from components.usage_state import Pin, current_pin, reset_filters


@st.fragment
def events_table(service: BillingService, filters: Filters, pin: Pin) -> None:
    """The table with its controls: turning a page or sorting runs nothing else of the page."""
    principal = gate.guard()
    zone = service.settings.zone
    with calm():
        shown = question(filters, at=pin.at, zone=zone, as_of=pin.as_of, paging=paging())
        with st.container(horizontal=True, vertical_alignment="bottom", key="table-controls"):
            table_controls()
            csv_link(shown)
        new_data_notice(service, principal, shown)
        # Again: the controls may just have taken over what the address asks for.
        order = paging()
        response = service.get_usage_events(
            question(filters, at=pin.at, zone=zone, as_of=pin.as_of, paging=order), principal
        )
        if response.pagination.total_items == 0:
            nothing_found()
            return
        event_grid(response, order, zone)
        page_control(response)
        footer(response)
    if (event_id := requested_event()) is not None:
        show_event(service, event_id)


def nothing_found() -> None:
    """No event fits the filter."""
    st.info("No usage event fits this filter.", icon=":material/search_off:")
    st.button("Reset all filters", icon=":material/restart_alt:", on_click=reset_filters, key="nothing-reset")


def nothing_yet() -> None:
    """The ledger holds no event at all."""
    st.info(
        "No usage events yet. Press “Refresh from Langfuse” to read the last 30 days, "
        "or run `python -m billing_core pull` on the server.",
        icon=":material/inbox:",
    )


principal = gate.guard()
st.title("Usage Events", anchor=False)
with calm():
    service = wiring.service()
    service.check_mode()
    show_what_the_refresh_brought()
    freshness_row(service, principal)
    pin = current_pin(service.version, service.settings.zone)
    if pin.as_of == 0:
        nothing_yet()
        st.stop()
    tiles = kpi_tiles_slot()
    filters = filter_bar(service, principal, pin)
    active_filters(filters, pin.at, service.settings.zone)
    events_table(service, filters, pin)
    params = question(filters, at=pin.at, zone=service.settings.zone, as_of=pin.as_of)
    summary = service.summary(params, principal)
    kpi_tiles(summary, tiles)
    if summary.totals is not None:
        chart_panel(service, params, summary)
