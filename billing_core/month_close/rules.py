"""The rules of a month's close: what prevents it, and which of that may be accepted. Pure.

A month is closed once: what is unsettled, unsent, in error or unexplained would stay so for ever (CONTRACT section 3).
What waits by rule is no obstacle: fractions of a credit, Stripe's sums that lag, usage that is not billed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from billing_core.errors import BadParameter
from billing_core.reconcile.report import Cause, ComparisonStep, Reconciliation
from billing_core.types import plain_decimal
from billing_core.values.decimals import EXACT, exact_sum

NOT_OVER = "not_over"
NOT_CONNECTED = "not_connected"
CONTRADICTION = "contradiction"
UNSETTLED = "unsettled"
UNSENT = "unsent"

ELSEWHERE = "elsewhere"
"""Why an event is on its way for ever: the intent lies in another ledger."""

NAMED = 100
"""Events that an obstacle names; their number is exact."""


class ObstacleGroup(StrEnum):
    """A group of obstacles to a close: the four words of CONTRACT section 3, and one for a month that is not over."""

    UNSETTLED = "unsettled"
    UNSENT = "unsent"
    ERROR = "error"
    UNEXPLAINED = "unexplained"
    NOT_OVER = "not_over"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Something that prevents closing a month, with its group, cause, events and credits.

    cause: In the words of reconciliation where it has one.
    credits: Sizes, added up; `None` where nobody knows.
    event_ids: The first ones, sorted.
    amount_usd: US dollars of the credits; `None` where they have no price of their own, as differences between books.
    stuck_for: Causes by which the filter `cause` of usage events finds exactly these; none if it cannot.
    """

    cause: str
    group: ObstacleGroup
    says: str
    events: int = 0
    credits: Decimal | None = Decimal(0)
    event_ids: tuple[str, ...] = ()
    amount_usd: Decimal | None = None
    stuck_for: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The obstacle as `close --json` and the manifest have it: credits as text."""
        return {
            "cause": self.cause,
            "group": self.group.value,
            "says": self.says,
            "events": self.events,
            "credits": None if self.credits is None else plain_decimal(self.credits),
            "amount_usd": None if self.amount_usd is None else plain_decimal(self.amount_usd),
            "event_ids": list(self.event_ids),
        }


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Which obstacles (causes or groups) somebody accepts for a close, and why."""

    causes: frozenset[str] = frozenset()
    by: str = ""
    reason: str = ""

    @classmethod
    def parse(cls, causes: Iterable[str], *, by: str, reason: str) -> Acceptance:
        """An acceptance from the causes somebody wrote; commas separate as well.

        Raises BadParameter: naming the first word that is no cause, and those that are.
        """
        words = [word.strip() for text in causes for word in text.split(",") if word.strip()]
        for word in words:
            if word not in ACCEPTABLE:
                raise BadParameter("accept", word, "one of " + ", ".join(sorted(ACCEPTABLE)))
        return cls(frozenset(words), by, " ".join(reason.split()))

    def covers(self, obstacle: Obstacle) -> bool:
        """Whether an obstacle is accepted. That a month is not over cannot be accepted."""
        return obstacle.group is not ObstacleGroup.NOT_OVER and bool(
            self.causes & {obstacle.cause, obstacle.group.value}
        )


ACCEPTABLE = frozenset(
    {*(cause.value for cause in Cause), *(group.value for group in ObstacleGroup), NOT_CONNECTED, CONTRADICTION}
    - {NOT_OVER}
)
"""Words that `--accept` takes. Causes that are no obstacle are taken too: a script may name them every month."""


@dataclass(frozen=True, slots=True)
class AcceptedObstacle:
    """An obstacle to a close that somebody accepted."""

    obstacle: Obstacle
    by: str
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The accepted obstacle as the manifest names it."""
        return {**self.obstacle.to_json(), "accepted_by": self.by, "reason": self.reason}


def judge(obstacles: Sequence[Obstacle], acceptance: Acceptance) -> tuple[list[Obstacle], list[AcceptedObstacle]]:
    """The obstacles that remain after an acceptance, and those it accepts."""
    standing = [one for one in obstacles if not acceptance.covers(one)]
    accepted = [AcceptedObstacle(one, acceptance.by, acceptance.reason) for one in obstacles if acceptance.covers(one)]
    return standing, accepted


def not_over(period: str, end: datetime, settled_at: datetime, now: datetime) -> Obstacle | None:
    """The obstacle that a month is not over, or that its last traces are not settled; `None` if they are."""
    if now < end:
        return Obstacle(NOT_OVER, ObstacleGroup.NOT_OVER, f"{period} ends at {end:%Y-%m-%d %H:%M} UTC", credits=None)
    if now < settled_at:
        says = f"the last traces of {period} become final for sending at {settled_at:%Y-%m-%d %H:%M} UTC"
        return Obstacle(UNSETTLED, ObstacleGroup.UNSETTLED, says, credits=None)
    return None


_LANGFUSE = {
    Cause.LATE: (ObstacleGroup.UNSETTLED, "Langfuse and the ledger differ: pull the month, push, close again"),
    Cause.CHANGED_AFTER_SENDING: (
        ObstacleGroup.UNSETTLED,
        "Langfuse now has other figures for events already sent: pull the month, push, close again",
    ),
}

_UNEXPLAINED = {
    Cause.NOT_OURS: "Stripe counts credits that this ledger did not send",
    Cause.LOST_AT_STRIPE: "Stripe does not count credits that it accepted",
    None: "the ledger contradicts itself",
}


def from_reconciliation(found: Reconciliation) -> list[Obstacle]:
    """The obstacles that a reconciliation shows: usage that Langfuse and ledger disagree on, and unexplained credits.

    What was booked and not sent yet is judged by the ledger's own statuses: there parts that were corrected in
    another hour stand on both sides and are no obstacle.
    """
    sums: dict[tuple[str, ObstacleGroup, str], tuple[Decimal, set[str]]] = {}
    for row in found.rows:
        for part in row.parts:
            if part.step is ComparisonStep.LANGFUSE_LEDGER and part.cause in _LANGFUSE:
                group, says = _LANGFUSE[part.cause]
            elif part.is_unexplained and part.credits:
                group, says = ObstacleGroup.UNEXPLAINED, _UNEXPLAINED[part.cause]
            else:
                continue
            key = (CONTRADICTION if part.cause is None else part.cause.value, group, says)
            total, ids = sums.setdefault(key, (Decimal(0), set()))
            sums[key] = EXACT.add(total, abs(part.credits)), ids | set(part.event_ids)
    return [
        Obstacle(cause, group, says, len(ids), total, tuple(sorted(ids)[:NAMED]))
        for (cause, group, says), (total, ids) in sums.items()
    ]


@dataclass(frozen=True, slots=True)
class UnfinishedEvents:
    """Events of a month that got no further than `stage`, for `cause` if they are stuck."""

    stage: str
    cause: str | None
    is_settled: bool
    is_carried: bool
    events: int
    credits: Decimal
    amount_usd: Decimal
    event_ids: tuple[str, ...]


STUCK_STAGES = ("error", "held")

_STUCK = {
    "no_customer": (
        Cause.NO_CUSTOMER,
        ObstacleGroup.ERROR,
        "no customer assigned: map their organization, or name a customer",
    ),
    "too_old": (Cause.TOO_OLD, ObstacleGroup.ERROR, "too old for Stripe: invoice them separately, or write them off"),
    "closed_period": (
        Cause.HELD,
        ObstacleGroup.ERROR,
        "the invoice of their billing period is final: invoice them separately, or write them off",
    ),
    "failed_before": (Cause.HELD, ObstacleGroup.ERROR, "the earlier system failed to bill them: retry on Stripe Sync"),
    "sent_elsewhere": (
        Cause.SENT_ELSEWHERE,
        ObstacleGroup.UNSENT,
        "Stripe may count them already: release or resolve them on Stripe Sync",
    ),
    "on_hold": (Cause.HELD, ObstacleGroup.UNSENT, "on hold: release them on Stripe Sync"),
}
_ELSEWHERE = (
    "on their way to Stripe in the ledger they were imported from, and their outcome is known only there: "
    "import a newer export of it, or accept unknown_outcome"
)
_REJECTED = (Cause.REJECTED, ObstacleGroup.ERROR, "Stripe rejected them: see Stripe Sync")


def from_unfinished_events(standings: Iterable[UnfinishedEvents]) -> list[Obstacle]:
    """The obstacles that the statuses of a month's own events show."""
    found: dict[tuple[str, ObstacleGroup, str], list[UnfinishedEvents]] = {}
    for one in standings:
        match one.stage:
            case "pending" if one.is_carried:
                continue  # waits for its customer's next whole credit
            case "pending" if not one.is_settled:
                key = (
                    UNSETTLED,
                    ObstacleGroup.UNSETTLED,
                    "not final for sending yet: push a little later, then close again",
                )
            case "pending":
                key = UNSENT, ObstacleGroup.UNSENT, "not sent to Stripe yet: push, then close again"
            case "sending" if one.cause == ELSEWHERE:
                key = Cause.UNKNOWN_OUTCOME.value, ObstacleGroup.UNSENT, _ELSEWHERE
            case "sending":
                key = (
                    Cause.UNKNOWN_OUTCOME.value,
                    ObstacleGroup.UNSENT,
                    "not known yet whether Stripe has them: push again",
                )
            case stage if stage in STUCK_STAGES:
                cause, group, says = _STUCK.get(one.cause or "", _REJECTED)
                key = cause.value, group, says
            case "correction":
                says = (
                    "sent, changed since, and the difference was not sent: push, invoice it separately, or write it off"
                )
                key = Cause.CHANGED_AFTER_SENDING.value, ObstacleGroup.UNSENT, says
            case _:
                continue
        found.setdefault(key, []).append(one)
    return [_obstacle(*key, ones) for key, ones in found.items()]


def _obstacle(cause: str, group: ObstacleGroup, says: str, ones: Sequence[UnfinishedEvents]) -> Obstacle:
    ids = sorted({event_id for one in ones for event_id in one.event_ids})
    causes = sorted((one.cause or "") if one.stage in STUCK_STAGES else "" for one in ones)
    return Obstacle(
        cause,
        group,
        says,
        sum(one.events for one in ones),
        exact_sum(one.credits for one in ones),
        tuple(ids[:NAMED]),
        exact_sum(one.amount_usd for one in ones),
        tuple(causes) if all(causes) else (),
    )
