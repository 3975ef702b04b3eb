"""What the ledger knows of events that imports brought: those nobody decided about yet, and what is billed when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from billing_core.ledger.sync import ELSEWHERE, VOID
from billing_core.types import Flag
from billing_core.usage import Window

__all__ = ["Brought", "billed_by_hour", "brought_unsent"]

Rows = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]


@dataclass(frozen=True, slots=True)
class Brought:
    """An unsent event that an import brought: its id and its start, aware UTC."""

    event_id: str
    timestamp: datetime


_BROUGHT = f"""
SELECT e.customer_id, e.id, e."timestamp" FROM events e
WHERE e.sync_status = 'pending' AND e.credits_total <> 0 AND e.customer_id IS NOT NULL AND e.ended_at <= ?
AND NOT contains(e.flags, '{Flag.LEGACY_BILLED}') AND NOT coalesce(e.{ELSEWHERE}, false)
AND (starts_with(e.run_id, 'import:')
     OR e.id IN (SELECT id FROM event_revisions WHERE starts_with(run_id, 'import:')))
AND e.id NOT IN (SELECT event_id FROM coverage) AND e.id NOT IN (SELECT event_id FROM holds WHERE cause = 'on_hold')
ORDER BY e.customer_id, e."timestamp", e.id
"""
"""Settled, on no meter event of this ledger, and never kept back by anybody: whoever released one has decided."""


def brought_unsent(rows: Rows, settled_before: datetime) -> dict[str, list[Brought]]:
    """Customer → unsent events that imports brought and that the next push would send."""
    if not rows("SELECT 1 FROM imports LIMIT 1", []):
        return {}
    found: dict[str, list[Brought]] = {}
    for customer, event_id, at in rows(_BROUGHT, [settled_before]):
        found.setdefault(customer, []).append(Brought(event_id, at.replace(tzinfo=UTC)))
    return found


_BILLED = f"""
SELECT date_trunc('hour', moment), sum(credits)::DECIMAL(38,6) FROM (
    SELECT stamp AS moment, value AS credits FROM intents
    WHERE customer_id = $1 AND stamp >= $2 AND stamp < $3 AND state NOT IN {VOID!r}
    UNION ALL
    SELECT "timestamp",
           CASE WHEN contains(flags, '{Flag.LEGACY_BILLED}') THEN ceil(credits_total) ELSE credits_total END
    FROM events WHERE customer_id = $1 AND "timestamp" >= $2 AND "timestamp" < $3
    AND (contains(flags, '{Flag.LEGACY_BILLED}') OR coalesce({ELSEWHERE}, false)))
GROUP BY 1
"""


def billed_by_hour(rows: Rows, customer_id: str, window: Window) -> dict[datetime, Decimal]:
    """UTC hour → credits that a customer was billed for usage of it: sent from here, billed by what an import came
    from, or by the earlier system, which rounded every event up."""
    found = rows(_BILLED, [customer_id, window.start, window.end])
    return {hour.replace(tzinfo=UTC): credits_ for hour, credits_ in found}
