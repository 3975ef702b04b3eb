"""State of the months view between two runs: the months as last read, which dialog is open, which job is awaited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import streamlit as st

from billing_core.access import Principal
from billing_core.errors import BillingError
from billing_core.month_close.model import Month, MonthState
from billing_core.service import BillingService
from billing_core.web import wiring
from components.months.texts import suggested
from components.shared.outcome import remember_outcome

MONTH = "month"
"""In the URL: the month that is looked at, such as `2026-10`."""

SAID = "months.said"
"""What the last action did, to be said once."""

READING, CLOSING, REOPENING, AWAITED = "months.reading", "months.closing", "months.reopening", "months.awaited"

BUSY = "Somebody is checking, closing or verifying a month. Wait until it is done, then try again."


@dataclass(frozen=True, slots=True)
class Decision:
    """A close that is to be confirmed: the causes accepted, in words as well, and why."""

    period: str
    causes: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Reading:
    reader: Principal
    version: int
    minute: datetime
    months: tuple[Month, ...]


def read_months(service: BillingService, principal: Principal) -> tuple[Month, ...]:
    """The months with their sums, from a cache of one minute while the ledger is unchanged.

    Looking goes over every day of the ledger: a ticked box must not wait for that.
    """
    version, minute = service.version(), service.now().replace(second=0, microsecond=0)
    kept: _Reading | None = st.session_state.get(READING)
    if kept is None or (kept.reader, kept.version, kept.minute) != (principal, version, minute):
        kept = _Reading(principal, version, minute, service.months.months(principal))
        st.session_state[READING] = kept
    return kept.months


def chosen_month(months: Sequence[Month]) -> Month:
    """The month the URL asks for, else the one that most probably is to be dealt with."""
    asked = st.query_params.get(MONTH)
    by_period = {month.period: month for month in months}
    return by_period.get(asked or "") or by_period[suggested(months)]


def show_month(period: str) -> None:
    """Show another month. For callbacks."""
    st.query_params[MONTH] = period
    close_dialogs()


# ── dialogs ──────────────────────────────────────────────────────────────────────────────────────


def ask_to_close(decision: Decision) -> None:
    """Open the confirmation of a close with the next run; the URL then names the month."""
    show_month(decision.period)
    st.session_state[CLOSING] = decision


def wants_to_close(month: Month) -> Decision | None:
    """The close of this month that is to be confirmed; `None` if none is."""
    decision: Decision | None = st.session_state.get(CLOSING)
    if decision is None or decision.period != month.period or month.state is MonthState.CLOSED:
        return None
    return decision


def ask_to_reopen(period: str) -> None:
    """Open the form that reopens a month with the next run."""
    show_month(period)
    st.session_state[REOPENING] = period


def wants_to_reopen(month: Month) -> bool:
    """Whether the form that reopens this month is open."""
    return st.session_state.get(REOPENING) == month.period and month.state is MonthState.CLOSED


def close_dialogs() -> None:
    """Close the dialog of a close or of a reopening."""
    st.session_state.pop(CLOSING, None)
    st.session_state.pop(REOPENING, None)


# ── work ─────────────────────────────────────────────────────────────────────────────────────────


def await_work(has_started: bool) -> None:
    """Store that this session waits for the job just started; tells the person if somebody else was faster."""
    state = wiring.close_job().state
    if not has_started or state is None:
        remember_outcome(SAID, BUSY, is_done=False)
    else:
        st.session_state[AWAITED] = state.number


def awaited_is_over() -> bool:
    """Whether the job this session started has ended since this was last asked."""
    state = wiring.close_job().state
    if state is None or state.is_running or st.session_state.get(AWAITED) != state.number:
        return False
    del st.session_state[AWAITED]
    return True


def reopen(service: BillingService, principal: Principal, period: str, reason: str, done: str) -> None:
    """Reopen a month, then show `done`, or why it could not be. Draws nothing, so that no click stops it halfway."""
    try:
        service.months.reopen(period, principal, reason)
    except BillingError as error:
        remember_outcome(SAID, f"Not reopened: {error}", is_done=False)
    else:
        remember_outcome(SAID, done, is_done=True)
    close_dialogs()
