"""State of the Organization Stats page between two runs: its address, and which state of the ledger it shows.

The URL is the truth for all of it. No widget is bound to it: most are on the screen only in some views, and what code
sets while a bound widget is hidden is lost to the browser's older memory (see `usage_events.state`). Each starts with
what the URL says, writes there what somebody chooses, and gets a new identity whenever anything else changed the URL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

import streamlit as st

from billing_core.service import BillingService
from components.organizations.query import Address
from components.shared.links import USAGE_PAGE
from components.shared.notice import plain

PAGE = "organization_stats.py"

SEEN, EPOCH, GENERATION = "org.seen-address", "org.address-epoch", "org.generation"
TOLD = "org.told-address"
"""Session state: the URL's parameters as the browser was last told."""

TARGET = "org.target"
"""Session state: parameters of the Usage Events page that a click on a chart asked for."""

NAMES = tuple(field.name for field in fields(Address))


@dataclass(frozen=True, slots=True)
class PinnedState:
    """The ledger's booking number and the present time that all figures of one run of the page are of."""

    as_of: int
    at: datetime


def current_pin(service: BillingService) -> PinnedState:
    """The newest booking number and time. The page takes them once per run, so that all its figures agree. The page
    takes it once per run and hands it on, so that all its figures agree.
    """
    return PinnedState(service.version(), service.now())


def current() -> Address:
    """The address in the URL."""
    return Address.parse(_raw())


def _raw() -> dict[str, list[str]]:
    return {name: st.query_params.get_all(name) for name in NAMES}


def write(address: Address) -> None:
    """Change the URL; parameters that are not this page's stay."""
    now, then = address.query(), _raw()
    for name in NAMES:
        if name in now and now[name] != then[name]:
            st.query_params[name] = now[name]
        elif name not in now and then[name]:
            del st.query_params[name]


def sync_address() -> None:
    """Once per run: write the address to the browser, which does not show it after a link from the page to itself.

    The browser ignores what it shows already.
    """
    said = {name: st.query_params.get_all(name) for name in st.query_params}
    if st.session_state.get(TOLD, said) != said:
        if said:
            name, values = next(iter(said.items()))
            st.query_params[name] = values  # any parameter sends them all
        else:
            st.query_params.clear()
    st.session_state[TOLD] = said


def widget(name: str) -> str:
    """The key of the widget for a part of the address; it changes when the URL was changed from outside."""
    state, address = st.session_state, _raw()
    if state.get(SEEN) != address:
        state[SEEN] = address
        state[EPOCH] = state.get(EPOCH, 0) + 1
    return f"org-{name}-{state[EPOCH]}"


def choose(name: str, key: str, read: Callable[[Any], Any] = lambda chosen: chosen) -> None:
    """Callback: store what somebody chose in the widget `key`; another question starts on the first page of the
    table.
    """
    value = read(st.session_state[key])
    first = {} if name == "part" else {"part": 1}
    write(replace(current(), **{**first, name: value}))
    st.session_state[SEEN] = _raw()
    if name != "part":
        st.session_state[GENERATION] = generation() + 1


def generation() -> int:
    """A number that changes with the question: part of the keys of widgets that must forget their selection then."""
    value: int = st.session_state.get(GENERATION, 0)
    return value


def open_organization(organization_id: str | None) -> None:
    """Show one organization's own page. For callbacks, also of fragments: the whole page has to follow."""
    write(current().opening(organization_id))
    st.rerun()


def organization_link(label: str, organization_id: str | None, *, icon: str = ":material/apartment:") -> None:
    """Draw a link to one organization's own page, in the period of this one."""
    query: Mapping[str, Any] = current().opening(organization_id).query()
    st.page_link(PAGE, label=plain(label), icon=icon, query_params=query)


def go_to_events(query: Mapping[str, Any]) -> None:
    """Ask for the Usage Events page with these parameters. For callbacks of charts; `follow` then goes there."""
    st.session_state[TARGET] = dict(query)


def follow() -> None:
    """Go to the page that a click on a chart asked for, before anything is drawn."""
    target = st.session_state.pop(TARGET, None)
    if target is not None:
        st.switch_page(USAGE_PAGE, query_params=target)
