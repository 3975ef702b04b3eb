"""Statuses of events that were written back to Langfuse: the table `write_backs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import pyarrow as pa

from billing_core.ledger.engine import Engine
from billing_core.ledger.schema import times, utc
from billing_core.types import Flag


@dataclass(frozen=True, slots=True)
class ShownStatus:
    """The sync status of an event, to be shown at its trace in Langfuse. `timestamp` is its start, aware UTC."""

    event_id: str
    project_id: str | None
    timestamp: datetime
    environment: str | None
    status: str
    meter_event_identifier: str | None
    sync_error: str | None
    is_legacy: bool


def unshown_statuses(engine: Engine, limit: int) -> list[ShownStatus]:
    """Events that got somewhere since their status was last written back to Langfuse, oldest first."""
    query = f"""SELECT e.id, e.project_id, e.timestamp, e.environment, e.sync_status, e.meter_event_identifier,
                       e.sync_error, contains(e.flags, '{Flag.LEGACY_BILLED}')
                FROM events e ANTI JOIN write_backs w
                ON w.event_id = e.id AND w.status = CAST(e.sync_status AS VARCHAR)
                WHERE e.sync_status IN ('processed', 'confirmed', 'error') ORDER BY e.timestamp, e.id LIMIT ?"""
    return [ShownStatus(row[0], row[1], utc(row[2]), *row[3:]) for row in engine.rows(query, [limit])]


def remember_shown(engine: Engine, statuses: Mapping[str, str], *, at: datetime) -> None:
    """Store the status of events that was written back to Langfuse, in place of an earlier one."""
    ids = list(statuses)
    rows = {"event_id": ids, "status": list(statuses.values()), "written_at": times([at] * len(ids))}
    with engine.transaction() as writer:
        writer.rows("DELETE FROM write_backs WHERE event_id IN (SELECT unnest(?))", [ids])
        writer.append("write_backs", pa.table(rows))
