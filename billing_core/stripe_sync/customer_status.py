"""The status of one customer at Stripe: plan, subscription, period, credits used, upcoming invoice.

Unknown is never "no plan": a read that failed says so and shows when Stripe was last read (Stripe notes, section 5).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from billing_core.rating.card import Plan
from billing_core.stripe.model import Invoice, Subscription
from billing_core.stripe.periods import choose
from billing_core.types import plain_decimal, utc_text

UNKNOWN = "unknown"
NO_SUBSCRIPTION = "none"


@dataclass(frozen=True, slots=True)
class CustomerStatus:
    """The status of one customer as Stripe has it; `None` means unknown (or none, where `state` is `none`).

    `state` is Stripe's subscription status, `none` without a subscription, `unknown` when it could not be read;
    `problem` then says why. `upcoming` is a preview: usage in it is provisional. `read_at` is when Stripe was read.
    """

    customer_id: str
    state: str
    plan: str | None
    included: int | None
    used: Decimal | None
    period_start: datetime | None
    period_end: datetime | None
    upcoming: Invoice | None
    read_at: datetime | None
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The published document (CONTRACT section 3, `status`)."""
        upcoming = None
        if self.upcoming is not None:
            upcoming = {"amount_due": self.upcoming.amount_due, "currency": self.upcoming.currency}
        return {
            "customer_id": self.customer_id,
            "state": self.state,
            "plan": self.plan,
            "period": {
                "start": None if self.period_start is None else utc_text(self.period_start),
                "end": None if self.period_end is None else utc_text(self.period_end),
            },
            "credits": {
                "included": None if self.included is None else plain_decimal(Decimal(self.included)),
                "used": None if self.used is None else plain_decimal(self.used),
            },
            "upcoming_invoice": upcoming,
            "read_at": None if self.read_at is None else utc_text(self.read_at),
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    """The one subscription that decides a customer's plan and period, and what follows from it.

    `plan` is `None` where no price of it is on the card; the period is that of its item on the meter, else of its
    first item, half open, `None` where Stripe says none.
    """

    subscription: Subscription
    plan: Plan | None
    metered_prices: tuple[str, ...]
    period_start: datetime | None
    period_end: datetime | None


def subscription_state(
    subscriptions: Iterable[Subscription], meter_id: str | None, plans: Iterable[Plan]
) -> SubscriptionState | None:
    """The subscription that decides plan and period; `None` without any. Without a meter no item is metered."""
    subscription = choose(subscriptions, meter_id)
    if subscription is None:
        return None
    metered = [item for item in subscription.items if item.meter_id is not None and item.meter_id == meter_id]
    item = next(iter(metered or subscription.items), None)
    return SubscriptionState(
        subscription,
        plan_of(subscription, plans),
        tuple(item.price_id for item in metered),
        None if item is None else item.period_start,
        None if item is None else item.period_end,
    )


def plan_of(subscription: Subscription, plans: Iterable[Plan]) -> Plan | None:
    """The plan that one of the subscription's prices belongs to; `None`: no price is known."""
    by_price = {price: plan for plan in plans for price in plan.stripe_price_ids}
    return next((by_price[item.price_id] for item in subscription.items if item.price_id in by_price), None)


def used_according_to(invoice: Invoice, metered_prices: Sequence[str]) -> Decimal | None:
    """Credits used by an invoice's lines of metered prices; `None` if the invoice has no such line."""
    found = [line.quantity for line in invoice.lines if line.price_id in metered_prices and line.quantity is not None]
    return sum(found, Decimal(0)) if found else None
