"""The period and the filters of the export panel, with the same meaning as on the Usage Events page. They mean what
they mean on the Usage Events page.
"""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.access import Principal
from billing_core.service import BillingService
from components.exports import texts
from components.exports.query import Choice, days, facets_of, filters_of, has, timezones
from components.exports.state import STATES, Place
from components.shared import texts as shared_texts
from components.shared.periods import window_or_open
from components.shared.url_state import period_boxes
from components.usage_events.filter_bar import counted_values, panel_filters, read_chatflow_names
from components.usage_events.query import NO_NAMES, Facet, chips


def period_and_timezone(place: Place, reporting: ZoneInfo) -> None:
    """Draw the choice of the period, its days if it is a custom one, and the timezone in which days begin."""
    period_boxes(STATES[place])
    STATES[place].selectbox(
        "timezone",
        "Timezone",
        ["", *(name for name in timezones() if name != reporting.key)],
        format_func=lambda name: name or f"{reporting.key} (reporting)",
        width=230,
        filter_mode="fuzzy",
        help=texts.DAYS_IN_ZONE,
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
        st.caption(shared_texts.SEVERAL_VALUES)
        of_events = has(chosen, "event filters")
        if of_events:
            STATES[place].search_box(shared_texts.SEARCHED, width="stretch", max_chars=500)
        grid = st.grid("auto", min_column_width=200, gap="small", key=f"export-{place}-filter-grid")
        is_open, zone = bool(box.open), ZoneInfo(chosen.timezone) if chosen.timezone else service.settings.zone

        def counted(facet: Facet) -> list[tuple[str, int]]:
            return counted_values(service, principal, chosen, at, zone, as_of, facet) if is_open else []

        names = NO_NAMES
        if is_open and of_events:
            window = window_or_open(chosen, at, zone)
            names = read_chatflow_names(service, principal, window, as_of, with_ids=True)
        how = {"all_filters": of_events, "with_counts": False}
        panel_filters(STATES[place], facets_of(chosen), grid, counted, chatflows=names, **how)
