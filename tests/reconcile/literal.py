"""Books written by hand: usage events, meter events and what Stripe counts, on 1 and 2 November 2026."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

from billing_core.ledger.reconcile_queries import COVERAGE, HOLDS, INTENTS, LEDGER, LedgerState
from billing_core.reconcile.books import UPSTREAM, ComparisonInput
from billing_core.reconcile.report import CustomerDay, Reconciliation
from billing_core.values.usage_frame import Window

MIDNIGHT = datetime(2026, 11, 1)
WINDOW = Window(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 3, tzinfo=UTC))
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def at(hour: float) -> datetime:
    """Hours since midnight of 1 November, UTC; 24 is midnight of the 2nd."""
    return MIDNIGHT + timedelta(hours=hour)


def usage(event_id: str, credits_total: str, customer: str | None = "cus_a", hour: float = 10, **facts: Any) -> dict:
    """A usage event, pending and in both Langfuse and ledger unless `facts` say otherwise."""
    event = {
        "id": event_id,
        "customer_id": customer,
        "timestamp": at(hour),
        "credits_total": Decimal(credits_total),
        "sync_status": "pending",
        "sync_error": None,
        "flags": "",
        "marks": "",
        "meter_event_identifier": None,
        "billed_elsewhere": None,
    }
    return event | facts


def meter_event(
    identifier: str, value: int, covers: Mapping[str, str], customer: str = "cus_a", hour: float = 10, **facts: Any
) -> dict:
    """An intent, accepted long ago, with the credits it covers by usage event."""
    total = sum(map(Decimal, covers.values()), Decimal(0))
    intent = {
        "identifier": identifier,
        "customer_id": customer,
        "stamp": at(hour),
        "credits": total,
        "carried_before": Decimal(0),
        "value": value,
        "state": "accepted",
        "answered_at": at(100),
        "covers": dict(covers),
    }
    return intent | facts


def sent(event_id: str, value: int, customer: str = "cus_a", hour: float = 10) -> tuple[dict, dict]:
    """A usage event of whole credits together with the intent that sent it."""
    event = usage(event_id, str(value), customer, hour, sync_status="processed")
    stamp = float(hour // 1)
    return event, meter_event(f"sent-{event_id}", value, {event_id: str(value)}, customer, stamp)


def books(
    events: Iterable[dict] = (),
    intents: Sequence[dict] = (),
    stripe: Mapping[tuple[str, float], object] | None = None,
    upstream: Iterable[dict] | None = None,
    holds: Mapping[str, str] | None = None,
    window: Window = WINDOW,
    **more: Any,
) -> ComparisonInput:
    """Books of literal rows; unless given, Langfuse says what the ledger says and Stripe counts what was sent."""
    events = list(events)
    upstream = events if upstream is None else list(upstream)
    if stripe is None:
        stripe = counted(intents)
    coverage = [
        {
            "identifier": i["identifier"],
            "event_id": event_id,
            "customer_id": i["customer_id"],
            "credits": Decimal(amount),
            "state": i["state"],
            "stamp": i["stamp"],
        }
        for i in intents
        for event_id, amount in i["covers"].items()
    ]
    inside = [i for i in intents if window.start <= i["stamp"].replace(tzinfo=UTC) < window.end]
    ledger = LedgerState(
        _table(events, LEDGER),
        _table(coverage, COVERAGE),
        _table(inside, INTENTS),
        _table([{"event_id": e, "cause": c} for e, c in (holds or {}).items()], HOLDS),
    )
    summaries = {(customer, at(hour).replace(tzinfo=UTC)): Decimal(str(v)) for (customer, hour), v in stripe.items()}
    return ComparisonInput(window, _table(upstream, UPSTREAM), ledger, summaries, stripe_read_at=NOW, **more)


def counted(intents: Iterable[dict]) -> dict[tuple[str, float], int]:
    """What Stripe counts if everything that was sent arrived."""
    sums: dict[tuple[str, float], int] = {}
    for intent in intents:
        if intent["state"] in {"accepted", "confirmed"}:
            key = intent["customer_id"], float((intent["stamp"] - MIDNIGHT) // timedelta(hours=1))
            sums[key] = sums.get(key, 0) + intent["value"]
    return sums


def causes(row: CustomerDay) -> list[tuple[str, str, Decimal]]:
    """(step, cause, credits) of a row, contradictions as `None`."""
    return [(str(part.step), part.cause and str(part.cause), part.credits) for part in row.parts]


def the_row(found: Reconciliation, customer: str | None = "cus_a", day: int = 1) -> CustomerDay:
    """The one row of a customer on a day of November."""
    [row] = [row for row in found.rows if row.customer_id == customer and row.day.day == day]
    return row


def _table(rows: Iterable[dict], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows], schema=schema)
