"""Fill a ledger with generated events, straight in the engine: 500 organizations (zipf), a year, 2 % errors.

    python -m benchmarks.fill PATH [EVENTS] [DAYS]

The rows obey the ledger's rules (parts add up, times ordered) but never went through a pull.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path

from billing_core.ledger.duckdb_engine import DuckDBEngine
from billing_core.ledger.schema import EVENT_COLUMNS
from billing_core.rating.card import builtin_cards
from billing_core.runtime import clock

ROWS = """
WITH numbered AS (
    SELECT i, hash(i) AS h, hash(i + 1000000007) AS g,
           $now::TIMESTAMP - to_microseconds(((($n - i)::DOUBLE / $n) * $days * 86400000000)::BIGINT + 1000000) AS ts
    FROM range($n) r(i)
), drawn AS (
    SELECT *, least(499, floor(exp((h % 1000003) / 1000003.0 * ln(500))))::INT AS org,
           (50 + g % 4000)::BIGINT AS tin, (20 + (g // 4001) % 1500)::BIGINT AS tout,
           (300 + (g // 7) % 90000)::BIGINT AS ms,
           ['gpt-5', 'gpt-5-mini', 'claude-sonnet-5', 'gemini-3-flash'][(1 + g % 4)::BIGINT] AS model
    FROM numbered
), rated AS (
    SELECT *, ((tin + tout) / 10.0)::DECIMAL(18, 6) AS ai, (ms * 50 / 60000.0)::DECIMAL(18, 6) AS comp
    FROM drawn
)
SELECT
    printf('%016x%016x', h, g) AS id, 'bench' AS project_id, 'http://127.0.0.1/project/bench/traces/' AS trace_base,
    ts AS "timestamp", ts + to_milliseconds(ms) AS ended_at, 'org_' || org AS organization_id,
    'cus_' || org AS customer_id, 'user_' || (org * 100 + h % 100) AS user_id,
    'session_' || (h % ($n // 4 + 1)) AS session_id,
    'flow_' || (org % 40 * 5 + h % 5) AS chatflow_id, 'Chatflow ' || (org % 40 * 5 + h % 5) AS chatflow_name,
    'production' AS environment, chr(31) || model || chr(31) AS models, tin AS tokens_in, tout AS tokens_out,
    tin + tout AS tokens_total, (ms / 1000.0)::DECIMAL(18, 6) AS latency_seconds, NULL AS storage_gb,
    ((tin + tout) * 0.000002)::DECIMAL(18, 12) AS cost_usd, NULL AS ai_credentials_ownership,
    ai AS credits_ai_tokens, comp AS credits_compute, 0::DECIMAL(18, 6) AS credits_storage, ai + comp AS credits_total,
    0.00004::DECIMAL(18, 12) AS credit_price_usd, $card AS rate_card_version,
    CASE WHEN h % 50 = 0 THEN 'error' WHEN $n - i < $n // 10 THEN 'pending' ELSE 'confirmed' END AS sync_status,
    CASE WHEN h % 50 = 0 THEN 'No such customer: cus_' || org END AS sync_error, '' AS flags,
    [{'model': model, 'input': tin, 'output': tout, 'cache_read': 0, 'cache_write': 0, 'reasoning': 0, 'other': 0,
      'cost_usd': ((tin + tout) * 0.000002)::DECIMAL(24, 12)}] AS usage,
    (epoch_us(ts) // 900000000)::INTEGER AS quarter_hour,
    5 AS observations, h % 97 = 0 AS has_error, NULL AS accounted_at, NULL AS billed_elsewhere,
    NULL AS named_customer_id, NULL AS policy, (ms / 1000.0)::DECIMAL(18, 6) AS active_seconds, NULL AS usage_lines,
    '' AS problems, '{}' AS metadata, NULL AS updated_at,
    NULL AS meter_event_identifier, NULL AS synced_at,
    '' AS marks, 1 AS seq, 1 AS revision, $now::TIMESTAMP AS booked_at, 'bench' AS run_id
FROM rated ORDER BY ts
"""


def fill(path: Path, events: int, days: int = 365, *, mode: str = "live") -> None:
    """Create `path` with `events` events spread evenly over the last `days` days."""
    engine = DuckDBEngine(path)
    card = builtin_cards().cards[0]
    now = clock.now().replace(tzinfo=None)
    columns = ", ".join(f'"{column.name}"' for column in EVENT_COLUMNS)
    with engine.transaction() as writer:
        writer._cursor.execute(  # noqa: SLF001  (no pull makes ten million events in seconds)
            f"INSERT INTO events ({columns}) SELECT {columns} FROM ({ROWS})",
            {"n": events, "days": days, "now": now, "card": card.id},
        )
        writer.insert("bookings", {"seq": 1, "booked_at": now, "run_id": "bench", "events_new": events})
        writer.insert("meta", {"name": "mode", "value": mode})
        writer.insert(
            "runs",
            {
                "run_id": "bench",
                "started_at": now,
                "ended_at": now,
                "actor": "bench",
                "api": "v2",
                "window_start": now - timedelta(days=days),
                "window_end": now,
                "incremental": True,
                "observations": 0,
                "duplicates": 0,
                "events_new": events,
                "events_changed": 0,
                "events_unchanged": 0,
                "rejected": 0,
                "outcome": "done",
            },
        )
    from billing_core.ledger.journal import Ledger

    Ledger(engine).register_cards([card], actor="bench")
    engine.close()


if __name__ == "__main__":
    target, count, span = Path(sys.argv[1]), int((sys.argv[2:3] or ["1000000"])[0]), int((sys.argv[3:4] or ["365"])[0])
    began = time.perf_counter()
    fill(target, count, span)
    print(f"{count:,} events in {time.perf_counter() - began:.1f} s, {target.stat().st_size / 1e6:,.0f} MB")
