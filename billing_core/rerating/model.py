"""The data classes of re-rating. Light: pages import it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from billing_core.types import plain_decimal, utc_text
from billing_core.values.decimals import EXACT, exact_sum


class NotRerated(StrEnum):
    """The reason why an event keeps its credits and its customer, whatever the card or the settings say."""

    LEGACY_BILLED = "legacy_billed"
    BILLED_ELSEWHERE = "billed_elsewhere"
    NO_CARD = "no_card_in_force"
    USAGE_UNKNOWN = "usage_unknown"
    NOT_READ = "not_read_again"
    LINES_UNKNOWN = "lines_unknown"


WHY_NOT: Mapping[NotRerated, str] = {
    NotRerated.LEGACY_BILLED: "The earlier system billed it: what it billed stays.",
    NotRerated.BILLED_ELSEWHERE: "It was imported as billed already: what was billed stays.",
    NotRerated.NO_CARD: "No card of the file was in force when it began: it keeps its card.",
    NotRerated.USAGE_UNKNOWN: "Its tokens are known as a sum only, and the card prices them by model and class.",
    NotRerated.NOT_READ: "It was read with other metadata names: pull its time (`pull --from --to`), then look again.",
    NotRerated.LINES_UNKNOWN: "It was read before usage keys and active time were kept: pull its time again.",
}
"""The same in a sentence."""


@dataclass(frozen=True, slots=True)
class OrganizationDelta:
    """How a re-rating changes one organization (`None`: events that name none). Credits and US dollars are exact;
    `events` were looked at.

    `old` and `new` include events that are not re-rated, so that they add up to what the ledger shows.
    """

    organization_id: str | None
    events: int
    events_changed: int
    old: Decimal
    new: Decimal
    old_usd: Decimal
    new_usd: Decimal

    @property
    def delta(self) -> Decimal:
        """The organization's change in credits: new less old."""
        return EXACT.subtract(self.new, self.old)

    @property
    def delta_usd(self) -> Decimal:
        """The organization's change in US dollars: new less old."""
        return EXACT.subtract(self.new_usd, self.old_usd)

    def to_json(self) -> dict[str, Any]:
        """The organization's row of `organizations` in the document of `rerate`."""
        return {
            "organization_id": self.organization_id,
            "events": self.events,
            "events_changed": self.events_changed,
            "old": plain_decimal(self.old),
            "new": plain_decimal(self.new),
            "delta": plain_decimal(self.delta),
            "old_usd": plain_decimal(self.old_usd),
            "new_usd": plain_decimal(self.new_usd),
            "delta_usd": plain_decimal(self.delta_usd),
        }


@dataclass(frozen=True, slots=True)
class CustomerDelta:
    """How a re-rating changes a customer (`None`: nobody pays): credits before, and after by who would pay."""

    customer_id: str | None
    old: Decimal
    new: Decimal

    @property
    def delta(self) -> Decimal:
        """The customer's change in credits: new less old."""
        return EXACT.subtract(self.new, self.old)

    def to_json(self) -> dict[str, Any]:
        """The customer's row of `customers` in the document of `rerate`."""
        return {
            "customer_id": self.customer_id,
            "old": plain_decimal(self.old),
            "new": plain_decimal(self.new),
            "delta": plain_decimal(self.delta),
        }


@dataclass(frozen=True, slots=True)
class PlanCrossing:
    """A customer whose use in the current period would pass, or no longer pass, the credits its plan includes.

    `organizations` are all it pays for. It crosses up when it reaches what is `included` only with the new credits,
    down when only with the old ones.
    """

    customer_id: str
    organizations: tuple[str, ...]
    plan: str | None
    included: int
    old_used: Decimal
    new_used: Decimal
    period_start: datetime
    period_end: datetime

    @property
    def direction(self) -> str:
        """Whether the use would pass the included credits (`up`) or no longer pass them (`down`)."""
        return "up" if self.new_used > self.old_used else "down"

    def to_json(self) -> dict[str, Any]:
        """The customer's row of `plan_limits` in the document of `rerate`."""
        return {
            "customer_id": self.customer_id,
            "organizations": list(self.organizations),
            "plan": self.plan,
            "included": self.included,
            "old_used": plain_decimal(self.old_used),
            "new_used": plain_decimal(self.new_used),
            "crosses": self.direction,
            "period": {"start": utc_text(self.period_start), "end": utc_text(self.period_end)},
        }


@dataclass(frozen=True, slots=True)
class ToSend:
    """The differences of events already sent or being sent: `credits` below 0 would be given back on balance."""

    events: int
    credits: Decimal
    customers: int

    def to_json(self) -> dict[str, Any]:
        """The object `to_send` in the document of `rerate`."""
        return {"events": self.events, "credits": plain_decimal(self.credits), "customers": self.customers}


@dataclass(frozen=True, slots=True)
class CardVersion:
    """How many of the events name a card version before and after a re-rating."""

    version: str
    old_events: int
    new_events: int

    def to_json(self) -> dict[str, Any]:
        """The version's row of `card_versions` in the document of `rerate`."""
        return {"version": self.version, "old_events": self.old_events, "new_events": self.new_events}


@dataclass(frozen=True, slots=True)
class Rerating:
    """The result of a re-rating: what another card, or the settings in force, would change, or did.

    start, end: The window of the events' own times, half open, aware UTC; `None` is open.
    cards: Card id → SHA-256, of every card of the file.
    organizations, customers: Largest difference first.
    events, events_changed: Looked at, and different afterwards: in credits, price, card version or flags.
    plan_limits: Customers that cross their plan's included credits, largest difference first.
    plan_limits_unknown: Customers with a difference of whose plan, or use of it, nothing is known.
    not_rerated: Reason → events that keep their credits.
    applied: Whether the differences are booked.
    settings: The billing policy that took the place of a card, as JSON; `None` where a card was asked about.
    """

    start: datetime | None
    end: datetime | None
    cards: Mapping[str, str]
    organizations: tuple[OrganizationDelta, ...]
    events: int
    events_changed: int
    plan_limits: tuple[PlanCrossing, ...]
    plan_limits_unknown: int
    to_send: ToSend
    not_rerated: Mapping[NotRerated, int]
    card_versions: tuple[CardVersion, ...]
    applied: bool
    customers: tuple[CustomerDelta, ...] = ()
    settings: Mapping[str, Any] | None = None

    @property
    def delta_credits(self) -> Decimal:
        """The change in credits over all organizations."""
        return exact_sum(row.delta for row in self.organizations)

    @property
    def delta_usd(self) -> Decimal:
        """The change in US dollars over all organizations."""
        return exact_sum(row.delta_usd for row in self.organizations)

    def to_json(self) -> dict[str, Any]:
        """The published document (CONTRACT section 3, `rerate`)."""
        return {
            "from": None if self.start is None else utc_text(self.start),
            "to": None if self.end is None else utc_text(self.end),
            "applied": self.applied,
            "cards": [{"id": card, "sha256": sha256} for card, sha256 in self.cards.items()],
            "events": self.events,
            "events_changed": self.events_changed,
            "delta_credits": plain_decimal(self.delta_credits),
            "delta_usd": plain_decimal(self.delta_usd),
            "organizations": [row.to_json() for row in self.organizations],
            "customers": [row.to_json() for row in self.customers],
            "plan_limits": [row.to_json() for row in self.plan_limits],
            "plan_limits_unknown": self.plan_limits_unknown,
            "to_send": self.to_send.to_json(),
            "not_rerated": [
                {"reason": reason.value, "says": WHY_NOT[reason], "events": events}
                for reason, events in self.not_rerated.items()
            ],
            "card_versions": [row.to_json() for row in self.card_versions],
            **({} if self.settings is None else {"settings": dict(self.settings)}),
        }
