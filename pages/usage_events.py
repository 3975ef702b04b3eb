"""The Usage Events page: what was used, what it cost in credits, how far it got."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from zoneinfo import ZoneInfo

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from billing_core.access import Principal
from billing_core.errors import BadParameter
from billing_core.service import BillingService
from billing_core.types import GetUsageEventsParams
from billing_core.web import wiring
from components.shared import after_paint, sign_in
from components.shared.data_grid import paging as paging_row
from components.shared.layout import wide
from components.shared.periods import window_or_open
from components.shared.saved_views import open_start_view
from components.shared.url_state import compare_of
from components.usage_events import texts
from components.usage_events.cards import GRID, STRIP, draw_cards
from components.usage_events.chart_panel import chart_strip
from components.usage_events.details import requested_event, show_event
from components.usage_events.errors import stop_on_error
from components.usage_events.explore_panel import EXPLORE, explore_panel, view_switch
from components.usage_events.explore_panel import URL as EXPLORE_URL
from components.usage_events.filter_bar import active_filters, chatflow_names, filter_boxes
from components.usage_events.freshness import nothing_yet, title_row, unpin_after_refresh
from components.usage_events.kpi_tiles import kpi_tiles
from components.usage_events.query import Filters, Paging, filters_of, question
from components.usage_events.state import URL, PinnedView, current_pin, reset_filters
from components.usage_events.table import (
    costs_notice,
    csv_link,
    event_grid,
    footer,
    new_data_notice,
    paging,
    table_options,
)

DRAWN = "usage.figures-drawn"
"""Session state: the header figures stand there already, so older ones bridge the wait for newer ones."""

TILES_PIXELS = 170


@st.fragment
def events_view(service: BillingService, filters: Filters, pin: PinnedView, compare: str | None) -> None:
    """Draw toolbar, charts and table: turning a page or sorting reruns nothing else of the page."""
    principal = sign_in.guard()
    zone = service.settings.zone
    if filters_of(URL.current()) != filters or compared(filters, pin, zone) != compare:
        st.rerun()  # the figures above follow the filters, too

    def ask(order: Paging) -> GetUsageEventsParams:
        return question(filters, at=pin.at, zone=zone, as_of=pin.as_of, paging=order)

    with stop_on_error():
        names = chatflow_names(service, principal, pin)
        toolbar = st.container(horizontal=True, vertical_alignment="bottom", key="toolbar")
        with toolbar:
            filter_boxes(service, principal, pin, names)
            table_options(principal)
        shown = question(filters, at=pin.at, zone=zone, as_of=pin.as_of)
        with toolbar:
            csv_link(shown)
        active_filters(filters, pin.at, zone, names)
        strip = st.container(key=STRIP)
        is_painted = after_paint.PAINTED in st.session_state
        if not is_painted:  # keeps their room free
            draw_strip(strip, service, shown, compare)
        new_data_notice(service, principal, shown)
        costs_notice(principal)
        order = paging(principal)
        response = service.get_usage_events(ask(order), principal)
        if response.pagination.total_items == 0:
            strip.empty()
            nothing_found()
        else:
            if not response.events:  # behind the last page
                URL.change(page=1)
                response = service.get_usage_events(ask(replace(order, page=1)), principal)
            with st.container(key=GRID):
                event_grid(response, principal, zone)
            draw_cards(response.events, zone)
            paging_row(URL, response.pagination.total_items, order.limit, "event", key="paging")
            footer(response, principal)
            if is_painted:
                draw_strip(strip, service, shown, compare)
    if (event_id := requested_event()) is not None:
        show_event(service, event_id)


def explore_view(service: BillingService, principal: Principal, filters: Filters, pin: PinnedView) -> None:
    """Draw the filters and Explore under them."""
    zone, names = service.settings.zone, chatflow_names(service, principal, pin)
    with st.container(horizontal=True, vertical_alignment="bottom", key="toolbar"):
        filter_boxes(service, principal, pin, names)
    active_filters(filters, pin.at, zone, names)
    shown = question(filters, at=pin.at, zone=zone, as_of=pin.as_of)
    explore_panel(service, shown, filters, compared(filters, pin, zone))


def compared(filters: Filters, pin: PinnedView, zone: ZoneInfo) -> str | None:
    """What the service is asked to compare the view with."""
    return compare_of(URL.current(), window_or_open(filters, pin.at, zone), zone)


def draw_strip(
    place: DeltaGenerator, service: BillingService, params: GetUsageEventsParams, compare: str | None
) -> None:
    """Draw the charts at their place, after the table, which is what people wait for."""
    with place:
        chart_strip(service, params, compare)


def nothing_found() -> None:
    """Draw the notice that no event fits the filter."""
    st.info(texts.NOTHING_FOUND, icon=":material/search_off:")
    st.button("Reset all filters", icon=":material/restart_alt:", on_click=reset_filters, key="nothing-reset")


def figures(
    service: BillingService,
    principal: Principal,
    params: GetUsageEventsParams,
    place: DeltaGenerator,
    compare: str | None,
) -> None:
    """Draw the header figures, above the table whenever they are drawn."""
    with place:
        with st.skeleton(height=TILES_PIXELS):
            summary = service.summary(params, principal, compare)
        kpi_tiles(summary, service.settings.zone)
    st.session_state[DRAWN] = True


principal = sign_in.guard()
wide()
with stop_on_error():
    service = wiring.service()
    service.check_mode()
    open_start_view(service, principal, "usage_events")
    unpin_after_refresh()
    is_running = title_row("Usage Events", service, principal, "usage_events", URL, EXPLORE_URL)
    zone = service.settings.zone
    pin = current_pin(service, zone)
    if pin.as_of == 0:
        nothing_yet(service, is_running=is_running)
        st.stop()
    URL.told()
    view = view_switch()
    header = st.container()
    filters = filters_of(URL.current())

    def asked() -> GetUsageEventsParams:
        return question(filters, at=pin.at, zone=zone, as_of=pin.as_of)

    if view == EXPLORE:
        explore_view(service, principal, filters, pin)
        st.stop()
    compare = compared(filters, pin, zone)
    # The first time from top to bottom, so that nothing jumps; later the table first, which is what people wait for.
    is_drawn = DRAWN in st.session_state
    if not is_drawn:
        with suppress(BadParameter):  # told under the filters, so that they can be corrected
            figures(service, principal, asked(), header, compare)
    events_view(service, filters, pin, compare)
    if is_drawn:
        figures(service, principal, asked(), header, compare)
