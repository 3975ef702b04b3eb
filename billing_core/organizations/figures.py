"""The figures of an organization (counts and sums), and how totals follow from them. Pure and exact.

Every definition stands once, in `MEANINGS`: the page shows it as help, `docs/organizations.md` prints it.

People, chats and chatflows are counted within an organization: the same user id under two organizations is two users.
So a total is the sum of its rows, everywhere. Only a percentile is not a sum: the total has its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from billing_core.types import Credits, plain_decimal
from billing_core.values.decimals import EXACT, exact_sum
from billing_core.values.usage_frame import TOKEN_CLASSES

MICROSECOND = Decimal("0.000001")

MEANINGS: dict[str, str] = {
    "credits": "AI token, compute and storage credits of every event, at the rate card each was rated with.",
    "amount_usd": "Credits times the credit price of the rate card each event was rated with.",
    "cost_usd": "What the models cost in US dollars, as far as Langfuse reports it.",
    "margin_usd": (
        "Amount minus cost, over the events whose cost is known. Where the customer brought the key, the cost is the "
        "customer's and counts as 0."
    ),
    "events": "One event is one Langfuse trace, including excluded ones (with 0 credits).",
    "chats": "Distinct sessions. Events without a session belong to no chat.",
    "messages_sent": "Requests that people and programs sent: one per event.",
    "messages_generated": "Answers by models: events in which a model produced output tokens.",
    "users": "Distinct user ids with at least one event. Events without a user are not counted.",
    "chatflows": "Distinct chatflows, by id, or by name where a trace has no id.",
    "models": "Distinct models named by the traces.",
    "tokens_total": "Every token, each in exactly one class: input, output, cache read, cache write, reasoning, other.",
    "latency_seconds": "From the first start to the last end of a trace.",
    "error_share": "Events in which at least one observation has the level ERROR, of those for which that is known.",
    "unsynced_credits": "Credits of events that Stripe has not accepted yet: pending, sending or in error.",
    "failed_credits": "Credits of events that Stripe rejected or that cannot be sent.",
}
"""What each figure means, in a sentence or two."""


@dataclass(frozen=True, slots=True)
class TokensByClass:
    """Tokens by token class; `None` where no event names any."""

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    other: int | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything counted over some events (see `MEANINGS`); `None` is unknown, never zero.

    `known_cost_amount_usd` is the amount of the events whose cost is known, `borne_cost_usd` their cost as far as it
    is ours: the margin is their difference. `judged_events` are those for which errors are known. Latencies are
    seconds; `latency_sum` adds up over rows, the 95th percentile does not.
    """

    events: int
    chats: int
    messages_sent: int
    messages_generated: int
    users: int
    chatflows: int
    models: tuple[str, ...]
    credits: Credits
    amount_usd: Decimal
    cost_usd: Decimal | None
    known_cost_amount_usd: Decimal | None
    borne_cost_usd: Decimal | None
    tokens_in: int | None
    tokens_out: int | None
    tokens_total: int | None
    tokens_by_class: TokensByClass
    latency_sum: Decimal
    latency_p95: Decimal | None
    failed_events: int
    judged_events: int
    unsynced_credits: Decimal
    failed_credits: Decimal

    @property
    def margin_usd(self) -> Decimal | None:
        """The margin in US dollars: amount minus cost, over the events whose cost is known."""
        if self.known_cost_amount_usd is None or self.borne_cost_usd is None:
            return None
        return EXACT.subtract(self.known_cost_amount_usd, self.borne_cost_usd)

    @property
    def amount_without_cost_usd(self) -> Decimal | None:
        """The US dollars of events whose cost is unknown: part of the amount, not of the margin."""
        if self.known_cost_amount_usd is None:
            return None
        return EXACT.subtract(self.amount_usd, self.known_cost_amount_usd)

    @property
    def own_keys_cost_usd(self) -> Decimal | None:
        """The cost in US dollars that customers bore themselves, with keys of their own: part of the cost, not ours."""
        if self.cost_usd is None or self.borne_cost_usd is None:
            return None
        return EXACT.subtract(self.cost_usd, self.borne_cost_usd)

    @property
    def latency_average(self) -> Decimal | None:
        """The average latency in seconds, over all events, to the microsecond."""
        return None if not self.events else (self.latency_sum / self.events).quantize(MICROSECOND, ROUND_HALF_EVEN)

    @property
    def error_share(self) -> Decimal | None:
        """The share of failed events, from 0 to 1, among those for which errors are known."""
        return None if not self.judged_events else Decimal(self.failed_events) / Decimal(self.judged_events)

    def to_json(self) -> dict[str, Any]:
        """The published figures (CONTRACT section 3, `stats`): exact numbers as text, seconds and shares as numbers."""
        return {
            "events": self.events,
            "chats": self.chats,
            "messages_sent": self.messages_sent,
            "messages_generated": self.messages_generated,
            "users": self.users,
            "chatflows": self.chatflows,
            "models": list(self.models),
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "tokens_total": self.tokens_total,
            "tokens": {name: getattr(self.tokens_by_class, name) for name in TOKEN_CLASSES},
            "credits": self.credits.model_dump(mode="json"),
            "amount_usd": plain_decimal(self.amount_usd),
            "cost_usd": _text(self.cost_usd),
            "margin_usd": _text(self.margin_usd),
            "latency_seconds_average": _number(self.latency_average),
            "latency_seconds_p95": _number(self.latency_p95),
            "error_share": _number(self.error_share),
            "unsynced_credits": plain_decimal(self.unsynced_credits),
            "failed_credits": plain_decimal(self.failed_credits),
        }


@dataclass(frozen=True, slots=True)
class OrganizationFigures:
    """The figures of one organization (`None`: events that name none) in a period and in the one before.

    `previous` is `None` where there is no period before; `daily` holds credits per day of the reporting timezone,
    first day of the period first, days without events as 0. `customer_ids` are those its events name, sorted.
    """

    organization_id: str | None
    now: Figures
    previous: Figures | None
    daily: tuple[Decimal, ...]
    customer_ids: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The organization's row of the published document (CONTRACT section 3, `stats`)."""
        return {"organization_id": self.organization_id, **self.now.to_json()}


@dataclass(frozen=True, slots=True)
class Statistics:
    """The figures of every organization in a window, largest credits first, and their totals.

    `previous_window` is what they are compared with, if anything. `ties_out`: the rows add up to what Usage Events
    shows for the same filter, to the last digit. `first_day` is the day `daily` begins with, ISO 8601; `None` without
    events. `has_costs`: costs and margins are for who asked; if not, they are unknown here.
    """

    organizations: tuple[OrganizationFigures, ...]
    total: Figures
    previous_total: Figures | None
    previous_window: tuple[datetime | None, datetime | None] | None
    first_day: str | None
    ties_out: bool
    has_costs: bool = True

    def to_json(self) -> dict[str, Any]:
        """The published document (CONTRACT section 3, `stats`): the period's organizations and their totals."""
        active = [one.to_json() for one in self.organizations if one.now.events]
        return {"organizations": active, "totals": self.total.to_json(), "ties_out": self.ties_out}


@dataclass(frozen=True, slots=True)
class Move:
    """How an organization's credits changed against the period before; `relative` is `None` with nothing before."""

    organization_id: str | None
    before: Decimal
    now: Decimal
    change: Decimal
    relative: Decimal | None


def movers(organizations: Iterable[OrganizationFigures]) -> list[Move]:
    """The changes of organizations' credits, largest first either way; empty without a period before."""
    moves = []
    for one in organizations:
        if one.previous is None:
            continue
        before, now = one.previous.credits.total, one.now.credits.total
        change = EXACT.subtract(now, before)
        if change:
            moves.append(Move(one.organization_id, before, now, change, None if not before else change / before))
    return sorted(moves, key=lambda move: (-abs(move.change), move.organization_id or ""))


def added(rows: Sequence[Figures], *, latency_p95: Decimal | None) -> Figures:
    """The total of some organizations' figures: sums, the union of models, and the given percentile of latency."""
    return Figures(
        events=sum(row.events for row in rows),
        chats=sum(row.chats for row in rows),
        messages_sent=sum(row.messages_sent for row in rows),
        messages_generated=sum(row.messages_generated for row in rows),
        users=sum(row.users for row in rows),
        chatflows=sum(row.chatflows for row in rows),
        models=tuple(sorted({name for row in rows for name in row.models})),
        credits=Credits(
            **{name: exact_sum(getattr(row.credits, name) for row in rows) for name in Credits.model_fields}
        ),
        amount_usd=exact_sum(row.amount_usd for row in rows),
        cost_usd=_known(row.cost_usd for row in rows),
        known_cost_amount_usd=_known(row.known_cost_amount_usd for row in rows),
        borne_cost_usd=_known(row.borne_cost_usd for row in rows),
        tokens_in=_known_count(row.tokens_in for row in rows),
        tokens_out=_known_count(row.tokens_out for row in rows),
        tokens_total=_known_count(row.tokens_total for row in rows),
        tokens_by_class=TokensByClass(
            **{name: _known_count(getattr(row.tokens_by_class, name) for row in rows) for name in TOKEN_CLASSES}
        ),
        latency_sum=exact_sum(row.latency_sum for row in rows),
        latency_p95=latency_p95,
        failed_events=sum(row.failed_events for row in rows),
        judged_events=sum(row.judged_events for row in rows),
        unsynced_credits=exact_sum(row.unsynced_credits for row in rows),
        failed_credits=exact_sum(row.failed_credits for row in rows),
    )


def _known(values: Iterable[Decimal | None]) -> Decimal | None:
    """Unknown plus known is known; unknown alone stays unknown."""
    present = [value for value in values if value is not None]
    return exact_sum(present) if present else None


def _known_count(values: Iterable[int | None]) -> int | None:
    present = [value for value in values if value is not None]
    return sum(present) if present else None


def _text(value: Decimal | None) -> str | None:
    return None if value is None else plain_decimal(value)


def _number(value: Decimal | None) -> float | None:
    return None if value is None else float(value)
