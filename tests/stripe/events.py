"""Literal meter events."""

from datetime import UTC, datetime

from billing_core.stripe.model import MeterEvent

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def event(identifier="evt-1", customer_id="cus_1", value=5, timestamp=NOON, event_name="credits"):
    return MeterEvent(identifier, event_name, customer_id, value, timestamp)


def events(count, customers=1):
    return [event(f"evt-{number}", f"cus_{number % customers}") for number in range(count)]
