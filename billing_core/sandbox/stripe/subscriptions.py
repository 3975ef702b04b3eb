"""Subscriptions, made up on the spot from the customer's profile and the clock: equal clocks give equal answers.

Billing periods are on the items only, as since `2025-03-31.basil`.
"""

from __future__ import annotations

import calendar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from billing_core.sandbox.stripe.catalog import PRICES, PROFILES, Profile, profile_of, start_of
from billing_core.sandbox.stripe.switches import Switches

DAY = 86_400
CANCELED_AT_LEAST_SECONDS = 3 * DAY
"""A canceled subscription ended with its period, this long ago or more."""

STATUSES = frozenset(
    {"active", "past_due", "unpaid", "canceled", "incomplete", "incomplete_expired", "trialing", "paused"}
)

ITEMS_URL = "/v1/subscription_items"


@dataclass(frozen=True, slots=True)
class SandboxPeriod:
    """Billing period number `number` of a subscription, `[start, end)` in Unix seconds."""

    number: int
    start: int
    end: int


def edge(anchor: int, months: int) -> int:
    """The anchor `months` months later; a day the month lacks becomes its last (Unix seconds)."""
    moment = datetime.fromtimestamp(anchor, UTC)
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    day = min(moment.day, calendar.monthrange(year, month + 1)[1])
    return int(moment.replace(year=year, month=month + 1, day=day).timestamp())


def period_at(anchor: int, now: int) -> SandboxPeriod:
    """The period `now` is in; its number is negative before the anchor."""
    then, moment = (datetime.fromtimestamp(seconds, UTC) for seconds in (anchor, now))
    number = (moment.year - then.year) * 12 + moment.month - then.month
    if edge(anchor, number) > now:
        number -= 1
    return SandboxPeriod(number, edge(anchor, number), edge(anchor, number + 1))


@dataclass(frozen=True, slots=True)
class SandboxSubscription:
    """What follows from profile, anchor and clock.

    anchor: Start in Unix seconds; a trial starts anew each month, so that there always is one.
    period: The current period, for an ended subscription its last.
    ended_at: Unix seconds, or `None`.
    number: 1, or 2 of a customer's second one.
    is_on_test_clock: Lists leave it out.
    """

    customer_id: str
    profile: Profile
    anchor: int
    period: SandboxPeriod
    ended_at: int | None
    number: int = 1
    is_on_test_clock: bool = False

    @property
    def id(self) -> str:
        """Stripe's id."""
        return f"sub_{self._name}"

    @property
    def _name(self) -> str:
        return self.customer_id.removeprefix("cus_") + ("" if self.number == 1 else f"-{self.number}")

    @classmethod
    def of(cls, customer_id: str, switches: Switches, now: int) -> SandboxSubscription | None:
        """The subscription of a customer at `now`; `None` if there is none (yet)."""
        profile = PROFILES[switches.profiles.get(customer_id, profile_of(customer_id))]
        anchor = switches.anchors.get(customer_id, start_of(customer_id))
        if profile is None or now < anchor:
            return None
        period, ended_at = period_at(anchor, now), None
        if profile.status == "trialing":
            anchor, period = period.start, SandboxPeriod(0, period.start, period.end)
        elif profile.status == "canceled":
            last = period_at(anchor, max(now - CANCELED_AT_LEAST_SECONDS, anchor))
            number = max(last.number - 1, 0)
            period = SandboxPeriod(number, edge(anchor, number), edge(anchor, number + 1))
            ended_at = min(period.end, now)
        on_clock = customer_id in switches.test_clocks
        return cls(customer_id, profile, anchor, period, ended_at, is_on_test_clock=on_clock)

    def item_id(self, position: int) -> str:
        """The id of one of its items."""
        return f"si_{self._name}_{position + 1}"


def item_objects(subscription: SandboxSubscription) -> list[dict[str, Any]]:
    """The items, with the current period."""
    return [
        {
            "id": subscription.item_id(position),
            "object": "subscription_item",
            "billed_until": None,
            "billing_thresholds": None,
            "created": subscription.anchor,
            "current_period_end": subscription.period.end,
            "current_period_start": subscription.period.start,
            "current_trial": None,
            "discounts": [],
            "metadata": {},
            "plan": _plan(PRICES[price]),
            "price": PRICES[price],
            "subscription": subscription.id,
            "tax_rates": [],
        }
        # a metered item has no quantity at all
        | ({"quantity": 1} if PRICES[price]["recurring"]["usage_type"] == "licensed" else {})
        for position, price in enumerate(subscription.profile.prices)
    ]


def _plan(price: dict[str, Any]) -> dict[str, Any]:
    """The price once more, under the names of the past, which Stripe still sends."""
    recurring = price["recurring"]
    return {
        "id": price["id"],
        "object": "plan",
        "active": price["active"],
        "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"],
        "billing_scheme": price["billing_scheme"],
        "created": price["created"],
        "currency": price["currency"],
        "interval": recurring["interval"],
        "interval_count": recurring["interval_count"],
        "livemode": price["livemode"],
        "metadata": {},
        "meter": recurring["meter"],
        "nickname": price["nickname"],
        "product": price["product"],
        "tiers_mode": None,
        "transform_usage": None,
        "trial_period_days": None,
        "usage_type": recurring["usage_type"],
    }


def subscription_object(
    subscription: SandboxSubscription, latest_invoice: str | None, items_page: int
) -> dict[str, Any]:
    """The object as the API answers it, with at most `items_page` items inside."""
    items = item_objects(subscription)
    trial = subscription.profile.status == "trialing"
    ended_at = subscription.ended_at
    return {
        "id": subscription.id,
        "object": "subscription",
        "application": None,
        "application_fee_percent": None,
        "automatic_tax": {"disabled_reason": None, "enabled": False, "liability": None},
        "billing_cycle_anchor": subscription.period.end if trial else subscription.anchor,
        "billing_cycle_anchor_config": None,
        "billing_schedules": [],
        "billing_mode": {"type": "flexible", "flexible": {"proration_discounts": "included"}, "updated_at": None},
        "billing_thresholds": None,
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": ended_at,
        "cancellation_details": {
            "comment": None,
            "feedback": None,
            "reason": None if ended_at is None else "cancellation_requested",
        },
        "collection_method": "charge_automatically",
        "created": subscription.anchor,
        "currency": "usd",
        "customer": subscription.customer_id,
        "customer_account": None,
        "days_until_due": None,
        "default_payment_method": None,
        "default_source": None,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "ended_at": ended_at,
        "invoice_settings": {"account_tax_ids": None, "issuer": {"type": "self"}},
        "items": {
            "object": "list",
            "data": items[:items_page],
            "has_more": len(items) > items_page,
            "total_count": len(items),
            "url": f"{ITEMS_URL}?subscription={subscription.id}",
        },
        "latest_invoice": latest_invoice,
        "livemode": False,
        "metadata": {},
        "next_pending_invoice_item_invoice": None,
        "on_behalf_of": None,
        "pause_collection": None,
        "payment_settings": {
            "payment_method_options": None,
            "payment_method_types": None,
            "save_default_payment_method": "off",
        },
        "pending_invoice_item_interval": None,
        "pending_setup_intent": None,
        "pending_update": None,
        "schedule": None,
        "start_date": subscription.anchor,
        "status": subscription.profile.status,
        "test_clock": "clock_test_1" if subscription.is_on_test_clock else None,
        "transfer_data": None,
        "trial_end": subscription.period.end if trial else None,
        "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
        "trial_start": subscription.period.start if trial else None,
    }
