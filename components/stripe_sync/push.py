"""The section "Push now": what would be sent, the decision, progress and result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.service import BillingService
from billing_core.values.counts import count_of
from billing_core.web import wiring
from components.shared import sign_in
from components.shared.formats import ago, rounded
from components.shared.job_progress import draw_progress
from components.shared.notice import plain
from components.shared.widgets import READERS_NOTE, quiet, table
from components.stripe_sync import texts
from components.stripe_sync.rows import Request, request_rows, requests_of
from components.stripe_sync.texts import credits_and_money, push_outcome_text, push_preview_text, push_progress_text

if TYPE_CHECKING:
    from billing_core.stripe_sync.push import PushResult
    from billing_core.web.jobs import PushState

PREVIEW = "sync.push-preview"
"""Session state: the last dry run of this session, until it is sent or discarded."""

REFRESH_SECONDS = 0.5
"""Between two looks at a running push."""

ASKED = "sync.push-asked"
"""Session state: a preview was asked for elsewhere on the page."""

SHOWN_REQUESTS = 200
SHOWN_FAILURES = 20


@dataclass(frozen=True, slots=True)
class Dry:
    """The dry run of a push with the state of the ledger it was made from."""

    result: PushResult
    requests: Sequence[Request]
    version: int
    made_at: datetime

    @property
    def whole_credits(self) -> int:
        """The whole credits of all meter events of the dry run together."""
        return sum(request.credits for request in self.requests)


def ask_for_preview() -> None:
    """Callback: preview a push with the next run."""
    st.session_state[ASKED] = True


def push_panel(service: BillingService, principal: Principal, now: datetime) -> None:
    """Draw the section "Push now". One push runs at a time, whoever started it and wherever."""
    st.header("Push now", anchor=False)
    state = wiring.push_job().state
    runs_here = state is not None and state.is_running
    runs = runs_here or service.stripe.is_pushing()
    with st.container(key="sync-push-status"):  # always there, so that what stands below keeps its place
        if runs:
            st.fragment(_watch, run_every=REFRESH_SECONDS)(service)
        elif state is not None:
            _outcome(state, now)
    if principal.role is not Role.ADMIN:
        st.info(READERS_NOTE, icon=":material/visibility:")
    elif not service.stripe.is_connected:
        st.caption(texts.NO_KEY)
    else:
        _preview_and_send(service, principal, now, is_busy=runs)


def _preview_and_send(service: BillingService, principal: Principal, now: datetime, *, is_busy: bool) -> None:
    st.caption(
        "A preview runs every step of a push except sending; nothing is stored or sent. "
        f"An event is settled {service.settings.settle_minutes} minutes after its end; newer events wait."
    )
    asked = st.button(
        "Preview a push",
        icon=":material/preview:",
        key="sync-preview",
        disabled=is_busy,
        help=texts.PUSH_RUNNING if is_busy else None,
    )
    is_asked_elsewhere = st.session_state.pop(ASKED, False)
    if is_busy:
        st.session_state.pop(PREVIEW, None)
        return
    if asked or is_asked_elsewhere:
        st.session_state.pop(PREVIEW, None)
        with quiet(), st.spinner(texts.CALCULATING_PUSH):
            version = service.version()
            result = service.stripe.push(principal, dry_run=True)
            st.session_state[PREVIEW] = Dry(result, requests_of(result.requests), version, service.now())
    dry: Dry | None = st.session_state.get(PREVIEW)
    if dry is not None:
        _show_preview(service, principal, dry, now)


def _show_preview(service: BillingService, principal: Principal, dry: Dry, now: datetime) -> None:
    card = service.rate_cards().in_force(now)
    price = Decimal(0) if card is None else card.credit_price_usd
    with st.container(border=True, key="sync-push-preview"):
        st.markdown(f"**{plain(push_preview_text(dry.result, dry.whole_credits, price))}**")
        for problem in dry.result.problems:
            st.warning(plain(problem), icon=":material/warning:")
        if service.version() != dry.version:
            st.warning(texts.PREVIEW_OUTDATED, icon=":material/update:")
        if dry.requests:
            _requests(dry)
        if dry.result.failures:
            with st.expander(
                f"What it would newly put on hold ({dry.result.newly_held:,})", icon=":material/pause_circle:"
            ):
                for line in dry.result.failures[:SHOWN_FAILURES]:
                    st.caption(plain(line))
                if (rest := dry.result.newly_held - len(dry.result.failures[:SHOWN_FAILURES])) > 0:
                    st.caption(f"and {rest:,} more")
        with st.container(horizontal=True, vertical_alignment="center"):
            if dry.requests:
                what = credits_and_money(dry.whole_credits, dry.whole_credits * price)
                st.button(
                    plain(f"Send {count_of(len(dry.requests), 'meter event')}: {what}"),
                    type="primary",
                    icon=":material/send:",
                    key="sync-send",
                    on_click=_send,
                    args=(service, principal),
                )
            st.button("Discard the preview", key="sync-discard", on_click=_discard)
        st.caption(
            f"Previewed {ago(dry.made_at, now)}. A push sends everything due at that moment, including usage settled "
            "since the preview. What Stripe has accepted cannot be withdrawn, only corrected."
        )


def _requests(dry: Dry) -> None:
    shown, total = dry.requests[:SHOWN_REQUESTS], len(dry.requests)
    with st.expander(f"The exact requests ({total:,})", icon=":material/data_object:"):
        table(request_rows(shown), alt="Meter events a push would send", key="sync-requests", right=["Credits"])
        if total > len(shown):
            rest = sum(request.credits for request in dry.requests[SHOWN_REQUESTS:])
            st.caption(plain(f"and {total - len(shown):,} more with {rounded(rest)} credits"))
        st.caption("The first one, as it would be sent:")
        st.code(json.dumps(dry.result.requests[0], indent=2, default=str), language="json")


def _send(service: BillingService, principal: Principal) -> None:
    st.session_state.pop(PREVIEW, None)
    wiring.push_job().start(service, principal)


def _discard() -> None:
    st.session_state.pop(PREVIEW, None)


def _watch(service: BillingService) -> None:
    """Follow a push, of this process with its progress, of another without; then draw the page anew."""
    sign_in.guard(Role.ADMIN, Role.FINANCE)
    state = wiring.push_job().state
    if state is not None and state.is_running:
        total = state.progress.total
        draw_progress(state.progress.done / total if total else 0.0, push_progress_text(state, service.now()))
    elif service.stripe.is_pushing():
        st.info(texts.PUSH_ELSEWHERE, icon=":material/sync:")
    else:
        st.rerun()


def _outcome(state: PushState, now: datetime) -> None:
    """What the last push of this process did, until the next one."""
    text, result = plain(push_outcome_text(state, now)), state.result
    if state.error is not None:
        st.error(text, icon=":material/error:")
        return
    failures = () if result is None else result.failures
    problems = () if result is None else result.problems
    if failures or problems:
        st.warning(text, icon=":material/warning:")
        with st.expander(f"What went wrong ({len(failures) + len(problems):,})"):
            for line in (*failures, *problems)[:SHOWN_FAILURES]:
                st.text(line)
            if (rest := len(failures) + len(problems) - SHOWN_FAILURES) > 0:
                st.caption(f"and {rest:,} more; “Needs action now” lists them all")
    else:
        st.success(text, icon=":material/check_circle:")
