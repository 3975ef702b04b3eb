"""Taking an import back, as one revision: nothing of what was is deleted, it only counts no longer.

What somebody built upon since stays: events that were sent, changed or closed are not taken from under them, and then
nothing is taken back at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from billing_core.errors import BadParameter
from billing_core.imports.events import run_of
from billing_core.imports.model import ImportRecord
from billing_core.ledger.active_cards import take_back_import
from billing_core.ledger.directory import DirectoryChange
from billing_core.ledger.engine import Rows, Writer
from billing_core.ledger.journal import events_naming
from billing_core.ledger.late_usage import carry_over
from billing_core.ledger.schema import EVENT_COLUMNS, SENT, UNDO_RUN, UNDONE
from billing_core.ledger.sync import VOID
from billing_core.organizations.directory_file import Change

__all__ = ["as_before", "undo_cards", "undo_events"]

_NAMES = ", ".join(f'"{column.name}"' for column in EVENT_COLUMNS)

_CHANGED_SINCE = "SELECT count(DISTINCT id) FROM event_revisions WHERE run_id = ?"

_ON_A_BILL = f"""
SELECT count(*) FROM events e WHERE e.run_id = ? AND e.id IN (
    SELECT c.event_id FROM coverage c JOIN intents i USING (identifier)
    WHERE i.created_at >= ? AND i.state NOT IN {VOID!r})
"""

_CLOSED = """
SELECT count(*) FROM events e WHERE e.run_id = ? AND EXISTS (
    SELECT 1 FROM closes c WHERE c.reopened_at IS NULL
    AND coalesce(e.accounted_at, e."timestamp") >= c.start_at AND coalesce(e.accounted_at, e."timestamp") < c.end_at)
"""


_AS_CLOSED = """
CREATE OR REPLACE TEMP TABLE as_closed AS SELECT b.id, b.accounted_at FROM before b JOIN (
    SELECT f.id, max_by(f.revision, f.close_seq) AS revision FROM closed_events f
    JOIN closes c ON c.seq = f.close_seq AND c.reopened_at IS NULL WHERE NOT f.is_reversal GROUP BY f.id
) frozen ON frozen.id = b.id AND frozen.revision = b.revision
"""
"""Events that become again what a closed month says of them: there is nothing to carry over."""


_STAND_AS_NOW = f"""
UPDATE before SET sync_status = e.sync_status, sync_error = e.sync_error, synced_at = e.synced_at,
                  meter_event_identifier = e.meter_event_identifier
FROM events e WHERE e.id = before.id AND before.sync_status IN {SENT!r} AND NOT coalesce(e.billed_elsewhere, false)
"""
"""What was sent before the import stands where it got to since: Stripe may have confirmed or rejected it meanwhile."""


def undo_events(writer: Writer, record: ImportRecord, *, now: datetime) -> tuple[int, int]:
    """Events the import brought leave, those it changed are as they were; returns how many of each.

    Raises
    ------
    BadParameter
        If some were sent or are on their way, changed since, or lie in a closed month.
    """
    run_id = run_of(record.import_id)
    undo_id = UNDO_RUN + run_id
    if reasons := list(_against(writer.rows, run_id, record)):
        raise BadParameter("import", record.import_id, f"an import that nothing was built on; {', '.join(reasons)}")
    seq = int(writer.rows("SELECT coalesce(max(seq), 0) + 1 FROM bookings")[0][0])
    mine = [run_id]
    writer.rows(
        """CREATE OR REPLACE TEMP TABLE taken AS SELECT e.id, e.revision, r.id IS NOT NULL AS was_there
           FROM events e LEFT JOIN event_revisions r ON r.id = e.id AND r.superseded_seq = e.seq WHERE e.run_id = ?""",
        mine,
    )
    writer.rows(
        f"""CREATE OR REPLACE TEMP TABLE before AS SELECT {_prefixed("r")} FROM event_revisions r
            JOIN events e ON e.id = r.id AND r.superseded_seq = e.seq WHERE e.run_id = ?""",
        mine,
    )
    writer.rows(_AS_CLOSED)
    writer.rows(_STAND_AS_NOW)
    writer.rows(
        f"""INSERT INTO event_revisions ({_NAMES}, superseded_seq, superseded_at, changed_columns)
            SELECT {_NAMES}, ?, ?, ? FROM events WHERE run_id = ?""",
        [seq, now, UNDONE, run_id],
    )
    writer.rows("DELETE FROM events WHERE run_id = ?", mine)
    writer.rows(
        """UPDATE before SET seq = ?, booked_at = ?, run_id = ?, revision = t.revision + 1
           FROM taken t WHERE t.id = before.id""",
        [seq, now, undo_id],
    )
    writer.rows(f"INSERT INTO events ({_NAMES}) SELECT {_NAMES} FROM before")
    writer.rows(
        """UPDATE holds SET released_at = ?, released_by = ? WHERE released_at IS NULL
           AND event_id IN (SELECT id FROM taken WHERE NOT was_there)""",
        [now, undo_id],
    )
    carry_over(writer, seq=seq, now=now)  # their own month may be closed by now
    writer.rows("UPDATE events SET accounted_at = s.accounted_at FROM as_closed s WHERE events.id = s.id")
    writer.rows("DROP TABLE as_closed")
    removed, restored = writer.rows("SELECT count(*) FILTER (NOT was_there), count(*) FILTER (was_there) FROM taken")[0]
    writer.insert(
        "bookings",
        {
            "seq": seq, "booked_at": now, "run_id": undo_id, "events_new": 0,
            "events_changed": restored, "events_unchanged": 0,
        },
    )  # fmt: skip
    writer.rows("DROP TABLE taken")
    writer.rows("DROP TABLE before")
    return int(removed), int(restored)


def _prefixed(table: str) -> str:
    return ", ".join(f'{table}."{column.name}"' for column in EVENT_COLUMNS)


def _against(rows: Rows, run_id: str, record: ImportRecord) -> Iterator[str]:
    """Why it cannot be taken back."""
    if count := rows(_ON_A_BILL, [run_id, record.imported_at])[0][0]:
        yield f"{count:,} of its events were sent to Stripe or are on their way"
    if count := rows(_CHANGED_SINCE, [run_id])[0][0]:
        yield f"{count:,} were changed since"
    if count := rows(_CLOSED, [run_id])[0][0]:
        yield f"{count:,} lie in a closed month (reopen it first)"


def as_before(
    written: Sequence[DirectoryChange], present: Mapping[str, DirectoryChange], record: ImportRecord
) -> list[Change]:
    """What makes the lines that an import wrote as they were.

    Raises
    ------
    BadParameter
        If somebody changed some of them since.
    """
    if changed := sum(present[row.organization_id].seq != row.seq for row in written):
        raise BadParameter(
            "import",
            record.import_id,
            f"an import that nothing was built on; {changed:,} of its lines were changed since",
        )
    return [Change(row.organization_id, row.before.name or "", row.before.customer_id or "") for row in written]


def undo_cards(writer: Writer, record: ImportRecord, *, now: datetime) -> int:
    """The cards an import brought apply no longer; returns how many cards and plans those are.

    Raises
    ------
    BadParameter
        If events were rated with one of them.
    """
    brought = take_back_import(writer, record.import_id, now=now)
    for card in brought.cards:
        if named := events_naming(writer.rows, card.id):
            raise BadParameter(
                "import", record.import_id,
                f"cards that no event names; {named:,} were rated with {card.id}. Import one that follows it instead",
            )  # fmt: skip
    writer.advance(UNDO_RUN + run_of(record.import_id))
    return len(brought.cards) + len(brought.plans)
