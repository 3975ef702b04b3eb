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

__all__ = ["Brought", "billed_by_hour", "brought_unsent", "untried_intents"]

Rows = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]

WHOLE = Decimal(1)
"""A customer's usage below a credit waits anyway."""


@dataclass(frozen=True, slots=True)
class Brought:
    """An unsent event that an import brought: its id, its exact credits and its start, aware UTC: the earlier one of
    the file's and what is known since, because it is where another ledger may have sent it."""

    event_id: str
    credits: Decimal
    timestamp: datetime


_COLUMNS = f'id, customer_id, "timestamp", credits_total, sync_status, {ELSEWHERE}, revision'
_TOLD = f"""told AS (
    SELECT * FROM (
        SELECT {_COLUMNS} FROM events WHERE starts_with(run_id, 'import:')
        UNION ALL SELECT {_COLUMNS} FROM event_revisions WHERE starts_with(run_id, 'import:'))
    QUALIFY row_number() OVER (PARTITION BY id ORDER BY revision DESC) = 1)"""
"""Events as a file told of them, whatever was read of them since."""

_DECIDED = """SELECT event_id FROM holds WHERE cause = 'on_hold' AND (released_at IS NULL
              OR NOT (starts_with(released_by, 'undo of ') OR starts_with(released_by, 'import:')))"""
"""Events that are on hold, or that a person released: that somebody undid an import decides nothing."""

_BROUGHT = f"""
WITH {_TOLD}
SELECT e.customer_id, e.id, e.credits_total, least(e."timestamp", t."timestamp") AS began
FROM events e JOIN told t USING (id)
WHERE e.sync_status = 'pending' AND e.credits_total <> 0 AND e.customer_id IS NOT NULL AND e.ended_at <= ?
AND NOT contains(e.flags, '{Flag.LEGACY_BILLED}') AND NOT coalesce(e.{ELSEWHERE}, false)
AND e.id NOT IN (SELECT c.event_id FROM coverage c JOIN intents i USING (identifier) WHERE i.state NOT IN {VOID!r})
AND e.id NOT IN ({_DECIDED})
ORDER BY e.customer_id, began, e.id
"""
"""Settled, and on no meter event of this ledger that counts."""


def brought_unsent(rows: Rows, settled_before: datetime) -> dict[str, list[Brought]]:
    """Customer → unsent events that imports brought and that the next push would send; a whole credit or more."""
    if not _has_imports(rows):
        return {}
    found: dict[str, list[Brought]] = {}
    for customer, event_id, owed, at in rows(_BROUGHT, [settled_before]):
        found.setdefault(customer, []).append(Brought(event_id, owed, at.replace(tzinfo=UTC)))
    return {customer: events for customer, events in found.items() if sum(e.credits for e in events) >= WHOLE}


_UNTRIED = f"""
WITH {_TOLD}
SELECT DISTINCT i.identifier FROM intents i JOIN coverage c USING (identifier)
WHERE i.state = 'open' AND i.unknown_since IS NULL AND c.event_id IN (SELECT id FROM told) ORDER BY 1
"""


def untried_intents(rows: Rows) -> list[str]:
    """Meter events that cover imported usage, were written down by an earlier push and never tried: by now another
    ledger may have sent what they carry."""
    return [row[0] for row in rows(_UNTRIED, [])] if _has_imports(rows) else []


_BILLED = f"""
WITH {_TOLD}
SELECT date_trunc('hour', moment), sum(credits)::DECIMAL(38,6) FROM (
    SELECT stamp AS moment, value AS credits FROM intents
    WHERE customer_id = $1 AND state IN ('accepted', 'confirmed')
    UNION ALL
    SELECT "timestamp", credits_total FROM told
    WHERE customer_id = $1 AND {ELSEWHERE} AND sync_status IN ('processed', 'confirmed')
    UNION ALL
    SELECT "timestamp", ceil(credits_total) FROM events
    WHERE customer_id = $1 AND contains(flags, '{Flag.LEGACY_BILLED}') AND NOT coalesce({ELSEWHERE}, false))
WHERE moment >= $2 AND moment < $3 GROUP BY 1
"""


def billed_by_hour(rows: Rows, customer_id: str, window: Window) -> dict[datetime, Decimal]:
    """UTC hour → credits that a customer was billed for usage of it: delivered from here, billed by what an import came
    from (as its file said), or by the earlier system, which rounded every event up."""
    found = rows(_BILLED, [customer_id, window.start, window.end])
    return {hour.replace(tzinfo=UTC): credits_ for hour, credits_ in found}


def _has_imports(rows: Rows) -> bool:
    return bool(rows("SELECT 1 FROM imports LIMIT 1", []))
