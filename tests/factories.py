"""Literal usage for tests: one trace that costs 100 AI, 50 compute and 0 storage credits on the built-in card."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from billing_core.access import Principal, Role
from billing_core.ledger.duckdb_engine import DuckDBEngine
from billing_core.ledger.journal import Ledger
from billing_core.rating.card import RateCard, builtin_cards
from billing_core.rating.events import Policy, to_events
from billing_core.runtime.private_files import FILE
from billing_core.service import BillingService
from billing_core.settings import load_settings
from billing_core.values.usage_frame import TOKEN_CLASSES, USAGE_SCHEMA
from tests import fixed_clock

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
CARD = builtin_cards().cards[0]
EVERYONE = Principal("tester", Role.ADMIN)


def model_usage(model: str | None = "gpt-5", cost_usd: str | None = "0.01", **tokens: int) -> dict[str, Any]:
    """What one model used; classes not named are 0."""
    cost = None if cost_usd is None else Decimal(cost_usd)
    return {"model": model, **dict.fromkeys(TOKEN_CLASSES, 0), **tokens, "cost_usd": cost}


def usage_row(**facts: Any) -> dict[str, Any]:
    """A trace of 600 + 400 tokens that takes 60 seconds; `facts` override columns of USAGE_SCHEMA."""
    start = facts.pop("timestamp", NOON)
    microseconds = int(Decimal(str(facts.pop("latency_seconds", 60))) * 10**6)
    row: dict[str, Any] = {
        "id": "trace-1",
        "project_id": "project",
        "trace_base": "http://langfuse.test/project/project/traces/",
        "timestamp": start,
        "ended_at": start + timedelta(microseconds=microseconds),
        "organization_id": "org_a",
        "customer_id": "cus_a",
        "user_id": "user-1",
        "session_id": "session-1",
        "chatflow_id": "flow-1",
        "chatflow_name": "Support",
        "environment": "production",
        "models": ["gpt-5"],
        "tokens_in": 600,
        "tokens_out": 400,
        "tokens_total": 1000,
        "usage": [model_usage(input=600, output=400)],
        "cost_usd": Decimal("0.01"),
        "observations": 3,
        "has_error": False,
        "unpriced": False,
        "bad_usage": False,
        "conflicting_attributes": False,
        "double_count_suspect": False,
        "problems": [],
        "metadata": "{}",
    }
    return {**row, **facts}


def usage_table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Rows as the frame that providers hand over."""
    return pa.Table.from_pylist(list(rows), schema=USAGE_SCHEMA)


def events_table(rows: Iterable[dict[str, Any]], card: RateCard = CARD, policy: Policy | None = None) -> pa.Table:
    """Rated rows, ready to be booked."""
    usage = usage_table(rows)
    return to_events(usage, [card] * usage.num_rows, policy or Policy())


@lru_cache(16)
def _ledger_file(pickled_rows: bytes = pickle.dumps([])) -> bytes:
    """A ledger's file, made once for many tests: its tables and its bookings take most of a small test's time."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "made.duckdb")
        if rows := pickle.loads(pickled_rows):  # noqa: S301 - pickled here
            path.write_bytes(_ledger_file())
        ledger = Ledger(DuckDBEngine(path, clock=lambda: fixed_clock.NOW))
        if rows:
            ledger.book(events_table(rows), run_id="seed")
        else:
            ledger.register_cards([CARD], actor="tester")
        ledger.engine.close()
        return path.read_bytes()


def new_ledger_at(path: Path, rows: Sequence[dict[str, Any]] = ()) -> None:
    """Put a ledger with `rows` booked where there is none yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(FILE, exist_ok=False)
    path.write_bytes(_ledger_file(pickle.dumps(list(rows))))


def ledger_at(path: Path, rows: Sequence[dict[str, Any]] = ()) -> Ledger:
    """A ledger file with `rows` booked, made if it is missing."""
    if not path.exists():
        new_ledger_at(path, rows)
        return Ledger(DuckDBEngine(path))
    ledger = Ledger(DuckDBEngine(path))
    ledger.register_cards([CARD], actor="tester")
    if rows:
        ledger.book(events_table(rows), run_id="seed")
    return ledger


def service_over(path: Path, rows: Sequence[dict[str, Any]] = (), **environment: str) -> BillingService:
    """A service whose ledger holds `rows`; `environment` as in CONTRACT section 2."""
    variables = {"BILLING_WAREHOUSE_URL": f"duckdb:///{path}", "BILLING_MODE": "live", **environment}
    ledger_at(path, rows).engine.close()
    return BillingService(load_settings(variables, env_file=None))
