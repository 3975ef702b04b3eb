"""State of the months view between two runs: the months as last read, which dialog is open, which job is awaited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from billing_core.access import Principal
from billing_core.errors import BillingError
from billing_core.month_close.model import Month, MonthState
from billing_core.service import BillingService
from billing_core.web import wiring
from components.months import texts
from components.months.causes import suggested
from components.shared.outcome import remember_outcome
from components.shared.session import AwaitedJob, Kept, read_each_minute

MONTH = "month"
"""In the URL: the month that is looked at, such as `2026-10`."""

SAID = "months.said"
"""What the last action did, to be said once."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A close that is to be confirmed: the causes accepted, in words as well, and why."""

    period: str
    causes: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    reason: str = ""


CLOSING, REOPENING = Kept[Decision]("months.closing"), Kept[str]("months.reopening")
"""The decision to close, or the month to reopen, whose dialog is open."""

AWAITED = AwaitedJob("months.awaited", wiring.close_job, SAID, texts.BUSY)


def read_months(service: BillingService, principal: Principal) -> tuple[Month, ...]:
    """The months with their sums, from a cache of one minute while the ledger is unchanged."""
    return read_each_minute("months.reading", service, principal, lambda: service.months.months(principal))


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
    CLOSING.put(decision)


def wants_to_close(month: Month) -> Decision | None:
    """The close of this month that is to be confirmed; `None` if none is."""
    decision = CLOSING.get()
    if decision is None or decision.period != month.period or month.state is MonthState.CLOSED:
        return None
    return decision


def ask_to_reopen(period: str) -> None:
    """Open the form that reopens a month with the next run."""
    show_month(period)
    REOPENING.put(period)


def wants_to_reopen(month: Month) -> bool:
    """Whether the form that reopens this month is open."""
    return REOPENING.get() == month.period and month.state is MonthState.CLOSED


def close_dialogs() -> None:
    """Close the dialog of a close or of a reopening."""
    CLOSING.drop()
    REOPENING.drop()


# ── work ─────────────────────────────────────────────────────────────────────────────────────────


def reopen(service: BillingService, principal: Principal, period: str, reason: str, done: str) -> None:
    """Reopen a month, then show `done`, or why it could not be. Draws nothing, so that no click stops it halfway."""
    try:
        service.months.reopen(period, principal, reason)
    except BillingError as error:
        remember_outcome(SAID, f"Not reopened: {error}", is_done=False)
    else:
        remember_outcome(SAID, done, is_done=True)
    close_dialogs()
