"""Anomalies that somebody marked as seen: one row per organization and day, every change in the audit log too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

from billing_core.ledger.engine import Engine, Writer
from billing_core.ledger.journal import append_audit

_THIS = "organization_id IS NOT DISTINCT FROM ? AND day = ?"

Key = tuple[str | None, date]
"""An organization (`None`: events that name none) and a day of the reporting timezone."""


@dataclass(frozen=True, slots=True)
class AnomalyMark:
    """A person's mark on an anomaly: the day's credits as they saw them, when (aware UTC), who, and what they noted."""

    credits: Decimal
    seen_at: datetime
    seen_by: str
    note: str


class AnomalyMarks:
    """The table of anomalies that somebody marked as seen, `anomaly_marks`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def all(self) -> Mapping[Key, AnomalyMark]:
        """Every mark on an anomaly, by organization and day, whoever may see it: callers filter by scope."""
        query = "SELECT organization_id, day, credits, seen_at, seen_by, note FROM anomaly_marks"
        return {
            (organization, date.fromisoformat(day)): AnomalyMark(held, at.replace(tzinfo=UTC), who, note)
            for organization, day, held, at, who, note in self._engine.rows(query)
        }

    def put(self, key: Key, mark: AnomalyMark) -> None:
        """Mark an anomaly as seen, in place of an earlier mark of the day, and tell the audit log."""
        organization, day = key
        with self._engine.transaction() as writer:
            self._delete(writer, key)
            writer.insert(
                "anomaly_marks",
                {
                    "organization_id": organization,
                    "day": day.isoformat(),
                    "credits": mark.credits,
                    "seen_at": mark.seen_at,
                    "seen_by": mark.seen_by,
                    "note": mark.note,
                },
            )
            detail = {"organization": organization, "day": day, "credits": mark.credits, "note": mark.note}
            append_audit(writer, mark.seen_by, "anomaly_seen", detail)

    def remove(self, key: Key, *, actor: str) -> bool:
        """Remove the mark of an anomaly; `False` if there was none."""
        with self._engine.transaction() as writer:
            if not self._delete(writer, key):
                return False
            append_audit(writer, actor, "anomaly_unseen", {"organization": key[0], "day": key[1]})
        return True

    def _delete(self, writer: Writer, key: Key) -> bool:
        values = [key[0], key[1].isoformat()]
        found = writer.rows(f"SELECT count(*) FROM anomaly_marks WHERE {_THIS}", values)[0][0]
        if found:
            writer.rows(f"DELETE FROM anomaly_marks WHERE {_THIS}", values)
        return bool(found)
