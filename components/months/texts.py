"""Texts of the months view. Pure: values in, plain text out; escape it before it becomes Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from billing_core.month_close.model import Difference, Month, MonthState
from billing_core.month_close.rules import UNSENT, UNSETTLED
from billing_core.values.counts import count_of
from components.months.causes import CauseGroup, by_cause, days_of
from components.shared.colours import StatusMark
from components.shared.formats import UNKNOWN, day_text, moment, rounded, short_usd

if TYPE_CHECKING:
    from billing_core.month_close.model import Closing
    from billing_core.web.jobs import CloseState


CHECK_NOTE = (
    "A check re-reads Langfuse and Stripe, compares them with the ledger and looks at the status of every event of "
    "the month. Nothing is sent or closed. It may take a few minutes; you can leave the page meanwhile."
)
RESOLVE_FIRST = "Resolve or accept every issue before closing the month."
REASON_NOTE = "Recorded in the manifest with every accepted cause and your name."
REASON_NEEDED = "Accepted causes need a reason; it is recorded in the manifest."
ACCEPT_NOTE = "The month is closed despite it; the manifest records this with your name and reason."
EDITED = (
    "The manifest is not the one that was hashed when the month was closed: the ledger's file was edited. It is not "
    "shown; “Verify” lists what differs."
)
REOPEN_NOTE = "Recorded in the audit log with your name."
REOPEN_REASON_NEEDED = "Reopening needs a reason."
MANIFEST_NOTE = "Exactly the text that was hashed: its SHA-256 stands under “Technical details”."
VERIFY_NOTE = "Recomputes every hash, sum and export of the manifest and names what differs."
FORM = (
    "A closed month is frozen: its figures and exports no longer change, and a manifest proves it. Late usage counts "
    "in the open month and is labelled as late."
)
LIMITED = "Months are closed for all organizations at once, so only accounts that can see all of them have access."
ONE_ISSUE = "Resolve it and check again, or accept it with a reason, which the manifest records."
SOME_ISSUES = "Resolve them and check again, or accept them with a reason, which the manifest records."
CHECK_AGAIN = "The ledger has changed since: check again to see what blocks closing now."
CLOSING = (
    (
        "Langfuse and Stripe are re-read first. Then its figures, statuses and exports no longer change, and a "
        "manifest with their hashes proves it."
    ),
    "Usage that arrives or changes later counts in the open month, flagged late_after_close.",
)
ACCEPTING = (
    "For each cause you accept, everything found at the moment of closing is accepted as well; the manifest records "
    "how much."
)
REOPENING = (
    (
        "{month} will no longer count as closed: it will show the ledger's current figures, and its late usage will "
        "count in it again instead of in the open month."
    ),
    (
        "The manifest and the frozen rows stay. Files that were exported from the closed month may differ from new "
        "ones. The audit log names you and your reason."
    ),
    "A month can be reopened only while no month after it is closed.",
)
STRIPE_SYNC = "Stripe Sync"
PUSH = "Push on Stripe Sync"
SETTLE = "Resolve on Stripe Sync"
TECHNICAL = "Technical details"
ORGANIZATIONS = "Organizations"
ORGANIZATIONS_NOTE = (
    "The margin is amount minus cost, over events whose cost is known and is ours. Plans as last read from Stripe."
)
BUSY = "Somebody is checking, closing or verifying a month. Wait until it is done, then try again."

HASH_SHOWN = 12

STATE_MARKS: Mapping[MonthState, StatusMark] = {
    MonthState.OPEN: StatusMark("○", "in progress", "#57606A", "It is not over yet."),
    MonthState.OVER: StatusMark("●", "to close", "#9A6700", "It is over and not closed."),
    MonthState.CLOSED: StatusMark("✓", "closed", "#0B6B62", "Its figures and exports stay as they are."),
    MonthState.REOPENED: StatusMark("↺", "reopened", "#B3261E", "It was closed and then reopened."),
}


PUSHED = frozenset({UNSENT, UNSETTLED, "unknown_outcome"})
"""Causes that a push deals with."""

SETTLED = frozenset({"held", "too_old", "rejected", "sent_elsewhere", "changed_after_sending"})
"""Causes that somebody resolves by a decision: retry, release, write off, invoice."""


def month_name(period: str) -> str:
    """A month for people: `2026-10` → `October 2026`."""
    return f"{date(int(period[:4]), int(period[5:]), 1):%B %Y}"


def short_hash(sha256: str | None) -> str:
    """The first digits of a hash, enough to tell two apart by eye."""
    return "" if sha256 is None else sha256[:HASH_SHOWN]


def late_text(month: Month) -> str | None:
    """How much of a month's figures is late usage of closed months; `None` if nothing is."""
    if not month.late_events:
        return None
    return (
        f"{count_of(month.late_events, 'event')} with {rounded(month.late_credits)} credits arrived or changed after "
        "their own month was closed: they count here, flagged late_after_close, and keep their own time."
    )


# ── a month that is not closed ───────────────────────────────────────────────────────────────────


def days_line(month: Month, zone: ZoneInfo) -> str:
    """The days of a month: `1 Oct 2026 to 31 Oct 2026 · days in Europe/Berlin`."""
    first, last = days_of(month, zone)
    return f"{day_text(first)} to {day_text(last)} · days in {zone.key}"


def open_text(month: Month, zone: ZoneInfo, settle_minutes: int) -> str:
    """When a month that is not over may be closed."""
    end = month.window.end.astimezone(zone)
    settled = (month.window.end + timedelta(minutes=settle_minutes)).astimezone(zone)
    return (
        f"{month_name(month.period)} ends at {end:%Y-%m-%d %H:%M} ({zone.key}). Its last traces become final for "
        f"sending at {settled:%Y-%m-%d %H:%M}; it can be closed from then on."
    )


def reopened_line(month: Month, zone: ZoneInfo) -> str:
    """Who reopened a month, and why."""
    who, why = month.reopened_by or UNKNOWN, month.reopen_reason or "no reason given"
    closed = f"Closed {moment(month.closed_at, zone)} by {month.closed_by}"
    return f"{closed}, reopened {moment(month.reopened_at, zone)} by {who}: {why}"


READ = "done"
"""What reading Langfuse says at its end; for a month that is only the first part."""

_TASKS = {"check": "Checking", "close": "Closing", "verify": "Verifying"}


def progress_text(state: CloseState) -> str:
    """The progress of a job on a month: `Checking October 2026 (fay): reading Langfuse`."""
    at = state.progress
    doing = "comparing with the ledger and Stripe" if at.doing == READ else at.doing
    return f"{_TASKS[at.task]} {month_name(at.period)} ({state.started_by}): {doing}"


def check_text(month: Month, groups: Sequence[CauseGroup]) -> str:
    """The result of a check, in words: whether the month can be closed."""
    name = month_name(month.period)
    if not groups:
        return f"Nothing blocks closing {name}."
    return (
        f"1 issue blocks closing {name}. {ONE_ISSUE}"
        if len(groups) == 1
        else (f"{len(groups)} issues block closing {name}. {SOME_ISSUES}")
    )


def checked_text(checked_at: datetime, by: str, zone: ZoneInfo, *, is_current: bool) -> str:
    """When a month was checked, and whether that is still current."""
    text = f"Checked {moment(checked_at, zone)} ({zone.key}) by {by}."
    return text if is_current else f"{text} {CHECK_AGAIN}"


def accepted_text(groups: Sequence[CauseGroup], causes: Iterable[str]) -> list[str]:
    """What would be accepted, a line per cause: `No customer: 12 events · 1,234.5 credits`."""
    chosen = set(causes)
    return [f"{group.label}: {group.figures}" for group in groups if group.cause in chosen]


def closing_sentences(month: Month, *, accepts: bool) -> list[str]:
    """What closing a month means, in sentences."""
    figures = (
        f"{count_of(month.events, 'event')}, {rounded(month.credits.total)} credits ({short_usd(month.amount_usd)})"
    )
    return [f"{month_name(month.period)} has {figures}.", *CLOSING, *([ACCEPTING] if accepts else [])]


def closed_text(closing: Closing) -> str:
    """The result of a close that succeeded."""
    manifest = closing.manifest or {}
    totals = manifest.get("totals", {})
    name = month_name(str(manifest.get("period")))
    credits_, amount = (Decimal(totals.get(one, 0)) for one in ("credits_total", "amount_usd"))
    events = count_of(int(totals.get("events", 0)), "event")
    figures = f"{events}, {rounded(credits_)} credits ({short_usd(amount)})"
    if closing.was_closed:
        return f"{name} was already closed, with {figures}. Nothing has changed."
    return f"{name} is closed: {figures}."


def refused_text(period: str, closing: Closing) -> str:
    """Why a close was refused."""
    labels = [group.label for group in by_cause(closing.obstacles)]
    stood = f"After re-reading Langfuse and Stripe, this blocks closing: {', '.join(labels)}."
    return f"{month_name(period)} was not closed. {stood}"


def stopped_text(state: CloseState) -> str:
    """Why a check or a close was interrupted."""
    name = month_name(state.progress.period)
    what = f"{name} was not closed" if state.progress.task == "close" else f"The check of {name} stopped"
    return f"{what}: {state.error}"


# ── a closed month ───────────────────────────────────────────────────────────────────────────────


def closed_line(month: Month, zone: ZoneInfo) -> str:
    """When and by whom a month was closed: `Closed 2026-11-03 09:00:00 by fay · month and times in Europe/Berlin`."""
    line = f"Closed {moment(month.closed_at, zone)} by {month.closed_by}"
    if month.timezone is None or month.timezone == zone.key:
        return f"{line} · month and times in {zone.key}"
    return f"{line} · the month was closed in {month.timezone}, times here are in {zone.key}"


def verified_text(period: str, differences: Sequence[Difference], checked: Sequence[str]) -> str:
    """The result of a verification, in words."""
    if not differences:
        return f"{month_name(period)} is unchanged since it was closed. Compared: {', '.join(checked)}."
    return f"{month_name(period)} has changed since it was closed: {count_of(len(differences), 'difference')}."


def way_out(cause: str) -> str:
    """What the link to Stripe Sync is called for a cause: what is done there."""
    if cause in PUSHED:
        return PUSH
    return SETTLE if cause in SETTLED else STRIPE_SYNC
