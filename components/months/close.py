"""A month that is open: what prevents its close, what somebody accepts of that, and the close itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.month_close.model import Checklist, Closing, Month, MonthState
from billing_core.service import BillingService
from billing_core.values.counts import count_of
from billing_core.web import wiring
from billing_core.web.jobs import CloseState, MonthTask
from components.months import texts
from components.months.causes import CauseGroup, by_cause, status_query, stuck_query, what_to_do
from components.months.state import AWAITED, Decision, ask_to_close, close_dialogs, wants_to_close
from components.months.texts import (
    accepted_text,
    check_text,
    checked_text,
    closing_sentences,
    days_line,
    late_text,
    month_name,
    open_text,
    reopened_line,
    stopped_text,
    way_out,
)
from components.shared import sign_in
from components.shared.links import event_link, usage_link
from components.shared.notice import plain

STRIPE_SYNC_PAGE = "stripe_sync.py"

LINKED_EVENTS = 5

LONGEST_REASON = 500


@dataclass(frozen=True, slots=True)
class CloseCheck:
    """What the last check, or the last close that was refused, found about a month."""

    number: int
    groups: Sequence[CauseGroup]
    notes: Sequence[str]
    checked_at: datetime
    by: str
    version: int | None


def month_to_close(service: BillingService, principal: Principal, month: Month, *, is_busy: bool) -> None:
    """Draw the section of an open month, and the dialog of a close that is being confirmed."""
    zone = service.settings.zone
    st.caption(plain(days_line(month, zone)))
    if (text := late_text(month)) is not None:
        st.caption(plain(text))
    if month.reopened_at is not None:
        st.info(plain(reopened_line(month, zone)), icon=":material/history:")
    if month.state is MonthState.OPEN:
        st.info(plain(open_text(month, zone, service.settings.settle_minutes)), icon=":material/schedule:")
        return
    state = _newest(month.period)
    found = _found(state)
    st.caption(plain(texts.CHECK_NOTE))
    st.button(
        "Check" if found is None else "Check again",
        icon=":material/checklist:",
        key="months-check",
        disabled=is_busy,
        type="primary" if found is None else "secondary",
        on_click=_check,
        args=(service, principal, month.period),
    )
    if state is not None and state.error is not None:
        st.error(plain(stopped_text(state)), icon=":material/error:")
    if found is None:
        return
    with st.container(border=True, key="months-checklist"):
        _checklist(service, month, found, is_busy=is_busy)
    decision = wants_to_close(month)
    if decision is not None:
        title = f"Close {month_name(month.period)}?"
        st.dialog(title, icon=":material/lock:", on_dismiss=close_dialogs)(_confirm)(service, month, decision)


def _newest(period: str) -> CloseState | None:
    """The newest run that says something about closing this month."""
    job = wiring.close_job()
    runs = [run for task in (MonthTask.CHECK, MonthTask.CLOSE) if (run := job.last(task, period)) is not None]
    return max(runs, key=lambda run: run.number, default=None)


def _found(state: CloseState | None) -> CloseCheck | None:
    if state is None or state.ended_at is None:
        return None
    number, by, result = state.number, state.started_by, state.result
    if isinstance(result, Checklist):
        return CloseCheck(number, by_cause(result.obstacles), result.notes, result.checked_at, by, result.version)
    if isinstance(result, Closing) and not result.ok:
        obstacles = (*result.obstacles, *(one.obstacle for one in result.exceptions))
        return CloseCheck(number, by_cause(obstacles), (), state.ended_at, by, None)
    return None


def _check(service: BillingService, principal: Principal, period: str) -> None:
    AWAITED.begin(wiring.close_job().check(service, principal, period))


# ── the checklist ────────────────────────────────────────────────────────────────────────────────


def _checklist(service: BillingService, month: Month, found: CloseCheck, *, is_busy: bool) -> None:
    verdict = plain(check_text(month, found.groups))
    if found.groups:
        st.warning(verdict, icon=":material/warning:")
    else:
        st.success(verdict, icon=":material/check_circle:")
    is_current = found.version is None or found.version == service.version()
    st.caption(plain(checked_text(found.checked_at, found.by, service.settings.zone, is_current=is_current)))
    accepted = tuple(group.cause for group in found.groups if _group(service, month, group, found.number))
    if found.notes:
        with st.expander(f"Notes ({len(found.notes):,})", icon=":material/info:", key="months-notes"):
            for note in found.notes:
                st.markdown(plain(note))
    reason = _reason(month) if accepted else ""
    missing = len(found.groups) - len(accepted)
    is_ready = not missing and (not accepted or bool(reason.strip()))
    decision = Decision(month.period, accepted, tuple(accepted_text(found.groups, accepted)), reason.strip())
    st.button(
        f"Close {month_name(month.period)}…",
        type="primary",
        icon=":material/lock:",
        key="months-close",
        disabled=is_busy or not is_ready,
        on_click=ask_to_close,
        args=(decision,),
    )
    if missing:
        st.caption(texts.RESOLVE_FIRST)
    elif accepted and not reason.strip():
        st.caption(texts.REASON_NEEDED)


def _group(service: BillingService, month: Month, group: CauseGroup, number: int) -> bool:
    """One cause with what to do about it; returns whether it is accepted."""
    with st.container(border=True, key=f"months-cause-{group.cause}", gap="small"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{plain(group.label)}**", width="content")
            st.caption(plain(group.figures), width="content")
        for obstacle in group.obstacles:
            st.markdown(plain(what_to_do(obstacle)))
        _ways(service, month, group)
        if not group.is_acceptable:
            return False
        # The number of the check is part of its name: what was accepted of one check was not of the next.
        return st.checkbox(
            f"Accept: {plain(group.label)}", key=f"months-accept-{number}-{group.cause}", help=texts.ACCEPT_NOTE
        )


def _ways(service: BillingService, month: Month, group: CauseGroup) -> None:
    """To where they are dealt with, and to the events."""
    zone = service.settings.zone
    exactly = stuck_query(group, month, zone)
    others = [query for one in group.obstacles if (query := status_query(one, month, zone)) is not None]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.page_link(STRIPE_SYNC_PAGE, label=way_out(group.cause), icon=":material/sync_alt:")
        if exactly is not None:
            usage_link(f"Show {count_of(group.events, 'event')}", **exactly)
        for query in () if exactly is not None else _distinct(others):
            usage_link(f"Usage events with status {query['status']}", **query)
    if group.event_ids:
        with st.expander(f"Events ({group.events:,})", key=f"months-events-{group.cause}"):
            for event_id in group.event_ids[:LINKED_EVENTS]:
                event_link(event_id)
            if (rest := group.events - len(group.event_ids[:LINKED_EVENTS])) > 0:
                st.caption(f"and {rest:,} more")


def _distinct(queries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [query for place, query in enumerate(queries) if query not in queries[:place]]


def _reason(month: Month) -> str:
    return st.text_input(
        "Reason",
        key=f"months-reason-{month.period}",
        max_chars=LONGEST_REASON,
        placeholder="Why the month is closed despite this",
        help=texts.REASON_NOTE,
    )


# ── the decision ─────────────────────────────────────────────────────────────────────────────────


def _confirm(service: BillingService, month: Month, decision: Decision) -> None:
    """What a close means, and the button."""
    principal = sign_in.guard(Role.FINANCE, Role.ADMIN)
    if wants_to_close(month) is None:
        st.rerun()
    for sentence in closing_sentences(month, accepts=bool(decision.causes)):
        st.markdown(plain(sentence))
    if decision.causes:
        st.markdown("**Accepted**")
        for line in decision.accepted:
            st.markdown(f"- {plain(line)}")
        st.caption(plain(f"Reason: {decision.reason}"))
    with st.container(horizontal=True):
        st.button(
            f"Close {month_name(month.period)}",
            type="primary",
            icon=":material/lock:",
            key="months-close-confirm",
            on_click=_close,
            args=(service, principal, decision),
        )
        st.button("Cancel", key="months-close-cancel", on_click=close_dialogs)


def _close(service: BillingService, principal: Principal, decision: Decision) -> None:
    job = wiring.close_job()
    AWAITED.begin(job.close(service, principal, decision.period, decision.causes, decision.reason))
    close_dialogs()
