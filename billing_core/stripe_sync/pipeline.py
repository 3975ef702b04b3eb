"""The pipeline to Stripe: how many credits are in each stage, what is stuck and why, and what a person may do.

Every event stands in exactly one stage, so the stages add up to the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from billing_core.ledger import pipeline_queries as questions
from billing_core.ledger.engine import Engine
from billing_core.stripe.intents import OLDEST
from billing_core.types import PipelineStage
from billing_core.values.decimals import EXACT, exact_sum


class Action(StrEnum):
    """A decision a person may make about stuck events."""

    RETRY = "retry"
    HOLD = "hold"
    RELEASE = "release"


NO_DRAFTS: Mapping[str, datetime] = {}


@dataclass(frozen=True, slots=True)
class Amounts:
    """A number of events with their exact credits and US dollars."""

    events: int = 0
    credits: Decimal = Decimal(0)
    amount_usd: Decimal = Decimal(0)

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(
            self.events + other.events,
            EXACT.add(self.credits, other.credits),
            EXACT.add(self.amount_usd, other.amount_usd),
        )


class DueBy(NamedTuple):
    """When the first of some unsent events cannot be billed by a meter event any more, and why.

    `customer_id` is set if it is because that customer's draft invoice becomes final, else Stripe's 35 days are over.
    """

    at: datetime
    customer_id: str | None = None


@dataclass(frozen=True, slots=True)
class CarriedFraction:
    """The fraction of a credit carried forward for a customer; below 0 after an intent was rejected."""

    customer_id: str
    credits: Decimal


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The credits in each stage of the way to Stripe. Times are aware UTC.

    stages: Every stage, also empty ones; together they are the whole ledger.
    corrections: What sent events owe beyond what was sent for them (positive or negative): not part of `stages`.
    oldest_unsent: Start of the oldest event that is pending or sending.
    due: When Stripe would refuse the first pending event as too old that it accepts today.
    """

    stages: dict[PipelineStage, Amounts]
    corrections: Amounts
    carried: tuple[CarriedFraction, ...]
    oldest_unsent: datetime | None
    due: DueBy | None = None

    @property
    def total(self) -> Amounts:
        """The amounts of all events of the ledger together."""
        return sum(self.stages.values(), Amounts())


@dataclass(frozen=True, slots=True)
class Problem:
    """The stuck events of one cause: what it is, what to do, which decisions help, and by when (`None`: no matter)."""

    cause: str
    title: str
    what_to_do: str
    example: str
    amounts: Amounts
    customers: int
    actions: tuple[Action, ...]
    due: DueBy | None = None


WOULD_BE_SENT, WOULD_WAIT = "sent", "waiting"


class PushOutlook(NamedTuple):
    """What a push would do with one event, and with how many credits of it.

    `what` is `WOULD_BE_SENT`, `WOULD_WAIT`, or the cause for which it would be held.
    """

    what: str
    credits: Decimal


@dataclass(frozen=True, slots=True)
class RetryOutlook:
    """What the next push would do with events that are retried now, by its own planning.

    sent: Events that meter events would cover, with what they owe. Their customer's fraction of a credit is carried on.
    waiting: Events that are not settled yet, or whose customer owes less than a whole credit so far.
    held: Cause → events that would be held again.
    """

    sent: Amounts
    waiting: Amounts
    held: Mapping[str, Amounts]


@dataclass(frozen=True, slots=True)
class DecisionPreview:
    """The events that a decision would change, before anybody makes it."""

    action: Action
    amounts: Amounts
    event_ids: tuple[str, ...]


ADVICE: dict[str, tuple[str, str, tuple[Action, ...]]] = {
    "no_customer": (
        "No Stripe customer",
        "Map its organization to a customer on Organization Stats, or name one in the trace's metadata and pull again.",
        (),
    ),
    "too_old": (
        "Older than 35 days",
        "Stripe does not accept usage that old with its true time. Invoice it separately, or write it off.",
        (),
    ),
    "closed_period": (
        "Billing period closed",
        "The invoice of its period is final. Invoice it separately, or write it off.",
        (Action.RETRY,),
    ),
    "correction_held": (
        "Correction cannot be sent",
        "Sent, changed since; the difference is too old or its invoice final. Invoice it, write it off, or credit it.",
        (),
    ),
    "sent_elsewhere": (
        "Stripe may count it already",
        "Another copy of this ledger may already have sent or withdrawn it. Release whatever it did not.",
        (Action.RELEASE,),
    ),
    "on_hold": ("On hold", "Put on hold by a person. Release it when the reason no longer applies.", (Action.RELEASE,)),
    "failed_before": (
        "Failed in the earlier system",
        "The earlier system recorded an error and no billing. Retry to send it from here.",
        (Action.RETRY,),
    ),
    "resource_missing": (
        "Stripe does not know the customer",
        "Check the customer id of the trace or its organization, and which account the key belongs to; then retry.",
        (Action.RETRY,),
    ),
    "meter_event_customer_not_found": (
        "Stripe does not know the customer",
        "Check the customer id of the trace or its organization, and which account the key belongs to; then retry.",
        (Action.RETRY,),
    ),
    "timestamp_too_far_in_past": (
        "Too old for Stripe",
        "It reached Stripe more than 35 days after it happened. Invoice it separately, or write it off.",
        (),
    ),
    "idempotency_error": (
        "Sent before with different content",
        "Another copy of this ledger sent something else under the same key. Reconcile before you retry.",
        (Action.RETRY,),
    ),
    "archived_meter": ("The meter was deactivated", "Activate the meter at Stripe, then retry.", (Action.RETRY,)),
}
PAST_SENDING = frozenset({"too_old", "timestamp_too_far_in_past", "closed_period", "correction_held"})
"""Causes for which no meter event can be sent any more: there is nothing to be in time for."""

SOON = timedelta(days=7)
"""What is due within it comes before everything else."""

OTHER = ("Rejected by Stripe", "Stripe's message is shown with it. Correct the cause, then retry.", (Action.RETRY,))


def read_pipeline(engine: Engine, now: datetime) -> Pipeline:
    """The pipeline to Stripe as it is now."""
    stages = dict.fromkeys(PipelineStage, Amounts())
    oldest: list[datetime] = []
    due: DueBy | None = None
    for row in engine.read(questions.stages(now - OLDEST)).to_pylist():
        stage = PipelineStage(row["stage"])
        stages[stage] = Amounts(row["events"], row["credits"], row["amount_usd"])
        if stage in {PipelineStage.PENDING, PipelineStage.SENDING}:
            oldest.append(row["oldest"].replace(tzinfo=UTC))
        if stage is PipelineStage.PENDING:
            due = _due("", None, row["oldest_accepted"], NO_DRAFTS)
    rest = engine.read(questions.fractions()).to_pylist()
    return Pipeline(
        stages,
        _corrections(engine, now),
        tuple(CarriedFraction(row["customer_id"], row["carried"]) for row in rest),
        min(oldest, default=None),
        due,
    )


def _corrections(engine: Engine, now: datetime) -> Amounts:
    """What sent events owe beyond their intents."""
    row = engine.read(questions.corrections(now)).to_pylist()[0]
    return Amounts(row["events"], row["credits"] or Decimal(0), row["amount_usd"] or Decimal(0))


def _held_corrections(engine: Engine, now: datetime) -> list[Problem]:
    """Differences a rule keeps from being sent: their events were sent once, so they stand in no stuck stage."""
    rows = engine.read(questions.held_corrections(now)).to_pylist()
    return [_problem(row) for row in sorted(rows, key=lambda row: row["cause"])]


def read_problems(engine: Engine, now: datetime, finals: Mapping[str, datetime] = NO_DRAFTS) -> list[Problem]:
    """The stuck events by cause, most credits first; then corrections that may not be sent.

    `finals` says by customer when the first draft invoice becomes final.
    """
    found: dict[str, Problem] = {}
    for row in engine.read(questions.stuck(now - OLDEST)).to_pylist():
        one, customer = _problem({**row, "customers": int(row["customer_id"] is not None)}), row["customer_id"]
        one = replace(one, due=_due(row["cause"], customer, row["oldest"], finals))
        found[one.cause] = one if one.cause not in found else _joined(found[one.cause], one)
    problems = dict(sorted(found.items(), key=lambda pair: (-pair[1].amounts.credits, pair[0])))
    for held in _held_corrections(engine, now):
        same = problems.get(held.cause)
        problems[held.cause] = (
            held
            if same is None
            else replace(same, amounts=same.amounts + held.amounts, customers=max(same.customers, held.customers))
        )
    return list(problems.values())


def _due(cause: str, customer_id: str | None, oldest: datetime | None, finals: Mapping[str, datetime]) -> DueBy | None:
    """When the first of a customer's events of one cause cannot be billed by a meter event any more."""
    if cause in PAST_SENDING:
        return None
    ends = [] if oldest is None else [DueBy(oldest.replace(tzinfo=UTC) + OLDEST)]
    if customer_id is not None and customer_id in finals:
        ends.append(DueBy(finals[customer_id], customer_id))
    return min(ends, key=lambda one: one.at, default=None)


def _joined(one: Problem, other: Problem) -> Problem:
    """One problem of two of the same cause, whose customers differ."""
    return replace(
        one,
        amounts=one.amounts + other.amounts,
        customers=one.customers + other.customers,
        example=max(one.example, other.example),
        due=min((due for due in (one.due, other.due) if due is not None), key=lambda due: due.at, default=None),
    )


def urgency(due: DueBy | None, amounts: Amounts, now: datetime) -> tuple[bool, datetime, Decimal]:
    """The sort key of what needs action: what is due within a week by its deadline, then the rest by its money."""
    is_soon = due is not None and due.at < now + SOON
    return not is_soon, due.at if due is not None and is_soon else now, -amounts.amount_usd


def _problem(row: Mapping[str, Any]) -> Problem:
    title, what_to_do, actions = _advice(row["cause"])
    amounts = Amounts(row["events"], row["credits"], row["amount_usd"])
    return Problem(row["cause"], title, what_to_do, row["example"] or "", amounts, row["customers"], actions)


def _advice(cause: str) -> tuple[str, str, tuple[Action, ...]]:
    return ADVICE.get(cause, OTHER)


def read_choice(
    engine: Engine, action: Action, *, cause: str | None, customer_ids: Sequence[str], event_ids: Sequence[str]
) -> DecisionPreview:
    """The events an action would change; `cause`, customers and ids narrow it, all of them together."""
    question = questions.decidable(action, cause=cause, customer_ids=customer_ids, event_ids=event_ids)
    rows = engine.read(question)
    sums = (exact_sum(rows[name].to_pylist()) for name in ("credits_total", "amount_usd"))
    total = Amounts(rows.num_rows, *sums)
    return DecisionPreview(action, total, tuple(rows["id"].to_pylist()))


def read_outlook(engine: Engine, fates: Mapping[str, PushOutlook]) -> RetryOutlook:
    """The amounts of each outcome that retried events would have."""
    rows = engine.read(questions.prices(fates)).to_pylist()
    sums: dict[str, Amounts] = {}
    for row in rows:
        what, credits_ = fates[row["id"]]
        sums[what] = sums.get(what, Amounts()) + Amounts(1, credits_, EXACT.multiply(credits_, row["credit_price_usd"]))
    sent, waiting = (sums.pop(what, Amounts()) for what in (WOULD_BE_SENT, WOULD_WAIT))
    return RetryOutlook(sent, waiting, dict(sorted(sums.items(), key=lambda one: -one[1].credits)))


def title_of(cause: str) -> str:
    """The cause of stuck events for people: `Older than 35 days`."""
    return ADVICE.get(cause, (cause,))[0]
