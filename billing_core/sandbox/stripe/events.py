"""Meter events: what one is, and what makes Stripe refuse it.

A broken rule is told in one of two ways, so every rule has two names: the words of the immediate 400, and the code of
the error report when Stripe looks at the event only after it said yes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import msgspec

from billing_core.sandbox.stripe.wire import invalid

OLDEST_SECONDS = 35 * 24 * 3600
AHEAD_SECONDS = 5 * 60
LONGEST_TEXT = 100
MOST_DIGITS = 15

NUMBER = re.compile(r"-?(\d+\.?\d*|\.\d+)", re.ASCII)

ASYNC_MESSAGES = {
    "archived_meter": "The meter of this event name is inactive.",
    "meter_event_customer_not_found": "The customer of the event does not exist.",
    "meter_event_dimension_count_too_high": "The event has too many combinations of dimensions.",
    "meter_event_invalid_value": "The value of the event is not a number.",
    "meter_event_no_customer_defined": "The payload of the event names no customer.",
    "meter_event_value_too_many_digits": f"The value of the event has more than {MOST_DIGITS} significant digits.",
    "missing_dimension_payload_keys": "The payload of the event lacks a dimension of the meter.",
    "no_meter": "There is no meter for this event name.",
    "timestamp_in_future": "The timestamp of the event is more than 5 minutes in the future.",
    "timestamp_too_far_in_past": "The timestamp of the event is more than 35 days in the past.",
}
"""The codes of the SDK's open enumeration."""

Source = Literal["v1", "v2", "stream", "planted"]


class InvoiceItem(msgspec.Struct, kw_only=True, frozen=True):
    """An amount for a customer's next invoice, in minor units of its currency; times are Unix seconds."""

    id: str
    customer: str
    amount: int
    currency: str
    description: str | None
    metadata: dict[str, str]
    start: int
    end: int
    created: int
    is_deleted: bool = False


class ReceivedEvent(msgspec.Struct, eq=False, gc=False):
    """One received event.

    customer: As the payload names it; `None` if it names none.
    amount: The value; `None` if it is not a number.
    timestamp: Unix seconds.
    received, cancelled, reported: Milliseconds since 1970 on Stripe's clock: received, cancelled by an adjustment,
        rejected by a report.
    code: Why it never counts, or `None`. With it comes `due`, the moment of the report.
    """

    # gc=False: it is part of no cycle, and the collector would go through hundreds of thousands again and again

    identifier: str
    event_name: str
    payload: dict[str, str]
    customer: str | None
    amount: Decimal | None
    timestamp: int
    received: int
    source: Source = "v1"
    idempotency_key: str | None = None
    code: str | None = None
    message: str | None = None
    due: int | None = None
    reported: int | None = None
    cancelled: int | None = None

    def counts_at(self, moment: int) -> bool:
        """Whether it is part of a sum taken at `moment` (milliseconds since 1970)."""
        return (
            self.code is None
            and self.received <= moment
            and not (self.cancelled is not None and self.cancelled <= moment)
        )


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """Why an event cannot be billed: the words of v1's 400, and the code of an error report."""

    message: str
    report_code: str
    param: str | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class EventFacts:
    """What an event says, read leniently; `broken` is the first rule it breaks."""

    customer: str | None
    amount: Decimal | None
    timestamp: int
    broken: BrokenRule | None


def examine(
    event_name: str,
    payload: Mapping[str, str],
    timestamp: int,
    *,
    now: int,
    meters: Sequence[Mapping[str, Any]],
    state_of: Callable[[str], Literal["known", "deleted", "unknown"]],
) -> EventFacts:
    """Hold one event against every rule but the one about duplicates. Times are Unix seconds."""
    named = [meter for meter in meters if meter["event_name"] == event_name]
    active = [meter for meter in named if meter["status"] == "active"]
    meter = (active or named or [meters[0] if meters else DEFAULT_KEYS])[0]
    customer_key = meter["customer_mapping"]["event_payload_key"]
    value_key = meter["value_settings"]["event_payload_key"]
    customer = payload.get(customer_key) or None
    text = payload.get(value_key) or ""
    number = Decimal(text) if NUMBER.fullmatch(text) else None
    broken = (
        _meter_rule(event_name, bool(named), bool(active))
        or _customer_rule(customer, customer_key, state_of)
        or _value_rule(text, number, value_key)
        or _time_rule(timestamp, now)
    )
    return EventFacts(customer, number, timestamp, broken)


DEFAULT_KEYS = {
    "customer_mapping": {"event_payload_key": "stripe_customer_id"},
    "value_settings": {"event_payload_key": "value"},
}


def _meter_rule(event_name: str, named: bool, active: bool) -> BrokenRule | None:
    if active:
        return None
    message = f"No active meter found for event name '{event_name}'."
    return BrokenRule(message, "archived_meter" if named else "no_meter", "event_name")


def _customer_rule(
    customer: str | None, key: str, state_of: Callable[[str], Literal["known", "deleted", "unknown"]]
) -> BrokenRule | None:
    param = f"payload[{key}]"
    if customer is None:
        message = f"Missing required payload key: {key}."
        return BrokenRule(message, "meter_event_no_customer_defined", param, "parameter_missing")
    state = state_of(customer)
    if state == "known":
        return None
    why = f"No such customer: '{customer}'" + ("; it was deleted" if state == "deleted" else "")
    return BrokenRule(why, "meter_event_customer_not_found", param, "resource_missing")


def _value_rule(text: str, number: Decimal | None, key: str) -> BrokenRule | None:
    param = f"payload[{key}]"
    if not text:
        message = f"Missing required payload key: {key}."
        return BrokenRule(message, "meter_event_invalid_value", param, "parameter_missing")
    if number is None:
        return BrokenRule(f"Invalid value: '{text}' is not a number.", "meter_event_invalid_value", param)
    if len(number.as_tuple().digits) > MOST_DIGITS:
        message = f"Invalid value: more than {MOST_DIGITS} significant digits."
        return BrokenRule(message, "meter_event_value_too_many_digits", param)
    return None


def _time_rule(timestamp: int, now: int) -> BrokenRule | None:
    if timestamp < now - OLDEST_SECONDS:
        message = "The event timestamp is too far in the past: at most 35 days."
        return BrokenRule(message, "timestamp_too_far_in_past", "timestamp")
    if timestamp > now + AHEAD_SECONDS:
        message = "The event timestamp is too far in the future: at most 5 minutes."
        return BrokenRule(message, "timestamp_in_future", "timestamp")
    return None


def v1_timestamp(text: object, now: int) -> int:
    """The timestamp of a v1 body, Unix seconds; without one it is the time of receipt.

    Raises Refusal: 400 for anything but an integer.
    """
    if text is None:
        return now
    if not isinstance(text, str) or not text.isdecimal():
        raise invalid("Invalid integer: timestamp", "timestamp", "parameter_invalid_integer")
    return int(text)
