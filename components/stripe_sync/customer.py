"""One customer's status at Stripe; read only when somebody presses the button."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.access import Principal
from billing_core.errors import BillingError
from billing_core.service import BillingService
from billing_core.stripe_sync.customer_status import UNKNOWN, CustomerStatus
from billing_core.types import GetUsageEventsParams
from components.shared import texts as shared_texts
from components.shared.chart import draw_figure
from components.shared.formats import ago, minor_units, moment, rounded
from components.shared.notice import notice_of_error, plain
from components.shared.widgets import tile
from components.stripe_sync import texts
from components.stripe_sync.charts import used_bar
from components.stripe_sync.texts import in_words, used_text

CUSTOMER = "sync-customer"

BADGES: dict[str, Literal["green", "orange", "red", "gray"]] = {
    "active": "green",
    "trialing": "green",
    "past_due": "orange",
    "unpaid": "red",
    "canceled": "gray",
    "none": "gray",
    UNKNOWN: "orange",
}
"""Stripe's list is open: any other status is gray."""


def customer_panel(service: BillingService, principal: Principal, now: datetime) -> None:
    """Draw the section of one customer: choose it, see its last status, read it anew."""
    st.header("Customer status", anchor=False)
    customers = [name for name, _ in service.facets(GetUsageEventsParams(), principal, "customer") if name]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        customer = st.selectbox(
            "Customer id",
            customers,
            index=None,
            key=CUSTOMER,
            accept_new_options=True,
            placeholder=shared_texts.CHOOSE_CUSTOMER,
            width=320,
        )
        asked = st.button(
            "Read from Stripe",
            icon=":material/person_search:",
            key="sync-customer-read",
            disabled=not customer or not service.stripe.is_connected,
            help=None if service.stripe.is_connected else shared_texts.NOT_CONNECTED,
        )
    if not customer:
        return
    never = texts.NEVER_READ
    show_customer(service, principal, customer.strip(), now, asked=asked, never=never)


def show_customer(
    service: BillingService, principal: Principal, customer: str, now: datetime, *, asked: bool, never: str
) -> None:
    """Draw a customer's status: read now if `asked`, else as last read; `never` is said where it never was."""
    try:
        if asked:
            with st.spinner("Asking Stripe…"):
                status: CustomerStatus | None = service.stripe.status(principal, customer)
        else:
            status = service.stripe.last_status(principal, customer)
    except BillingError as error:
        notice_of_error(error)
        return
    if status is None:
        st.info(plain(never), icon=":material/help:")
    else:
        show_status(status, service.settings.zone, now)


def show_status(status: CustomerStatus, zone: ZoneInfo, now: datetime) -> None:
    """Draw plan, state, period, credits and upcoming invoice; unknown is said as unknown."""
    with st.container(border=True, key="sync-customer-status"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{plain(status.customer_id)}**", width="content")
            st.badge(_state_text(status.state), color=BADGES.get(status.state, "gray"))
        if status.state == UNKNOWN:
            st.warning(plain(_unknown_text(status, now)), icon=":material/help:")
        elif status.problem:
            st.warning(plain(status.problem), icon=":material/warning:")
        if status.state == "none":
            st.caption(texts.NO_SUBSCRIPTION)
        else:
            _facts(status, zone, now)
        read = "never" if status.read_at is None else f"{ago(status.read_at, now)} ({moment(status.read_at, zone)})"
        st.caption(plain(f"Read from Stripe {read}. Times in {zone.key}."))


def _state_text(state: str) -> str:
    return {"none": "no subscription"}.get(state, plain(state.replace("_", " ")))


def _unknown_text(status: CustomerStatus, now: datetime) -> str:
    last = texts.NO_EARLIER_READING if status.read_at is None else f"Showing data read {ago(status.read_at, now)}."
    return f"Unknown: Stripe could not be read ({status.problem or 'no reason given'}). {last}"


def _facts(status: CustomerStatus, zone: ZoneInfo, now: datetime) -> None:
    grid = st.grid(3, min_column_width=220, key="sync-customer-facts")
    included = "included credits unknown" if status.included is None else f"{rounded(status.included)} credits included"
    tile(grid, "Plan", status.plan or "unknown", [included], note=shared_texts.PLAN_BY_PRICE, key="sync-customer-plan")
    start, end = status.period_start, status.period_end
    tile(
        grid,
        "Billing period",
        "unknown" if end is None else f"ends {in_words(end, now)}",
        [f"{moment(start, zone)} to {moment(end, zone)}"],
        note=f"Times in {zone.key}.",
        key="sync-customer-period",
    )
    upcoming = status.upcoming
    tile(
        grid,
        "Upcoming invoice",
        "unknown" if upcoming is None else minor_units(upcoming.amount_due, upcoming.currency),
        [texts.INVOICE_NOTE],
        note=texts.AMOUNT_DUE_NOTE,
        key="sync-customer-invoice",
    )
    st.markdown(plain(used_text(status)))
    if status.used is not None and status.included:
        draw_figure(
            used_bar(status.used, status.included, st.context.theme.type or "light"),
            key="sync-used",
            alt=used_text(status),
        )
