"""The table `imports` (file, result, who and when), and the undo of an import of events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from billing_core.ledger.bookings import newest_booking, note_changes
from billing_core.ledger.engine import Rows, Writer
from billing_core.ledger.late_usage import carry_over
from billing_core.ledger.schema import EVENT_COLUMNS, LIVE, SENT, UNDO_RUN, UNDONE, VOID

_COLUMNS = "id, kind, file_name, sha256, result, imported_at, imported_by, undone_at, undone_by"

_NAMES = ", ".join(f'"{column.name}"' for column in EVENT_COLUMNS)
_PAST_NAMES = ", ".join(f'r."{column.name}"' for column in EVENT_COLUMNS)

_CHANGED_SINCE = "SELECT count(DISTINCT id) FROM event_revisions WHERE run_id = ?"

_ON_A_BILL = f"""
SELECT count(*) FROM events e WHERE e.run_id = ? AND e.id IN (
    SELECT c.event_id FROM coverage c JOIN intents i USING (identifier)
    WHERE i.created_at >= ? AND i.state NOT IN {VOID!r}
    UNION ALL SELECT x.event_id FROM settlement_events x JOIN settlements s ON s.id = x.settlement_id
    WHERE s.state IN {LIVE!r})
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

_KEEP_SENT_STATUS = f"""
UPDATE before SET sync_status = e.sync_status, sync_error = e.sync_error, synced_at = e.synced_at,
                  meter_event_identifier = e.meter_event_identifier
FROM events e WHERE e.id = before.id AND before.sync_status IN {SENT!r} AND NOT coalesce(e.billed_elsewhere, false)
"""
"""What was sent before the import stands where it got to since: Stripe may have confirmed or rejected it meanwhile."""


def keep_import(writer: Writer, row: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    """Store an import's row and result under the newest booking number."""
    writer.insert("imports", {**row, "seq": newest_booking(writer.rows), "result": json.dumps(result)})


def newest_imports(rows: Rows, limit: int) -> list[tuple[Any, ...]]:
    """The newest imports, newest first: id, kind, file, SHA-256, result, when and by whom it was made and undone."""
    return rows(f"SELECT {_COLUMNS} FROM imports ORDER BY imported_at DESC, seq DESC, id LIMIT ?", [limit])


def import_of(rows: Rows, import_id: str) -> tuple[Any, ...] | None:
    """The row of one import, with the columns of `newest_imports`; `None` if there is none of that id."""
    found = rows(f"SELECT {_COLUMNS} FROM imports WHERE id = ?", [import_id])
    return found[0] if found else None


def mark_undone(writer: Writer, import_id: str, *, actor: str, now: datetime) -> None:
    """Note in an import's row that it was undone, when and by whom."""
    undone = {"id": import_id, "undone_seq": newest_booking(writer.rows), "undone_at": now, "undone_by": actor}
    writer.update("imports", undone, key="id")


def built_upon(rows: Rows, run_id: str, since: datetime) -> dict[str, int]:
    """Counts of an import's events that forbid its undo: already billed since, changed since, in a closed month."""
    return {
        "on a bill": int(rows(_ON_A_BILL, [run_id, since])[0][0]),
        "changed": int(rows(_CHANGED_SINCE, [run_id])[0][0]),
        "closed": int(rows(_CLOSED, [run_id])[0][0]),
    }


def take_back(writer: Writer, run_id: str, *, now: datetime) -> tuple[int, int]:
    """Undo a booking run: remove the events it added and restore those it changed; returns how many of each."""
    undo_id = UNDO_RUN + run_id
    seq = newest_booking(writer.rows) + 1
    mine = [run_id]
    writer.rows(
        """CREATE OR REPLACE TEMP TABLE taken AS SELECT e.id, e.revision, r.id IS NOT NULL AS was_there
           FROM events e LEFT JOIN event_revisions r ON r.id = e.id AND r.superseded_seq = e.seq WHERE e.run_id = ?""",
        mine,
    )
    writer.rows(
        f"""CREATE OR REPLACE TEMP TABLE before AS SELECT {_PAST_NAMES} FROM event_revisions r
            JOIN events e ON e.id = r.id AND r.superseded_seq = e.seq WHERE e.run_id = ?""",
        mine,
    )
    writer.rows(_AS_CLOSED)
    writer.rows(_KEEP_SENT_STATUS)
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
    note_changes(writer, seq, run_id=undo_id, now=now, changed=restored)
    writer.rows("DROP TABLE taken")
    writer.rows("DROP TABLE before")
    return int(removed), int(restored)
