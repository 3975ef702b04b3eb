"""Reads what the ledger knows about usage that somebody else may have sent: what was delivered from here hour by hour,
what earlier reads of Stripe's sums found, what people decided, and for whom and when usage was booked before it moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

from billing_core.ledger.engine import Engine
from billing_core.ledger.schema import IMPORT_RUN, UNDO_RUN
from billing_core.ledger.sync import DELIVERED, DUPLICATE, ELSEWHERE, SENT_ELSEWHERE, Difference
from billing_core.types import Flag, SyncStatus
from billing_core.values.usage_frame import Window, hour_of

WHOLE = Decimal(1)
"""Less than a credit is a fraction: it waits, and is carried from hour to hour."""


class Billed(NamedTuple):
    """The bounds of what Stripe has to count for a customer's hour, in credits: at `least`, and at `most`."""

    least: Decimal
    most: Decimal


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

_TOLD = f"""
SELECT * FROM ({_STATES}) QUALIFY row_number() OVER (PARTITION BY id ORDER BY revision DESC) = 1"""
"""Events as a file told of them, whatever was read of them since."""

_BILLED = f"""
WITH told AS ({_TOLD})
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
