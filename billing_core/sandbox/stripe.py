"""Stripe's face: customers, meters and v1 meter events, in the shapes and with the refusals of the reference."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from billing_core.sandbox.catalog import METER_EVENT_NAME, ORGANIZATIONS, STRIPE_KEY
from billing_core.sandbox.http import Refusal, json_response

__all__ = ["Account", "routes"]

DEDUPE_SECONDS = 24 * 3600
OLDEST_SECONDS = 35 * 24 * 3600
AHEAD_SECONDS = 5 * 60
LONGEST_TEXT = 100
MOST_DIGITS = 15
CREATED = 1_767_225_600
"""Everything of the account is from 2026-01-01."""


class Account:
    """What the Stripe account holds. `clock` returns milliseconds since 1970."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self.customers: dict[str, dict[str, Any]] = {
            organization.customer: _customer(organization.customer, organization.name, organization.id)
            for organization in ORGANIZATIONS
            if organization.customer is not None
        }
        self.meters = [_meter(METER_EVENT_NAME)]
        self.events: list[dict[str, Any]] = []
        """Accepted meter events in the order of their receipt."""
        self._received: dict[str, int] = {}

    def now(self) -> int:
        """Unix seconds."""
        return self._clock() // 1000

    def accept(self, given: dict[str, Any]) -> dict[str, Any]:
        """Take one meter event.

        Raises
        ------
        Refusal
            400 with the message Stripe gives; a duplicate carries no code.
        """
        now = self.now()
        name, payload = given.get("event_name"), given.get("payload", {})
        if not name:
            raise _invalid("Missing required param: event_name.", "event_name", "parameter_missing")
        meter = next((m for m in self.meters if m["event_name"] == name and m["status"] == "active"), None)
        if meter is None:
            raise _invalid(f"No active meter found for event name '{name}'.", "event_name")
        _check_payload(payload, meter, self.customers)
        timestamp = _check_timestamp(given.get("timestamp"), now)
        made_up = hashlib.sha256(f"{now}/{len(self.events)}".encode()).hexdigest()[:32]
        identifier = str(given.get("identifier") or made_up)
        if len(identifier) > LONGEST_TEXT:
            raise _invalid(f"Invalid identifier: at most {LONGEST_TEXT} characters.", "identifier")
        if now - self._received.get(identifier, -DEDUPE_SECONDS) < DEDUPE_SECONDS:
            message = f"An event already exists with identifier {identifier}."
            raise _invalid(message, headers={"Stripe-Should-Retry": "false"})
        self._received[identifier] = now
        event = {
            "object": "billing.meter_event",
            "created": now,
            "event_name": name,
            "identifier": identifier,
            "livemode": False,
            "payload": payload,
            "timestamp": timestamp,
        }
        self.events.append(event)
        return event


def _customer(id_: str, name: str, organization: str) -> dict[str, Any]:
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
        "metadata": {"organizationId": organization},
        "name": name,
        "phone": None,
        "shipping": None,
    }


def _meter(event_name: str) -> dict[str, Any]:
    return {
        "id": "mtr_test_sandbox",
        "object": "billing.meter",
        "created": CREATED,
        "updated": CREATED,
        "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
        "default_aggregation": {"formula": "sum"},
        "display_name": "Credits",
        "event_name": event_name,
        "event_time_window": None,
        "livemode": False,
        "status": "active",
        "status_transitions": {"deactivated_at": None},
        "value_settings": {"event_payload_key": "value"},
    }


def _invalid(
    message: str, param: str | None = None, code: str | None = None, headers: dict[str, str] | None = None
) -> Refusal:
    error = {"type": "invalid_request_error", "message": message, "param": param, "code": code}
    body = {"error": {key: value for key, value in error.items() if value is not None}}
    return Refusal(400, body, headers)


def _check_payload(payload: object, meter: dict[str, Any], customers: dict[str, dict[str, Any]]) -> None:
    customer_key = meter["customer_mapping"]["event_payload_key"]
    value_key = meter["value_settings"]["event_payload_key"]
    given = payload if isinstance(payload, dict) else {}
    for key in (customer_key, value_key):
        if not given.get(key):
            raise _invalid(f"Missing required payload key: {key}.", f"payload[{key}]", "parameter_missing")
    customer, value = given[customer_key], given[value_key]
    if customer not in customers:
        raise _invalid(f"No such customer: '{customer}'", f"payload[{customer_key}]", "resource_missing")
    try:
        number = Decimal(value)
    except InvalidOperation:
        number = Decimal("nan")
    if not number.is_finite() or not value.replace("-", "").replace(".", "").isdecimal():
        raise _invalid(f"Invalid value: '{value}' is not a number.", f"payload[{value_key}]")
    if len(number.as_tuple().digits) > MOST_DIGITS:
        raise _invalid(f"Invalid value: more than {MOST_DIGITS} significant digits.", f"payload[{value_key}]")


def _check_timestamp(text: str | None, now: int) -> int:
    if text is None:
        return now
    if not text.isdecimal():
        raise _invalid("Invalid integer: timestamp", "timestamp", "parameter_invalid_integer")
    timestamp = int(text)
    if timestamp < now - OLDEST_SECONDS:
        raise _invalid("The event timestamp is too far in the past: at most 35 days.", "timestamp")
    if timestamp > now + AHEAD_SECONDS:
        raise _invalid("The event timestamp is too far in the future: at most 5 minutes.", "timestamp")
    return timestamp


def _account(request: Request) -> Account:
    """The account, for those who hold its key."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or key != STRIPE_KEY:
        error = {"type": "invalid_request_error", "message": "Invalid API Key provided."}
        raise Refusal(401, {"error": error})
    account: Account = request.app.state.stripe
    return account


def _list(request: Request, items: list[dict[str, Any]]) -> Response:
    """A v1 list: `limit` 1–100 (default 10), forward by id."""
    text = request.query_params.get("limit", "10")
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise _invalid("Invalid limit: must be between 1 and 100.", "limit")
    after = request.query_params.get("starting_after")
    first = 0
    if after is not None:
        ids = [item["id"] for item in items]
        if after not in ids:
            raise _invalid(f"No such object: '{after}'", "starting_after", "resource_missing")
        first = ids.index(after) + 1
    shown = items[first : first + int(text)]
    more = first + len(shown) < len(items)
    return json_response({"object": "list", "url": request.url.path, "has_more": more, "data": shown})


def unflatten(body: str) -> dict[str, Any]:
    """Stripe's form encoding: `payload[value]=5` becomes `{"payload": {"value": "5"}}`, one level deep."""
    result: dict[str, Any] = {}
    for name, value in parse_qsl(body, keep_blank_values=True):
        outer, bracket, rest = name.partition("[")
        if bracket:
            inner = result.setdefault(outer, {})
            if isinstance(inner, dict):
                inner[rest.removesuffix("]")] = value
        else:
            result[outer] = value
    return result


async def list_customers(request: Request) -> Response:
    """Customers, optionally of one e-mail address (exact case)."""
    customers = list(_account(request).customers.values())
    email = request.query_params.get("email")
    return _list(request, [c for c in customers if email is None or c["email"] == email])


async def get_customer(request: Request) -> Response:
    """One customer; 404 with `resource_missing` if unknown."""
    id_ = request.path_params["id"]
    customer = _account(request).customers.get(id_)
    if customer is None:
        refusal = _invalid(f"No such customer: '{id_}'", "id", "resource_missing")
        raise Refusal(404, refusal.body)
    return json_response(customer)


async def list_meters(request: Request) -> Response:
    """Meters, optionally of one status."""
    meters = _account(request).meters
    status = request.query_params.get("status")
    return _list(request, [meter for meter in meters if status is None or meter["status"] == status])


async def create_meter_event(request: Request) -> Response:
    """Accept or refuse one event at once."""
    account = _account(request)
    return json_response(account.accept(unflatten((await request.body()).decode())))


def routes() -> list[Route]:
    """The routes of this face."""
    return [
        Route("/v1/customers", list_customers),
        Route("/v1/customers/{id}", get_customer),
        Route("/v1/billing/meters", list_meters),
        Route("/v1/billing/meter_events", create_meter_event, methods=["POST"]),
    ]
