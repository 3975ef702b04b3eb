"""Pushing: how fast intents are written down, and how fast they are sent.

python -m benchmarks.push [EVENTS]

Sending goes to the sandbox's Stripe in a process of its own, which answers after 50 ms, next to the plain loop over
Stripe's SDK that people write first, in the same run.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import stripe

from benchmarks.fill import fill
from benchmarks.measure import PeakMemory
from billing_core.ledger.duckdb_engine import DuckDBEngine
from billing_core.ledger.sync import Candidates, SyncStore
from billing_core.runtime import clock
from billing_core.sandbox.data.catalog import ORGANIZATIONS
from billing_core.sandbox.server import SandboxProcess
from billing_core.settings import Granularity, load_settings
from billing_core.stripe import intents as planning
from billing_core.stripe.model import MeterEvent, OutcomeKind
from billing_core.stripe.provider import StripeProvider

LATENCY_SECONDS = 0.05
SEQUENTIAL = 60
PER_CUSTOMER = 40
CUSTOMERS = 300
STREAMED = 20_000


def measure(events: int) -> dict[str, Any]:
    """Every figure; rates are per second."""
    with tempfile.TemporaryDirectory() as folder:
        return {"intents": _freeze(Path(folder).resolve() / "push.duckdb", events), "sending": _send()}


def _freeze(path: Path, events: int) -> dict[str, Any]:
    """Plan and commit intents for `events` pending events, beside grouping the same rows in a plain Python loop."""
    fill(path, events, days=30)
    engine = DuckDBEngine(path)
    with engine.transaction() as writer:
        writer.rows("UPDATE events SET sync_status = 'pending', sync_error = NULL")
    books, now = SyncStore(engine), clock.now()
    figures: dict[str, Any] = {"events": events}
    for granularity in Granularity:
        rules = planning.PlanningRules("credits", "test", granularity, now)

        def plan(given: Candidates, rules: planning.PlanningRules = rules) -> planning.PushPlan:
            return planning.plan(given.events, given.covered, given.carried, {}, given.revisions, rules)

        memory, began = PeakMemory(), time.perf_counter()
        with memory.watched():
            _, intents, _ = books.freeze(plan, settled_before=now, push_id="bench", now=now, keep=False)
        seconds = time.perf_counter() - began
        figures[granularity.value] = {
            "intents": intents.num_rows,
            "seconds": round(seconds, 2),
            "events_per_second": round(events / seconds),
            "peak_memory_mb": round(memory.megabytes),
        }
    began = time.perf_counter()
    rows = engine.rows('SELECT customer_id, "timestamp", credits_total FROM events')
    sums: dict[tuple[str, datetime], Decimal] = {}
    for customer, at, owed in rows:
        key = (customer, at.replace(minute=0, second=0, microsecond=0))
        sums[key] = sums.get(key, Decimal(0)) + owed
    figures["plain_loop_grouping_only_seconds"] = round(time.perf_counter() - began, 2)
    engine.close()
    return figures


def _send() -> dict[str, Any]:
    with SandboxProcess(events=10, days=2, latency_seconds=LATENCY_SECONDS) as sandbox:
        settings = load_settings({**sandbox.environment, "BILLING_MODE": "live"}, env_file=None)
        known = [o.customer for o in ORGANIZATIONS if o.customer is not None]
        plain = _plain_loop(settings.stripe_api_base or "", sandbox.environment["STRIPE_API_KEY"], known[0])
        few = _sink(settings, "v1", _events("few", known, 200))
        _open_to_everyone(sandbox.url)
        crowd = [f"cus_bench_{number}" for number in range(CUSTOMERS)]
        many = _sink(settings, "v1", _events("many", crowd, PER_CUSTOMER * CUSTOMERS))
        stream = _sink(settings, "v2_stream", _events("stream", crowd, STREAMED))
    rates = {"plain_sdk_loop": plain, f"v1_{len(known)}_customers": few, f"v1_{CUSTOMERS}_customers": many}
    rates["v2_stream"] = stream
    ratios = {f"{name}_ratio": round(rate / plain, 1) for name, rate in rates.items()}
    return {"latency_seconds": LATENCY_SECONDS, **{k: round(v, 1) for k, v in rates.items()}, **ratios}


def _open_to_everyone(url: str) -> None:
    """Let the sandbox know the crowd."""
    import httpx

    httpx.patch(f"{url}/_sandbox/stripe", json={"async_validation": True}).raise_for_status()


def _events(name: str, customers: list[str], count: int) -> list[MeterEvent]:
    start = clock.now().replace(minute=0, second=0, microsecond=0) - timedelta(days=20)
    return [
        MeterEvent(
            f"bench_{name}_{number}",
            "credits",
            customers[number % len(customers)],
            100 + number,
            start + timedelta(hours=number // len(customers) % 400),
        )
        for number in range(count)
    ]


def _plain_loop(url: str, key: str, customer: str) -> float:
    """One call after another, as the guide shows it."""
    client = stripe.StripeClient(key, base_addresses={"api": url, "meter_events": url, "files": url, "connect": url})
    events = _events("plain", [customer], SEQUENTIAL)

    def send() -> None:
        for event in events:
            client.v1.billing.meter_events.create(
                {
                    "event_name": event.event_name,
                    "identifier": event.identifier,
                    "timestamp": int(event.timestamp.timestamp()),
                    "payload": {"stripe_customer_id": event.customer_id, "value": str(event.value)},
                }
            )

    return SEQUENTIAL / _seconds(send)


def _sink(settings: Any, meter_api: Any, events: list[MeterEvent]) -> float:
    provider = StripeProvider.from_settings(settings)
    sink = provider.sink(meter_api)

    def send() -> None:
        for outcome in sink.send(events):
            if outcome.kind is not OutcomeKind.ACCEPTED:
                raise AssertionError(f"{outcome.identifier}: {outcome.kind} {outcome.reason}")

    try:
        return len(events) / _seconds(send)
    finally:
        sink.close()
        provider.close()


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)))
