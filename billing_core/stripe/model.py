"""Stripe's objects as plain values: no object of the SDK leaves `billing_core/stripe`.

Times are aware UTC; credits are whole numbers because that is what is sent; money is in Stripe's minor units.
Source of names and rules: the Stripe notes, sections 1, 4 and 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class MeterEvent:
    """A meter event as it is sent: fixed before the first call and the same bytes ever after.

    `value` is whole credits, never 0 and negative in corrections; `timestamp` has whole seconds.
    """

    identifier: str
    event_name: str
    customer_id: str
    value: int
    timestamp: datetime


class OutcomeKind(StrEnum):
    """How sending one meter event ended."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    """Stripe has it already: delivered by an earlier try."""
    REJECTED = "rejected"
    """Stripe will never take these bytes."""
    REFUSED = "refused"
    """Not processed for certain (rate limit, key, not tried at all): may be sent again at any time."""
    UNKNOWN = "unknown"
    """Timeout, 5xx, broken answer, conflict: it may have been taken or not."""


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """The outcome of all tries for one meter event in one run; `reason` is one line without secrets.

    `after_doubt`: an earlier try of this run may have arrived. A duplicate without one was sent by somebody else.
    """

    identifier: str
    kind: OutcomeKind
    answered_at: datetime
    tries: int
    reason: str | None = None
    code: str | None = None
    request_id: str | None = None
    after_doubt: bool = False


class Sink(Protocol):
    """Something that sends meter events to Stripe. One in flight per customer; one bad event never blocks the rest."""

    def send(self, events: Sequence[MeterEvent]) -> Iterator[SendOutcome]:
        """Send meter events; yields exactly one outcome per event, in the order they become known; never raises for a
        single event.

        When the account itself refuses (key, permission) or Stripe cannot be reached at all, what was not tried
        yet comes back `REFUSED` with `tries` 0 and the reason.
        """

    def request_of(self, event: MeterEvent) -> dict[str, Any]:
        """The exact request `send` would make: `method`, `path`, `idempotency_key`, `body`."""

    def close(self) -> None:
        """Close connections and threads."""


@dataclass(frozen=True, slots=True)
class Customer:
    """A Stripe customer; `is_deleted` ones are stubs without a name. Without a `currency` it was never billed."""

    id: str
    name: str | None
    email: str | None
    is_deleted: bool = False
    currency: str | None = None


@dataclass(frozen=True, slots=True)
class SubscriptionItem:
    """One item of a subscription; periods belong to items and may differ between them. `meter_id` is set for metered
    prices.

    `is_unsaid`: the answer does not say whether, or by which meter, the price is metered. It may be ours.
    """

    id: str
    price_id: str
    lookup_key: str | None
    product_id: str | None
    meter_id: str | None
    period_start: datetime | None
    period_end: datetime | None
    is_unsaid: bool = False


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription with every item; `status` as Stripe spells it, the list is open."""

    id: str
    customer_id: str
    status: str
    items: tuple[SubscriptionItem, ...]
    started_at: datetime | None
    ended_at: datetime | None
    cancel_at: datetime | None
    trial_end: datetime | None


@dataclass(frozen=True, slots=True)
class InvoiceLine:
    """A line of an invoice; `quantity` is exact (`quantity_decimal`), `amount` in minor units of the currency."""

    description: str | None
    price_id: str | None
    quantity: Decimal | None
    amount: int | None
    period_start: datetime | None
    period_end: datetime | None


@dataclass(frozen=True, slots=True)
class Invoice:
    """An invoice or a preview of one (`id` `None`); amounts in minor units of `currency`.

    `finalizes_at` is the deadline for late usage while it is a draft.
    """

    id: str | None
    customer_id: str
    subscription_id: str | None
    status: str | None
    amount_due: int | None
    currency: str | None
    period_start: datetime | None
    period_end: datetime | None
    finalizes_at: datetime | None
    lines: tuple[InvoiceLine, ...] = ()


@dataclass(frozen=True, slots=True)
class SummaryBucket:
    """The credits Stripe counts for one customer in `[start, end)`; spans without usage are absent."""

    start: datetime
    end: datetime
    value: Decimal


@dataclass(frozen=True, slots=True)
class ReportedError:
    """One kind of error inside an error report; `identifiers` is a sample, so `count` may be larger."""

    code: str
    count: int
    message: str
    identifiers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """Stripe's report of meter events it rejected after accepting them; `id` is unique."""

    id: str
    type: str
    created: datetime
    errors: tuple[ReportedError, ...]


@dataclass(frozen=True, slots=True)
class HourlySum:
    """The credits Stripe counts for one customer in the UTC hour that begins at `start`."""

    start: datetime
    value: Decimal
