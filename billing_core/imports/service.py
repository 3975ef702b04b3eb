"""Imports: examine a file, preview what it would do, apply it in one transaction, undo it. Part of `BillingService`.

An import decides about bills of everybody: it needs an admin without limits. Applying the same file twice changes
nothing the second time, and leaves no second trace.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from zoneinfo import ZoneInfo

from billing_core.access import Principal, Role
from billing_core.errors import BadParameter
from billing_core.imports import history
from billing_core.imports.bounds import Unusable
from billing_core.imports.bundle import unpack
from billing_core.imports.cards import ReadCards, decide, read_cards
from billing_core.imports.customers import read_map
from billing_core.imports.detection import File, detect_file
from billing_core.imports.events import StagedEvents, book, compare, needed_cards, run_of, stage
from billing_core.imports.model import (
    MOST_LISTED,
    FileKind,
    ImportOutcome,
    ImportPlan,
    ImportProgress,
    ImportRecord,
    ImportResult,
    OrganizationEffect,
    RejectedLine,
    UndoResult,
)
from billing_core.imports.temp_folder import Scratch
from billing_core.imports.undo import as_before, undo_cards, undo_events
from billing_core.imports.warnings import warnings_of
from billing_core.ledger.active_cards import keep_import
from billing_core.ledger.directory import DirectoryStore, newest_line
from billing_core.ledger.engine import Writer
from billing_core.ledger.journal import Ledger, claim, events_naming, fingerprints, register_cards
from billing_core.organizations.directory import Directory
from billing_core.organizations.directory import DirectoryPreview as MapPreview
from billing_core.rating.card import RateCard, RateCardFile
from billing_core.rating.events import Policy
from billing_core.runtime.clock import Clock, now
from billing_core.settings import Settings
from billing_core.values.usage_frame import zone_named

Progress = Callable[[ImportProgress], None]
Cards = Callable[[], RateCardFile]

LOOKED, CHECKED = 0.2, 0.7
"""Where the parts of a dry run end, as fractions of the whole."""

_WHY = "a file may bring usage and customers of everybody"
_AGAIN = "a plan that is still valid; the ledger has changed since, or it was already applied: preview the file again"


@dataclass(frozen=True, slots=True)
class _Events:
    """What booking events needs: the rows on disk, and the cards they name."""

    staged: StagedEvents
    cards: Mapping[str, RateCard]


@dataclass(frozen=True, slots=True)
class _Asked:
    """How a file is to be read: whether bad rows may be left out, and whose times are those without an offset."""

    skip_bad_rows: bool
    zone: ZoneInfo | None


class ImportService:
    """What people can do with imports, for one principal per call. Thread-safe."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        cards: Cards,
        directory: Directory,
        policy: Callable[[], Policy],
        clock: Clock = now,
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._cards = cards
        self._directory = directory
        self._policy = policy
        self._clock = clock

    # ── asking ───────────────────────────────────────────────────────────────────────────────────

    def plan(
        self,
        path: Path,
        principal: Principal,
        *,
        name: str | None = None,
        skip_bad_rows: bool = False,
        timezone: str | None = None,
        progress: Progress | None = None,
    ) -> ImportPlan:
        """A dry run: what a file is and what importing it would do; nothing is changed.

        name: What people call the file, if it lies under another name.
        timezone: IANA name of where the file's times without an offset were read off a clock; without it they are
            rejected.

        Raises AccessDenied: unless the principal is an admin without limits. BadParameter: if the file cannot be
        opened, or there is no such timezone. Whatever is wrong inside is in the plan.
        """
        _allow(principal)
        how = _Asked(skip_bad_rows, None if timezone is None else zone_named("timezone", timezone))
        size = max(path.stat().st_size, 1) if path.is_file() else 1

        def on_bytes_read(read: int) -> None:
            if progress is not None:
                progress(ImportProgress(LOOKED * min(read / size, 1), 0, "reading"))

        file, fault = detect_file(path, name, on_bytes_read)
        made = self._plan(file, fault, how, progress, {})
        if progress is not None:
            progress(ImportProgress(1.0, made.rows, "compared with the ledger"))
        return made

    def imports(self, principal: Principal, limit: int = 100) -> list[ImportRecord]:
        """The newest imports, newest first, undone ones included.

        Raises AccessDenied: unless the principal is an admin without limits.
        """
        _allow(principal)
        return history.newest(self._ledger.engine.rows, limit)

    # ── doing ────────────────────────────────────────────────────────────────────────────────────

    def apply(self, plan: ImportPlan, principal: Principal, progress: Progress | None = None) -> ImportResult:
        """Import what a plan says, in one transaction; of a bundle its parts one after the other, each in one.

        Killed anywhere, a part is there whole or not at all; importing the bundle once more does the rest.

        Raises AccessDenied: unless the principal is an admin without limits. BadParameter: if rows are rejected and may
        not be skipped, or if the plan holds no longer: nothing was changed.
        """
        _allow(principal)
        _refuse_faulty(plan)
        if plan.kind is FileKind.BUNDLE:
            return self._apply_bundle(plan, principal, progress)
        return self._apply(plan, principal, progress, must_hold=True)

    def undo(self, import_id: str, principal: Principal) -> UndoResult:
        """Undo an import as a whole, as one revision.

        Raises AccessDenied: unless the principal is an admin without limits. NotFound: if there is no such import.
        BadParameter: if it was taken back already, or something was built on it since: how many, and what.
        """
        _allow(principal)
        record = history.found(self._ledger.engine.rows, import_id)
        if record.kind is FileKind.CUSTOMERS:
            return self._undo_map(record, principal)
        now = self._clock()
        with self._ledger.engine.transaction() as writer:
            record = _undoable(writer, import_id)
            if record.kind is FileKind.RATE_CARD:
                removed, restored = undo_cards(writer, record, now=now), 0
            else:
                removed, restored = undo_events(writer, record, now=now)
            detail = {"removed": removed, "restored": restored}
            history.mark_undone(writer, record, actor=principal.name, now=now, detail=detail)
        return UndoResult(import_id, record.kind, removed, restored)

    # ── plans ────────────────────────────────────────────────────────────────────────────────────

    def _plan(
        self, file: File, fault: str | None, how: _Asked, progress: Progress | None, imported: Mapping[str, RateCard]
    ) -> ImportPlan:
        """`imported` are cards that are imported before this file."""
        empty = ImportPlan(
            file.kind, file.name, file.sha256, file.bytes, columns=file.header, skip_bad_rows=how.skip_bad_rows
        )
        if fault is not None:
            return _refused(empty, RejectedLine(0, "file", fault))
        match file.kind:
            case FileKind.USAGE_EVENTS:
                return self._plan_events(file, empty, how.zone, progress, imported)
            case FileKind.RATE_CARD:
                return self._plan_cards(file, empty)
            case FileKind.CUSTOMERS:
                return self._plan_map(file, empty)
            case _:
                return self._plan_bundle(file, empty, how, progress)

    def _plan_events(
        self,
        file: File,
        empty: ImportPlan,
        zone: ZoneInfo | None,
        progress: Progress | None,
        imported: Mapping[str, RateCard],
    ) -> ImportPlan:
        cards = {**imported, **self._known_cards()}

        def on_progress(at: ImportProgress) -> None:
            if progress is not None:
                progress(replace(at, fraction=LOOKED))

        not_billed = self._settings.langfuse_excluded_environments
        staged = stage(file, cards, zone, self._clock(), on_progress, not_billed=not_billed)
        made = replace(
            empty,
            rows=staged.rows,
            columns=staged.header,
            rejected=tuple(staged.rejected),
            rejected_rows=staged.rejected_rows,
            is_whole=staged.is_whole,
            without_offset=staged.without_offset,
            timezone=None if zone is None else zone.key,
            content=_Events(staged, cards),
        )
        if not made.is_whole:
            return made
        if progress is not None:
            progress(ImportProgress(CHECKED, staged.rows, "comparing with the ledger"))
        found = compare(staged, self._ledger.engine, self._cards(), self._ledger.snapshot().closed)
        policy = self._policy()
        override = policy.default_customer_id if policy.overrides else None
        warnings = tuple(warnings_of(staged, found, zone, override))
        return replace(made, outcome=found.outcome(), warnings=warnings)

    def _plan_cards(self, file: File, empty: ImportPlan) -> ImportPlan:
        read = read_cards(file)
        if not read.rejected:
            read, outcome = decide(self._cards(), read, self._named(read))
        else:
            outcome = ImportOutcome()
        return replace(
            empty,
            rows=read.rows,
            columns=read.header,
            outcome=outcome,
            rejected=read.rejected[:MOST_LISTED],
            rejected_rows=len({one.row for one in read.rejected}),
            is_whole=not read.rejected,
            content=read,
            warnings=_CARD_WARNINGS if outcome.changes else (),
        )

    def _plan_map(self, file: File, empty: ImportPlan) -> ImportPlan:
        read = read_map(file, skip_bad_rows=empty.skip_bad_rows)
        made = replace(
            empty,
            rows=read.rows,
            columns=read.header,
            rejected=read.rejected[:MOST_LISTED],
            rejected_rows=len({one.row for one in read.rejected}),
            is_whole=read.is_whole,
        )
        if not made.can_apply or read.parsed is None:
            return made
        preview = self._directory.preview(_SOMEBODY, read.parsed)
        new = sum(step.is_new for step in preview.steps)
        outcome = ImportOutcome(new, len(preview.steps) - new, preview.unchanged)
        return replace(made, outcome=outcome, content=preview, warnings=tuple(_map_warnings(preview)))

    def _plan_bundle(self, file: File, empty: ImportPlan, how: _Asked, progress: Progress | None) -> ImportPlan:
        parts: list[ImportPlan] = []
        imported: dict[str, RateCard] = {}
        try:
            with Scratch() as folder:
                for part, fault in unpack(file, folder / "members"):
                    made = self._plan(part, fault, how, progress, imported)
                    parts.append(made)
                    if isinstance(made.content, ReadCards) and made.can_apply:
                        cards = (*made.content.retired, *made.content.imported.cards)
                        imported |= {card.id: card for card in cards}
        except Unusable as whole:
            return _refused(empty, RejectedLine(whole.row, whole.field, whole.reason))
        names = [part.file_name.removeprefix(f"{file.name}: ") for part in parts]
        rejected = [
            replace(one, field=f"{name}: {one.field}")
            for name, part in zip(names, parts, strict=True)
            for one in part.rejected
        ]
        return replace(
            empty,
            rows=sum(part.rows for part in parts),
            outcome=_together([part.outcome for part in parts]),
            timezone=None if how.zone is None else how.zone.key,
            columns=tuple(names),
            rejected=tuple(rejected[:MOST_LISTED]),
            rejected_rows=sum(part.rejected_rows for part in parts),
            is_whole=all(part.is_whole for part in parts),
            without_offset=sum(part.without_offset for part in parts),
            warnings=tuple(warning for part in parts for warning in part.warnings),
            parts=tuple(parts),
        )

    # ── applying ─────────────────────────────────────────────────────────────────────────────────

    def _apply(
        self, plan: ImportPlan, principal: Principal, progress: Progress | None, *, must_hold: bool
    ) -> ImportResult:
        match plan.kind:
            case FileKind.USAGE_EVENTS:
                return self._apply_events(plan, principal, progress, must_hold=must_hold)
            case FileKind.RATE_CARD:
                return self._apply_cards(plan, principal)
            case _:
                return self._apply_map(plan, principal)

    def _apply_events(
        self, plan: ImportPlan, principal: Principal, progress: Progress | None, *, must_hold: bool
    ) -> ImportResult:
        content: _Events = plan.content
        if not content.staged.stage.exists():
            raise BadParameter("plan", plan.file_name, "a plan whose temporary files are still there: preview it again")
        import_id, now = uuid.uuid4().hex, self._clock()
        with self._ledger.engine.transaction() as writer:
            found = book(content.staged, writer, self._cards(), import_id, now, progress)
            outcome = found.outcome()
            if must_hold and outcome != plan.outcome:
                raise BadParameter("plan", plan.file_name, _AGAIN)
            if outcome.changes:
                claim(writer, self._settings.mode)
                register_cards(writer, needed_cards(content.staged, content.cards), actor=principal.name)
                history.keep(writer, import_id, plan, outcome, actor=principal.name, now=now)
        return ImportResult(plan, outcome, (import_id,) if outcome.changes else ())

    def _apply_cards(self, plan: ImportPlan, principal: Principal) -> ImportResult:
        read: ReadCards = plan.content
        import_id, now = uuid.uuid4().hex, self._clock()
        if not plan.outcome.changes:
            return ImportResult(plan, plan.outcome, ())
        with self._ledger.engine.transaction() as writer:
            decided, outcome = decide(self._cards(), read, self._named(read, writer))
            if decided.rejected or outcome.changes != plan.outcome.changes:
                raise BadParameter("plan", plan.file_name, _AGAIN)
            register_cards(writer, (*read.retired, *read.imported.cards), actor=principal.name)
            keep_import(writer, import_id, read.imported, actor=principal.name, now=now)
            writer.advance(run_of(import_id))
            history.keep(writer, import_id, plan, plan.outcome, actor=principal.name, now=now)
        return ImportResult(plan, plan.outcome, (import_id,))

    def _apply_map(self, plan: ImportPlan, principal: Principal) -> ImportResult:
        preview: MapPreview = plan.content
        import_id, now, count = uuid.uuid4().hex, self._clock(), len(preview.steps)
        if not count:
            return ImportResult(plan, plan.outcome, ())

        def also(writer: Writer) -> None:
            last = newest_line(writer.rows)
            lines = {"first_line": last - count + 1, "last_line": last}
            history.keep(writer, import_id, plan, plan.outcome, actor=principal.name, now=now, more=lines)

        self._directory.apply(principal, preview, also)
        return ImportResult(plan, plan.outcome, (import_id,))

    def _apply_bundle(self, plan: ImportPlan, principal: Principal, progress: Progress | None) -> ImportResult:
        """Each part in its own transaction. That the plan holds is checked before the first: the later ones see what
        the earlier ones did, so that their counts may differ from what was planned apart from each other."""
        closed = self._ledger.snapshot().closed
        for part in plan.parts:
            if isinstance(part.content, _Events):
                staged = part.content.staged
                if not staged.stage.exists():
                    raise BadParameter("plan", plan.file_name, _AGAIN)
                if compare(staged, self._ledger.engine, self._cards(), closed).outcome() != part.outcome:
                    raise BadParameter("plan", plan.file_name, _AGAIN)
        done = tuple(self._apply(part, principal, progress, must_hold=False) for part in plan.parts)
        ids = tuple(one for part in done for one in part.import_ids)
        return ImportResult(plan, _together([part.outcome for part in done]), ids, done)

    # ── taking back ──────────────────────────────────────────────────────────────────────────────

    def _undo_map(self, record: ImportRecord, principal: Principal) -> UndoResult:
        _refuse_undone(record)
        book = DirectoryStore(self._ledger.engine)
        lines = history.result_of(self._ledger.engine.rows, record.import_id)
        written = book.between(lines["first_line"], lines["last_line"])
        changes = as_before(written, book.newest(), record)
        preview = self._directory.preview(principal, changes, source="import")
        removed = sum(change.name == "" and change.customer_id == "" for change in changes)
        restored = len(changes) - removed

        def also(writer: Writer) -> None:
            standing = _undoable(writer, record.import_id)
            detail = {"removed": removed, "restored": restored}
            history.mark_undone(writer, standing, actor=principal.name, now=self._clock(), detail=detail)

        self._directory.apply(principal, preview, also)
        return UndoResult(record.import_id, record.kind, removed, restored)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _known_cards(self) -> dict[str, RateCard]:
        """Every card by id: as events were rated with it, else as it applies now."""
        applying = {card.id: card for card in self._cards().cards}
        return applying | self._ledger.registered_cards()

    def _named(self, read: ReadCards, writer: Writer | None = None) -> dict[str, int]:
        """Cards of a file that events were rated with under other content: id → how many."""
        rows = self._ledger.engine.rows if writer is None else writer.rows
        known = fingerprints(rows)
        other = [card for card in read.imported.cards if known.get(card.id, card.fingerprint()) != card.fingerprint()]
        return {card.id: count for card in other if (count := events_naming(rows, card.id))}


_SOMEBODY = Principal("import", Role.ADMIN)
"""Who previews a map once it is known that whoever asks may: a preview looks the same to all of those."""

_CARD_WARNINGS = (
    "Events in the ledger keep the card they were rated with; the new cards apply to usage pulled from now on.",
)


def _allow(principal: Principal) -> None:
    principal.require(Role.ADMIN)
    principal.require_everything(_WHY)


def _refused(plan: ImportPlan, reason: RejectedLine) -> ImportPlan:
    return replace(plan, rejected=(reason,), rejected_rows=1, is_whole=False)


def _refuse_faulty(plan: ImportPlan) -> None:
    if plan.can_apply:
        return
    first = plan.rejected[0]
    place = "the file" if first.row == 0 else f"row {first.row:,}"
    accepted = "a file without errors" if not plan.is_whole else "a file without errors, or --skip-bad-rows"
    raise BadParameter(
        "file",
        plan.file_name,
        f"{accepted}; {plan.rejected_rows:,} cannot be used, the first is {place}, {first.field}: {first.reason}",
    )


def _undoable(writer: Writer, import_id: str) -> ImportRecord:
    record = history.found(writer.rows, import_id)
    _refuse_undone(record)
    return record


def _refuse_undone(record: ImportRecord) -> None:
    if record.undone_at is not None:
        raise BadParameter(
            "import",
            record.import_id,
            f"an import that was not undone; {record.undone_by} undid this one at {record.undone_at:%Y-%m-%d %H:%M} "
            "UTC",
        )


def _map_warnings(preview: MapPreview) -> list[str]:
    notes = list(preview.notes)
    if preview.moved.events:
        notes.append(f"{preview.moved.events:,} unsent events move to another customer with the lines that change.")
    return notes + [f"{step.organization_id}: {text}" for step in preview.steps for text in step.warnings][:MOST_LISTED]


def _together(outcomes: list[ImportOutcome]) -> ImportOutcome:
    effects: tuple[OrganizationEffect, ...] = tuple(effect for outcome in outcomes for effect in outcome.organizations)
    return ImportOutcome(
        sum(one.new for one in outcomes),
        sum(one.changed for one in outcomes),
        sum(one.unchanged for one in outcomes),
        effects,
    )
