"""Settling usage that cannot be metered any more: the dialog with its preview, and the list of settlements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.errors import BillingError
from billing_core.service import BillingService
from billing_core.stripe_sync.settlement_rules import SettlementKind
from billing_core.types import GetUsageEventsParams
from components.shared import sign_in
from components.shared.formats import minor_units, moment, rounded
from components.shared.notice import notice_of_error, plain
from components.shared.outcome import remember_outcome, show_outcome
from components.shared.widgets import quiet, table
from components.stripe_sync import texts
from components.stripe_sync.decisions import SAID

if TYPE_CHECKING:
    from billing_core.ledger.settlements import Settlement
    from billing_core.stripe_sync.settle import SettlementResult

SETTLING = "sync.settling"
"""Session state: the group of stuck events whose dialog is open."""

PREVIEW = "sync.settling.preview"
"""Session state: what settling them would do, as calculated for one state of the ledger."""

TAKEN_BACK = "sync.taken_back"

SHOWN_SETTLEMENTS = 200
SHOWN_SKIPPED = 20


@dataclass(frozen=True, slots=True)
class PendingSettlement:
    """The subject of the dialog: a group of stuck events."""

    cause: str
    title: str


@dataclass(frozen=True, slots=True)
class _Preview:
    """What settling a group would do, for one state of the ledger."""

    key: tuple[str, tuple[str, ...], SettlementKind, int]
    result: SettlementResult


def settle_button(cause: str, title: str) -> None:
    """Draw the button that opens the dialog for a group of stuck events."""
    st.button(
        "Settle…",
        icon=":material/receipt_long:",
        key=f"sync-settle-{cause}",
        on_click=_open,
        args=(PendingSettlement(cause, title),),
    )


def settle_dialog(service: BillingService) -> None:
    """Draw the dialog of a settlement that is being made, if one is."""
    question: PendingSettlement | None = st.session_state.get(SETTLING)
    if question is not None:
        title = plain(f"Settle: {question.title}")
        st.dialog(title, width="large", icon=":material/receipt_long:", on_dismiss=_close)(_settle)(service, question)


def _open(question: PendingSettlement) -> None:
    st.session_state[SETTLING] = question


def _close() -> None:
    st.session_state.pop(SETTLING, None)
    st.session_state.pop(PREVIEW, None)


def _settle(service: BillingService, question: PendingSettlement) -> None:
    """What becomes of it, the preview, the reason, and a button that says what it does."""
    principal = sign_in.guard(Role.ADMIN, Role.FINANCE)
    if SETTLING not in st.session_state:  # settled a moment ago: close, and draw the page as it is now
        st.rerun()
    kinds = list(SettlementKind) if service.stripe.is_connected else [SettlementKind.WRITE_OFF]
    kind = st.radio(
        "What becomes of it",
        kinds,
        format_func=texts.SETTLEMENT_WORDS.__getitem__,
        captions=[texts.SETTLEMENT_MEANINGS[one] for one in kinds],
        key="sync-settle-kind",
    )
    typed = st.text_input("Only these customers", key="sync-settle-customers", placeholder=texts.CUSTOMERS_EXAMPLE)
    customers = tuple(name for part in typed.split(",") if (name := part.strip()))
    try:
        with quiet(), st.spinner(texts.CALCULATING_SETTLEMENT):
            preview = _preview(service, principal, question, customers, kind)
    except BillingError as error:
        notice_of_error(error)
        return
    _show(preview.result)
    reason = st.text_input(
        "Reason",
        key="sync-settle-reason",
        max_chars=300,
        placeholder="Why this usage is settled",
        help=texts.HOLD_REASON_NOTE,
    )
    is_ready = bool(preview.result.event_ids) and bool(reason.strip())
    with st.container(horizontal=True):
        st.button(
            plain(texts.settlement_button(preview.result)),
            type="primary",
            key="sync-settle",
            icon=":material/receipt_long:",
            disabled=not is_ready,
            on_click=_apply,
            args=(service, principal, preview, reason),
        )
        st.button("Cancel", key="sync-settle-cancel", on_click=_close)
    if preview.result.event_ids and not reason.strip():
        st.caption(texts.SETTLEMENT_REASON_NEEDED)


def _preview(
    service: BillingService,
    principal: Principal,
    question: PendingSettlement,
    customers: tuple[str, ...],
    kind: SettlementKind,
) -> _Preview:
    """What settling would do now; Stripe is asked once for each state of the ledger."""
    key = (question.cause, customers, kind, service.version())
    kept: _Preview | None = st.session_state.get(PREVIEW)
    if kept is None or kept.key != key:
        params = GetUsageEventsParams(cause=(question.cause,), customer=customers)
        ids = service.event_ids(params, principal)
        kept = _Preview(key, service.stripe.settle(principal, ids, kind, dry_run=True))
        st.session_state[PREVIEW] = kept
    return kept


def _show(result: SettlementResult) -> None:
    """The sums, the items by customer and month, and what is left out with the reasons."""
    st.markdown(plain(texts.settlement_preview_text(result)))
    if result.items:
        rows = {
            "Customer": [one.customer_id for one in result.items],
            "Month": [one.month for one in result.items],
            "Credits": [rounded(one.credits) for one in result.items],
            "Invoice item": [minor_units(one.amount, one.currency) for one in result.items],
        }
        table(rows, alt="Invoice items", key="sync-settle-items", right=["Credits", "Invoice item"])
    reasons: dict[str, int] = {}
    for reason in result.skipped.values():
        reasons[reason] = reasons.get(reason, 0) + 1
    lines = list(reasons.items())
    for reason, count in lines[:SHOWN_SKIPPED]:
        st.caption(plain(texts.skipped_text(count, reason)))
    if len(lines) > SHOWN_SKIPPED:
        st.caption(f"and {len(lines) - SHOWN_SKIPPED:,} more reasons")


def _apply(service: BillingService, principal: Principal, preview: _Preview, reason: str) -> None:
    """Settle what was shown. A callback runs before the dialog, which then finds that it is over."""
    try:
        done = service.stripe.settle(principal, preview.result.event_ids, preview.result.kind, reason=reason)
    except BillingError as error:
        remember_outcome(SAID, f"Not done: {error}", is_done=False)
    else:
        remember_outcome(SAID, texts.settlement_text(done), is_done=done.out_of_reach is None and not done.problems)
    _close()


# ── the list ─────────────────────────────────────────────────────────────────────────────────────


def settlements_panel(service: BillingService, principal: Principal) -> None:
    """Draw every settlement, newest first, with a form that takes one back; nothing while there is none."""
    found = service.stripe.settlements(principal)
    if not found:
        return
    st.header("Settlements", anchor=False)
    st.caption(texts.SETTLEMENTS_NOTE)
    show_outcome(TAKEN_BACK)
    shown = found[:SHOWN_SETTLEMENTS]
    table(_rows(shown, service.settings.zone), alt="Settlements", key="sync-settlements", right=["Credits", "Amount"])
    if len(found) > len(shown):
        st.caption(f"and {len(found) - len(shown):,} older ones; `settle --list` has all of them")
    if principal.role is Role.ADMIN:
        _take_back_form(service, principal, [one for one in shown if one.counts])


def _rows(found: list[Settlement], zone: ZoneInfo) -> dict[str, list[str]]:
    return {
        "Settled": [moment(one.made_at, zone) for one in found],
        "As": [texts.SETTLEMENT_WORDS[SettlementKind(one.kind)] for one in found],
        "Customer": [one.customer_id or "nobody" for one in found],
        "Month": [one.month for one in found],
        "Credits": [rounded(one.credits) for one in found],
        "Amount": [texts.settlement_amount(one) for one in found],
        "State": [texts.settlement_state(one) for one in found],
        "By": [one.actor for one in found],
        "Reason": [one.reason for one in found],
        "Invoice item": [one.item_id or "–" for one in found],
        "Settlement": [one.id for one in found],
    }


def _take_back_form(service: BillingService, principal: Principal, found: list[Settlement]) -> None:
    if not found:
        return
    by_id = {one.id: one for one in found}
    with st.expander("Take a settlement back", icon=":material/undo:"):
        st.caption(texts.TAKE_BACK_NOTE)
        chosen = st.selectbox(
            "Settlement",
            list(by_id),
            index=None,
            key="sync-take-back",
            format_func=lambda id_: texts.settlement_label(by_id[id_]) if id_ in by_id else id_,
            placeholder="Choose a settlement",
        )
        reason = st.text_input("Why it is taken back", key="sync-take-back-reason", max_chars=300)
        st.button(
            "Take back",
            icon=":material/undo:",
            key="sync-take-back-do",
            disabled=not chosen or not reason.strip(),
            on_click=_take_back,
            args=(service, principal, chosen or "", reason),
        )


def _take_back(service: BillingService, principal: Principal, settlement_id: str, reason: str) -> None:
    try:
        settlement, problem = service.stripe.take_back(principal, settlement_id, reason=reason)
    except BillingError as error:
        remember_outcome(TAKEN_BACK, f"Not done: {error}", is_done=False)
        return
    if problem is None:
        remember_outcome(TAKEN_BACK, texts.taken_back_text(settlement), is_done=True)
    else:
        remember_outcome(TAKEN_BACK, problem, is_done=False)
