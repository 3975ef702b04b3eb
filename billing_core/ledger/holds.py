"""Reads which events are held back from Stripe, and why."""

from __future__ import annotations

from billing_core.ledger.engine import Rows
from billing_core.ledger.sync import ACTIVE, DECIDED_BY_PEOPLE

_HOLDS = f"""SELECT event_id, max(cause) FILTER (cause NOT IN {DECIDED_BY_PEOPLE!r}),
             max(reason) FILTER (cause IN {DECIDED_BY_PEOPLE!r}) FROM holds WHERE {ACTIVE} GROUP BY event_id"""

_FAILURES = """
SELECT id, newest.error, newest.has_customer
FROM (SELECT r.id, max_by({'status': r.sync_status, 'error': r.sync_error, 'sent_as': r.meter_event_identifier,
                           'has_customer': r.customer_id IS NOT NULL}, r.revision) AS newest
      FROM event_revisions r SEMI JOIN (SELECT id FROM events WHERE sync_status = 'excluded') e ON e.id = r.id
      WHERE r.credits_total <> 0 GROUP BY r.id)
WHERE newest.status = 'error' AND newest.sent_as IS NULL
"""
"""Free events that were in error, and not because Stripe refused them, when they last cost something."""


def active_holds(rows: Rows) -> list[tuple[str, str | None, str | None]]:
    """Events that are on hold now: id, cause of the hold by a rule, reason of the hold by a person."""
    return [(event_id, rule, reason) for event_id, rule, reason in rows(_HOLDS, [])]


def failures_while_charged(rows: Rows) -> list[tuple[str, str | None, bool]]:
    """Events that cost nothing now and were in error when they last cost something: id, the error, whether they had a
    customer.
    """
    return [(event_id, error, has_customer) for event_id, error, has_customer in rows(_FAILURES, [])]
