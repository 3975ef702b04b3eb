"""The result of a re-rating: figures, organizations, plans, what is owed to Stripe, which events stay as they are."""

from __future__ import annotations

import streamlit as st

from billing_core.access import Principal
from billing_core.rerating.model import Rerating
from billing_core.service import BillingService
from billing_core.types import GetUsageEventsParams
from components.shared.data_grid import ROW_PIXELS, page_count, page_of, pages
from components.shared.metric_tiles import metric_tiles
from components.shared.notice import plain
from components.shared.widgets import table
from components.what_if import texts
from components.what_if.state import URL, RerateResult
from components.what_if.texts import (
    cards_line,
    crossing_rows,
    csv_lines,
    kept_rows,
    organization_rows,
    tie_text,
    tiles,
    to_send_text,
    total_line,
    unknown_plans_text,
    verdict_text,
    version_rows,
    window_text,
)

PAGE_ROWS = 25
SHOWN_CROSSINGS = 200


WORDS = ("Organization", "Customer", "Organizations", "Plan", "What happens", "Reason", "Rate card")
"""Columns that hold no figures."""


def show_answer(service: BillingService, principal: Principal, kept: RerateResult) -> None:
    """Draw the whole result of a re-rating, in the order in which people ask."""
    found, zone = kept.found, service.settings.zone
    st.markdown(f"**{plain(verdict_text(found))}**")
    st.caption(plain(f"{kept.label[:1].upper()}{kept.label[1:]}, on {window_text(found, zone)}."))
    st.caption(plain(cards_line(kept.cards, zone)))
    if not found.applied:
        st.info(texts.NOTHING_CHANGED, icon=":material/science:")
    if not found.events:
        return
    metric_tiles(tiles(found), key="what-if-tiles")
    _organizations(service, principal, kept)
    _plans(service, kept)
    st.markdown("**At Stripe**")
    st.markdown(plain(to_send_text(found)))
    if found.not_rerated:
        _table("Events that keep their credits", kept_rows(found), f"what-if-kept-{kept.number}")
    with st.expander("Rate cards of the events", icon=":material/sell:", key="what-if-versions"):
        _table("Events per card", version_rows(found), f"what-if-cards-{kept.number}")


def _organizations(service: BillingService, principal: Principal, kept: RerateResult) -> None:
    found = kept.found
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown("**Organizations, the largest difference first**", width="stretch")
        st.download_button(
            "CSV",
            csv_lines(found),
            "what-if.csv",
            "text/csv",
            on_click="ignore",
            icon=":material/download:",
            key="what-if-csv",
            help=texts.CSV_NOTE,
        )
    page, shown = page_of(found.organizations, URL.current().page, PAGE_ROWS)
    rows = organization_rows(shown)
    _grid("Organizations, the largest difference first", rows, f"what-if-organizations-{kept.number}-{page}")
    if len(found.organizations) > PAGE_ROWS:
        pages(URL, page_count(len(found.organizations), PAGE_ROWS))
    st.markdown(plain(total_line(found)))
    if not found.applied and (text := _tie(service, principal, kept)) is not None:
        st.caption(plain(text))


def _tie(service: BillingService, principal: Principal, kept: RerateResult) -> str | None:
    """Compared with the screen as long as the ledger is as it was."""
    if service.version() != kept.version:
        return None
    asked = GetUsageEventsParams.parse({"from": kept.start, "to": kept.end, "as_of": kept.version, "limit": 1})
    return tie_text(kept.found, service.get_usage_events(asked, principal).totals.credits.total)


def _plans(service: BillingService, kept: RerateResult) -> None:
    found: Rerating = kept.found
    rows = found.plan_limits[:SHOWN_CROSSINGS]
    if rows:
        title = "Customers that exceed what their plan includes"
        _table(title, crossing_rows(rows, service.settings.zone), f"what-if-plans-{kept.number}")
        if (rest := len(found.plan_limits) - len(rows)) > 0:
            st.caption(f"and {rest:,} more with smaller differences")
    else:
        st.caption(texts.NOBODY_EXCEEDS)
    if (text := unknown_plans_text(found)) is not None:
        st.caption(plain(text))


def _table(title: str, rows: dict[str, list[str]], key: str) -> None:
    st.markdown(f"**{title}**")
    _grid(title, rows, key)


def _grid(title: str, rows: dict[str, list[str]], key: str) -> None:
    height = ROW_PIXELS * (min(PAGE_ROWS, len(next(iter(rows.values())))) + 1) + 2  # a whole page without scrolling
    table(rows, alt=title, key=key, right=[name for name in rows if name not in WORDS], height=height)
