"""Stuck usage by cause, and the decisions a person may make about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.errors import BillingError
from billing_core.service import BillingService
from billing_core.stripe_sync.pipeline import Action, DecisionPreview, Problem
from billing_core.types import GetUsageEventsParams, SyncStatus
from billing_core.values.counts import count_of
from components.shared import sign_in
from components.shared import texts as shared_texts
from components.shared.data_grid import picked_rows
from components.shared.formats import count, exact, usd
from components.shared.links import event_link, file_link, usage_link
from components.shared.notice import notice_of_error, plain
from components.shared.outcome import remember_outcome, show_outcome
from components.shared.widgets import quiet
from components.stripe_sync import texts
from components.stripe_sync.marks import ACTION_WORDS
from components.stripe_sync.texts import amounts_text, decision_button, decision_text, outlook_text

PROBLEMS_PATH = "/download/sync-problems.csv"

DECIDING = "sync.deciding"
"""Session state: the decision whose dialog is open."""

SAID = "sync.decided"
"""Session state: what the last decision did, to be said once."""

SHOWN_EVENTS = 500
"""Events listed in a dialog; a decision about the whole group touches all of them."""

LINKED_EVENTS = 5


@dataclass(frozen=True, slots=True)
class PendingDecision:
    """The subject of a decision's dialog: a group of stuck events, or a customer's pending ones."""

    action: Action
    title: str
    cause: str | None = None
    customer_id: str | None = None


def problems_panel(service: BillingService, principal: Principal, found: Sequence[Problem]) -> None:
    """Draw stuck usage by cause, and the dialog of a decision that is being made."""
    st.space("small")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.header("Problems", anchor=False, width="stretch")
        file_link("CSV", PROBLEMS_PATH, note=texts.PROBLEMS_CSV_NOTE, key="sync-problems-csv")
    show_outcome(SAID)
    if not found:
        st.success(texts.NOTHING_STUCK, icon=":material/check_circle:")
    for problem in found:
        _group(problem, principal)
    _hold_form(service, principal)
    question: PendingDecision | None = st.session_state.get(DECIDING)
    if question is not None:
        dialog = st.dialog(plain(question.title), width="large", icon=":material/gavel:", on_dismiss=_close)
        dialog(_decision)(service, question)


def _group(problem: Problem, principal: Principal) -> None:
    with st.container(border=True, key=f"sync-problem-{problem.cause}", gap="small"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{plain(problem.title)}**", width="content")
            st.caption(plain(f"cause {problem.cause}"), width="content")
        amounts = problem.amounts
        customers = count_of(problem.customers, "customer") if problem.customers else "no customer"
        figures = (
            f"{count_of(amounts.events, 'event')} · {customers} · "
            f"{exact(amounts.credits)} credits · {usd(amounts.amount_usd)}"
        )
        st.markdown(plain(figures))
        st.text(problem.what_to_do)
        if problem.example:
            st.caption(f"For example: {plain(problem.example)}")
        with st.container(horizontal=True, vertical_alignment="center"):
            if principal.role is Role.ADMIN:
                for action in problem.actions:
                    words = ACTION_WORDS[action]
                    st.button(
                        f"{words.verb}…",
                        icon=words.icon,
                        key=f"sync-{action}-{problem.cause}",
                        on_click=open_decision,
                        args=(PendingDecision(action, f"{words.verb}: {problem.title}", cause=problem.cause),),
                    )
            status = SyncStatus.PENDING if Action.RELEASE in problem.actions else SyncStatus.ERROR
            usage_link(f"Usage events with status {status}", status=status.value)


def _hold_form(service: BillingService, principal: Principal) -> None:
    if principal.role is not Role.ADMIN:
        return
    customers = [name for name, _ in service.facets(GetUsageEventsParams(), principal, "customer") if name]
    with st.container(border=True, key="sync-hold"):
        st.markdown("**Hold back a customer's pending events**")
        st.caption(texts.HOLD_NOTE)
        with st.container(horizontal=True, vertical_alignment="bottom"):
            customer = st.selectbox(
                "Customer",
                customers,
                index=None,
                key="sync-hold-customer",
                accept_new_options=True,
                placeholder=shared_texts.CHOOSE_CUSTOMER,
                width=320,
            )
            st.button(
                "Hold…",
                icon=ACTION_WORDS[Action.HOLD].icon,
                key="sync-hold-open",
                disabled=not customer,
                on_click=open_decision,
                args=(PendingDecision(Action.HOLD, f"Hold: pending events of {customer}", customer_id=customer),),
            )


def open_decision(question: PendingDecision) -> None:
    """Open the dialog of a decision with the next run."""
    st.session_state[DECIDING] = question


def _close() -> None:
    st.session_state.pop(DECIDING, None)


def _decision(service: BillingService, question: PendingDecision) -> None:
    """Preview first, then a button that says how many credits and how much money it is about."""
    principal = sign_in.guard(Role.ADMIN, Role.FINANCE)
    if DECIDING not in st.session_state:  # decided a moment ago: close, and draw the page as it is now
        st.rerun()
    told = st.container()
    try:
        preview = _narrowed(service, principal, question)
    except BillingError as error:
        notice_of_error(error)
        return
    told.markdown(plain(f"This affects {amounts_text(preview.amounts)}."))
    told.caption(ACTION_WORDS[question.action].effect)
    amounts = preview.amounts
    if question.action is Action.RETRY and preview.event_ids:
        with told, quiet(), st.spinner(texts.CALCULATING_RETRY):
            outlook = service.stripe.retry_outlook(principal, preview)
            amounts = outlook.sent
            st.markdown(plain(outlook_text(outlook)))
    reason = ""
    if question.action is Action.HOLD:
        reason = st.text_input(
            "Reason",
            key="sync-reason",
            max_chars=300,
            placeholder="Why these events are held",
            help=texts.HOLD_REASON_NOTE,
        )
    is_ready = bool(preview.event_ids) and (question.action is not Action.HOLD or bool(reason.strip()))
    with st.container(horizontal=True):
        st.button(
            plain(decision_button(question.action, preview.amounts, amounts)),
            type="primary",
            key="sync-decide",
            icon=ACTION_WORDS[question.action].icon,
            disabled=not is_ready,
            on_click=_decide,
            args=(service, principal, preview, reason),
        )
        st.button("Cancel", key="sync-cancel", on_click=_close)
    if preview.event_ids and not reason.strip() and question.action is Action.HOLD:
        st.caption(texts.HOLD_REASON_NEEDED)


def _narrowed(service: BillingService, principal: Principal, question: PendingDecision) -> DecisionPreview:
    """The whole group, or the customers and events somebody picked of it."""

    def ask(customers: list[str], events: list[str]) -> DecisionPreview:
        return service.stripe.preview(
            principal, question.action, cause=question.cause, customer_ids=customers, event_ids=events
        )

    customers = [] if question.customer_id is None else [question.customer_id]
    whole = ask(customers, [])
    if whole.amounts.events <= 1:
        for event_id in whole.event_ids:
            event_link(event_id)
        return whole
    with st.expander(f"Only some of these {count(whole.amounts.events)} events", icon=":material/checklist:"):
        if question.customer_id is None:
            typed = st.text_input(
                "Only these customers", key="sync-only-customers", placeholder="Customer ids, separated by commas"
            )
            customers = [name for part in typed.split(",") if (name := part.strip())]
            if customers:
                whole = ask(customers, [])
        chosen = _picked(whole)
    return ask(customers, chosen) if chosen else whole


def _picked(whole: DecisionPreview) -> list[str]:
    listed = list(whole.event_ids[:SHOWN_EVENTS])
    if not listed:
        st.caption("No events match.")
        return []
    cells = {"Event id": listed}
    chosen = picked_rows(listed, cells, name="sync-pick", identity=listed, alt="Events of this group", height=240)
    if len(whole.event_ids) > len(listed):
        st.caption(f"and {len(whole.event_ids) - len(listed):,} more")
    for event_id in chosen[:LINKED_EVENTS]:
        event_link(event_id)
    return chosen


def _decide(service: BillingService, principal: Principal, preview: DecisionPreview, reason: str) -> None:
    """Carry out what was shown. A callback runs before the dialog, which then finds that it is over."""
    try:
        decided = service.stripe.decide(principal, preview, reason=reason)
    except BillingError as error:
        remember_outcome(SAID, f"Not done: {error}", is_done=False)
    else:
        remember_outcome(SAID, decision_text(preview, decided), is_done=True)
    _close()
