"""State of the Organization Stats page between two runs: its address, and which state of the ledger it shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import streamlit as st

from billing_core.service import BillingService
from components.organizations.query import CODEC
from components.shared.links import USAGE_PAGE
from components.shared.notice import plain
from components.shared.url_state import UrlState

PAGE = "organization_stats.py"

TARGET = "org.target"
"""Session state: parameters of the Usage Events page that a click on a chart asked for."""

URL = UrlState("org", CODEC)


@dataclass(frozen=True, slots=True)
class PinnedState:
    """The ledger's booking number and the present time that all figures of one run of the page are of."""

    as_of: int
    at: datetime


def current_pin(service: BillingService) -> PinnedState:
    """The newest booking number and time. The page takes them once per run, so that all its figures agree."""
    return PinnedState(service.version(), service.now())


def open_organization(organization_id: str | None) -> None:
    """Show one organization's own page. For callbacks, also of fragments: the whole page has to follow."""
    URL.write(URL.current().opening(organization_id))
    st.rerun()


def organization_link(label: str, organization_id: str | None, *, icon: str = ":material/apartment:") -> None:
    """Draw a link to one organization's own page, in the period of this one."""
    query: Mapping[str, Any] = CODEC.render(URL.current().opening(organization_id))
    st.page_link(PAGE, label=plain(label), icon=icon, query_params=query)


def go_to_events(query: Mapping[str, Any]) -> None:
    """Ask for the Usage Events page with these parameters. For callbacks of charts; `follow` then goes there."""
    st.session_state[TARGET] = dict(query)


def follow() -> None:
    """Go to the page that a click on a chart asked for, before anything is drawn."""
    target = st.session_state.pop(TARGET, None)
    if target is not None:
        st.switch_page(USAGE_PAGE, query_params=target)
