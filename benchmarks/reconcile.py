"""A month of three books, compared: seconds to read the ledger's share and to compare, and peak memory.

Reading Langfuse and Stripe is left out: it depends on their limits, not on this program.

python -m benchmarks.reconcile [EVENTS]
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from benchmarks.measure import PeakMemory
from billing_core.ledger.duckdb_engine import DuckDBEngine
from billing_core.ledger.reconcile_queries import COVERAGE, HOLDS, INTENTS, LEDGER, LedgerState, read_ledger
from billing_core.reconcile.books import UPSTREAM, ComparisonInput
from billing_core.reconcile.compare import compare
from billing_core.values.usage_frame import Window

CUSTOMERS = 300
DAYS = 30
WINDOW = Window(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC) + timedelta(days=DAYS))
NOW = WINDOW.end + timedelta(days=1)

EVENTS = """
CREATE TABLE used AS
SELECT printf('%016x%016x', hash(i), i) AS id, 'cus_' || (hash(i + 7) % $customers) AS customer_id,
       TIMESTAMP '2026-10-01' + to_microseconds((hash(i + 13) % ($days * 86400000000))::BIGINT) AS "timestamp",
       ((1000000 + hash(i + 29) % 900000000) / 1000000.0)::DECIMAL(18, 6) AS credits_total, i
FROM range($events) r(i)
"""
BOOKED = """
SELECT id, customer_id, "timestamp", credits_total,
       CASE WHEN i % 1000 = 0 THEN 'error' ELSE 'confirmed' END AS sync_status,
       NULL::VARCHAR AS sync_error, '' AS flags, '' AS marks, NULL::VARCHAR AS meter_event_identifier
FROM used WHERE i % 1000 <> 1
"""
COVERED = """
CREATE TABLE covered AS
SELECT customer_id || strftime("timestamp", '%Y%m%d%H') AS identifier, id AS event_id, customer_id,
       credits_total AS credits, 'confirmed' AS state, date_trunc('hour', "timestamp") AS stamp
FROM used WHERE i % 1000 > 1
"""
SENT = """
WITH hours AS (
    SELECT identifier, any_value(customer_id) AS customer_id, any_value(stamp) AS stamp,
           sum(credits)::DECIMAL(18, 6) AS credits FROM covered GROUP BY identifier
), running AS (
    SELECT *, sum(credits) OVER (PARTITION BY customer_id ORDER BY stamp) AS upto FROM hours
)
SELECT identifier, customer_id, stamp, credits,
       (upto - credits - floor(upto - credits))::DECIMAL(18, 6) AS carried_before,
       (floor(upto) - floor(upto - credits))::BIGINT AS value, 'confirmed' AS state, NULL::TIMESTAMP AS answered_at
FROM running
"""


def measure(events: int) -> dict[str, Any]:
    """One comparison in which one event in a thousand is missing, one failed, and some hours at Stripe are wrong."""
    books, wrong = month(events)
    memory = PeakMemory()
    with tempfile.TemporaryDirectory() as folder, closing(DuckDBEngine(Path(folder) / "bench.duckdb")) as engine:
        _keep(engine, books.ledger)
        with memory.watched():
            began = time.perf_counter()
            books = replace(books, ledger=read_ledger(engine, WINDOW, books.upstream))
            read = time.perf_counter()
            found = compare(books, now=NOW)
            compared = time.perf_counter()
    if found.unexplained_credits != wrong:
        raise AssertionError(f"{found.unexplained_credits} credits unexplained, {wrong} were planted")
    return {
        "events": events,
        "customers": CUSTOMERS,
        "days": DAYS,
        "rows": len(found.rows),
        "seconds": round(compared - began, 2),
        "ledger_seconds": round(read - began, 2),
        "compare_seconds": round(compared - read, 2),
        "peak_memory_mb": round(memory.megabytes),
    }


def _keep(engine: DuckDBEngine, books: LedgerState) -> None:
    """The books as a ledger file."""
    with engine.transaction() as writer:
        writer.append("events", books.events)
        writer.append("intents", books.intents)
        writer.append("coverage", books.coverage.select(["identifier", "event_id", "customer_id", "credits"]))


def month(events: int) -> tuple[ComparisonInput, Decimal]:
    """Books of a month, and how many credits nobody can explain in them."""
    with duckdb.connect() as engine:
        engine.execute(EVENTS, {"events": events, "customers": CUSTOMERS, "days": DAYS})
        engine.execute(COVERED)
        upstream = _shaped(
            engine, "SELECT id, customer_id, \"timestamp\", credits_total, '' AS flags FROM used", UPSTREAM
        )
        ledger = LedgerState(
            _shaped(engine, BOOKED, LEDGER),
            _shaped(engine, "SELECT * FROM covered", COVERAGE),
            _shaped(engine, SENT, INTENTS),
            HOLDS.empty_table(),
        )
    stripe: dict[tuple[str, datetime], Decimal] = {}
    wrong = Decimal(0)
    draw = random.Random(3)
    for intent in ledger.intents.select(["customer_id", "stamp", "value"]).to_pylist():
        error = draw.choice((-3, 5)) if draw.random() < 0.001 else 0
        stripe[intent["customer_id"], intent["stamp"].replace(tzinfo=UTC)] = Decimal(intent["value"] + error)
        wrong += abs(error)
    return ComparisonInput(WINDOW, upstream, ledger, stripe, stripe_read_at=NOW), wrong


def _shaped(engine: duckdb.DuckDBPyConnection, query: str, schema: pa.Schema) -> pa.Table:
    return engine.execute(query).to_arrow_table().cast(schema)


if __name__ == "__main__":
    print(json.dumps(measure(int((sys.argv[1:2] or ["1000000"])[0]))))
