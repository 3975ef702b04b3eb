"""The top of the Organization Stats page: the choice of its parts and of the period."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import streamlit as st

from components.organizations.query import OrganizationView
from components.organizations.state import URL
from components.shared.url_state import comparison_boxes, period_boxes


def view_switch() -> OrganizationView:
    """Draw the choice between the parts of the page."""
    URL.radio("view", "View", list(OrganizationView), label_visibility="collapsed")
    return URL.current().view


def period_bar(zone: ZoneInfo) -> None:
    """Draw the choice of the period."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="org-bar"):
        period_boxes(URL, zone)


def comparison_bar(window: tuple[datetime | None, datetime | None], zone: ZoneInfo) -> None:
    """Draw the choice of the period and of what it is compared with."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="org-bar"):
        period_boxes(URL, zone)
        comparison_boxes(URL, window, zone)
