"""Session state of the Usage Events page, and the callbacks that change it.

Period, search, order and page live in widgets bound to the URL; their keys are the URL's names. Widgets that are not
always on the screen (the "Filters" panel, the days of a custom period) cannot be bound: what code sets while they are
hidden is lost to the browser's older memory of them. Their truth is the URL itself, and they are redrawn whenever
anything else changed it.

Kept here beside them: which state of the ledger the view is pinned to, and a generation that gives grids and charts
a new identity whenever what they show changes (a selection would otherwise outlive its rows).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.service import BillingService
from components.shared.periods import Period
from components.usage_events.query import FACETS, WITHOUT, Filters

ASCENDING, DESCENDING = "Ascending", "Descending"
"""Values of the order widget."""

PANEL_KEYS = (*(facet.key for facet in FACETS), WITHOUT, "amount_min", "amount_max")
"""Filters of the panel: their names in the URL."""

DAY_KEYS = ("first_day", "last_day")
"""Ends of a custom period, both included."""

ADDRESS_KEYS = (*PANEL_KEYS, *DAY_KEYS)
"""What has its truth in the URL."""

PIN, GENERATION = "usage.pin", "usage.generation"
SEEN, EPOCH = "usage.seen-address", "usage.address-epoch"


@dataclass(frozen=True, slots=True)
class PinnedView:
    """The ledger's booking number and the present time that a view is of: its pages never overlap."""

    as_of: int
    at: datetime


def current_pin(service: BillingService, zone: ZoneInfo) -> PinnedView:
    """The pinned state of this session; a new one at the first view, after `unpin`, on a new day, and while there is
    nothing.
    """
    now = service.now()
    pin: PinnedView | None = st.session_state.get(PIN)
    if pin is None or pin.as_of == 0 or pin.at.astimezone(zone).date() != now.astimezone(zone).date():
        pin = st.session_state[PIN] = PinnedView(service.version(), now)
    return pin


def unpin_if_younger(time: datetime) -> None:
    """Unpin a view that was opened after `time`, when a pull began: it showed the half that was read by then."""
    pin: PinnedView | None = st.session_state.get(PIN)
    if pin is not None and pin.at >= time and st.session_state.get("page", 1) == 1:
        unpin()


def unpin() -> None:
    """Show the newest state of the ledger, from the first page on."""
    st.session_state.pop(PIN, None)
    order_changed()


def generation() -> int:
    """A number that changes whenever grids and charts must forget what was selected in them."""
    value: int = st.session_state.get(GENERATION, 0)
    return value


def filters_changed() -> None:
    """Callback after any change of a filter: another question, so the newest data and the first page."""
    unpin()


def period_changed() -> None:
    """Callback after a change of the period: days chosen for a custom one are dropped."""
    if st.session_state["period"] != Period.CUSTOM:
        for key in DAY_KEYS:
            _write(key, ())
    filters_changed()


def order_changed() -> None:
    """Callback after a change of the order: first page, same state of the ledger."""
    st.session_state["page"] = 1
    st.session_state[GENERATION] = generation() + 1


def set_sort(label: str, order: str) -> None:
    """Sort the table by the column of this label."""
    st.session_state["sort"] = label
    st.session_state["order"] = order
    order_changed()


def reset_filters() -> None:
    """Set all filters to their defaults; order, page size and columns stay."""
    st.session_state["period"] = Period.LAST_30_DAYS
    st.session_state["search"] = ""
    for key in ADDRESS_KEYS:
        _write(key, ())
    filters_changed()


def add_value(key: str, value: str) -> None:
    """Add a value to a filter."""
    values = st.query_params.get_all(key)
    if value not in values:
        _write(key, [*values, value])
    filters_changed()


def remove_value(key: str, value: str | None) -> None:
    """Remove one value from a filter, or empty a filter that has only one."""
    if key == "search":
        st.session_state["search"] = ""
    else:
        _write(key, () if value is None else [kept for kept in st.query_params.get_all(key) if kept != value])
    filters_changed()


def choose(key: str, widget: str) -> None:
    """Callback: store what somebody chose in a widget of the "Filters" panel."""
    chosen = st.session_state[widget]
    _write(key, chosen if isinstance(chosen, list) else [str(chosen or "")])
    st.session_state[SEEN] = _address()
    filters_changed()


def address_epoch() -> int:
    """A number that changes whenever the URL's filters were changed by something else than the panel's widgets."""
    state, address = st.session_state, _address()
    if state.get(SEEN) != address:
        state[SEEN] = address
        state[EPOCH] = state.get(EPOCH, 0) + 1
    value: int = state[EPOCH]
    return value


def _address() -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(st.query_params.get_all(key)) for key in ADDRESS_KEYS)


def _write(key: str, values: Sequence[str]) -> None:
    present = [value for value in values if value.strip()]
    if present:
        st.query_params[key] = present
    elif key in st.query_params:
        del st.query_params[key]


def show_day(day: date) -> None:
    """Narrow the period to one day."""
    st.session_state["period"] = Period.CUSTOM
    for key in DAY_KEYS:
        _write(key, [day.isoformat()])
    filters_changed()


def chosen_day(key: str) -> date | None:
    """One end of a custom period as the URL has it; what is no day is no limit."""
    try:
        return date.fromisoformat(st.query_params.get(key, ""))
    except ValueError:
        return None


def _values(key: str) -> tuple[str, ...]:
    """The values of a filter as the URL has them, each once."""
    return tuple(dict.fromkeys(value for value in st.query_params.get_all(key) if value))


def current_filters() -> Filters:
    """The filters as chosen in the filter bar; call it after the bar was drawn."""
    state, address = st.session_state, st.query_params
    values = ((facet.key, _values(facet.key)) for facet in FACETS)
    return Filters(
        period=Period(state.get("period", Period.LAST_30_DAYS)),
        first_day=chosen_day("first_day"),
        last_day=chosen_day("last_day"),
        values=tuple((key, chosen) for key, chosen in values if chosen),
        without=_values(WITHOUT),
        amount_min=address.get("amount_min", ""),
        amount_max=address.get("amount_max", ""),
        search=state.get("search") or "",
    )
