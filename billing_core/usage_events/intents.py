"""The way of an event's credits to Stripe, as the ledger knows it."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec

from billing_core.access import Principal
from billing_core.ledger.engine import Engine
from billing_core.ledger.settlements import SettlementStore
from billing_core.ledger.stripe_snapshots import StoredObject, StripeSnapshots
from billing_core.ledger.sync import SyncStore
from billing_core.stripe_sync.account_cache import KeptSummary
from billing_core.usage_events.explain import EventSettlement
from billing_core.values.usage_frame import hour_of

OF_OTHERS_TOO = (
    "customer_id",
    "source",
    "stamp",
    "credits",
    "carried_before",
    "value",
    "events",
    "request_id",
    "push_id",
    "counted",
    "counted_at",
)
"""What an intent says of a customer or of events that may be another organization's."""


def intents_of(engine: Engine, event_id: str, principal: Principal) -> list[dict[str, Any]]:
    """Every intent that ever covered an event the principal may see, for its explanation.

    An intent may cover events of other organizations of the same customer: who may not see those gets this
    event's own part only.
    """
    rows = SyncStore(engine).intents_of_event(event_id)
    snapshots = StripeSnapshots(engine)
    kept = {customer: snapshots.read("summary", customer) for customer in {row["customer_id"] for row in rows}}
    for row in rows:
        row |= _counted_then(row, kept[row["customer_id"]])
        if principal.organizations is not None:
            row |= dict.fromkeys(OF_OTHERS_TOO)
    return rows


def settlements_of(engine: Engine, event_id: str, principal: Principal) -> list[EventSettlement]:
    """Every settlement an event the principal may see ever was part of, oldest first, for its explanation.

    A settlement may be of events of other organizations of the same customer: who may not see those gets this event's
    own part only.
    """
    whole = principal.organizations is None
    return [EventSettlement(one, part, is_whole=whole) for one, part in SettlementStore(engine).of_event(event_id)]


def _counted_then(intent: dict[str, Any], kept: Sequence[StoredObject]) -> dict[str, Any]:
    """What Stripe's sum for the intent's hour was, if that hour was read after the intent was answered."""
    hour = hour_of(intent["stamp"])
    for row in kept:
        summary = msgspec.json.decode(row.content, type=KeptSummary)
        if summary.start <= hour < summary.end and intent["answered_at"] and row.read_at >= intent["answered_at"]:
            counted = next((bucket.value for bucket in summary.buckets if bucket.start == hour), Decimal(0))
            return {"counted": counted, "counted_at": row.read_at}
    return {"counted": None, "counted_at": None}
