"""Literal stored events for tests of FOCUS: one that costs 100 AI, 50 compute and 0 storage credits."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from billing_core.exports.focus import FOCUS_INPUT, focus_table
from billing_core.exports.focus_schema import FocusProfile, focus_text

NOON = datetime(2026, 10, 3, 12, tzinfo=UTC)
LATER = datetime(2026, 11, 5, 8, tzinfo=UTC)


def stored(**facts: Any) -> dict[str, Any]:
    """A stored event of October; `facts` override columns. Decimals may be given as text."""
    row = {
        **dict.fromkeys(FOCUS_INPUT),
        "id": "trace-1",
        "timestamp": NOON,
        "ended_at": NOON.replace(minute=1),
        "organization_id": "org_a",
        "customer_id": "cus_a",
        "user_id": "user-1",
        "session_id": "session-1",
        "chatflow_id": "flow-1",
        "chatflow_name": "Support",
        "environment": "production",
        "models": "\x1fgpt-5\x1f",
        "tokens_total": 1000,
        "latency_seconds": "60",
        "cost_usd": "0.01",
        "credits_ai_tokens": "100",
        "credits_compute": "50",
        "credits_storage": "0",
        "credit_price_usd": "0.00004",
        "rate_card_version": "builtin-1",
        "sync_status": "processed",
        "flags": "",
        "marks": "",
    }
    for name, value in {**row, **facts}.items():
        is_decimal = pa.types.is_decimal(FOCUS_INPUT[name]) and value is not None
        row[name] = Decimal(value) if is_decimal else value
    return row


def late(*, credits: str = "100", **facts: Any) -> dict[str, Any]:  # noqa: A002
    """An event of October that counts in November, because October was closed."""
    return stored(
        **{"accounted_at": LATER, "marks": "late_after_close", "credits_ai_tokens": credits, "credits_compute": "0"}
        | facts
    )


def table_of(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=pa.schema(list(FOCUS_INPUT.items())))


def profile(version: str = "1.2", zone: str = "UTC", **choices: Any) -> FocusProfile:
    return FocusProfile(version, "Answer AI Inc.", "Answer AI", ZoneInfo(zone), **choices)


def focus(*rows: dict[str, Any], **choices: Any) -> list[dict[str, Any]]:
    """The FOCUS rows of stored events, typed."""
    return focus_table(table_of(*rows), profile(**choices)).to_pylist()


def written(*rows: dict[str, Any], **choices: Any) -> list[dict[str, Any]]:
    """The same as text for CSV."""
    return focus_text(focus_table(table_of(*rows), profile(**choices))).to_pylist()
