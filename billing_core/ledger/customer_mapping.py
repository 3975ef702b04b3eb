"""Applies a changed organization directory to unsent events: who pays for them now, and their status because of it.

Only events that nobody or the directory pays for move, and only while they are on no bill: not on their way to Stripe,
not sent, and with no credits covered by an intent that counts. What they were is kept as a revision, as with any other
change; credits are never touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from billing_core.ledger.bookings import newest_booking, note_changes
from billing_core.ledger.engine import Rows, Writer
from billing_core.ledger.holds import ACTIVE, DECIDED_BY_PEOPLE, MARK_GONE
from billing_core.ledger.late_usage import carry_over
from billing_core.ledger.schema import EVENT_COLUMNS, FLAG_SEPARATOR, SENT, SETTINGS_RUN, VOID
from billing_core.rating.events import BookedCustomer, Policy, failed_before, in_order, no_customer
from billing_core.types import Flag, SyncStatus


@dataclass(frozen=True, slots=True)
class MovedEvents:
    """Events whose credits another customer pays from now on; credits and US dollars are exact.

    `old_events` are those that began before the time that was asked about.
    """

    events: int = 0
    credits: Decimal = Decimal(0)
    amount_usd: Decimal = Decimal(0)
    old_events: int = 0


@dataclass(frozen=True, slots=True)
class UnsentEvent:
    """The facts of an unsent event that decide its status once its customer changes. Texts are the ledger's own.

    `rule` is the cause of its active hold by a rule, `kept_back` the reason of its active hold by a person;
    `was_rejected`: an intent that Stripe refused was its newest.
    """

    flags: str
    status: str
    error: str | None
    has_customer: bool
    has_credits: bool
    was_rejected: bool
    rule: str | None
    kept_back: str | None


@dataclass(frozen=True, slots=True)
class StatusAfterRemap:
    """The status of an unsent event once another customer pays. `stays_held`: by a rule about something else."""

    flags: str
    status: str
    error: str | None
    stays_held: bool


def status_after_remap(event: UnsentEvent, *, has_customer: bool, is_mapped: bool) -> StatusAfterRemap:
    """The status an unsent event gets once its customer changed, respecting holds and decisions of people.

    What failed in the earlier system waits for a person to retry it, whoever pays; an event that was retried is not
    held for that again. One that a person keeps back stays kept back.
    """
    flag = Flag.MAPPED_CUSTOMER if is_mapped else None if has_customer else Flag.NO_CUSTOMER
    others = set(event.flags.split(FLAG_SEPARATOR)) - {Flag.NO_CUSTOMER, Flag.MAPPED_CUSTOMER}
    flags = FLAG_SEPARATOR.join(in_order(others | {flag} if flag else others))
    failure = _failure(event)
    if not event.has_credits:
        return StatusAfterRemap(flags, SyncStatus.EXCLUDED, None, False)
    if failure == MARK_GONE:
        return StatusAfterRemap(flags, SyncStatus.ERROR, MARK_GONE, has_customer and event.rule == "failed_before")
    if not has_customer:
        return StatusAfterRemap(flags, SyncStatus.ERROR, no_customer(failure), False)
    if failure is not None:
        return StatusAfterRemap(flags, SyncStatus.ERROR, failure, event.rule == "failed_before")
    return StatusAfterRemap(flags, SyncStatus.PENDING, event.kept_back, False)


def _failure(event: UnsentEvent) -> str | None:
    """Why a person has to retry it, whoever pays: the earlier system's error, or that its mark of billing is gone."""
    if event.status != SyncStatus.ERROR:
        return None
    if event.error == MARK_GONE:
        return MARK_GONE
    if not event.has_customer:
        return failed_before(event.error)
    return None if event.was_rejected or event.rule not in {None, "failed_before", "no_customer"} else event.error


COVERED_EVENTS = f"""
SELECT {{chosen}} FROM coverage c JOIN intents i USING (identifier)
WHERE i.state NOT IN {VOID!r} AND c.event_id IN ({{ids}})
GROUP BY c.event_id, c.customer_id HAVING sum(c.credits) <> 0
"""
"""Of some events those that an intent that counts has put on a customer's bill and none has taken off again."""

_ON_A_BILL = f"""
WITH billed AS (SELECT event_id, any_value(customer_id) AS payer
                FROM ({COVERED_EVENTS.format(ids="SELECT unnest($1)", chosen="c.event_id, c.customer_id")})
                GROUP BY event_id HAVING count(*) = 1),
decided AS (
    SELECT id, max_by(customer_id, revision) AS payer, max(booked_at) AS at
    FROM (SELECT id, customer_id, revision, booked_at, run_id FROM events UNION ALL
          SELECT id, customer_id, revision, booked_at, run_id FROM event_revisions)
    WHERE run_id LIKE '{SETTINGS_RUN} by %' AND id IN (SELECT unnest($1)) GROUP BY id),
pushed AS (
    SELECT c.event_id, max(i.created_at) AS at FROM coverage c JOIN intents i USING (identifier)
    WHERE c.event_id IN (SELECT id FROM decided) AND i.state NOT IN {VOID!r} GROUP BY c.event_id),
known AS (
    SELECT e.id, CASE WHEN d.at > p.at THEN d.payer ELSE coalesce(b.payer, e.customer_id) END AS payer,
           e.customer_id, e.flags
    FROM events e LEFT JOIN billed b ON b.event_id = e.id LEFT JOIN decided d ON d.id = e.id
         LEFT JOIN pushed p ON p.event_id = e.id
    WHERE e.id IN (SELECT unnest($1)) AND (e.sync_status IN {SENT!r} OR b.payer IS NOT NULL))
SELECT k.id, k.payer, contains(coalesce(max_by(r.flags, r.revision), k.flags), '{Flag.MAPPED_CUSTOMER}')
FROM known k LEFT JOIN event_revisions r
     ON r.id = k.id AND r.customer_id = k.payer AND k.payer IS DISTINCT FROM k.customer_id
GROUP BY k.id, k.payer, k.flags
"""
"""Of some events those on a bill: whose bill it is (what they say by now may not have been sent), and whether the
directory said so. What `rerate --settings` decided counts until the next push has carried it out."""

_MOVING = f"""
WITH map AS (SELECT unnest($1::VARCHAR[]) AS organization_id, unnest($2::VARCHAR[]) AS mapped_to),
held AS (SELECT event_id, max(cause) FILTER (cause NOT IN {DECIDED_BY_PEOPLE!r}) AS rule, max(reason) FILTER (
         cause IN {DECIDED_BY_PEOPLE!r})
         AS kept_back FROM holds WHERE {ACTIVE} GROUP BY event_id),
unsent AS MATERIALIZED (
    SELECT e.id, e.organization_id, e.customer_id, e.flags, e.sync_status, e.sync_error, e.credits_total,
           e.credit_price_usd, e."timestamp", e.meter_event_identifier IS NOT NULL AS was_rejected,
           coalesce(m.mapped_to, $3) AS payer, m.mapped_to IS NOT NULL AS is_mapped
    FROM events e JOIN map m ON e.organization_id IS NOT DISTINCT FROM m.organization_id
    WHERE e.sync_status IN ('pending', 'error', 'excluded') AND NOT contains(e.flags, '{Flag.LEGACY_BILLED}')
      AND NOT (e.sync_status = 'excluded' AND contains(coalesce(e.marks, ''), '{Flag.WRITTEN_OFF}'))
      AND ((contains(e.flags, '{Flag.MAPPED_CUSTOMER}') AND e.customer_id IS DISTINCT FROM m.mapped_to)
           OR (contains(e.flags, '{Flag.NO_CUSTOMER}') AND m.mapped_to IS NOT NULL)))
SELECT unsent.*, held.rule, held.kept_back FROM unsent LEFT JOIN held ON held.event_id = unsent.id
WHERE unsent.id NOT IN ({COVERED_EVENTS.format(ids="SELECT id FROM unsent", chosen="c.event_id")})
"""
"""Events that a map (organizations, customers or null, default customer) moves."""

_KIND = """flags, sync_status, sync_error, customer_id IS NULL, credits_total = 0, was_rejected, rule, kept_back,
           payer IS NULL, is_mapped"""
"""What decides how an event stands: events that agree in all of it are decided once."""


def booked_on_a_bill(rows: Rows, usage: pa.Table) -> dict[str, BookedCustomer]:
    """Events already billed whose traces name no customer, each with the customer it was booked for, by id."""
    unnamed = usage["id"].filter(pc.is_null(usage["customer_id"]))
    if not len(unnamed):
        return {}
    return {row[0]: BookedCustomer(row[1], row[2]) for row in rows(_ON_A_BILL, [unnamed.to_pylist()])}


def moved_by(
    rows: Rows, customers: Mapping[str, str | None], policy: Policy, *, old_before: datetime
) -> dict[str, MovedEvents]:
    """Organization → the unsent events that `rebill` would move to another customer now."""
    if policy.overrides or not customers:
        return {}
    query = f"""SELECT organization_id, count(*), sum(credits_total), sum(credits_total * credit_price_usd),
                count(*) FILTER ("timestamp" < $4) FROM ({_MOVING}) WHERE credits_total <> 0 GROUP BY organization_id"""
    found = rows(query, [*_bound(customers, policy), old_before.astimezone(UTC).replace(tzinfo=None)])
    return {row[0]: MovedEvents(*row[1:]) for row in found}


def rebill(
    writer: Writer, customers: Mapping[str, str | None], policy: Policy, *, actor: str, run_id: str, now: datetime
) -> dict[str, int]:
    """Book unsent events of some organizations for their newly mapped customers (`None`: mapped to nobody any more).

    Returns organization → events with something to bill that moved. With an overriding default customer the map
    decides nothing and nothing moves.
    """
    if policy.overrides or not customers:
        return {}
    writer.rows(
        f"""CREATE OR REPLACE TEMP TABLE moving AS
            SELECT *, dense_rank() OVER (ORDER BY {_KIND}) AS kind, NULL::VARCHAR AS new_flags,
                   NULL::VARCHAR AS new_status, NULL::VARCHAR AS new_error, NULL::BOOLEAN AS stays_held
            FROM ({_MOVING})""",
        _bound(customers, policy),
    )
    if writer.rows("SELECT count(*) FROM moving")[0][0]:
        writer.amend("moving", _statuses(writer), key="kind")
        _book(writer, actor=actor, run_id=run_id, now=now)
    counts = writer.rows("SELECT organization_id, count(*) FROM moving WHERE credits_total <> 0 GROUP BY ALL")
    writer.rows("DROP TABLE moving")
    return dict(counts)


def _bound(customers: Mapping[str, str | None], policy: Policy) -> list[Any]:
    return [list(customers), list(customers.values()), policy.default_customer_id]


def _statuses(writer: Writer) -> pa.Table:
    """How the events of each kind stand from now on."""
    kinds = writer.rows(
        """SELECT DISTINCT kind, payer IS NOT NULL, is_mapped, flags, sync_status, sync_error,
                  customer_id IS NOT NULL, credits_total <> 0, was_rejected, rule, kept_back FROM moving"""
    )
    decided = [
        (kind, status_after_remap(UnsentEvent(*facts), has_customer=has_customer, is_mapped=is_mapped))
        for kind, has_customer, is_mapped, *facts in kinds
    ]
    return pa.table(
        {
            "kind": pa.array([kind for kind, _ in decided], pa.int64()),
            "new_flags": pa.array([one.flags for _, one in decided], pa.string()),
            "new_status": pa.array([one.status for _, one in decided], pa.string()),
            "new_error": pa.array([one.error for _, one in decided], pa.string()),
            "stays_held": pa.array([one.stays_held for _, one in decided], pa.bool_()),
        }
    )


_NAMES = ", ".join(f'"{column.name}"' for column in EVENT_COLUMNS)
_OLD = ", ".join(f'e."{column.name}"' for column in EVENT_COLUMNS)


def _book(writer: Writer, *, actor: str, run_id: str, now: datetime) -> None:
    """Keep what the events were, write down what they are, release holds that were about who pays."""
    seq = newest_booking(writer.rows) + 1
    writer.rows(
        f"""INSERT INTO event_revisions ({_NAMES}, superseded_seq, superseded_at, changed_columns)
            SELECT {_OLD}, ?, ?, concat_ws('{FLAG_SEPARATOR}',
                   CASE WHEN e.customer_id IS DISTINCT FROM m.payer THEN 'customer_id' END,
                   CASE WHEN e.flags <> m.new_flags THEN 'flags' END)
            FROM events e JOIN moving m USING (id)""",
        [seq, now],
    )
    writer.rows(
        """UPDATE events SET customer_id = m.payer, flags = m.new_flags, sync_status = m.new_status,
                  sync_error = m.new_error, meter_event_identifier = NULL, synced_at = NULL, seq = ?,
                  revision = revision + 1, booked_at = ?, run_id = ?, marks = array_to_string(
                      list_filter(string_split(marks, ?), lambda mark: mark <> ?), ?)
           FROM moving m WHERE events.id = m.id""",
        [seq, now, run_id, FLAG_SEPARATOR, Flag.CARRIED, FLAG_SEPARATOR],  # a fraction waits with another customer now
    )
    writer.rows(
        f"""UPDATE holds SET released_at = ?, released_by = ? WHERE {ACTIVE} AND cause NOT IN {DECIDED_BY_PEOPLE!r}
            AND event_id IN (SELECT id FROM moving WHERE NOT stays_held)""",
        [now, actor],
    )
    carry_over(writer, seq=seq, now=now)
    changed = int(writer.rows("SELECT count(*) FROM moving")[0][0])
    note_changes(writer, seq, run_id=run_id, now=now, changed=changed)
