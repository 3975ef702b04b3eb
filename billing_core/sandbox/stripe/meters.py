"""Routes of v1 for meters, meter events, their summaries and adjustments."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from billing_core.sandbox.http import HttpError
from billing_core.sandbox.stripe.account import Account, Refused
from billing_core.sandbox.stripe.calls import accept_one, creating, reading
from billing_core.sandbox.stripe.events import LONGEST_TEXT, v1_timestamp
from billing_core.sandbox.stripe.summaries import summaries
from billing_core.sandbox.stripe.wire import Page, form, invalid, missing, page, unix_parameter

Content = dict[str, Any]


async def list_meters(request: Request, account: Account) -> Page:
    """Meters, optionally of one status."""
    status = request.query_params.get("status")
    return page(request, [meter for meter in account.meters if status is None or meter["status"] == status])


async def get_meter(request: Request, account: Account) -> Content:
    """One meter."""
    id_ = request.path_params["id"]
    for meter in account.meters:
        if meter["id"] == id_:
            return meter
    raise missing("billing meter", id_)


async def list_summaries(request: Request, account: Account) -> Page:
    """What one customer used in `[start_time, end_time)`, in one row or by hour or day."""
    meter = await get_meter(request, account)
    customer = request.query_params.get("customer")
    if not customer:
        raise invalid("Missing required param: customer.", "customer", "parameter_missing")
    if account.state_of(customer) == "unknown":
        raise invalid(f"No such customer: '{customer}'", "customer", "resource_missing")
    start, end = (unix_parameter(request, name) for name in ("start_time", "end_time"))
    grouping = request.query_params.get("value_grouping_window")
    return page(request, summaries(account.book, meter, customer, start, end, grouping, account.visible()))


async def create_meter_event(request: Request, account: Account) -> Content:
    """Accept or refuse one event at once."""
    given = await form(request)
    name, payload, identifier = given.get("event_name"), given.get("payload", {}), given.get("identifier")
    if not name or not isinstance(name, str):
        raise invalid("Missing required param: event_name.", "event_name", "parameter_missing")
    if not isinstance(payload, dict):
        raise invalid("Invalid object", "payload")
    if len(name) > LONGEST_TEXT:
        raise invalid(f"Invalid event_name: at most {LONGEST_TEXT} characters.", "event_name")
    if identifier is not None and (not isinstance(identifier, str) or len(identifier) > LONGEST_TEXT):
        raise invalid(f"Invalid identifier: at most {LONGEST_TEXT} characters.", "identifier")
    timestamp = v1_timestamp(given.get("timestamp"), account.now_seconds())
    try:
        event = await accept_one(request, account, name, payload, timestamp, identifier, source="v1")
    except Refused as refused:
        raise v1_refusal(refused) from None
    return {
        "object": "billing.meter_event",
        "created": event.received // 1000,
        "event_name": event.event_name,
        "identifier": event.identifier,
        "livemode": False,
        "payload": event.payload,
        "timestamp": event.timestamp,
    }


def v1_refusal(refused: Refused) -> HttpError:
    """400; a duplicate carries no code, and the SDK is told not to try again."""
    if refused.broken is None:
        return invalid(refused.message, headers={"Stripe-Should-Retry": "false"})
    return invalid(refused.message, refused.broken.param, refused.broken.code)


async def create_adjustment(request: Request, account: Account) -> Content:
    """Cancel one event that came within the last 24 hours."""
    given = await form(request)
    cancel = given.get("cancel")
    identifier = cancel.get("identifier") if isinstance(cancel, dict) else None
    for value, param in ((given.get("event_name"), "event_name"), (identifier, "cancel[identifier]")):
        if not value:
            raise invalid(f"Missing required param: {param}.", param, "parameter_missing")
    if given.get("type") != "cancel":
        raise invalid("Invalid type: must be cancel", "type")
    try:
        account.cancel(given["event_name"], str(identifier))
    except Refused as refused:
        raise invalid(refused.message, "cancel[identifier]") from None
    return {
        "object": "billing.meter_event_adjustment",
        "cancel": {"identifier": identifier},
        "event_name": given["event_name"],
        "livemode": False,
        "status": "pending",
        "type": "cancel",
    }


def routes() -> list[Route]:
    """The routes of this part, the busiest first."""
    return [
        Route("/v1/billing/meter_events", creating(create_meter_event), methods=["POST"]),
        Route("/v1/billing/meter_event_adjustments", creating(create_adjustment), methods=["POST"]),
        Route("/v1/billing/meters", reading(list_meters)),
        Route("/v1/billing/meters/{id}", reading(get_meter)),
        Route("/v1/billing/meters/{id}/event_summaries", reading(list_summaries)),
    ]
