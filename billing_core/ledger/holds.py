"""What keeps events back from Stripe: by a rule of a push or because somebody said so, until it is released."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from billing_core.ledger.engine import Rows, Writer
from billing_core.ledger.schema import ELSEWHERE, SENT, times, without_mark
from billing_core.rating.events import NO_CUSTOMER
from billing_core.types import Flag

NAMED = 100
"""Newly held events that a push names; the page and `events --status error` have them all."""

MARK_GONE = "the earlier system's mark of having billed it is gone from the trace; retry to bill it from here"

SENT_ELSEWHERE = Flag.SENT_ELSEWHERE.value
"""Cause of holds on usage that Stripe may count already."""

ON_HOLD = "on_hold"
"""Cause of what a person put on hold."""

DECIDED_BY_PEOPLE = (ON_HOLD, SENT_ELSEWHERE)
"""Causes of holds that end only when somebody releases them."""

ACTIVE = "released_at IS NULL"
"""Condition on `holds`, or `sent_elsewhere`: nobody has released it."""

_HOLDS = f"""SELECT event_id, max(cause) FILTER (cause NOT IN {DECIDED_BY_PEOPLE!r}),
             max(reason) FILTER (cause IN {DECIDED_BY_PEOPLE!r}) FROM holds WHERE {ACTIVE} GROUP BY event_id"""

_FAILURES = f"""
SELECT id, newest.error, newest.has_customer
FROM (SELECT r.id, max_by({{'status': r.sync_status, 'error': r.sync_error, 'sent_as': r.meter_event_identifier,
                           'has_customer': r.customer_id IS NOT NULL}}, r.revision) AS newest
      FROM event_revisions r SEMI JOIN (SELECT id FROM events WHERE sync_status = 'excluded'
                                    AND NOT contains(coalesce(marks, ''), '{Flag.WRITTEN_OFF}')) e ON e.id = r.id
      WHERE r.credits_total <> 0 GROUP BY r.id)
WHERE newest.status = 'error' AND newest.sent_as IS NULL
"""
"""Free events that were in error, and not because Stripe refused them, when they last cost something."""


def active_holds(rows: Rows) -> list[tuple[str, str | None, str | None]]:
    """Events that are on hold now: id, cause of the hold by a rule, reason of the hold by a person."""
    return [(event_id, rule, reason) for event_id, rule, reason in rows(_HOLDS, [])]


def failures_while_charged(rows: Rows) -> list[tuple[str, str | None, bool]]:
    """Events that are free now and were in error when they last cost something: id, error, had a customer."""
    return [(event_id, error, has_customer) for event_id, error, has_customer in rows(_FAILURES, [])]


# ── inside transactions ──────────────────────────────────────────────────────────────────────────


def settle_moot_events(writer: Writer) -> None:
    """Take events out of pending that have nothing to bill any more, nobody to bill, or were billed by somebody else:
    their intent came to nothing after they had changed.
    """
    writer.rows(
        """UPDATE events SET sync_status = 'excluded', sync_error = NULL, meter_event_identifier = NULL
           WHERE sync_status = 'pending' AND credits_total = 0"""
    )
    writer.rows(
        """UPDATE events SET sync_status = 'error', sync_error = ?, meter_event_identifier = NULL
           WHERE sync_status = 'pending' AND customer_id IS NULL""",
        [NO_CUSTOMER],
    )
    writer.rows(
        f"""UPDATE events SET sync_status = 'processed', sync_error = NULL, meter_event_identifier = NULL
            WHERE sync_status = 'pending'
            AND (contains(flags, '{Flag.LEGACY_BILLED}') OR coalesce({ELSEWHERE}, false))"""
    )
    writer.rows(
        f"""UPDATE events SET sync_status = 'error', sync_error = ?
            WHERE sync_status = 'processed' AND meter_event_identifier IS NULL
            AND NOT contains(flags, '{Flag.LEGACY_BILLED}') AND NOT coalesce({ELSEWHERE}, false)
            AND contains(marks, '{Flag.CHANGED_AFTER_SENDING}')
            AND NOT contains(marks, '{Flag.INVOICED_SEPARATELY}')""",
        [MARK_GONE],
    )


def hold_planned(writer: Writer, holds: Sequence[Any], events: pa.Table, on_their_way: pa.Array, now: datetime) -> int:
    """Put events on hold that a plan may not send; returns how many were not held before.

    A pending one becomes an error; of a sent one only the correction waits.
    """
    _release_settled(writer, [hold.event_id for hold in holds], now)
    if not holds:
        return 0
    ids = [hold.event_id for hold in holds]
    query = f"SELECT event_id FROM holds WHERE {ACTIVE} AND event_id IN (SELECT unnest(?))"
    known = {row[0] for row in writer.rows(query, [ids])}
    unique = {hold.event_id: hold for hold in holds}
    fresh = [(h.event_id, h.cause, h.reason) for h in unique.values() if h.event_id not in known]
    keep_back(writer, fresh, actor="push", now=now)
    reasons = {event_id: hold.reason for event_id, hold in unique.items()}
    chosen = events.filter(pc.is_in(events["id"], pa.array(list(reasons))))
    status = pc.if_else(pc.equal(chosen["sync_status"], "pending"), "error", chosen["sync_status"])
    # One of its two customers is held, the other is served: by now it says "sending", not what was read before.
    status = pc.if_else(pc.is_in(chosen["id"], on_their_way), "sending", status)
    texts = pa.array([reasons[event_id] for event_id in chosen["id"].to_pylist()], pa.string())
    writer.amend("events", pa.table({"id": chosen["id"], "sync_status": status, "sync_error": texts}), key="id")
    return len(fresh)


def hold_hopeless(writer: Writer, now: datetime) -> int:
    """Put events on hold that are in error and no intent caused it: without a customer, or failed in the earlier
    system; returns how many.
    """
    query = f"""FROM events WHERE sync_status = 'error' AND meter_event_identifier IS NULL
                AND id NOT IN (SELECT event_id FROM holds WHERE {ACTIVE})"""
    count = int(writer.rows(f"SELECT count(*) {query}")[0][0])
    if count:
        writer.rows(
            f"""INSERT INTO holds SELECT id, CASE WHEN contains(flags, '{Flag.NO_CUSTOMER}') THEN 'no_customer'
                ELSE 'failed_before' END, sync_error, 'push', ?, NULL, NULL {query}""",
            [now],
        )
    return count


def held_events(writer: Writer) -> tuple[int, int]:
    """How many events are held, and of how many of these only a correction is."""
    query = f"""SELECT count(*), count(*) FILTER (WHERE e.sync_status IN {SENT!r})
                FROM holds h JOIN events e ON e.id = h.event_id WHERE h.{ACTIVE}"""
    held, corrections = writer.rows(query)[0]
    return int(held), int(corrections)


def named_holds(writer: Writer, now: datetime) -> tuple[str, ...]:
    """The first events held in this transaction, in words."""
    query = f"""SELECT event_id, reason FROM holds WHERE held_at = ? AND actor = 'push' AND {ACTIVE}
                ORDER BY event_id LIMIT {NAMED}"""
    return tuple(f"event {event_id} is held: {reason}" for event_id, reason in writer.rows(query, [now]))


def release_moot(writer: Writer, now: datetime) -> None:
    """Release holds by rule whose event is pending again (changed, or retried), excluded, or has a customer by now."""
    writer.rows(
        f"""UPDATE holds SET released_at = ?, released_by = 'push' WHERE {ACTIVE}
            AND cause NOT IN {DECIDED_BY_PEOPLE!r}
            AND event_id IN (SELECT id FROM events WHERE sync_status IN ('pending', 'excluded'))""",
        [now],
    )
    writer.rows(
        f"""UPDATE holds SET released_at = ?, released_by = 'push' WHERE {ACTIVE} AND cause = 'no_customer'
            AND event_id IN (SELECT id FROM events WHERE customer_id IS NOT NULL)""",
        [now],
    )


def _release_settled(writer: Writer, still_held: list[str], now: datetime) -> None:
    """Corrections that were held and are owed no more."""
    gone = f"""SELECT h.event_id FROM holds h JOIN events e ON e.id = h.event_id
               WHERE h.{ACTIVE} AND h.cause NOT IN {DECIDED_BY_PEOPLE!r} AND e.sync_status IN {SENT!r}
               AND h.event_id NOT IN (SELECT unnest(?::VARCHAR[]))"""
    ids = [row[0] for row in writer.rows(gone, [still_held])]
    if ids:
        release(writer, ids, actor="push", now=now)
        _say(writer, ids, None)


def keep_back(writer: Writer, holds: Sequence[tuple[str, str, str]], *, actor: str, now: datetime) -> None:
    """Write holds down: (event id, cause in the ledger's word, reason in a sentence)."""
    if not holds:
        return
    ids, causes, reasons = zip(*holds, strict=True)
    rows = {
        "event_id": ids,
        "cause": causes,
        "reason": reasons,
        "actor": [actor] * len(holds),
        "held_at": times([now] * len(holds)),
    }
    writer.append("holds", pa.table(rows))


def put_on_hold(writer: Writer, reasons: Mapping[str, str], *, actor: str, now: datetime) -> int:
    """Keep pending events back until somebody releases them; returns how many were not kept back before."""
    if not reasons:
        return 0
    rows = writer.rows(
        f"""SELECT id FROM events WHERE id IN (SELECT unnest(?)) AND sync_status = 'pending'
            AND id NOT IN (SELECT event_id FROM holds WHERE {ACTIVE})""",
        [list(reasons)],
    )
    texts = {row[0]: f"on hold by {actor}: {reasons[row[0]]}" for row in rows}
    keep_back(writer, [(event_id, "on_hold", text) for event_id, text in texts.items()], actor=actor, now=now)
    said = pa.table(
        {"id": pa.array(list(texts), pa.string()), "sync_error": pa.array(list(texts.values()), pa.string())}
    )
    writer.amend("events", said, key="id")
    return len(texts)


def retry_events(writer: Writer, ids: Sequence[str], *, actor: str, now: datetime) -> int:
    """Make events in error pending again, inside a transaction; returns how many were."""
    bound = [list(ids)]
    wanted = """id IN (SELECT unnest(?)) AND sync_status = 'error'
                AND (customer_id IS NOT NULL OR meter_event_identifier IS NOT NULL)"""
    changed = writer.rows(f"SELECT id FROM events WHERE {wanted}", bound)
    writer.rows(f"UPDATE events SET sync_status = 'pending', sync_error = NULL WHERE {wanted}", bound)
    release(writer, [row[0] for row in changed], actor=actor, now=now)
    return len(changed)


def release(writer: Writer, ids: Sequence[str], *, actor: str, now: datetime) -> None:
    """Release every hold of some events; what the events say of themselves stays."""
    query = f"UPDATE holds SET released_at = ?, released_by = ? WHERE {ACTIVE} AND event_id IN (SELECT unnest(?))"
    writer.rows(query, [now, actor, list(ids)])


def release_decided(writer: Writer, ids: Sequence[str], *, actor: str, now: datetime) -> list[str]:
    """Release those of some events that only people release, and let them say so; returns them."""
    rows = writer.rows(
        f"""SELECT event_id FROM holds WHERE {ACTIVE} AND cause IN {DECIDED_BY_PEOPLE!r}
            AND event_id IN (SELECT unnest(?))""",
        [list(ids)],
    )
    chosen = [row[0] for row in rows]
    release(writer, chosen, actor=actor, now=now)
    _say_released(writer, chosen)
    return chosen


def _say_released(writer: Writer, ids: Sequence[str]) -> None:
    """What is in error by now keeps the reason for that."""
    free = f"""sync_status = 'pending' OR (sync_status IN {SENT!r} AND contains(marks, '{SENT_ELSEWHERE}'))"""
    writer.rows(f"UPDATE events SET sync_error = NULL WHERE ({free}) AND id IN (SELECT unnest(?))", [list(ids)])
    query = f"SELECT id, marks FROM events WHERE contains(marks, '{SENT_ELSEWHERE}') AND id IN (SELECT unnest(?))"
    marked = writer.rows(query, [list(ids)])
    rows = {
        "id": pa.array([row[0] for row in marked], pa.string()),
        "marks": pa.array([without_mark(row[1], Flag.SENT_ELSEWHERE) for row in marked], pa.string()),
    }
    writer.amend("events", pa.table(rows), key="id")


def _say(writer: Writer, ids: Sequence[str], text: str | None) -> None:
    writer.rows("UPDATE events SET sync_error = ? WHERE id IN (SELECT unnest(?))", [text, list(ids)])
