"""The top of the Organization Stats page: the choice of its parts and of the period."""

from __future__ import annotations

from datetime import date
from zoneinfo import ZoneInfo

import streamlit as st

from components.organizations.query import Address, OrganizationView
from components.organizations.state import choose, widget
from components.shared.periods import Period


def view_switch(address: Address) -> OrganizationView:
    """Draw the choice between the parts of the page. Radio buttons: they wrap on a phone, and what is chosen can be
    read in the dark, too.
    """
    key = widget("view")
    chosen = st.radio(
        "View",
        list(OrganizationView),
        index=list(OrganizationView).index(address.view),
        key=key,
        horizontal=True,
        label_visibility="collapsed",
        on_change=choose,
        args=("view", key),
    )
    return OrganizationView(chosen or address.view)


def search_box(find: str, placeholder: str) -> None:
    """The search of a table, which stands in the URL as `find`."""
    key = widget("find")
    st.text_input(
        "Search",
        find,
        key=key,
        type="search",
        max_chars=200,
        placeholder=placeholder,
        on_change=choose,
        args=("find", key),
        width=260,
    )


def period_bar(address: Address, zone: ZoneInfo) -> None:
    """Draw the choice of the period, with its days if it is a custom one."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="org-bar"):
        key = widget("span")
        st.selectbox(
            "Period",
            list(Period),
            index=list(Period).index(address.span),
            key=key,
            width=170,
            filter_mode=None,
            help=f"Days begin and end at midnight in {zone.key}, the reporting timezone.",
            on_change=choose,
            args=("span", key),
        )
        if address.span is Period.CUSTOM:
            _day("from_day", "Start date", address.from_day)
            _day("to_day", "End date", address.to_day)


def _day(name: str, label: str, value: date | None) -> None:
    key = widget(name)
    st.date_input(
        label,
        value=value,
        key=key,
        format="YYYY-MM-DD",
        on_change=choose,
        args=(name, key),
        width=150,
        help="Inclusive. Leave empty for no limit.",
    )


def nothing_yet(*, is_running: bool) -> None:
    """Draw the notice that the ledger holds no event at all."""
    if is_running:
        st.info("No usage events yet. Figures appear here as soon as the first are read.", icon=":material/inbox:")
        return
    st.info(
        "No usage events yet. Press “Refresh from Langfuse” to read the last 30 days, "
        "or run `python -m billing_core pull` on the server.",
        icon=":material/inbox:",
    )
