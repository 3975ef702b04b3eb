"""The filters of the Usage Events page. All of them stand in the URL: a shared link shows the same view."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.access import Principal
from billing_core.errors import BillingError
from billing_core.service import BillingService
from billing_core.stripe_sync.pipeline import ADVICE, title_of
from billing_core.types import Attribute, GetUsageEventsParams, PipelineStage, SyncStatus
from billing_core.usage_events.service import FACET_LIMIT
from components.shared import texts as shared_texts
from components.shared.colours import STAGE_MARKS
from components.shared.formats import count
from components.shared.notice import notice_of_error, plain
from components.shared.periods import PeriodChoice, window_or_open
from components.shared.url_state import UrlState, comparison_boxes, period_boxes
from components.usage_events import texts
from components.usage_events.credit_rows import READ
from components.usage_events.query import (
    CREDIT_TYPES,
    FACETS,
    HELD,
    NO_NAMES,
    PANEL_FIELDS,
    WITHOUT,
    Facet,
    Filters,
    chips,
    names_of,
)
from components.usage_events.state import URL, PinnedView, remove_value, reset_filters

F = TypeVar("F", bound=Filters)


DOLLARS = (r"^\s*\$?\d*[.,]?\d*\s*$", texts.AMOUNT_EXAMPLE)

NAMED = 3
"""Most frequent values written under a filter, with their counts."""

PANEL_PIXELS = 560
"""Two filters beside each other; a phone shows one."""

CHIPS = 12
"""Active filters shown one by one."""


def filter_boxes(service: BillingService, principal: Principal, pin: PinnedView, names: ChatflowNames) -> None:
    """Draw period, search and the panel of filters, for a toolbar."""
    zone = service.settings.zone
    period_boxes(URL, zone, label_visibility="collapsed")
    comparison_boxes(URL, window_or_open(pin.filters, pin.at, zone), zone, label_visibility="collapsed")
    URL.search_box(shared_texts.SEARCHED, width="stretch", max_chars=500, label_visibility="collapsed")
    # Tracked: the values are asked for only when somebody opens it, so the table never waits for them.
    more = st.popover(_panel_label(), icon=":material/filter_list:", key="filters-open", on_change="rerun")
    with more:
        st.caption(shared_texts.SEVERAL_VALUES)
        with st.container(width=PANEL_PIXELS):
            grid = st.grid(2, min_column_width=200, gap="small")
        is_open = bool(more.open)

        def counted(facet: Facet) -> list[tuple[str, int]]:
            view = URL.current()
            return counted_values(service, principal, view, pin.at, zone, pin.as_of, facet) if is_open else []

        panel_filters(URL, FACETS, grid, counted, chatflows=names() if is_open else NO_NAMES)


ChatflowNames = Callable[[], Mapping[str, str]]
"""Gives the names of chatflows by id; asks the ledger only when they are shown."""


def chatflow_names(service: BillingService, principal: Principal, pin: PinnedView) -> ChatflowNames:
    """The names of the chatflows of the period's events."""
    window = window_or_open(pin.filters, pin.at, service.settings.zone)
    return lambda: read_chatflow_names(service, principal, window, pin.as_of)


def read_chatflow_names(
    service: BillingService,
    principal: Principal,
    window: tuple[datetime | None, datetime | None],
    as_of: int,
    *,
    with_ids: bool = False,
) -> Mapping[str, str]:
    """The names of the chatflows of a window's events, with the id behind each, if wanted; none if they cannot be
    read, which is told where the figures are.
    """
    try:
        params = GetUsageEventsParams.parse({"from": window[0], "to": window[1], "as_of": as_of})
        found = service.breakdown(params, principal, "chatflow", "chatflow_name", limit=READ)
    except BillingError:
        return NO_NAMES
    return names_of(((one.values[0], one.values[1]) for one in found), with_ids=with_ids)


def panel_filters(
    url: UrlState[F],
    facets: Sequence[Facet],
    grid: Any,
    counted: Callable[[Facet], list[tuple[str, int]]],
    *,
    all_filters: bool = True,
    with_counts: bool = True,
    chatflows: Mapping[str, str] = NO_NAMES,
) -> None:
    """Draw a box for each of `facets`, and, with `all_filters`, for what events lack and for amounts. `counted` gives
    the values of a filter and how many events have each, which stands under it `with_counts`; `chatflows` are names
    by id.
    """
    for facet in facets:
        with grid.cell():
            is_typed = facet.key != "status"
            found = counted(facet)
            offered = [value for value, _ in found] if is_typed else [status.value for status in SyncStatus]
            how: dict[str, Any] = {"accept_new_options": is_typed, "filter_mode": "contains"}
            names = chatflows if facet.key == "chatflow" else NO_NAMES
            if names:
                how["format_func"] = partial(_named, names)
            url.multiselect(facet.key, facet.label, offered, **how)
            if found and with_counts:
                st.caption(plain(_most_frequent([(_named(names, value), events) for value, events in found])))
    if not all_filters:
        return
    with grid.cell():
        offered, note = ([one.value for one in Attribute], shared_texts.MISSING_FIELD)
        url.multiselect(WITHOUT, "Without", offered, placeholder="Not filtered", help=note)
    with grid.cell():
        url.multiselect("cause", "Cause", list(ADVICE), format_func=title_of, accept_new_options=True, help=texts.CAUSE)
    with grid.cell():
        url.selectbox("held", "Held back", list(HELD), format_func=lambda held: HELD[held], help=texts.HELD)
    with grid.cell():
        url.multiselect("stage", "Stage", list(PipelineStage), format_func=_stage_word, help=texts.STAGE)
    with grid.cell():
        url.multiselect("credit_type", "Credit type", list(CREDIT_TYPES), format_func=CREDIT_TYPES.__getitem__)
    for field, label in (("amount_min", "Amount from ($)"), ("amount_max", "Amount to ($)")):
        with grid.cell():
            url.text_input(field, label, validate=DOLLARS, placeholder="Any")


def _stage_word(stage: str) -> str:
    return STAGE_MARKS[PipelineStage(stage)].word


def _named(names: Mapping[str, str], value: str) -> str:
    return names.get(value, value)


def _panel_label() -> str:
    view = URL.current()
    values = [getattr(view, field) for field in PANEL_FIELDS]
    active = sum(len(value) if isinstance(value, tuple) else bool(value) for value in values)
    return f"Filters ({active})" if active else "Filters"


def counted_values(
    service: BillingService,
    principal: Principal,
    period: PeriodChoice,
    at: datetime,
    zone: ZoneInfo,
    as_of: int,
    facet: Facet,
) -> list[tuple[str, int]]:
    """The values of a filter within a period and how many events have each, most frequent first; draws why there are
    none if they cannot be read.
    """
    try:
        start, end = period.window(at, zone)
        window = GetUsageEventsParams.parse({"from": start, "to": end, "as_of": as_of})
        return service.facets(window, principal, facet.key)
    except BillingError as error:
        notice_of_error(error)
        return []


def _most_frequent(counted: list[tuple[str, int]]) -> str:
    named = " · ".join(f"{value} {count(events)}" for value, events in counted[:NAMED])
    if len(counted) <= NAMED:
        return named
    return f"{named} · " + ("and many more" if len(counted) >= FACET_LIMIT else f"{len(counted) - NAMED:,} more")


def active_filters(filters: Filters, at: datetime, zone: ZoneInfo, names: ChatflowNames) -> None:
    """Draw what narrows the view, in words: the days with their timezone, and each filter with a button to remove
    it.
    """
    active = chips(filters, names() if filters.chatflow else NO_NAMES)
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", key="active-filters"):
        st.caption(
            f"{plain(str(filters.days(at.astimezone(zone).date())))} · days in {plain(zone.key)}", width="content"
        )
        for position, chip in enumerate(active[:CHIPS]):
            st.button(
                plain(chip.text),
                icon=":material/close:",
                icon_position="right",
                key=f"chip-{position}",
                type="tertiary",
                help=plain(f"{chip.whole} · Remove this filter" if chip.whole else "Remove this filter"),
                on_click=remove_value,
                args=(chip.key, chip.value),
            )
        if len(active) > CHIPS:
            st.caption(f"and {len(active) - CHIPS} more", width="content")
        if active:
            st.button(
                "Reset", icon=":material/restart_alt:", type="tertiary", on_click=reset_filters, key="reset-filters"
            )
