"""The imports the ledger remembers: what came, from which file, what became of it. One row and audit entry each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from billing_core.errors import NotFound
from billing_core.imports.model import FileKind, ImportOutcome, ImportPlan, ImportRecord
from billing_core.ledger.engine import Rows, Writer
from billing_core.ledger.journal import append_audit

__all__ = ["found", "keep", "mark_undone", "newest", "result_of"]

_COLUMNS = "id, kind, file_name, sha256, result, imported_at, imported_by, undone_at, undone_by"


def keep(
    writer: Writer, import_id: str, plan: ImportPlan, outcome: ImportOutcome, *, actor: str, now: datetime,
    more: Mapping[str, Any] | None = None,
) -> None:  # fmt: skip
    """Write an import down, with what `undo` needs to know of it in `more`."""
    counts = {
        "rows": plan.rows, "new": outcome.new, "changed": outcome.changed, "unchanged": outcome.unchanged,
        "rejected_rows": plan.rejected_rows,
    }  # fmt: skip
    zone = {} if plan.timezone is None else {"timezone": plan.timezone, "without_offset": plan.without_offset}
    seq = writer.rows("SELECT coalesce(max(seq), 0) FROM bookings")[0][0]
    writer.insert(
        "imports",
        {
            "id": import_id, "kind": plan.kind.value, "file_name": plan.file_name, "sha256": plan.sha256, "seq": seq,
            "imported_at": now, "imported_by": actor, "result": json.dumps({**counts, **zone, **(more or {})}),
        },
    )  # fmt: skip
    detail = {"import": import_id, "kind": plan.kind.value, "file": plan.file_name, "sha256": plan.sha256}
    append_audit(writer, actor, "import", {**detail, **counts, **zone})


def newest(rows: Rows, limit: int) -> list[ImportRecord]:
    """The newest first."""
    query = f"SELECT {_COLUMNS} FROM imports ORDER BY imported_at DESC, seq DESC, id LIMIT ?"
    return [_record(row) for row in rows(query, [limit])]


def found(rows: Rows, import_id: str) -> ImportRecord:
    """One import.

    Raises
    ------
    NotFound
        If there is none of that id.
    """
    known = rows(f"SELECT {_COLUMNS} FROM imports WHERE id = ?", [import_id])
    if not known:
        raise NotFound(f"import {import_id!r} is not known; the list of imports has the ids")
    return _record(known[0])


def result_of(rows: Rows, import_id: str) -> dict[str, Any]:
    """What was written down with it."""
    text = rows("SELECT result FROM imports WHERE id = ?", [import_id])[0][0]
    result: dict[str, Any] = json.loads(text)
    return result


def mark_undone(writer: Writer, record: ImportRecord, *, actor: str, now: datetime, detail: Mapping[str, Any]) -> None:
    """It was taken back."""
    seq = writer.rows("SELECT coalesce(max(seq), 0) FROM bookings")[0][0]
    writer.update(
        "imports", {"id": record.import_id, "undone_seq": seq, "undone_at": now, "undone_by": actor}, key="id"
    )
    facts = {"import": record.import_id, "kind": record.kind.value, "file": record.file_name, **detail}
    append_audit(writer, actor, "import undone", facts)


def _record(row: tuple[Any, ...]) -> ImportRecord:
    import_id, kind, name, digest, result, at, by, undone_at, undone_by = row
    counts = json.loads(result)
    return ImportRecord(
        import_id, FileKind(kind), name, digest, counts["new"], counts["changed"], counts["unchanged"],
        counts["rejected_rows"], at.replace(tzinfo=UTC), by, undone_at and undone_at.replace(tzinfo=UTC), undone_by,
        counts.get("timezone"),
    )  # fmt: skip
