"""State of the Usage Events page: what its URL asks for, and which state of the ledger the view is pinned to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.service import BillingService
from billing_core.types import SyncStatus
from components.shared.comparison import COMPARISON_VALUES, ComparisonChoice
from components.shared.periods import Period
from components.shared.url_codec import Codec, flag, number, one_of, several_of
from components.shared.url_state import UrlState
from components.usage_events.columns import COLUMNS, DEFAULT_COLUMNS, SORT_FIELDS
from components.usage_events.query import FILTER_VALUES, Filters, as_changes, filters_of

PAGE_SIZES = (5, 10, 25, 50, 100)

PIN = "usage.pin"


@dataclass(frozen=True)
class EventsView(Filters, ComparisonChoice):
    """The state of the page: its filters, what it is compared with, order, page and columns of the table, and whether
    charts are shown. No columns are all columns.
    """

    sort: str = "timestamp"
    ascending: bool = False
    page: int = 1
    rows: int = 25
    columns: tuple[str, ...] = DEFAULT_COLUMNS
    charts: bool = True


_FIELDS = {"Total credits": "credits_total", **{column.label: column.field for column in COLUMNS}}
"""Columns by what stands in the URL; the first is what older links call the column "Credits"."""

CODEC = Codec(
    EventsView(),
    {
        **FILTER_VALUES,
        **COMPARISON_VALUES,
        "sort": one_of({label: field for label, field in _FIELDS.items() if field in SORT_FIELDS}),
        "ascending": flag("Ascending", "Descending"),
        "page": number(1, 10**8),
        "rows": one_of(PAGE_SIZES),
        "columns": several_of(_FIELDS),
        "charts": flag("shown", "hidden"),
    },
    {"ascending": "order", "against": "compare", "against_from": "compare_from", "against_to": "compare_to"},
)

URL = UrlState("usage", CODEC)


@dataclass(frozen=True, slots=True)
class PinnedView:
    """The ledger's booking number and the present time that a view of these filters is of: its pages never overlap."""

    as_of: int
    at: datetime
    filters: Filters


def current_pin(service: BillingService, zone: ZoneInfo) -> PinnedView:
    """The pinned state of this session; a new one at the first view, for other filters, after `unpin`, on a new day,
    and while there is nothing.
    """
    now, filters = service.now(), filters_of(URL.current())
    pin: PinnedView | None = st.session_state.get(PIN)
    is_of_today = pin is not None and pin.at.astimezone(zone).date() == now.astimezone(zone).date()
    if pin is None or pin.as_of == 0 or pin.filters != filters or not is_of_today:
        pin = st.session_state[PIN] = PinnedView(service.version(), now, filters)
    return pin


def unpin_if_younger(time: datetime) -> None:
    """Unpin a view that was opened after `time`, when a pull began: it showed the half that was read by then."""
    pin: PinnedView | None = st.session_state.get(PIN)
    if pin is not None and pin.at >= time and URL.current().page == 1:
        unpin()


def unpin() -> None:
    """Show the newest state of the ledger, from the first page on."""
    st.session_state.pop(PIN, None)
    URL.change(page=1)


def reset_filters() -> None:
    """Set all filters to their defaults; order, page size and columns stay."""
    URL.change(**as_changes(Filters()))
    unpin()


def add_value(field: str, value: str) -> None:
    """Add a value to a filter."""
    URL.change(**{field: tuple(dict.fromkeys((*getattr(URL.current(), field), value)))})


def remove_value(field: str, value: str | None) -> None:
    """Remove one value from a filter, or empty a filter that has only one."""
    usual = getattr(Filters(), field)
    kept = usual if value is None else tuple(one for one in getattr(URL.current(), field) if one != value)
    URL.change(**{field: kept})


def show_day(day: date) -> None:
    """Narrow the period to one day."""
    URL.change(period=Period.CUSTOM, first_day=day, last_day=day)


def show_statuses(statuses: Sequence[SyncStatus]) -> None:
    """Narrow the view to events with one of some statuses: of those chosen already, if any."""
    chosen = URL.current().status
    URL.change(status=tuple(status.value for status in statuses if not chosen or status.value in chosen))
