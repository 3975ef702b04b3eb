"""Texts of the months view. Pure: values in, plain text out; escape it before it becomes Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from billing_core.month_close.model import Difference, Month, MonthState
from billing_core.month_close.rules import NOT_CONNECTED, UNSENT, UNSETTLED, Obstacle, ObstacleGroup
from billing_core.values.counts import count_of
from billing_core.values.decimals import EXACT
from components.shared.colours import StatusMark
from components.shared.formats import UNKNOWN, count, credits_text, day_text, exact, moment, usd
from components.shared.periods import Period
from components.stripe_sync.marks import cause_words

if TYPE_CHECKING:
    from billing_core.month_close.model import Closing
    from billing_core.web.jobs import CloseState

HASH_SHOWN = 12

STATE_MARKS: Mapping[MonthState, StatusMark] = {
    MonthState.OPEN: StatusMark("○", "in progress", "#57606A", "It is not over yet."),
    MonthState.OVER: StatusMark("●", "to close", "#9A6700", "It is over and not closed."),
    MonthState.CLOSED: StatusMark("✓", "closed", "#0B6B62", "Its figures and exports stay as they are."),
    MonthState.REOPENED: StatusMark("↺", "reopened", "#B3261E", "It was closed and then reopened."),
}


def month_name(period: str) -> str:
    """A month for people: `2026-10` → `October 2026`."""
    return f"{date(int(period[:4]), int(period[5:]), 1):%B %Y}"


def short_hash(sha256: str | None) -> str:
    """The first digits of a hash, enough to tell two apart by eye."""
    return "" if sha256 is None else sha256[:HASH_SHOWN]


def month_rows(months: Sequence[Month], zone: ZoneInfo) -> dict[str, list[str]]:
    """The table of months; late usage and who closed have columns as soon as there is any."""
    rows = {
        "Month": [month_name(month.period) for month in months],
        "State": [STATE_MARKS[month.state].text for month in months],
        "Events": [count(month.events) for month in months],
        "Credits": [credits_text(month.credits.total) for month in months],
        "Amount (USD)": [usd(month.amount_usd) for month in months],
    }
    if any(month.late_events for month in months):
        rows["Late events"] = [count(month.late_events) if month.late_events else "" for month in months]
        rows["Late credits"] = [credits_text(month.late_credits) if month.late_events else "" for month in months]
    closed = [month if month.state is MonthState.CLOSED else None for month in months]
    if any(closed):
        rows[f"Closed ({zone.key})"] = ["" if month is None else moment(month.closed_at, zone) for month in closed]
        rows["By"] = ["" if month is None else month.closed_by or UNKNOWN for month in closed]
        rows["SHA-256"] = ["" if month is None else short_hash(month.sha256) for month in closed]
    return rows


def suggested(months: Sequence[Month]) -> str:
    """The month to show first: the oldest one that waits for its close, else the newest closed one, else the present
    one.

    `months` come newest first, and there is at least one.
    """
    waiting = [month.period for month in months if month.state in {MonthState.OVER, MonthState.REOPENED}]
    closed = [month.period for month in months if month.state is MonthState.CLOSED]
    return (waiting[-1:] or closed[:1] or [months[0].period])[0]


def late_text(month: Month) -> str | None:
    """How much of a month's figures is late usage of closed months; `None` if nothing is."""
    if not month.late_events:
        return None
    return (
        f"{count_of(month.late_events, 'event')} with {exact(month.late_credits)} credits arrived or changed after "
        "their own month was closed: they count here, flagged late_after_close, and keep their own time."
    )


# ── a month that is not closed ───────────────────────────────────────────────────────────────────


def _days_of(month: Month, zone: ZoneInfo) -> tuple[date, date]:
    last = month.window.end.astimezone(zone) - timedelta(microseconds=1)
    return month.window.start.astimezone(zone).date(), last.date()


def days_line(month: Month, zone: ZoneInfo) -> str:
    """The days of a month: `1 Oct 2026 to 31 Oct 2026 · days in Europe/Berlin`."""
    first, last = _days_of(month, zone)
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


_OWN_LABELS = {UNSETTLED: "Not settled", UNSENT: "Not sent", NOT_CONNECTED: "Stripe is not connected"}


def cause_label(cause: str) -> str:
    """The cause of an obstacle in words: as in reconciliation, where it has one there."""
    return _OWN_LABELS.get(cause) or cause_words(cause).label


@dataclass(frozen=True, slots=True)
class CauseGroup:
    """The obstacles to a close with one cause: what somebody accepts, or settles, together."""

    cause: str
    obstacles: tuple[Obstacle, ...]

    @property
    def label(self) -> str:
        """The cause of the obstacles in words."""
        return cause_label(self.cause)

    @property
    def is_acceptable(self) -> bool:
        """Whether the month may be closed in spite of these obstacles."""
        return all(one.group is not ObstacleGroup.NOT_OVER for one in self.obstacles)

    @property
    def events(self) -> int:
        """How many events the obstacles are about, as far as events are known."""
        return sum(one.events for one in self.obstacles)

    @property
    def credits(self) -> Decimal | None:
        """The credits of the obstacles, sizes added up; `None` if unknown of any."""
        total = Decimal(0)
        for one in self.obstacles:
            if one.credits is None:
                return None
            total = EXACT.add(total, one.credits)
        return total

    @property
    def figures(self) -> str:
        """Events and credits of the obstacles: `12 events · 1,234.5 credits`."""
        credit = "credits unknown" if self.credits is None else f"{exact(self.credits)} credits"
        return f"{count_of(self.events, 'event')} · {credit}" if self.events else credit

    @property
    def event_ids(self) -> tuple[str, ...]:
        """The ids of the obstacles' first events, each once."""
        return tuple(dict.fromkeys(name for one in self.obstacles for name in one.event_ids))


def by_cause(obstacles: Iterable[Obstacle]) -> list[CauseGroup]:
    """Obstacles grouped by cause, most events first; what nobody can accept comes before everything else."""
    found: dict[str, list[Obstacle]] = {}
    for one in obstacles:
        found.setdefault(one.cause, []).append(one)
    groups = [CauseGroup(cause, tuple(ones)) for cause, ones in found.items()]
    return sorted(groups, key=lambda group: (group.is_acceptable, -group.events, group.cause))


def what_to_do(obstacle: Obstacle) -> str:
    """The advice about an obstacle, as a sentence."""
    return obstacle.says[:1].upper() + obstacle.says[1:] + ("" if obstacle.says.endswith(".") else ".")


_STATUS_OF = {
    (UNSETTLED, ObstacleGroup.UNSETTLED): {"status": "pending"},
    (UNSENT, ObstacleGroup.UNSENT): {"status": "pending"},
    ("unknown_outcome", ObstacleGroup.UNSENT): {"status": "sending"},
    ("no_customer", ObstacleGroup.ERROR): {"status": "error", "without": "customer"},
    ("too_old", ObstacleGroup.ERROR): {"status": "error"},
    ("rejected", ObstacleGroup.ERROR): {"status": "error"},
    ("held", ObstacleGroup.ERROR): {"status": "error"},
    ("held", ObstacleGroup.UNSENT): {"status": "pending"},
}
"""Filters of the Usage Events page that hold at least the events of an obstacle."""


def events_query(obstacle: Obstacle, month: Month, zone: ZoneInfo) -> dict[str, str] | None:
    """URL parameters of the Usage Events page for an obstacle's events; `None` if no filter finds them."""
    filters = _STATUS_OF.get((obstacle.cause, obstacle.group))
    if filters is None or not obstacle.events:
        return None
    first, last = _days_of(month, zone)
    days = {"period": Period.CUSTOM.value, "first_day": first.isoformat(), "last_day": last.isoformat()}
    return {**days, **filters}


def check_text(month: Month, groups: Sequence[CauseGroup]) -> str:
    """The result of a check, in words: whether the month can be closed."""
    name = month_name(month.period)
    if not groups:
        return f"Nothing blocks closing {name}."
    what = "1 issue blocks" if len(groups) == 1 else f"{len(groups)} issues block"
    return (
        f"{what} closing {name}. Resolve them and check again, or accept them with a reason; the manifest "
        "records what was accepted."
    )


def checked_text(checked_at: datetime, by: str, zone: ZoneInfo, *, is_current: bool) -> str:
    """When a month was checked, and whether that is still current."""
    text = f"Checked {moment(checked_at, zone)} ({zone.key}) by {by}."
    return text if is_current else f"{text} The ledger has changed since: check again to see what blocks closing now."


def accepted_text(groups: Sequence[CauseGroup], causes: Iterable[str]) -> list[str]:
    """What would be accepted, a line per cause: `No customer: 12 events · 1,234.5 credits`."""
    chosen = set(causes)
    return [f"{group.label}: {group.figures}" for group in groups if group.cause in chosen]


def closing_sentences(month: Month, *, accepts: bool) -> list[str]:
    """What closing a month means, in sentences."""
    name, events = month_name(month.period), count_of(month.events, "event")
    found = [
        f"{name} has {events}, {exact(month.credits.total)} credits ({usd(month.amount_usd)}).",
        (
            "Langfuse and Stripe are re-read first. Then its figures, statuses and exports no longer change, and a "
            "manifest with their hashes proves it."
        ),
        "Usage that arrives or changes later counts in the open month, flagged late_after_close.",
    ]
    if accepts:
        found.append(
            "For each cause you accept, everything found at the moment of closing is accepted as well; the manifest "
            "records how much."
        )
    return found


def closed_text(closing: Closing) -> str:
    """The result of a close that succeeded."""
    manifest = closing.manifest or {}
    totals = manifest.get("totals", {})
    name = month_name(str(manifest.get("period")))
    figures = (
        f"{count_of(int(totals.get('events', 0)), 'event')}, {exact(Decimal(totals.get('credits_total', 0)))} credits "
        f"({usd(Decimal(totals.get('amount_usd', 0)))})"
    )
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


def difference_rows(differences: Sequence[Difference]) -> dict[str, list[str]]:
    """The differences between a closed month and its manifest, as a table."""
    return {
        "What": [one.what for one in differences],
        "Finding": [one.says for one in differences],
        "When it was closed": [one.expected or "" for one in differences],
        "Now": [one.found or "" for one in differences],
    }


def reopening_sentences(month: Month) -> list[str]:
    """What reopening a month means, in sentences."""
    return [
        (
            f"{month_name(month.period)} will no longer count as closed: it will show the ledger's current figures, "
            "and its late usage will count in it again instead of in the open month."
        ),
        (
            "The manifest and the frozen rows stay. Files that were exported from the closed month may differ from new "
            "ones. The audit log names you and your reason."
        ),
        "A month can be reopened only while no month after it is closed.",
    ]
