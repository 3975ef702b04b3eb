"""The list of imports in the ledger: which file, who, when, result. One row and audit entry each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from billing_core.errors import NotFound
from billing_core.imports.model import FileKind, ImportOutcome, ImportPlan, ImportRecord
from billing_core.ledger.engine import Rows, Writer
from billing_core.ledger.imports import import_of, keep_import, newest_imports
from billing_core.ledger.imports import mark_undone as mark_import_undone
from billing_core.ledger.journal import append_audit


def keep(
    writer: Writer,
    import_id: str,
    plan: ImportPlan,
    outcome: ImportOutcome,
    *,
    actor: str,
    now: datetime,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Store an import in the list, with what `undo` needs to know of it in `more`."""
    counts = {
        "rows": plan.rows,
        "new": outcome.new,
        "changed": outcome.changed,
        "unchanged": outcome.unchanged,
        "rejected_rows": plan.rejected_rows,
    }
    zone = {} if plan.timezone is None else {"timezone": plan.timezone, "without_offset": plan.without_offset}
    row = {
        "id": import_id,
        "kind": plan.kind.value,
        "file_name": plan.file_name,
        "sha256": plan.sha256,
        "imported_at": now,
        "imported_by": actor,
    }
    keep_import(writer, row, {**counts, **zone, **(more or {})})
    detail = {"import": import_id, "kind": plan.kind.value, "file": plan.file_name, "sha256": plan.sha256}
    append_audit(writer, actor, "import", {**detail, **counts, **zone})


def newest(rows: Rows, limit: int) -> list[ImportRecord]:
    """The newest imports of the list, newest first."""
    return [_record(row) for row in newest_imports(rows, limit)]


def found(rows: Rows, import_id: str) -> ImportRecord:
    """The import with an id.

    Raises NotFound: if there is none of that id.
    """
    row = import_of(rows, import_id)
    if row is None:
        raise NotFound(f"import {import_id!r} is not known; the list of imports has the ids")
    return _record(row)


def result_of(rows: Rows, import_id: str) -> dict[str, Any]:
    """What was stored with an import for its undo."""
    row = import_of(rows, import_id)
    result: dict[str, Any] = {} if row is None else json.loads(row[4])
    return result


def mark_undone(writer: Writer, record: ImportRecord, *, actor: str, now: datetime, detail: Mapping[str, Any]) -> None:
    """Mark an import as undone in the list, with an audit entry."""
    mark_import_undone(writer, record.import_id, actor=actor, now=now)
    facts = {"import": record.import_id, "kind": record.kind.value, "file": record.file_name, **detail}
    append_audit(writer, actor, "import undone", facts)


def _record(row: tuple[Any, ...]) -> ImportRecord:
    import_id, kind, name, digest, result, at, by, undone_at, undone_by = row
    counts = json.loads(result)
    return ImportRecord(
        import_id,
        FileKind(kind),
        name,
        digest,
        counts["new"],
        counts["changed"],
        counts["unchanged"],
        counts["rejected_rows"],
        at.replace(tzinfo=UTC),
        by,
        undone_at and undone_at.replace(tzinfo=UTC),
        undone_by,
        counts.get("timezone"),
    )
