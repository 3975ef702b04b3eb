"""Texts of the import view. Pure: values in, plain text out; escape it before it becomes Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import reduce
from zoneinfo import ZoneInfo

from billing_core.imports.model import (
    FileKind,
    ImportPlan,
    ImportProgress,
    ImportRecord,
    ImportResult,
    OrganizationEffect,
    RejectedLine,
    UndoResult,
)
from billing_core.values.counts import count_of
from billing_core.values.decimals import EXACT
from components.exports.texts import size_text
from components.shared.formats import moment, signed_rounded, signed_usd

NO_IMPORTS = "Nothing has been imported yet."
UNDOING = "Undoing. This goes on even if you leave the page."
UNUSABLE = "This file cannot be used; nothing is imported."
WOULD_BE_SKIPPED = "rejected and would be skipped; the others can be imported."
NOT_UNTIL_CORRECTED = "rejected. Nothing is imported until they are corrected or skipped."
NO_EFFECT = "No totals change."
NO_ROWS = "This file has no rows: there is nothing to import."
NO_USABLE_ROWS = "All usable rows are already in the ledger."
NOTHING_NEW = "Everything in this file is already in the ledger: there is nothing to import."
NOTHING_HAPPENED = "everything was already in the ledger; nothing has changed."
ALL_OR_NOTHING = "All or nothing: refused if any of it was sent, has changed since or lies in a closed month."
FORM = (
    "Usage events as CSV, XLSX, JSON or Parquet, rate cards, the customer map, or a bundle: as they were exported. "
    "The kind of file is detected from its content. Nothing changes until you have seen a preview."
)
LIMITED = "Imports are for admins who may see every organization."
REJECTED = "Cannot be used; each with its reason below."
OUTDATED = "The ledger has changed since this preview. Preview again to see what the import would do now."
NEW = "Not in the ledger yet."
CHANGED = "In the ledger, but with other values."
UNCHANGED = "Already in the ledger with the same values; nothing happens to them."
IMPORTING = "Importing. This goes on even if you leave the page."

KIND_WORDS: Mapping[FileKind, str] = {
    FileKind.USAGE_EVENTS: "usage events",
    FileKind.RATE_CARD: "rate cards",
    FileKind.CUSTOMERS: "customer map",
    FileKind.BUNDLE: "bundle",
    FileKind.UNKNOWN: "not recognised",
}

_NOUNS: Mapping[FileKind, str] = {
    FileKind.USAGE_EVENTS: "event",
    FileKind.RATE_CARD: "card",
    FileKind.CUSTOMERS: "organization",
}

NOBODY = "No organization"


def _noun(kind: FileKind) -> str:
    return _NOUNS.get(kind, "row")


def file_text(plan: ImportPlan) -> str:
    """An uploaded file in one line: `october.csv: usage events, 1,234 rows, 1.5 MiB`."""
    return f"{plan.file_name}: {KIND_WORDS[plan.kind]}, {count_of(plan.rows, 'row')}, {size_text(plan.bytes)}"


def progress_text(progress: ImportProgress) -> str:
    """The progress of an import: `Comparing: 120,000 rows`."""
    return progress.doing if not progress.rows else f"{progress.doing}: {count_of(progress.rows, 'row')}"


def counts_text(new: int, changed: int, unchanged: int, rejected: int) -> str:
    """The counts of an import: `1,200 new, 3 changed, 0 unchanged`, and how many are rejected if any."""
    text = f"{new:,} new, {changed:,} changed, {unchanged:,} unchanged"
    return f"{text}, {rejected:,} rejected" if rejected else text


def rejected_text(plan: ImportPlan) -> str:
    """What the rejected rows mean for the import of the file."""
    found = count_of(plan.rejected_rows, "row") + (" is" if plan.rejected_rows == 1 else " are")
    if not plan.is_whole:
        return UNUSABLE
    if plan.skip_bad_rows:
        return f"{found} {WOULD_BE_SKIPPED}"
    return f"{found} {NOT_UNTIL_CORRECTED}"


def without_offset_text(plan: ImportPlan) -> str:
    """The question which timezone times without an offset are in."""
    found = plan.without_offset
    verb = "has" if found == 1 else "have"
    return f"{count_of(found, 'time')} in this file {verb} no UTC offset. Which timezone is the file in?"


def rejected_rows(rejected: Sequence[RejectedLine]) -> dict[str, list[str]]:
    """Rejected rows and their reasons as a table; row 0 is the header or the file as a whole."""
    return {
        "Row": [f"{one.row:,}" if one.row else "file" for one in rejected],
        "Field": [one.field for one in rejected],
        "Reason": [one.reason for one in rejected],
    }


def _added(values: Iterable[Decimal]) -> Decimal:
    return reduce(EXACT.add, values, Decimal(0))


def real_effects(effects: Sequence[OrganizationEffect]) -> tuple[OrganizationEffect, ...]:
    """The effects on organizations that change a sum: a name or a status alone changes none."""
    return tuple(one for one in effects if one.events or one.credits or one.amount_usd)


def effect_text(effects: Sequence[OrganizationEffect]) -> str:
    """All effects of an import together: `Totals change by +1,200 events, +180,000 credits, +$7.20 over 3
    organizations`.
    """
    effects = real_effects(effects)
    if not effects:
        return NO_EFFECT
    change = sum(one.events for one in effects)
    events = f"{signed_rounded(change)} {'event' if abs(change) == 1 else 'events'}"
    credits_, amount = _added(one.credits for one in effects), _added(one.amount_usd for one in effects)
    where = count_of(len(effects), "organization")
    return f"Totals change by {events}, {signed_rounded(credits_)} credits, {signed_usd(amount)} across {where}."


def effect_rows(effects: Sequence[OrganizationEffect]) -> dict[str, list[str]]:
    """The effects per organization as a table, the largest change of credits first, with signs."""
    ordered = sorted(effects, key=lambda one: (-abs(one.credits), one.organization_id or ""))
    return {
        "Organization": [one.organization_id or NOBODY for one in ordered],
        "Events": [signed_rounded(one.events) for one in ordered],
        "Credits": [signed_rounded(one.credits) for one in ordered],
        "Amount (USD)": [signed_usd(one.amount_usd) for one in ordered],
    }


def part_rows(parts: Sequence[ImportPlan]) -> dict[str, list[str]]:
    """The files of a bundle as a table, in the order in which they are imported."""
    return {
        "File": [part.file_name for part in parts],
        "Kind": [KIND_WORDS[part.kind] for part in parts],
        "New": [f"{part.outcome.new:,}" for part in parts],
        "Changed": [f"{part.outcome.changed:,}" for part in parts],
        "Unchanged": [f"{part.outcome.unchanged:,}" for part in parts],
        "Rejected": [f"{part.rejected_rows:,}" for part in parts],
    }


def nothing_to_do_text(plan: ImportPlan) -> str:
    """Why there is nothing to import."""
    if not plan.rows:
        return NO_ROWS
    if plan.rejected_rows:
        return NO_USABLE_ROWS
    return NOTHING_NEW


def confirm_label(plan: ImportPlan) -> str:
    """The label of the button that imports: `Import 1,200 new and 3 changed events`."""
    outcome, noun = plan.outcome, _noun(plan.kind)
    if not outcome.changed:
        return f"Import {outcome.new:,} new {noun}{'' if outcome.new == 1 else 's'}"
    if not outcome.new:
        return f"Import {outcome.changed:,} changed {noun}{'' if outcome.changed == 1 else 's'}"
    return f"Import {outcome.new:,} new and {outcome.changed:,} changed {noun}s"


def applied_text(result: ImportResult) -> str:
    """The result of an import, in a sentence."""
    outcome = result.outcome
    if not result.plan.rows:
        return f"{result.plan.file_name}: the file has no rows; nothing has changed."
    if not result.import_ids:
        return f"{result.plan.file_name}: {NOTHING_HAPPENED}"
    said = counts_text(outcome.new, outcome.changed, outcome.unchanged, result.plan.rejected_rows)
    return f"Imported {result.plan.file_name}: {said}. It can be undone below."


def refused_text(plan: ImportPlan, reason: str) -> str:
    """Why an import failed. A bundle's files are imported one after another: some may stand."""
    if plan.kind is FileKind.BUNDLE:
        return f"Import not completed: {reason} What was imported before that is in the list below."
    return f"Not imported, nothing has changed: {reason}"


# ── earlier imports ──────────────────────────────────────────────────────────────────────────────


def record_rows(records: Sequence[ImportRecord], zone: ZoneInfo) -> dict[str, list[str]]:
    """Earlier imports as a table, in the order given: newest first."""
    return {
        f"Imported ({zone.key})": [moment(one.imported_at, zone) for one in records],
        "By": [one.imported_by for one in records],
        "File": [one.file_name for one in records],
        "Kind": [KIND_WORDS[one.kind] for one in records],
        "New": [f"{one.new:,}" for one in records],
        "Changed": [f"{one.changed:,}" for one in records],
        "Unchanged": [f"{one.unchanged:,}" for one in records],
        "Rejected": [f"{one.rejected_rows:,}" for one in records],
        "Undone": [
            "" if one.undone_at is None else f"{moment(one.undone_at, zone)} by {one.undone_by}" for one in records
        ],
        "Times read as": [one.timezone or "" for one in records],
        "SHA-256": [one.sha256 for one in records],
    }


def record_label(record: ImportRecord, zone: ZoneInfo) -> str:
    """An earlier import in one line: `october.csv, 2026-11-22 14:05:09: 1,200 new, 3 changed`."""
    return f"{record.file_name}, {moment(record.imported_at, zone)}: {record.new:,} new, {record.changed:,} changed"


def undo_text(record: ImportRecord) -> str:
    """What undoing an import would do."""
    noun = _noun(record.kind)
    parts = []
    if record.new:
        parts.append(f"{count_of(record.new, noun)} added by it would be removed")
    if record.changed:
        parts.append(f"{count_of(record.changed, noun)} it changed would be restored")
    what = " and ".join(parts) if parts else "nothing would change"
    return f"{what[0].upper()}{what[1:]}. {ALL_OR_NOTHING}"


def undone_text(done: UndoResult, file_name: str) -> str:
    """What undoing an import did."""
    noun = _noun(done.kind)
    removed, restored = count_of(done.removed, noun), count_of(done.restored, noun)
    return f"Undone {file_name}: {removed} removed, {restored} restored. History keeps their earlier state."
