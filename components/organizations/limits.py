"""The limits view: who is about to run out of included credits, in the periods of their own subscriptions."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.organizations.limits import by_plan
from billing_core.organizations.limits_service import CALM_AFTER_FAILURE, LimitsReading
from billing_core.service import BillingService
from billing_core.web import wiring
from components.organizations import texts
from components.organizations.limit_rows import plan_rows
from components.organizations.limit_table import limits_table
from components.organizations.notices import notices_panel
from components.organizations.texts import LIMITS_NOTE, age_text
from components.shared import sign_in
from components.shared import texts as shared_texts
from components.shared.formats import ago
from components.shared.links import file_link
from components.shared.notice import plain
from components.shared.widgets import quiet, table

if TYPE_CHECKING:
    from billing_core.web.jobs import PlansState

LIMITS_CSV = "/download/limits.csv"

REFRESH_SECONDS = 1.0
"""Between two looks at a running reading."""

RESTS = timedelta(minutes=1)
"""After a reading of this process the next one is not begun without being asked for."""


def limits_view(service: BillingService, principal: Principal, now: datetime) -> None:
    """Draw notices, then the table of every organization and customer, then totals by plan."""
    with quiet():
        notices_panel(service)
    with quiet():
        reading = service.organizations.limits.read(principal)
        st.header("Plans and limits", anchor=False, help=LIMITS_NOTE)
        _stripe(service, principal, reading, now)
        if not reading.rows:
            st.info(texts.NO_LIMITS, icon=":material/inbox:")
            return
        limits_table(service)
        st.markdown("**By plan**")
        table(
            plan_rows(by_plan(reading.rows)),
            alt="Customers and credits by plan",
            key="org-limits-plans",
            right=("Customers", "Credits included", "Credits used", "Used"),
        )


def _stripe(service: BillingService, principal: Principal, reading: LimitsReading, now: datetime) -> None:
    """How old the plans are, and the way to newer ones. Nobody waits for Stripe: it is read in the background."""
    job = wiring.plans_job()
    if reading.is_outdated and not _rests(job.state, now):
        job.start(service, principal)
    state = job.state
    is_running = state is not None and state.is_running
    with st.container(horizontal=True, vertical_alignment="center", key="org-limits-age"):
        st.caption(plain(age_text(reading.read_at, now, service.settings.zone)), width="content")
        st.button(
            "Read plans from Stripe",
            icon=":material/sync:",
            key="org-limits-read",
            disabled=is_running or not service.stripe.is_connected,
            on_click=_start,
            args=(service, principal),
            help=None if service.stripe.is_connected else shared_texts.NOT_CONNECTED,
        )
        file_link("CSV", LIMITS_CSV, note=texts.LIMITS_CSV_NOTE, key="org-limits-csv")
    with st.container(key="org-limits-status"):  # always there, so that what stands below keeps its place
        if is_running:
            st.fragment(_watch, run_every=REFRESH_SECONDS)()
        elif reading.problem is not None:
            kept = "" if reading.read_at is None else f" Showing data read {ago(reading.read_at, now)}."
            st.warning(plain(f"{reading.problem}{kept}"), icon=":material/warning:")
        elif (partly := _partly(state, principal, reading)) is not None:
            st.warning(plain(partly), icon=":material/warning:")


def _rests(state: PlansState | None, now: datetime) -> bool:
    """Whether this process has just read, or tried to: what is outdated all the same stays so for a moment."""
    if state is None or state.ended_at is None:
        return False
    return now - state.ended_at < (CALM_AFTER_FAILURE if state.error else RESTS)


def _partly(state: PlansState | None, principal: Principal, reading: LimitsReading) -> str | None:
    """What went wrong with the last reading, if that was this process's; the reasons may name others."""
    if state is None or state.ended_at is None or principal.organizations is not None:
        return None
    if reading.read_at is not None and reading.read_at > state.ended_at:
        return None
    if state.error is not None:
        return f"Plans could not be read: {state.error}"
    if state.result is None or not state.result.problems:
        return None
    return f"Stripe was only partly read: {'; '.join(state.result.problems)}"


def _start(service: BillingService, principal: Principal) -> None:
    wiring.plans_job().start(service, principal)


def _watch() -> None:
    """Follow the reading; then draw the page as it is now."""
    sign_in.guard(Role.ADMIN)
    state = wiring.plans_job().state
    if state is None or not state.is_running:
        st.rerun()
    st.caption(texts.READING_PLANS)
