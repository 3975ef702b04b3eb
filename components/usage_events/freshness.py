"""How current the page is, and the button to refresh it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.access import Principal
from billing_core.ingest.service import Freshness
from billing_core.ledger.journal import PullRun
from billing_core.service import BillingService
from billing_core.values.counts import count_of
from billing_core.web import wiring
from billing_core.web.jobs import PullState
from components.shared import sign_in
from components.shared.formats import ago
from components.shared.job_progress import draw_progress
from components.shared.notice import plain
from components.shared.saved_views import saved_views
from components.shared.url_state import UrlState
from components.usage_events import texts
from components.usage_events.state import unpin, unpin_if_younger

AWAITED = "usage.awaited-pull"
"""Session state: number of the pull whose end this session waits for."""

REFRESH_SECONDS = 1.0
"""Between two looks at a running pull."""

FIRST_PULL_SECONDS = 2.0
"""Between two looks whether a first pull has begun."""


def stamp(last_success: PullRun | None, now: datetime, zone: ZoneInfo) -> str:
    """How current the page is: `Langfuse read 3 min ago, up to 14:05 UTC`, in the reporting timezone."""
    if last_success is None:
        return texts.NEVER_READ
    until = min(last_success.window.end, last_success.started_at).astimezone(zone)
    clock = f"{until:%H:%M}" if until.date() == now.astimezone(zone).date() else f"{until:%Y-%m-%d %H:%M}"
    return f"Langfuse read {ago(last_success.ended_at or last_success.started_at, now)}, up to {clock} {zone.key}"


def partial_text(freshness: Freshness, principal: Principal) -> str | None:
    """Why figures may be missing. The reason may count or name what others did: not for limited people."""
    if freshness.problem is None:
        return None
    if principal.organizations is not None:
        return texts.INCOMPLETE
    return f"Data is partial: {freshness.problem}. Refresh to try again."


def progress_text(state: PullState, principal: Principal, now: datetime) -> str:
    """The progress of a pull; how many rows at which rate only for people who may see every organization."""
    if principal.organizations is not None:
        return "Reading Langfuse"
    doing, rate = f"Reading Langfuse: {state.progress.doing}", state.per_second(state.progress.observations, now)
    if rate is None:
        return doing
    return f"{doing}, {count_of(state.progress.observations, 'observation')}, {rate:,.0f} per second"


def outcome_text(state: PullState, principal: Principal) -> str:
    """How the pull ended, in a sentence; counts as in `progress_text`."""
    if state.error is not None:
        reason = "" if principal.organizations is not None else f": {state.error}"
        return f"Langfuse could not be read{reason}"
    if state.result is None or principal.organizations is not None:
        return texts.READ
    counts = state.result.counts
    brought = "nothing new"
    if counts.new or counts.changed:
        brought = f"{count_of(counts.new, 'new event')}, {counts.changed:,} changed"
    said = [f"Langfuse has been read: {brought}"]
    if missing := state.result.missing_at_source:
        said.append(
            f"{count_of(missing, 'event')} from that time {'is' if missing == 1 else 'are'} no longer in Langfuse"
        )
    return " ".join(f"{sentence[:1].upper()}{sentence[1:]}." for sentence in (*said, *state.result.notes))


def title_row(
    title: str, service: BillingService, principal: Principal, page: str = "", *states: UrlState[Any]
) -> bool:
    """Draw title, freshness, saved views, refresh button, what runs now and what is missing.

    page, states: The page's file name and what its URL holds, where its views can be saved.

    Returns whether a pull is running.
    """
    freshness = service.freshness()
    state = wiring.pull_job().state
    runs_here = state is not None and state.is_running
    with st.container(horizontal=True, vertical_alignment="center", key="title-row"):
        st.title(title, anchor=False, width="stretch")
        st.caption(plain(stamp(freshness.last_success, service.now(), service.settings.zone)), width="content")
        if page:
            saved_views(service, principal, page, *states)
        st.button(
            "Refresh from Langfuse",
            icon=":material/refresh:",
            key="refresh",
            disabled=runs_here or freshness.running,
            on_click=_start,
            args=(service, principal),
        )
    with st.container(key="pull-status"):  # always there: what stands below keeps its place and is not drawn anew
        if runs_here or freshness.running:
            st.fragment(_watch, run_every=REFRESH_SECONDS)(service)
        elif (text := partial_text(freshness, principal)) is not None:
            st.warning(plain(text), icon=":material/warning:")
    _show_outcome(principal)
    return runs_here or freshness.running


def _start(service: BillingService, principal: Principal) -> None:
    job = wiring.pull_job()
    job.start(service, principal)
    if job.state is not None:
        st.session_state[AWAITED] = job.state.number


def _watch(service: BillingService) -> None:
    """Follow a pull, of this process with its progress, of another without; then show what it brought."""
    principal = sign_in.guard()
    state = wiring.pull_job().state
    if state is not None and state.is_running:
        draw_progress(state.progress.fraction, progress_text(state, principal, service.now()))
        return
    if service.freshness().running:
        st.info(texts.PULLING, icon=":material/sync:")
        return
    if state is not None:
        unpin_if_younger(state.started_at)
    st.rerun()


def _show_outcome(principal: Principal) -> None:
    """Once, to the session that asked for the pull; it also sees the new events at once."""
    state = wiring.pull_job().state
    if state is None or state.is_running or st.session_state.get(AWAITED) != state.number:
        return
    del st.session_state[AWAITED]
    text = plain(outcome_text(state, principal))
    st.toast(text, icon=":material/error:" if state.error else ":material/check:")


def unpin_after_refresh() -> None:
    """Show the newest state if a refresh of this session has ended, before the page asks for anything."""
    state = wiring.pull_job().state
    if state is not None and not state.is_running and st.session_state.get(AWAITED) == state.number:
        unpin()


def nothing_yet(service: BillingService, *, is_running: bool) -> None:
    """Draw the notice that the ledger holds no event at all; the page follows when a first pull begins."""
    if is_running:
        st.info(texts.NO_EVENTS_YET, icon=":material/inbox:")
        return
    st.info(texts.NO_EVENTS_REFRESH, icon=":material/inbox:")
    st.fragment(_await_first_pull, run_every=FIRST_PULL_SECONDS)(service)


def _await_first_pull(service: BillingService) -> None:
    """A pull by somebody else, by a command, or by the demo at its start."""
    sign_in.guard()
    state = wiring.pull_job().state
    if (state is not None and state.is_running) or service.freshness().running or service.version():
        st.rerun()
