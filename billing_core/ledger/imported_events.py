"""Reads and changes the ledger's events that an imported file also has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.ledger.bookings import newest_booking, note_changes
from billing_core.ledger.compiled import Bound, Question, ask, bound_time
from billing_core.ledger.engine import Rows, Writer
from billing_core.ledger.schema import EVENT_COLUMNS, LIVE, VOID, events_table

_NAMES = ", ".join(f'"{column.name}"' for column in EVENT_COLUMNS)


class LedgerReader(Protocol):
    """The engine of the ledger, or a writer inside its transaction."""

    def read(self, question: Question, given: Mapping[str, pa.Table] | None = None) -> pa.Table:
        """The answer to a question; see `Engine.read`."""

    def rows(self, query: str, values: Any = ()) -> list[tuple[Any, ...]]:
        """Rows of a small fixed SQL query; see `Engine.rows`."""

    def differing(self, events: pa.Table) -> pa.Table:
        """Ids of those of `events` that are in the ledger with other values; see `Engine.differing`."""


_ASKED = ibis.table({"id": "string"}, name="asked")


def _places() -> ir.Table:
    return events_table().select("id", "timestamp").semi_join(_ASKED, "id")


def _asked_between(first: Bound, last: Bound) -> ir.Table:
    e = events_table()
    return e.filter(e.timestamp >= first.scalar, e.timestamp <= last.scalar).semi_join(_ASKED, "id")


def _no_events() -> ir.Table:
    return events_table().limit(0)


def existing(reader: LedgerReader, ids: pa.Array) -> pa.Table:
    """The stored events with some ids, every column.

    First where they are, then, of that span of time alone, what they hold: an engine that keeps events in the order of
    time need not look at the others whole.
    """
    places = reader.read(ask(_places), {"asked": pa.table({"id": ids})})
    if not places.num_rows:
        return reader.read(ask(_no_events))
    span = pc.min_max(places["timestamp"]).as_py()
    first, last = (bound_time(span[end].replace(tzinfo=UTC)) for end in ("min", "max"))
    return reader.read(ask(_asked_between, first, last), {"asked": places.select(["id"])})


_ON_A_BILL = f"""SELECT DISTINCT c.event_id FROM coverage c JOIN intents i USING (identifier)
               WHERE i.state NOT IN {VOID!r} AND c.event_id IN (SELECT unnest($1))
               UNION SELECT x.event_id FROM settlement_events x JOIN settlements s ON s.id = x.settlement_id
               WHERE s.state IN {LIVE!r} AND x.event_id IN (SELECT unnest($1))"""


def on_a_bill(rows: Rows, ids: Sequence[str]) -> set[str]:
    """Those of the given event ids that an intent or settlement of this ledger covers."""
    return {row[0] for row in rows(_ON_A_BILL, [list(ids)])} if ids else set()


_FORGET_FOREIGN = """UPDATE events SET meter_event_identifier = NULL
    WHERE run_id = ? AND NOT coalesce(billed_elsewhere, false)
    AND meter_event_identifier IN (SELECT identifier FROM intents)
    AND id NOT IN (SELECT c.event_id FROM coverage c WHERE c.identifier = events.meter_event_identifier)"""


def forget_foreign_identifiers(writer: Writer, run_id: str) -> None:
    """Clear the identifiers of a run's unsent events that name a meter event of this ledger which does not cover them:
    its outcome is not theirs.
    """
    writer.rows(_FORGET_FOREIGN, [run_id])


def count_as_billed_elsewhere(writer: Writer, lifted: pa.Table, run_id: str, now: datetime) -> None:
    """Give events the status, identifier and time of their billing elsewhere; the former state is a revision."""
    seq = newest_booking(writer.rows) + 1
    ids = lifted["id"].to_pylist()
    untouched = "id IN (SELECT unnest(?)) AND run_id IS DISTINCT FROM ?"
    count = writer.rows(f"SELECT count(*) FROM events WHERE {untouched}", [ids, run_id])[0][0]
    writer.rows(
        f"""INSERT INTO event_revisions ({_NAMES}, superseded_seq, superseded_at, changed_columns)
            SELECT {_NAMES}, ?, ?, 'sync_status' FROM events WHERE {untouched}""",
        [seq, now, ids, run_id],
    )
    writer.rows(
        f"""UPDATE events SET seq = ?, revision = revision + 1, booked_at = ?, run_id = ? WHERE {untouched}""",
        [seq, now, run_id, ids, run_id],
    )
    if count:
        note_changes(writer, seq, run_id=run_id, now=now, changed=count)
    nothing = pa.nulls(len(ids), pa.string())
    rows = pa.table(
        {
            "id": lifted["id"],
            "sync_status": lifted["sync_status"],
            "sync_error": nothing,
            "meter_event_identifier": lifted["meter_event_identifier"],
            "synced_at": lifted["synced_at"],
            "billed_elsewhere": pa.array([True] * len(ids)),
        }
    )
    writer.amend("events", rows, key="id")
    writer.rows(
        """UPDATE holds SET released_at = ?, released_by = ? WHERE released_at IS NULL
           AND event_id IN (SELECT unnest(?))""",
        [now, run_id, ids],
    )
