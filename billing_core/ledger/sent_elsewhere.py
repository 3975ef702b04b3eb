"""Reads what the ledger knows about usage that somebody else may have sent: what was delivered from here hour by hour,
what earlier reads of Stripe's sums found, what people decided, and for whom and when usage was booked before it moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

import pyarrow as pa

from billing_core.ledger.engine import Engine, Writer
from billing_core.ledger.holds import ACTIVE, DECIDED_BY_PEOPLE, SENT_ELSEWHERE, keep_back, release
from billing_core.ledger.schema import (
    DELIVERED,
    DUPLICATE,
    ELSEWHERE,
    IMPORT_RUN,
    SENT,
    UNDO_RUN,
    VOID,
    times,
    with_mark,
)
from billing_core.types import Flag, SyncStatus
from billing_core.values.usage_frame import Window, hour_of

WHOLE = Decimal(1)
"""Less than a credit is a fraction: it waits, and is carried from hour to hour."""


_CREDITS = pa.decimal128(18, 6)


class Billed(NamedTuple):
    """The bounds of what Stripe has to count for a customer's hour, in credits: at `least`, and at `most`."""

    least: Decimal
    most: Decimal


@dataclass(frozen=True, slots=True)
class Difference:
    """The credits Stripe `counted` for a customer in the UTC hour that begins at `hour` (aware), and those `delivered`
    from here or known to have been billed before.
    """

    customer_id: str
    hour: datetime
    counted: Decimal
    delivered: Decimal

    @property
    def credits(self) -> Decimal:
        """The credits Stripe counts that were not sent from here; negative if it counts fewer."""
        return self.counted - self.delivered


@dataclass(frozen=True, slots=True)
class KeepBack:
    """The events a push may not send because Stripe may count them already.

    reasons: Events to be put on hold → why.
    differences: What Stripe's sums showed now for the first time.
    withdrawn: Intents that were written down and never tried, and carry such usage.
    """

    reasons: Mapping[str, str] = field(default_factory=dict)
    differences: Sequence[Difference] = ()
    withdrawn: Sequence[str] = ()


NOTHING_KEPT_BACK = KeepBack()


@dataclass(frozen=True, slots=True)
class DifferingHour:
    """An hour in which Stripe did not count what was sent from here: since when that is known, and whether somebody has
    decided that it holds nothing back."""

    difference: Difference
    found_at: datetime
    is_decided: bool


@dataclass(frozen=True, slots=True)
class UntriedEvent:
    """A meter event that was planned and never tried; `value` in whole credits."""

    identifier: str
    customer_id: str
    hour: datetime
    value: int
    event_ids: tuple[str, ...]


def untried_intents(engine: Engine) -> list[UntriedEvent]:
    """Meter events that an earlier push planned and never tried: by now somebody else may have sent what they carry."""
    rows = engine.rows(
        """SELECT i.identifier, any_value(i.customer_id), any_value(i.stamp), any_value(i.value), list(c.event_id)
           FROM intents i JOIN coverage c USING (identifier) WHERE i.state = 'open' AND i.unknown_since IS NULL
           GROUP BY i.identifier ORDER BY i.identifier"""
    )
    return [
        UntriedEvent(identifier, customer, hour_of(stamp.replace(tzinfo=UTC)), value, tuple(events))
        for identifier, customer, stamp, value, events in rows
    ]


def sent_into_since(engine: Engine, since: datetime) -> set[tuple[str, datetime]]:
    """Customers and UTC hours this ledger has sent usage for since a time: sending the same again is recognised by
    Stripe.

    A meter event that Stripe had before does not count: it was sent at an earlier time that nobody here knows.
    """
    rows = engine.rows(
        f"""SELECT DISTINCT customer_id, date_trunc('hour', stamp) FROM intents WHERE code IS DISTINCT FROM ? AND (
                (state IN {DELIVERED!r} AND answered_at >= ?) OR (state = 'sending' AND unknown_since >= ?))""",
        [DUPLICATE, since, since],
    )
    return {(customer, hour.replace(tzinfo=UTC)) for customer, hour in rows}


def conflicting_hours(engine: Engine, state: str, code: str) -> dict[tuple[str, datetime], datetime]:
    """Customers and UTC hours in which Stripe has another value under an identifier of ours → when it last said so."""
    rows = engine.rows(
        """SELECT customer_id, date_trunc('hour', stamp), max(answered_at) FROM intents
           WHERE state = ? AND code = ? GROUP BY ALL""",
        [state, code],
    )
    return {(customer, hour.replace(tzinfo=UTC)): at.replace(tzinfo=UTC) for customer, hour, at in rows}


def found_before(engine: Engine) -> list[DifferingHour]:
    """The differing hours that earlier reads of Stripe's sums found, oldest first."""
    rows = engine.rows(
        """SELECT customer_id, hour, counted, delivered, found_at, released_at IS NOT NULL FROM sent_elsewhere
           ORDER BY found_at, customer_id, hour"""
    )
    return [
        DifferingHour(
            Difference(customer, hour.replace(tzinfo=UTC), counted, delivered), found_at.replace(tzinfo=UTC), is_decided
        )
        for customer, hour, counted, delivered, found_at, is_decided in rows
    ]


def decided_events(engine: Engine) -> dict[str, datetime]:
    """Events that somebody released although Stripe's sums differ → when. That an import was undone decides nothing."""
    rows = engine.rows(
        f"""SELECT event_id, max(released_at) FROM holds WHERE cause = ? AND released_at IS NOT NULL
            AND NOT starts_with(released_by, '{UNDO_RUN}') AND NOT starts_with(released_by, '{IMPORT_RUN}')
            AND released_by <> 'push' GROUP BY event_id""",
        [SENT_ELSEWHERE],
    )
    return {event_id: at.replace(tzinfo=UTC) for event_id, at in rows}


_STATES = f"""
    SELECT id, customer_id, "timestamp", credits_total, sync_status, billed_elsewhere, revision FROM events
    WHERE starts_with(run_id, '{IMPORT_RUN}')
    UNION ALL SELECT id, customer_id, "timestamp", credits_total, sync_status, billed_elsewhere, revision
    FROM event_revisions WHERE starts_with(run_id, '{IMPORT_RUN}')"""

_CONFLICTS = f"""
SELECT * FROM ({_STATES}) QUALIFY row_number() OVER (PARTITION BY id ORDER BY revision DESC) = 1"""
"""Events as a file told of them, whatever was read of them since."""

_BILLED = f"""
WITH told AS ({_CONFLICTS})
SELECT date_trunc('hour', moment), sum(least), sum(most) FROM (
    SELECT stamp AS moment, CASE WHEN is_sure OR value < 0 THEN value ELSE 0 END AS least,
           CASE WHEN is_sure OR value > 0 THEN value ELSE 0 END AS most
    FROM (SELECT stamp, CAST(value AS DECIMAL(38, 6)) AS value,
                 state = 'confirmed' OR (state = 'accepted' AND answered_at < $4) AS is_sure
          FROM intents WHERE customer_id = $1 AND stamp >= $2 AND stamp < $3
          AND (state IN {DELIVERED!r} OR (state = 'sending' AND unknown_since IS NOT NULL)))
    UNION ALL
    SELECT "timestamp", 0, CAST(credits_total AS DECIMAL(38, 6)) FROM told
    WHERE customer_id = $1 AND "timestamp" >= $2 AND "timestamp" < $3 AND coalesce({ELSEWHERE}, false)
      AND sync_status IN ('{SyncStatus.PROCESSED}', '{SyncStatus.CONFIRMED}')
    UNION ALL
    SELECT "timestamp", 0, CAST(ceil(credits_total) AS DECIMAL(38, 6)) FROM events
    WHERE customer_id = $1 AND "timestamp" >= $2 AND "timestamp" < $3 AND contains(flags, '{Flag.LEGACY_BILLED}')
      AND NOT coalesce({ELSEWHERE}, false)
) GROUP BY ALL"""


def billed_by_hour(engine: Engine, customer_id: str, window: Window, *, recent: datetime) -> dict[datetime, Billed]:
    """Bounds, per UTC hour, of the credits of a customer that Stripe may count for usage that is known here.

    At most: delivered from here, billed by what an import came from (as its file said), or by the earlier system, which
    rounded every event up. At least: delivered from here. What was tried without an answer may have arrived; what was
    answered since `recent` may not be in a sum yet.
    """
    rows = engine.rows(_BILLED, [customer_id, window.start, window.end, recent])
    return {hour.replace(tzinfo=UTC): Billed(least, most) for hour, least, most in rows}


_FORMER = f"""
WITH owing AS (SELECT id, customer_id, "timestamp" FROM events WHERE sync_status = '{SyncStatus.PENDING}'
               OR contains(coalesce(marks, ''), '{Flag.CHANGED_AFTER_SENDING}'))
SELECT DISTINCT r.id, r.customer_id, date_trunc('hour', r."timestamp") AS hour
FROM event_revisions r JOIN owing o ON o.id = r.id
WHERE r.customer_id IS NOT NULL AND (r.customer_id IS DISTINCT FROM o.customer_id
      OR date_trunc('hour', r."timestamp") <> date_trunc('hour', o."timestamp"))"""


def former_places(engine: Engine) -> dict[str, list[tuple[str, datetime]]]:
    """Events that may owe something → customers and UTC hours they were booked for before: another copy of this ledger,
    or the ledger its file came from, may have sent them as that.
    """
    found: dict[str, list[tuple[str, datetime]]] = {}
    for event_id, customer, hour in engine.rows(_FORMER):
        found.setdefault(event_id, []).append((customer, hour.replace(tzinfo=UTC)))
    return found


# ── inside transactions ──────────────────────────────────────────────────────────────────────────


def hold_sent_elsewhere(writer: Writer, found: KeepBack, *, now: datetime) -> int:
    """Keep back usage that Stripe may count already, sent events' corrections too; returns how many are newly held."""
    if found.differences:
        rows = {
            "customer_id": [one.customer_id for one in found.differences],
            "hour": times([one.hour for one in found.differences]),
            "counted": pa.array([one.counted for one in found.differences], _CREDITS),
            "delivered": pa.array([one.delivered for one in found.differences], _CREDITS),
            "found_at": times([now] * len(found.differences)),
        }
        writer.append("sent_elsewhere", pa.table(rows))
    if not found.reasons:
        return 0
    chosen = writer.rows(
        f"""SELECT id, marks FROM events WHERE id IN (SELECT unnest(?)) AND sync_status IN {("pending", *SENT)!r}
            AND id NOT IN (SELECT event_id FROM holds WHERE {ACTIVE} AND cause IN {DECIDED_BY_PEOPLE!r})""",
        [list(found.reasons)],
    )
    ids = [row[0] for row in chosen]
    release(writer, ids, actor="push", now=now)  # of what a rule kept back, this comes first
    keep_back(writer, [(id_, SENT_ELSEWHERE, found.reasons[id_]) for id_ in ids], actor="push", now=now)
    said = {
        "id": pa.array(ids, pa.string()),
        "sync_error": pa.array([found.reasons[id_] for id_ in ids], pa.string()),
        "marks": pa.array([with_mark(marks or "", Flag.SENT_ELSEWHERE) for _, marks in chosen], pa.string()),
    }
    writer.amend("events", pa.table(said), key="id")
    return len(ids)


def leave_out_fractions(writer: Writer, carried: dict[str, Decimal]) -> None:
    """Reduce what customers carry (`carried`, in place) by the fractions that another ledger had carried into what it
    sent.

    What it sent beyond the usage that is kept back here, below a credit, is such a fraction: this ledger has it too. So
    is what it took back less than the corrections that are kept back here.
    """
    beyond = f"""
        WITH found AS (
            SELECT customer_id, hour, counted - delivered AS credits, {ACTIVE} AS is_open FROM sent_elsewhere),
        hours AS (
            SELECT customer_id, hour,
                   greatest(coalesce(max(credits) FILTER (is_open AND credits > 0), 0)
                            - coalesce(max(credits) FILTER (NOT is_open AND credits > 0), 0), 0) AS more,
                   least(coalesce(min(credits) FILTER (is_open AND credits < 0), 0)
                         - coalesce(min(credits) FILTER (NOT is_open AND credits < 0), 0), 0) AS less
            FROM found GROUP BY ALL HAVING bool_or(is_open)),
        sums AS (SELECT customer_id, sum(more) AS more, sum(less) AS less FROM hours GROUP BY customer_id),
        covered AS (SELECT c.event_id, c.customer_id, sum(c.credits) AS credits
                    FROM coverage c JOIN intents i USING (identifier) WHERE i.state NOT IN {VOID!r} GROUP BY ALL),
        kept AS (SELECT e.id, e.customer_id, e.credits_total FROM holds h JOIN events e ON e.id = h.event_id
                 WHERE h.{ACTIVE} AND h.cause = '{SENT_ELSEWHERE}'),
        owed AS (SELECT id, customer_id, sum(credits) AS credits FROM (
                     SELECT id, customer_id, credits_total AS credits FROM kept
                     UNION ALL SELECT k.id, c.customer_id, -c.credits FROM covered c JOIN kept k ON k.id = c.event_id)
                 GROUP BY ALL),
        held AS (SELECT customer_id, sum(credits) AS credits, bool_or(credits < 0) AS gives_back FROM owed
                 GROUP BY customer_id),
        beyond AS (SELECT s.customer_id, s.more + CASE WHEN h.gives_back THEN s.less ELSE 0 END
                          - coalesce(h.credits, 0) AS credits
                   FROM sums s LEFT JOIN held h USING (customer_id))
        SELECT customer_id, credits FROM beyond WHERE credits > 0"""
    for customer, credits_ in writer.rows(beyond):
        rest = carried.get(customer, Decimal(0))
        carried[customer] = rest - min(credits_, max(rest, Decimal(0)))


def decide_sent_elsewhere(writer: Writer, ids: Sequence[str], *, actor: str, now: datetime) -> None:
    """Mark what Stripe counts of customers as decided once nothing of theirs is kept back for it: it holds nothing back
    any more.

    Usage that moved is kept back for what Stripe counts of its former customers too.
    """
    writer.rows(
        f"""WITH elsewhere AS (SELECT event_id, {ACTIVE} AS is_kept FROM holds WHERE cause = '{SENT_ELSEWHERE}'),
                 payers AS (SELECT id, customer_id FROM events UNION ALL SELECT id, customer_id FROM event_revisions),
                 kept AS (SELECT h.event_id, h.is_kept, p.customer_id
                          FROM elsewhere h JOIN payers p ON p.id = h.event_id WHERE p.customer_id IS NOT NULL)
            UPDATE sent_elsewhere SET released_at = ?, released_by = ? WHERE {ACTIVE}
            AND customer_id IN (SELECT customer_id FROM kept WHERE event_id IN (SELECT unnest(?)))
            AND customer_id NOT IN (SELECT customer_id FROM kept WHERE is_kept)""",
        [now, actor, list(ids)],
    )
