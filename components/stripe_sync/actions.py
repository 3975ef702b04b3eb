"""What needs action now: stuck usage by cause and usage that is due to be pushed, most urgent first, each with the
button or link that settles it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.service import BillingService
from billing_core.stripe.intents import OLDEST
from billing_core.stripe_sync.pipeline import Amounts, DueBy, Pipeline, Problem, urgency
from billing_core.types import PipelineStage, SyncStatus
from billing_core.values.counts import count_of
from components.shared.formats import moment, rounded, short_usd
from components.shared.links import customers_link, file_link, usage_link
from components.shared.notice import plain
from components.shared.outcome import show_outcome
from components.stripe_sync import texts
from components.stripe_sync.decisions import SAID, PendingDecision, decision_dialog, open_decision
from components.stripe_sync.marks import ACTION_WORDS
from components.stripe_sync.push import ask_for_preview
from components.stripe_sync.settle import settle_button, settle_dialog
from components.stripe_sync.state import PipelineView
from components.stripe_sync.texts import due_text

PROBLEMS_PATH = "/download/sync-problems.csv"

WAITED = timedelta(days=1)
"""Usage that is pending for longer, or whose draft invoice becomes final sooner, needs a push."""

MAPPED_HERE = frozenset({"no_customer"})
"""Causes that are settled by naming a customer on Organization Stats."""


@dataclass(frozen=True, slots=True)
class PushDue:
    """Usage that nothing but a push is missing for: how much, and by when."""

    amounts: Amounts
    due: DueBy | None


def push_due(pipeline: Pipeline, next_final: DueBy | None, now: datetime) -> PushDue | None:
    """Pending usage, if it waits for longer than a day or a draft invoice becomes final within one."""
    waiting, oldest = pipeline.stages[PipelineStage.PENDING], pipeline.oldest_unsent
    if not waiting.events or oldest is None:
        return None
    is_near = next_final is not None and next_final.at < now + WAITED
    if now - oldest < WAITED and not is_near:
        return None
    ends = [end for end in (next_final, pipeline.due) if end is not None]
    return PushDue(waiting, min(ends, key=lambda end: end.at, default=None))


def in_order(view: PipelineView, push: PushDue | None, now: datetime) -> list[Problem | PushDue]:
    """Everything that needs action, most urgent first."""
    found: list[Problem | PushDue] = [*view.problems, *([] if push is None else [push])]
    return sorted(found, key=lambda one: urgency(one.due, one.amounts, now))


def actions_panel(service: BillingService, principal: Principal, view: PipelineView, now: datetime) -> None:
    """Draw what needs action, or that nothing does; then the dialog of a decision that is being made."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.header("Needs action now", anchor=False, width="stretch")
        if view.problems:
            file_link("CSV", PROBLEMS_PATH, note=texts.PROBLEMS_CSV_NOTE, key="sync-problems-csv")
    show_outcome(SAID)
    deadline = service.stripe.next_deadline(principal)
    final = None if deadline is None else DueBy(deadline.finalizes_at, deadline.customer_id)
    found = in_order(view, push_due(view.pipeline, final, now), now)
    if not found:
        st.success(texts.NOTHING_NEEDS_ACTION, icon=":material/check_circle:")
    for one in found:
        if isinstance(one, Problem):
            _problem(service, principal, one, now)
        else:
            _push(service, principal, one, view, now)
    decision_dialog(service)
    settle_dialog(service)


def _head(service: BillingService, title: str, due: DueBy | None, now: datetime) -> None:
    zone = service.settings.zone
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{plain(title)}**", width="content")
        if due is not None:
            is_near = due.at < now + WAITED
            # The moment beside it: a badge does not wrap on a phone.
            st.badge(plain(due_text(due, now)), icon=":material/schedule:", color="red" if is_near else "gray")
            st.caption(plain(f"{moment(due.at, zone)[:16]} {zone.key}"), width="content")


def _figures(amounts: Amounts, *who: str) -> None:
    parts = (count_of(amounts.events, "event"), *who, f"{rounded(amounts.credits)} credits")
    st.markdown(f"**{plain(short_usd(amounts.amount_usd))}** · {plain(' · '.join(parts))}")


def _problem(service: BillingService, principal: Principal, problem: Problem, now: datetime) -> None:
    with st.container(border=True, key=f"sync-problem-{problem.cause}", gap="small"):
        _head(service, problem.title, problem.due, now)
        _figures(problem.amounts, count_of(problem.customers, "customer") if problem.customers else "no customer")
        st.text(problem.what_to_do)
        if problem.example:
            st.caption(f"For example: {plain(problem.example)}")
        with st.container(horizontal=True, vertical_alignment="center"):
            if principal.role is Role.ADMIN:
                _buttons(problem)
            usage_link(f"Show {count_of(problem.amounts.events, 'event')}", cause=problem.cause)


def _buttons(problem: Problem) -> None:
    for action in problem.actions:
        words = ACTION_WORDS[action]
        st.button(
            f"{words.verb}…",
            icon=words.icon,
            key=f"sync-{action}-{problem.cause}",
            on_click=open_decision,
            args=(PendingDecision(action, f"{words.verb}: {problem.title}", cause=problem.cause),),
        )
    settle_button(problem.cause, problem.title)
    if problem.cause in MAPPED_HERE:
        customers_link(texts.NAME_CUSTOMERS)


def _push(service: BillingService, principal: Principal, push: PushDue, view: PipelineView, now: datetime) -> None:
    with st.container(border=True, key="sync-push-due", gap="small"):
        _head(service, texts.PUSH_DUE, push.due, now)
        _figures(push.amounts)
        oldest = view.pipeline.oldest_unsent
        is_too_old = oldest is not None and oldest <= now - OLDEST
        st.text(texts.PUSH_OLD if is_too_old else texts.PUSH_WHAT)
        with st.container(horizontal=True, vertical_alignment="center"):
            if principal.role is Role.ADMIN and service.stripe.is_connected:
                st.button(
                    "Preview the push", icon=":material/preview:", key="sync-push-due-preview", on_click=ask_for_preview
                )
            pending = {"status": SyncStatus.PENDING.value, "held": "false"}
            usage_link(f"Show {count_of(push.amounts.events, 'event')}", **pending)
