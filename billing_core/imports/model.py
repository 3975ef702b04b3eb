"""The data classes of imports: kinds of files, plan, result, record. Light: pages import it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from billing_core.types import plain_decimal, utc_text

MOST_LISTED = 1000
"""Rejections that are listed; how many rows are rejected in all is counted beyond it."""


class FileKind(StrEnum):
    """What an imported file holds (CONTRACT section 3, `import`)."""

    USAGE_EVENTS = "usage-events"
    RATE_CARD = "rate-card"
    CUSTOMERS = "customers"
    BUNDLE = "bundle"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class RejectedLine:
    """A row of an imported file that cannot be used, and why. `row` 1 is the first row of data; 0 is the header, or the
    file as a whole.
    """

    row: int
    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class OrganizationEffect:
    """How an import changes an organization's sums: new minus old, exact; `None` is usage that names none."""

    organization_id: str | None
    events: int
    credits: Decimal
    amount_usd: Decimal


@dataclass(frozen=True, slots=True)
class ImportOutcome:
    """What an import does to the ledger: counts of rows by what becomes of them, and whose sums change."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    organizations: tuple[OrganizationEffect, ...] = ()

    @property
    def changes(self) -> int:
        """How many rows of the file the ledger does not have as they are."""
        return self.new + self.changed


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """The progress of an import: how far from 0 to 1, rows so far, and what is done now."""

    fraction: float
    rows: int
    doing: str


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """The dry run of an import: what a file is and what importing it would do. Nothing is changed.

    columns: The names in the file's header, as they stand there.
    rejected, rejected_rows: At most `MOST_LISTED` reasons, in the order of the file, and how many rows are rejected in
        all.
    is_whole: Whether the file could be read to its end; one that could not is never imported, not even in parts.
    without_offset: Times in the file that do not say how far they are from UTC: they are rejected unless their timezone
        is named.
    timezone: Whose wall clock those times are read from, an IANA name; null if nobody named one.
    parts: Of a bundle: the plan of each file in it, in the order in which they are imported.
    content: What `apply` needs; it holds the rows on disk until the plan is let go.
    """

    kind: FileKind
    file_name: str
    sha256: str
    bytes: int
    rows: int = 0
    outcome: ImportOutcome = ImportOutcome()
    columns: tuple[str, ...] = ()
    rejected: tuple[RejectedLine, ...] = ()
    rejected_rows: int = 0
    warnings: tuple[str, ...] = ()
    skip_bad_rows: bool = False
    is_whole: bool = True
    without_offset: int = 0
    timezone: str | None = None
    parts: tuple[ImportPlan, ...] = ()
    content: Any = field(default=None, repr=False, compare=False)

    @property
    def can_apply(self) -> bool:
        """Whether the import may be applied: no row is rejected, or rejected ones may be skipped."""
        return self.is_whole and (self.skip_bad_rows or not self.rejected_rows)

    def to_json(self) -> dict[str, Any]:
        """The published document (CONTRACT section 3, `import`)."""
        found = {
            "kind": self.kind.value,
            "file": self.file_name,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "columns": list(self.columns),
            **_counts(self.rows, self.outcome),
            **_rejections(self.rejected, self.rejected_rows),
            "warnings": list(self.warnings),
            "timezone": self.timezone,
        }
        return {**found, "parts": [part.to_json() for part in self.parts]} if self.parts else found


@dataclass(frozen=True, slots=True)
class ImportResult:
    """The result of an import. `import_ids` name what `undo` takes back, none if everything was there already."""

    plan: ImportPlan
    outcome: ImportOutcome
    import_ids: tuple[str, ...]
    parts: tuple[ImportResult, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The published document (CONTRACT section 3, `import`)."""
        found = {**self.plan.to_json(), **_counts(self.plan.rows, self.outcome), "import_ids": list(self.import_ids)}
        return {**found, "parts": [part.to_json() for part in self.parts]} if self.parts else found


@dataclass(frozen=True, slots=True)
class ImportRecord:
    """One import in the list of imports; times are aware UTC, `undone_at` is null while it is in force.

    `timezone` is the one that was named for times without an offset, null if none was.
    """

    import_id: str
    kind: FileKind
    file_name: str
    sha256: str
    new: int
    changed: int
    unchanged: int
    rejected_rows: int
    imported_at: datetime
    imported_by: str
    undone_at: datetime | None = None
    undone_by: str | None = None
    timezone: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The JSON document of one line of the list of imports."""
        return {
            "import_id": self.import_id,
            "kind": self.kind.value,
            "file": self.file_name,
            "sha256": self.sha256,
            "new": self.new,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "rejected_rows": self.rejected_rows,
            "imported_at": utc_text(self.imported_at),
            "imported_by": self.imported_by,
            "undone_at": None if self.undone_at is None else utc_text(self.undone_at),
            "undone_by": self.undone_by,
            "timezone": self.timezone,
        }


@dataclass(frozen=True, slots=True)
class UndoResult:
    """The result of an undo, in events, lines of the map or cards: how many were removed, and how many restored."""

    import_id: str
    kind: FileKind
    removed: int
    restored: int

    def to_json(self) -> dict[str, Any]:
        """The JSON document of an undo."""
        return {
            "import_id": self.import_id,
            "kind": self.kind.value,
            "removed": self.removed,
            "restored": self.restored,
        }


def _counts(rows: int, outcome: ImportOutcome) -> dict[str, Any]:
    return {
        "rows": rows,
        "new": outcome.new,
        "changed": outcome.changed,
        "unchanged": outcome.unchanged,
        "organizations": [_effect(one) for one in outcome.organizations],
    }


def _effect(effect: OrganizationEffect) -> Mapping[str, Any]:
    return {
        "organization_id": effect.organization_id,
        "events": effect.events,
        "credits": plain_decimal(effect.credits),
        "amount_usd": plain_decimal(effect.amount_usd),
    }


def _rejections(rejected: Sequence[RejectedLine], rows: int) -> dict[str, Any]:
    return {
        "rejected": [{"row": one.row, "field": one.field, "reason": one.reason} for one in rejected],
        "rejected_rows": rows,
    }
