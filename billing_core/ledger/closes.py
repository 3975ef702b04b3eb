"""The close of a month in the ledger: frozen events, who closed what, and hashes that prove nothing changed since.

Frozen rows and manifests are written once. A reopened month keeps both; they only stop to count.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from billing_core.errors import BadParameter
from billing_core.ledger.bookings import newest_booking, note_changes
from billing_core.ledger.engine import Engine, Writer
from billing_core.ledger.journal import append_audit
from billing_core.ledger.queries import Selection, to_freeze
from billing_core.ledger.schema import EVENT_COLUMNS
from billing_core.ledger.verification import HASHED_COLUMNS, EntrySet, TamperedEvent, entry_sets, tampered


@dataclass(frozen=True, slots=True)
class Close:
    """One close of a month: its booking number, aware UTC window `[start, end)`, who and when, and its manifest."""

    seq: int
    period: str
    timezone: str
    start: datetime
    end: datetime
    closed_at: datetime
    closed_by: str
    manifest: str
    sha256: str
    reopened_at: datetime | None = None
    reopened_by: str | None = None
    reopen_reason: str | None = None

    @property
    def counts(self) -> bool:
        """Whether this close is in force: its month has not been reopened since."""
        return self.reopened_at is None


_CLOSE = """SELECT seq, period, timezone, start_at, end_at, closed_at, closed_by, manifest, sha256, reopened_at,
            reopened_by, reopen_reason FROM closes"""


class CloseStore:
    """Closes of months and their frozen events: the tables `closes` and `closed_events`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def all(self) -> list[Close]:
        """Every close there ever was, reopened ones included, oldest first."""
        return [_close(row) for row in self._engine.rows(f"{_CLOSE} ORDER BY seq")]

    def of(self, period: str) -> Close | None:
        """The close of a month that is in force; `None` if the month is open."""
        return next((close for close in reversed(self.all()) if close.period == period and close.counts), None)

    def numbered(self, seq: int) -> Close:
        """The close with a booking number, reopened or not."""
        return _close(self._engine.rows(f"{_CLOSE} WHERE seq = ?", [seq])[0])

    def manifests(self) -> list[tuple[str, str | None]]:
        """Month and manifest of every close there ever was, oldest first."""
        return [
            (period, text) for period, text in self._engine.rows("SELECT period, manifest FROM closes ORDER BY seq")
        ]

    def counting(self) -> list[Close]:
        """The closes in force, oldest first."""
        return [close for close in self.all() if close.counts]

    def audited(self) -> dict[str, str]:
        """The months that are closed according to the audit log, each with the SHA-256 of its close's manifest."""
        query = "SELECT action, detail FROM audit WHERE action IN ('close', 'reopen') ORDER BY seq"
        found: dict[str, str] = {}
        for action, text in self._engine.rows(query):
            detail = json.loads(text)
            if action == "close":
                found[detail["period"]] = detail["sha256"]
            else:
                found.pop(detail["period"], None)
        return found

    def close(
        self,
        selection: Selection,
        make_manifest: Callable[[int, dict[str, EntrySet], dict[str, Any]], tuple[str, str]],
        *,
        period: str,
        timezone: str,
        actor: str,
        now: datetime,
    ) -> Close:
        """Freeze the events of a selection (its window is the month's) and write the manifest; all or nothing.

        `make_manifest` gets the close's number, the entry sets and the audit log's head, and returns the manifest's
        text and its SHA-256.

        Raises BadParameter: if the ledger changed since `selection` was made: what was checked may not hold any more.
        """
        start, end = selection.start, selection.end
        if start is None or end is None:
            raise ValueError("a month has a beginning and an end")
        with self._engine.transaction() as writer:
            version = newest_booking(writer.rows)
            if version != selection.snapshot.as_of:
                raise BadParameter(
                    "period", period, "a ledger at rest while a month is closed; it changed: close again"
                )
            for other in (_close(row) for row in writer.rows(f"{_CLOSE} WHERE reopened_at IS NULL")):
                if start < other.end and other.start < end:
                    raise BadParameter(
                        "period",
                        period,
                        f"a month that no closed one overlaps; {other.period} was closed in {other.timezone}",
                    )
            seq = version + 1
            writer.append_from("closed_events", to_freeze(selection, seq))
            sets = entry_sets(writer.rows, seq=seq, start=start, end=end, closed_at=now)
            head = writer.rows("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1")
            anchor = {"seq": head[0][0], "hash": head[0][1]} if head else {"seq": 0, "hash": None}
            manifest, sha256 = make_manifest(seq, sets, anchor)
            writer.insert(
                "closes",
                {
                    "seq": seq,
                    "period": period,
                    "timezone": timezone,
                    "start_at": start,
                    "end_at": end,
                    "closed_at": now,
                    "closed_by": actor,
                    "manifest": manifest,
                    "sha256": sha256,
                },
            )
            writer.advance(f"close {period}")
            detail = {"period": period, "timezone": timezone, "events": sets["events"].entries, "sha256": sha256}
            append_audit(writer, actor, "close", detail)
        return Close(seq, period, timezone, start, end, now, actor, manifest, sha256)

    def reopen(self, close: Close, *, actor: str, reason: str, now: datetime) -> None:
        """Reopen a month: its figures are again those the ledger has now, at the events' own times.

        Raises BadParameter: if it was reopened meanwhile, or another month was closed after it: that one holds what
        came late.
        """
        with self._engine.transaction() as writer:
            later = writer.rows("SELECT period, seq FROM closes WHERE reopened_at IS NULL AND seq >= ?", [close.seq])
            if close.seq not in {seq for _, seq in later}:
                raise BadParameter("period", close.period, "a month that is closed; somebody reopened it")
            if names := sorted(period for period, seq in later if seq > close.seq):
                raise BadParameter(
                    "period",
                    close.period,
                    f"the month that was closed last; {', '.join(names)} was closed after it and holds what came late: "
                    "reopen that one first",
                )
            seq = newest_booking(writer.rows) + 1
            changed = _back_to_their_time(writer, close, seq=seq, now=now, run_id=f"reopen {close.period}")
            note_changes(writer, seq, run_id=f"reopen {close.period}", now=now, changed=changed)
            values = {"seq": close.seq, "reopened_seq": seq, "reopened_at": now, "reopened_by": actor}
            writer.update("closes", {**values, "reopen_reason": reason}, key="seq")
            append_audit(writer, actor, "reopen", {"period": close.period, "reason": reason, "sha256": close.sha256})

    def sets_of(self, close: Close, columns: Collection[str] = HASHED_COLUMNS) -> dict[str, EntrySet]:
        """Counts and hashes of everything a close is proven by, as the ledger is now, over these columns of events."""
        return entry_sets(
            self._engine.rows,
            seq=close.seq,
            start=close.start,
            end=close.end,
            closed_at=close.closed_at,
            columns=columns,
        )

    def tampered(self, close: Close) -> list[TamperedEvent]:
        """Events of a closed month that are not as the close froze them."""
        return tampered(self._engine.rows, seq=close.seq, start=close.start, end=close.end)


_NAMES = ", ".join(f'"{column.name}"' for column in EVENT_COLUMNS)


def _back_to_their_time(writer: Writer, close: Close, *, seq: int, now: datetime, run_id: str) -> int:
    """Events of the month that were carried out of it count in it again; a revision says so. Returns how many.

    What another closed month says of an event stays said: such a one is a correction wherever it counts.
    """
    mine = """accounted_at IS NOT NULL AND "timestamp" >= ? AND "timestamp" < ? AND id NOT IN (
              SELECT f.id FROM closed_events f JOIN closes c ON c.seq = f.close_seq
              WHERE c.reopened_at IS NULL AND c.seq <> ?)"""
    window = [close.start, close.end, close.seq]
    writer.rows(
        f"""INSERT INTO event_revisions ({_NAMES}, superseded_seq, superseded_at, changed_columns)
            SELECT {_NAMES}, ?, ?, 'accounted_at' FROM events WHERE {mine}""",
        [seq, now, *window],
    )
    changed = int(writer.rows(f"SELECT count(*) FROM events WHERE {mine}", window)[0][0])
    writer.rows(
        f"""UPDATE events SET accounted_at = NULL, seq = ?, revision = revision + 1, booked_at = ?, run_id = ?
            WHERE {mine}""",
        [seq, now, run_id, *window],
    )
    return changed


def _close(row: tuple[Any, ...]) -> Close:
    seq, period, timezone, start, end, at, by, manifest, sha256, reopened_at, reopened_by, reason = row
    return Close(
        seq,
        period,
        timezone,
        start.replace(tzinfo=UTC),
        end.replace(tzinfo=UTC),
        at.replace(tzinfo=UTC),
        by,
        manifest,
        sha256,
        reopened_at and reopened_at.replace(tzinfo=UTC),
        reopened_by,
        reason,
    )
