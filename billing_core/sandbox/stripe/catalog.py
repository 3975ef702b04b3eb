"""What the sandbox's Stripe account sells, to whom, and the meter that counts it. Ids are fixed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from billing_core.sandbox.data.catalog import METER_EVENT_NAME, ORGANIZATIONS
from billing_core.sandbox.stripe.switches import ProfileName

CREATED = 1_748_736_000
"""Everything of the account is from 2025-06-01."""

METER_ID = "mtr_test_sandbox"

PRICE_FREE = "price_free"
PRICE_PRO = "price_pro"
PRICE_ENTERPRISE = "price_enterprise_2025"
"""An agreement of its own, which no rate card names."""
PRICE_CREDITS = "price_credits"
"""The metered one: 0.004 cents a credit."""

ACCOUNT: dict[str, Any] = {
    "id": "acct_sandbox",
    "object": "account",
    "business_profile": {"name": "Sandbox"},
    "country": "US",
    "default_currency": "usd",
    "email": None,
    "type": "standard",
}


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of subscription: its status, and the prices of its items."""

    status: str
    prices: tuple[str, ...]


PROFILES: Mapping[ProfileName, Profile | None] = {
    "pro": Profile("active", (PRICE_PRO, PRICE_CREDITS)),
    "free": Profile("active", (PRICE_FREE, PRICE_CREDITS)),
    "past_due": Profile("past_due", (PRICE_PRO, PRICE_CREDITS)),
    "canceled": Profile("canceled", (PRICE_PRO, PRICE_CREDITS)),
    "trialing": Profile("trialing", (PRICE_PRO, PRICE_CREDITS)),
    "unknown_price": Profile("active", (PRICE_ENTERPRISE, PRICE_CREDITS)),
    "flat_fee_only": Profile("active", (PRICE_PRO,)),
    "no_subscription": None,
}

SPECIAL: Mapping[str, ProfileName] = {
    "org_umbrella": "past_due",
    "org_hooli": "trialing",
    "org_stark": "free",
    "org_wonka": "unknown_price",
    "org_tyrell": "flat_fee_only",
    "org_cyberdyne": "canceled",
    "org_oscorp": "no_subscription",
}
"""Every other organization is on Pro."""

PROFILE_BY_CUSTOMER = {o.customer: SPECIAL[o.id] for o in ORGANIZATIONS if o.customer and o.id in SPECIAL}


def profile_of(customer_id: str) -> ProfileName:
    """Which kind of subscription a customer has unless a switch says otherwise."""
    return PROFILE_BY_CUSTOMER.get(customer_id, "pro")


def start_of(customer_id: str) -> int:
    """Start of a customer's subscription, Unix seconds: in June 2025, on a second of its own, never on the hour."""
    digest = int(hashlib.sha256(f"anchor/{customer_id}".encode()).hexdigest()[:12], 16)
    day, second = digest % 28, digest // 28 % 86_400
    return CREATED + day * 86_400 + second + (1 if second % 3600 == 0 else 0)


def organization_customers() -> dict[str, dict[str, Any]]:
    """The customers of the organizations, by id."""
    return {
        organization.customer: customer(organization.customer, organization.name, organization.id)
        for organization in ORGANIZATIONS
        if organization.customer is not None
    }


def customer(id_: str, name: str, organization_id: str | None = None) -> dict[str, Any]:
    """A customer object."""
    return {
        "id": id_,
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": CREATED,
        "currency": "usd",
        "default_source": None,
        "delinquent": False,
        "description": None,
        "email": f"billing@{name.lower()}.example",
        "livemode": False,
        "metadata": {} if organization_id is None else {"organizationId": organization_id},
        "name": name,
        "phone": None,
        "shipping": None,
    }


def deleted_customer(id_: str) -> dict[str, Any]:
    """What is left of a deleted customer."""
    return {"id": id_, "object": "customer", "deleted": True}


def meter(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The meter for credits with `changes`; objects inside are merged."""
    usual: dict[str, Any] = {
        "id": METER_ID,
        "object": "billing.meter",
        "created": CREATED,
        "updated": CREATED,
        "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
        "default_aggregation": {"formula": "sum"},
        "display_name": "Credits",
        "event_name": METER_EVENT_NAME,
        "event_time_window": None,
        "livemode": False,
        "status": "active",
        "status_transitions": {"deactivated_at": None},
        "value_settings": {"event_payload_key": "value"},
    }
    return usual | {
        key: {**usual[key], **value} if isinstance(value, Mapping) and isinstance(usual.get(key), dict) else value
        for key, value in changes.items()
    }


def _product(id_: str, name: str, default_price: str, unit: str | None = None) -> dict[str, Any]:
    return {
        "id": id_,
        "object": "product",
        "active": True,
        "created": CREATED,
        "default_price": default_price,
        "description": None,
        "images": [],
        "livemode": False,
        "marketing_features": [],
        "metadata": {},
        "name": name,
        "package_dimensions": None,
        "shippable": None,
        "statement_descriptor": None,
        "tax_code": None,
        "type": "service",
        "unit_label": unit,
        "updated": CREATED,
        "url": None,
    }


def _price(id_: str, product: str, cents: str, nickname: str, meter_id: str | None = None) -> dict[str, Any]:
    whole = int(cents) if cents.isdecimal() else None
    return {
        "id": id_,
        "object": "price",
        "active": True,
        "billing_scheme": "per_unit",
        "created": CREATED,
        "currency": "usd",
        "custom_unit_amount": None,
        "livemode": False,
        "lookup_key": id_.removeprefix("price_"),
        "metadata": {},
        "nickname": nickname,
        "product": product,
        "recurring": {
            "interval": "month",
            "interval_count": 1,
            "meter": meter_id,
            "trial_period_days": None,
            "usage_type": "licensed" if meter_id is None else "metered",
        },
        "tax_behavior": "unspecified",
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "recurring",
        "unit_amount": whole,
        "unit_amount_decimal": cents,
    }


def _by_id(objects: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {one["id"]: one for one in objects}


PRODUCTS = _by_id(
    [
        _product("prod_free", "Free", PRICE_FREE),
        _product("prod_pro", "Pro", PRICE_PRO),
        _product("prod_enterprise", "Enterprise 2025", PRICE_ENTERPRISE),
        _product("prod_credits", "Credits", PRICE_CREDITS, unit="credit"),
    ]
)

PRICES = _by_id(
    [
        _price(PRICE_FREE, "prod_free", "0", "Free"),
        _price(PRICE_PRO, "prod_pro", "2000", "Pro"),
        _price(PRICE_ENTERPRISE, "prod_enterprise", "49900", "Enterprise 2025"),
        _price(PRICE_CREDITS, "prod_credits", "0.004", "Credits", METER_ID),
    ]
)
