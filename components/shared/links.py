"""Links to the rows behind a figure, to an event, and to a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from components.shared.notice import plain
from components.shared.periods import Period

USAGE_PAGE = "usage_events.py"

EVENT_PARAMETER = "event"
"""Name in the URL of the event whose explanation is open."""


def customers_link(label: str) -> None:
    """Draw a link to where organizations get their Stripe customers."""
    query = {"view": "Names and customers"}
    st.page_link("organization_stats.py", label=plain(label), icon=":material/apartment:", query_params=query)


def usage_link(label: str, **filters: str | Sequence[str]) -> None:
    """Draw a link to the Usage Events page with a filter set; over all time unless `period` is among the filters."""
    query: Mapping[str, Any] = {"period": Period.ALL_TIME.value, **filters}
    st.page_link(USAGE_PAGE, label=plain(label), icon=":material/arrow_outward:", query_params=query)


def event_link(event_id: str) -> None:
    """Draw a link to an event's explanation."""
    query = {"period": Period.ALL_TIME.value, EVENT_PARAMETER: event_id}
    st.page_link(USAGE_PAGE, label=plain(event_id), icon=":material/receipt_long:", query_params=query)


def file_link(label: str, path: str, *, note: str, key: str) -> None:
    """Draw a download link to a route, which asks the session's cookie who is reading."""
    with st.container(key=key, width="content"):
        st.link_button(label, route_path(path), icon=":material/download:", help=note)


def route_path(path: str) -> str:
    """The path of one of this server's routes as browsers ask for it, with the base path it is served under."""
    base = st.get_option("server.baseUrlPath").strip("/")
    return f"{f'/{base}' if base else ''}{path}"
