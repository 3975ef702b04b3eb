"""Request bodies of meter events for both APIs, and the check of what must never be sent."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from billing_core.stripe.model import MeterEvent

CUSTOMER_KEY = "stripe_customer_id"
VALUE_KEY = "value"
"""Payload keys of a meter event that carries credits; anything else would be stored at Stripe for ever."""

LONGEST_TEXT = 100
MOST_DIGITS = 15
"""Stripe aggregates in doubles; longer values are refused (notes, section 1.2)."""


def check(event: MeterEvent) -> None:
    """Refuse a meter event that Stripe would misread.

    Raises ValueError: in one line, naming the value.
    """
    for name, text in (("identifier", event.identifier), ("event_name", event.event_name)):
        if not 1 <= len(text) <= LONGEST_TEXT:
            raise ValueError(f"{name}: {text[:20]!r}… has {len(text)} characters; expected 1 to {LONGEST_TEXT}")
    if not event.customer_id:
        raise ValueError("customer_id: empty; expected a Stripe customer")
    value: object = event.value
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"value: {value!r} is not a whole number of credits")
    if value == 0:
        raise ValueError("value: 0 credits are nothing to send")
    if len(str(abs(value))) > MOST_DIGITS:
        raise ValueError(f"value: {value} has more than {MOST_DIGITS} digits")
    if event.timestamp.utcoffset() is None:
        raise ValueError(f"timestamp: {event.timestamp.isoformat()} has no timezone")
    if event.timestamp.microsecond:
        raise ValueError(f"timestamp: {event.timestamp.isoformat()} is not a whole second")


def v1_body(event: MeterEvent) -> dict[str, Any]:
    """The form fields of `POST /v1/billing/meter_events`; the time is whole Unix seconds."""
    check(event)
    return {
        "event_name": event.event_name,
        "identifier": event.identifier,
        "timestamp": int(event.timestamp.timestamp()),
        "payload": _payload(event),
    }


def v2_body(event: MeterEvent) -> dict[str, Any]:
    """The JSON body of one event of a v2 stream; the time is RFC 3339 text, a number would be invalid."""
    check(event)
    moment = event.timestamp.astimezone(UTC).isoformat(timespec="milliseconds")
    return {
        "event_name": event.event_name,
        "identifier": event.identifier,
        "timestamp": moment.replace("+00:00", "Z"),
        "payload": _payload(event),
    }


def _payload(event: MeterEvent) -> dict[str, str]:
    return {CUSTOMER_KEY: event.customer_id, VALUE_KEY: str(event.value)}
