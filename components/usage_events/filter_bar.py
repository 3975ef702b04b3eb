"""The filter bar of the Usage Events page. All of it is in the URL: a shared link shows the same view. All of it stands
in the URL: a shared link shows the same view.
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.access import Principal
from billing_core.errors import BillingError
from billing_core.service import BillingService
from billing_core.types import Attribute, GetUsageEventsParams, SyncStatus
from billing_core.usage_events.service import FACET_LIMIT
from components.shared.formats import count
from components.shared.notice import notice_of_error, plain
from components.shared.periods import Period, window_of
from components.usage_events.query import FACETS, WITHOUT, Facet, Filters, chips, days
from components.usage_events.state import (
    DAY_KEYS,
    PANEL_KEYS,
    PinnedView,
    address_epoch,
    choose,
    chosen_day,
    current_filters,
    filters_changed,
    period_changed,
    remove_value,
    reset_filters,
)

DOLLARS = (r"^\s*\$?\d*[.,]?\d*\s*$", "A number of US dollars, for example 0.05")

NAMED = 3
"""Most frequent values written under a filter, with their counts."""

PANEL_PIXELS = 560
"""Two filters beside each other; a phone shows one."""

CHIPS = 12
"""Active filters shown one by one."""


def filter_bar(service: BillingService, principal: Principal, pin: PinnedView) -> Filters:
    """Draw the filter bar and return its filters."""
    zone = service.settings.zone
    with st.container(horizontal=True, vertical_alignment="bottom", key="filter-bar"):
        period = st.selectbox(
            "Period",
            list(Period),
            index=list(Period).index(Period.LAST_30_DAYS),
            key="period",
            bind="query-params",
            on_change=period_changed,
            help=f"Days begin and end at midnight in {zone.key}, the reporting timezone.",
            width=170,
            filter_mode=None,
        )
        if period == Period.CUSTOM:
            _custom_days()
        st.text_input(
            "Search",
            key="search",
            bind="query-params",
            type="search",
            max_chars=500,
            placeholder="Id, user, session, organization, customer, chatflow, model",
            on_change=filters_changed,
            width="stretch",
        )
        # Tracked: the values are asked for only when somebody opens it, so the table never waits for them.
        more = st.popover(_panel_label(), icon=":material/filter_list:", key="filters-open", on_change="rerun")
        with more:
            _more_filters(service, principal, pin, is_open=bool(more.open))
        st.button("Reset", icon=":material/restart_alt:", on_click=reset_filters, key="reset-filters")
    return current_filters()


def _custom_days() -> None:
    for key, label in zip(DAY_KEYS, ("Start date", "End date"), strict=True):
        widget = _widget(key)
        st.date_input(
            label,
            value=chosen_day(key),
            key=widget,
            format="YYYY-MM-DD",
            on_change=choose,
            args=(key, widget),
            width=150,
            help="Inclusive. Leave empty for no limit.",
        )


def _more_filters(service: BillingService, principal: Principal, pin: PinnedView, *, is_open: bool) -> None:
    st.caption("Several values in one filter match any of them. You can also type a value that is not listed.")
    with st.container(width=PANEL_PIXELS):
        grid = st.grid(2, min_column_width=200, gap="small")
    for facet in FACETS:
        with grid.cell():
            counted = _counted(service, principal, pin, facet) if is_open else []
            _facet(facet, counted)
    with grid.cell():
        _without()
    for key, label in (("amount_min", "Amount from ($)"), ("amount_max", "Amount to ($)")):
        widget = _widget(key)
        grid.text_input(
            label,
            st.query_params.get(key, ""),
            key=widget,
            validate=DOLLARS,
            placeholder="Any",
            on_change=choose,
            args=(key, widget),
        )


def _panel_label() -> str:
    active = sum(len(st.query_params.get_all(key)) for key in PANEL_KEYS)
    return f"Filters ({active})" if active else "Filters"


def _widget(key: str) -> str:
    """Another widget after the URL was changed from outside: it then starts with what the URL says."""
    return f"filter-{key}-{address_epoch()}"


def _facet(facet: Facet, counted: list[tuple[str, int]]) -> None:
    found = [status.value for status in SyncStatus] if facet.key == "status" else [value for value, _ in counted]
    _several(facet.key, facet.label, found, can_be_typed=facet.key != "status")
    if counted:
        st.caption(plain(_most_frequent(counted)))


def _without() -> None:
    _several(
        WITHOUT,
        "Without",
        [attribute.value for attribute in Attribute],
        can_be_typed=False,
        empty="Not filtered",
        says="Events missing this field. With several fields: events missing all of them.",
    )


def _several(
    key: str, label: str, found: list[str], *, can_be_typed: bool, empty: str = "Any", says: str | None = None
) -> None:
    """Any number of values: those found, and those chosen already, which may be rarer or gone."""
    widget, chosen = _widget(key), list(dict.fromkeys(st.query_params.get_all(key)))
    st.multiselect(
        label,
        [*found, *(value for value in chosen if value not in found)],
        chosen,
        key=widget,
        on_change=choose,
        args=(key, widget),
        help=says,
        accept_new_options=can_be_typed,
        select_all=False,
        filter_mode="contains",
        placeholder=empty,
        wrap=True,
    )


def _counted(service: BillingService, principal: Principal, pin: PinnedView, facet: Facet) -> list[tuple[str, int]]:
    """The values of a filter within the chosen period and how many events have each, most frequent first."""
    zone = service.settings.zone
    try:
        start, end = window_of(days(current_filters(), pin.at.astimezone(zone).date()), zone)
        window = GetUsageEventsParams.parse({"from": start, "to": end, "as_of": pin.as_of})
        return service.facets(window, principal, facet.key)
    except BillingError as error:
        notice_of_error(error)
        return []


def _most_frequent(counted: list[tuple[str, int]]) -> str:
    named = " · ".join(f"{value} {count(events)}" for value, events in counted[:NAMED])
    if len(counted) <= NAMED:
        return named
    return f"{named} · " + ("and many more" if len(counted) >= FACET_LIMIT else f"{len(counted) - NAMED:,} more")


def active_filters(filters: Filters, at: datetime, zone: ZoneInfo) -> None:
    """Draw what narrows the view, in words: the days with their timezone, and each filter with a button to remove
    it.
    """
    active = chips(filters)
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", key="active-filters"):
        st.caption(
            f"{plain(str(days(filters, at.astimezone(zone).date())))} · days in {plain(zone.key)}", width="content"
        )
        for position, chip in enumerate(active[:CHIPS]):
            st.button(
                plain(chip.text),
                icon=":material/close:",
                icon_position="right",
                key=f"chip-{position}",
                type="tertiary",
                help="Remove this filter",
                on_click=remove_value,
                args=(chip.key, chip.value),
            )
        if len(active) > CHIPS:
            st.caption(f"and {len(active) - CHIPS} more", width="content")
