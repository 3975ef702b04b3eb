"""Reconciliations as they were made: JSON documents that are stored and never edited."""

from __future__ import annotations

import uuid
from datetime import datetime

from billing_core.ledger.engine import Engine, Rows
from billing_core.ledger.late_usage import after_closes

_BEFORE_CLOSE = """r.made_at <= coalesce((SELECT min(c.closed_at) FROM closes c WHERE c.reopened_at IS NULL
                   AND c.start_at < r.window_end AND r.window_start < c.end_at), 'infinity')"""


def keep_reconciliation(
    engine: Engine, *, actor: str, now: datetime, start: datetime, end: datetime, result: str
) -> None:
    """Keep a reconciliation's document (JSON text)."""
    with engine.transaction() as writer:
        now = after_closes(writer, now)
        writer.insert(
            "reconciliations",
            {
                "id": uuid.uuid4().hex,
                "made_at": now,
                "actor": actor,
                "window_start": start,
                "window_end": end,
                "result": result,
            },
        )


def newest_reconciliation(rows: Rows, window: tuple[datetime, datetime] | None = None) -> str | None:
    """The newest reconciliation as JSON text; for a window within a closed month the one it was closed with."""
    where = "" if window is None else f"WHERE window_start = ? AND window_end = ? AND {_BEFORE_CLOSE}"
    query = f"SELECT result FROM reconciliations r {where} ORDER BY made_at DESC, id LIMIT 1"
    found = rows(query, list(window or ()))
    return found[0][0] if found else None


def reconciliations_until(rows: Rows, moment: datetime) -> list[str]:
    """Every reconciliation made until a moment, as JSON texts."""
    return [text for (text,) in rows("SELECT result FROM reconciliations WHERE made_at <= ?", [moment])]
