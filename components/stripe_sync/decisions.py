"""The decisions a person may make about stuck and pending usage."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.errors import BillingError
from billing_core.service import BillingService
from billing_core.stripe_sync.pipeline import Action, DecisionPreview
from billing_core.types import GetUsageEventsParams
from components.shared import sign_in
from components.shared import texts as shared_texts
from components.shared.data_grid import picked_rows
from components.shared.formats import count
from components.shared.links import event_link
from components.shared.notice import notice_of_error, plain
from components.shared.outcome import remember_outcome
from components.shared.widgets import quiet
from components.stripe_sync import texts
from components.stripe_sync.marks import ACTION_WORDS
from components.stripe_sync.texts import amounts_text, decision_button, decision_text, outlook_text

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


def decision_dialog(service: BillingService) -> None:
    """Draw the dialog of a decision that is being made, if one is."""
    question: PendingDecision | None = st.session_state.get(DECIDING)
    if question is not None:
        dialog = st.dialog(plain(question.title), width="large", icon=":material/gavel:", on_dismiss=_close)
        dialog(_decision)(service, question)


def hold_form(service: BillingService, principal: Principal) -> None:
    """Draw the choice of a customer whose pending events are to be held, folded away: it is rarely needed."""
    if principal.role is not Role.ADMIN:
        return
    customers = [name for name, _ in service.facets(GetUsageEventsParams(), principal, "customer") if name]
    with st.expander("Hold back a customer's pending events", icon=ACTION_WORDS[Action.HOLD].icon):
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
                "Only these customers", key="sync-only-customers", placeholder=texts.CUSTOMERS_EXAMPLE
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
