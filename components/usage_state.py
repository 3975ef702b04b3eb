"""What a session remembers about the Usage Events page, and the callbacks that change it.

Filters, order and page live in widgets bound to the URL; their keys are the URL's names. What is kept here beside
them: which state of the ledger the view is pinned to, and a generation that gives grids and charts a new identity
whenever what they show changes (a selection would otherwise outlive its rows).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import streamlit as st

from components.periods import Period
from components.usage_query import FACETS, Filters

__all__ = [
    "ASCENDING",
    "DESCENDING",
    "Pin",
    "add_value",
    "current_filters",
    "current_pin",
    "filters_changed",
    "generation",
    "order_changed",
    "remove_value",
    "reset_filters",
    "set_sort",
    "show_day",
    "unpin",
]

ASCENDING, DESCENDING = "Ascending", "Descending"
"""Values of the order widget."""

FILTER_KEYS = (
    "period",
    "first_day",
    "last_day",
    *(facet.key for facet in FACETS),
    "amount_min",
    "amount_max",
    "search",
)

PIN, GENERATION = "usage.pin", "usage.generation"


@dataclass(frozen=True, slots=True)
class Pin:
    """The ledger's booking number and the present as this view knows them: pages cut from it never overlap."""

    as_of: int
    at: datetime


def current_pin(version: Callable[[], int], zone: ZoneInfo) -> Pin:
    """The pin of this session; a new one at the first look, after `unpin`, and on a new day."""
    now = datetime.now(UTC)
    pin: Pin | None = st.session_state.get(PIN)
    if pin is None or pin.at.astimezone(zone).date() != now.astimezone(zone).date():
        pin = st.session_state[PIN] = Pin(version(), now)
    return pin


def unpin() -> None:
    """Show the newest state from the first page on."""
    st.session_state.pop(PIN, None)
    st.session_state["page"] = 1
    st.session_state[GENERATION] = generation() + 1


def generation() -> int:
    """Changes whenever grids and charts must forget what was selected in them."""
    value: int = st.session_state.get(GENERATION, 0)
    return value


def filters_changed() -> None:
    """Any filter changed: another question, so the newest data and the first page."""
    unpin()


def order_changed() -> None:
    """The same events in another order: first page, same state of the ledger."""
    st.session_state["page"] = 1
    st.session_state[GENERATION] = generation() + 1


def set_sort(label: str, order: str) -> None:
    """Sort by the column of this label."""
    st.session_state["sort"] = label
    st.session_state["order"] = order
    order_changed()


def reset_filters() -> None:
    """Back to the defaults; order, page size and columns stay."""
    for key in FILTER_KEYS:
        st.session_state[key] = _default(key)
    unpin()


def _default(key: str) -> Any:
    if key == "period":
        return Period.LAST_30_DAYS
    if key in {"first_day", "last_day"}:
        return None
    return "" if key in {"amount_min", "amount_max", "search"} else []


def add_value(key: str, value: str) -> None:
    """Filter by one more value."""
    values = list(st.session_state.get(key) or [])
    if value not in values:
        st.session_state[key] = [*values, value]
    filters_changed()


def remove_value(key: str, value: str | None) -> None:
    """Take one value out of a filter, or empty a filter that has only one."""
    if value is None:
        st.session_state[key] = _default(key)
    else:
        st.session_state[key] = [kept for kept in st.session_state.get(key) or [] if kept != value]
    filters_changed()


def show_day(day: date) -> None:
    """Narrow the period to one day."""
    st.session_state["period"] = Period.CUSTOM
    st.session_state["first_day"] = st.session_state["last_day"] = day
    filters_changed()


def current_filters() -> Filters:
    """The filter bar's widgets as one value; call it after they were drawn."""
    state = st.session_state
    values = ((facet.key, tuple(str(value) for value in state.get(facet.key) or ())) for facet in FACETS)
    return Filters(
        period=Period(state.get("period", Period.LAST_30_DAYS)),
        first_day=state.get("first_day"),
        last_day=state.get("last_day"),
        values=tuple((key, chosen) for key, chosen in values if chosen),
        amount_min=state.get("amount_min") or "",
        amount_max=state.get("amount_max") or "",
        search=state.get("search") or "",
    )
