"""The period and the filters of the export panel, with the same meaning as on the Usage Events page. They mean what
they mean on the Usage Events page.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.access import Principal
from billing_core.errors import BillingError
from billing_core.service import BillingService
from billing_core.types import Attribute, GetUsageEventsParams, SyncStatus
from components.exports.query import Choice, days, facets_of, filters_of, has, timezones
from components.exports.state import Place, choose, choose_filter, choose_values, widget
from components.shared.notice import notice_of_error
from components.shared.periods import Period, window_of
from components.usage_events.filter_bar import DOLLARS
from components.usage_events.query import WITHOUT, Facet, Filters, chips


def period_boxes(place: Place, chosen: Choice, reporting: ZoneInfo) -> None:
    """Draw the choice of the period, its days if it is a custom one, and the timezone in which days begin."""
    filters = chosen.filters
    key = widget(place, "period")
    st.selectbox(
        "Period",
        list(Period),
        index=list(Period).index(filters.period),
        key=key,
        width=170,
        filter_mode=None,
        on_change=choose_filter,
        args=(place, "period", key),
    )
    if filters.period is Period.CUSTOM:
        for name, label in (("first_day", "Start date"), ("last_day", "End date")):
            key = widget(place, name)
            st.date_input(
                label,
                value=getattr(filters, name),
                key=key,
                format="YYYY-MM-DD",
                width=150,
                on_change=choose_filter,
                args=(place, name, key),
                help="Inclusive. Leave empty for no limit.",
            )
    options = ["", *(name for name in timezones() if name != reporting.key)]
    key = widget(place, "timezone")
    st.selectbox(
        "Timezone",
        options,
        index=options.index(chosen.timezone) if chosen.timezone in options else 0,
        key=key,
        format_func=lambda name: name or f"{reporting.key} (reporting)",
        width=230,
        on_change=choose,
        args=(place, "timezone", key),
        help="Days begin and end at midnight in this timezone.",
    )


def narrowed_text(chosen: Choice, at: datetime, reporting: ZoneInfo) -> str:
    """What the export is limited to, in words: its days with their timezone and every filter."""
    parts = []
    if has(chosen, "period"):
        parts.append(f"{days(chosen, at, reporting)} · days in {chosen.timezone or reporting.key}")
    parts += [chip.text for chip in chips(filters_of(chosen))]
    return " · ".join(parts)


def export_filters(
    service: BillingService, principal: Principal, place: Place, chosen: Choice, at: datetime, as_of: int
) -> None:
    """Draw every filter of the Usage Events page, folded away; its values are asked for when it is opened."""
    active = len(chips(filters_of(chosen)))
    label = f"Filters ({active})" if active else "Filters"
    box = st.expander(label, icon=":material/filter_list:", key=f"export-{place}-filters", on_change="rerun")
    with box:
        st.caption("Several values in one filter match any of them. You can also type a value that is not listed.")
        of_events = has(chosen, "event filters")
        if of_events:
            _search(place, chosen.filters)
        grid = st.grid("auto", min_column_width=200, gap="small", key=f"export-{place}-filter-grid")
        for facet in facets_of(chosen):
            with grid.cell():
                _facet(place, facet, chosen, _values(service, principal, facet, chosen, at, as_of) if box.open else [])
        if of_events:
            with grid.cell():
                _without(place, chosen.filters)
            for name, says in (("amount_min", "Amount from ($)"), ("amount_max", "Amount to ($)")):
                with grid.cell():
                    _amount(place, name, says, chosen.filters)


def _search(place: Place, filters: Filters) -> None:
    key = widget(place, "search")
    st.text_input(
        "Search",
        filters.search,
        key=key,
        type="search",
        max_chars=500,
        placeholder="Id, user, session, organization, customer, chatflow, model",
        on_change=choose_filter,
        args=(place, "search", key),
    )


def _amount(place: Place, name: str, label: str, filters: Filters) -> None:
    key = widget(place, name)
    st.text_input(
        label,
        getattr(filters, name),
        key=key,
        validate=DOLLARS,
        placeholder="Any",
        on_change=choose_filter,
        args=(place, name, key),
    )


def _facet(place: Place, facet: Facet, chosen: Choice, found: Sequence[str]) -> None:
    present = dict(chosen.filters.values).get(facet.key, ())
    key = widget(place, facet.key)
    st.multiselect(
        facet.label,
        [*found, *(value for value in present if value not in found)],
        list(present),
        key=key,
        on_change=choose_values,
        args=(place, facet.key, key),
        accept_new_options=facet.key != "status",
        select_all=False,
        filter_mode="contains",
        placeholder="Any",
        wrap=True,
    )


def _without(place: Place, filters: Filters) -> None:
    offered = [attribute.value for attribute in Attribute]
    key = widget(place, WITHOUT)
    st.multiselect(
        "Without",
        offered,
        [name for name in filters.without if name in offered],
        key=key,
        select_all=False,
        on_change=choose_filter,
        args=(place, WITHOUT, key, tuple),
        placeholder="Not filtered",
        wrap=True,
        help="Events missing this field. With several fields: events missing all of them.",
    )


def _values(
    service: BillingService, principal: Principal, facet: Facet, chosen: Choice, at: datetime, as_of: int
) -> list[str]:
    """What may be chosen within the period, most frequent first."""
    if facet.key == "status":
        return [status.value for status in SyncStatus]
    zone = ZoneInfo(chosen.timezone) if chosen.timezone else service.settings.zone
    try:
        start, end = window_of(days(chosen, at, service.settings.zone), zone)
        window = GetUsageEventsParams.parse({"from": start, "to": end, "as_of": as_of})
        return [value for value, _ in service.facets(window, principal, facet.key)]
    except BillingError as error:
        notice_of_error(error)
        return []
