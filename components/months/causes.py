"""The obstacles to a close by cause, and where their events are found. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from billing_core.month_close.model import Month, MonthState
from billing_core.month_close.rules import NOT_CONNECTED, UNSENT, UNSETTLED, Obstacle, ObstacleGroup
from billing_core.values.counts import count_of
from billing_core.values.decimals import EXACT, exact_sum
from components.shared.formats import short_credits, short_usd
from components.shared.periods import Period
from components.stripe_sync.marks import cause_words


def suggested(months: Sequence[Month]) -> str:
    """The month to show first: the oldest one that waits for its close, else the newest closed one, else the present
    one.

    `months` come newest first, and there is at least one.
    """
    waiting = [month.period for month in months if month.state in {MonthState.OVER, MonthState.REOPENED}]
    closed = [month.period for month in months if month.state is MonthState.CLOSED]
    return (waiting[-1:] or closed[:1] or [months[0].period])[0]


def days_of(month: Month, zone: ZoneInfo) -> tuple[date, date]:
    last = month.window.end.astimezone(zone) - timedelta(microseconds=1)
    return month.window.start.astimezone(zone).date(), last.date()


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
    def amount_usd(self) -> Decimal | None:
        """The US dollars of the obstacles; `None` if one of them has no price."""
        amounts = [one.amount_usd for one in self.obstacles]
        return None if None in amounts else exact_sum(amount for amount in amounts if amount is not None)

    @property
    def figures(self) -> str:
        """Events, credits and money of the obstacles: `12 events · 1,234.5 credits · $0.05`."""
        parts = [count_of(self.events, "event")] if self.events else []
        parts.append("credits unknown" if self.credits is None else f"{short_credits(self.credits)} credits")
        if self.amount_usd is not None:
            parts.append(short_usd(self.amount_usd))
        return " · ".join(parts)

    @property
    def stuck_for(self) -> tuple[str, ...]:
        """Causes by which a filter finds exactly the events of all obstacles; none if it cannot."""
        if not all(one.stuck_for for one in self.obstacles):
            return ()
        return tuple(sorted({cause for one in self.obstacles for cause in one.stuck_for}))

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
    (UNSETTLED, ObstacleGroup.UNSETTLED): "pending",
    (UNSENT, ObstacleGroup.UNSENT): "pending",
    ("unknown_outcome", ObstacleGroup.UNSENT): "sending",
}
"""Statuses of the events of obstacles that no filter finds exactly."""


def stuck_query(group: CauseGroup, month: Month, zone: ZoneInfo) -> dict[str, Any] | None:
    """URL parameters of the Usage Events page for exactly the events of a group; `None` if no filter finds them."""
    if not group.stuck_for or not group.events:
        return None
    return {**_days(month, zone), "cause": list(group.stuck_for)}


def status_query(obstacle: Obstacle, month: Month, zone: ZoneInfo) -> dict[str, Any] | None:
    """URL parameters of the Usage Events page for events of an obstacle's status: its own are among them; `None` if it
    has none.
    """
    status = _STATUS_OF.get((obstacle.cause, obstacle.group))
    if status is None or not obstacle.events:
        return None
    return {**_days(month, zone), "status": status}


def _days(month: Month, zone: ZoneInfo) -> dict[str, str]:
    first, last = days_of(month, zone)
    return {"period": Period.CUSTOM.value, "first_day": first.isoformat(), "last_day": last.isoformat()}
