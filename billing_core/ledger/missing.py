"""Events whose trace Langfuse no longer has: the mark `missing_at_source`, put on and taken off by pulls.

A mark changes no figure and nothing that was sent, and the copies of closed months stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from billing_core.ledger.compiled import Bound, ask, bound_text, bound_time
from billing_core.ledger.engine import Engine, Writer
from billing_core.ledger.schema import IMPORT_RUN, events_table, with_mark, without_mark
from billing_core.types import Flag
from billing_core.values.usage_frame import Window

SEEN = pa.schema([pa.field("id", pa.string())])


def unseen_events(engine: Engine, window: Window, project_id: str | None, seen: pa.Table) -> dict[str, bool]:
    """Events of a project and window whose traces a read of Langfuse did not find → whether they are marked as missing
    already.

    What an import booked last is not asked for: the ledger cannot know whether this Langfuse ever had it.
    """
    project = None if project_id is None else bound_text(project_id)
    question = ask(_unseen, bound_time(window.start), bound_time(window.end), project)
    rows = engine.read(question, {"seen_traces": seen.select(["id"]).cast(SEEN)}).to_pylist()
    return {row["id"]: is_marked(row["marks"]) for row in rows}


def _unseen(start: Bound, end: Bound, project: Bound | None) -> ir.Table:
    e = events_table()
    inside = e.filter(
        e.timestamp >= start.scalar,
        e.timestamp < end.scalar,
        ~e.run_id.startswith(IMPORT_RUN),
        e.project_id.isnull() if project is None else e.project_id == project.scalar,
    )
    return inside.anti_join(ibis.table({"id": "string"}, name="seen_traces"), "id").select("id", "marks")


def mark_missing(writer: Writer, missing: Sequence[str], seen: pa.Table, *, run_id: str) -> None:
    """Mark events as missing in Langfuse, unmark those found again; a booking number if any changed."""
    mark = Flag.MISSING_AT_SOURCE.value
    marked = dict(writer.rows(f"SELECT id, marks FROM events WHERE contains(marks, '{mark}')"))
    back = [] if not marked else [event_id for event_id in seen["id"].to_pylist() if event_id in marked]
    query = "SELECT id, marks FROM events WHERE id IN (SELECT unnest(?))"
    gone = [] if not missing else writer.rows(query, [list(missing)])
    changed = {event_id: with_mark(marks or "", mark) for event_id, marks in gone if event_id not in marked}
    changed |= {event_id: without_mark(marked[event_id], mark) for event_id in back}
    if not changed:
        return
    rows = {"id": pa.array(changed, pa.string()), "marks": pa.array(changed.values(), pa.string())}
    writer.amend("events", pa.table(rows), key="id")
    writer.advance(run_id)


def is_marked(marks: str | None) -> bool:
    """Whether an event's marks say that its trace is missing in Langfuse."""
    return Flag.MISSING_AT_SOURCE.value in (marks or "").split(",")
