"""Imports usage events from a file: read and checked into a stage, compared with the ledger, booked.

The comparison is the same before and inside the transaction that books: what `apply` does is what the plan said, or
nothing at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.imports.bounds import Unusable
from billing_core.imports.detection import EXTRA_FIELDS, File, Form, without_helpers
from billing_core.imports.diff import BILLED, UNSENT, KnownEvents, MergedEvents, beside, merge, unknown_elsewhere
from billing_core.imports.model import MOST_LISTED, ImportOutcome, ImportProgress, OrganizationEffect, RejectedLine
from billing_core.imports.readers import batches, json_header
from billing_core.imports.stage import StagedRows
from billing_core.imports.validation import NO_CARD, Checked, ValidationRules, check, header_faults
from billing_core.ledger.engine import Writer
from billing_core.ledger.imported_events import (
    LedgerReader,
    count_as_billed_elsewhere,
    existing,
    forget_foreign_identifiers,
    on_a_bill,
)
from billing_core.ledger.queries import ClosedSpan
from billing_core.ledger.schema import IMPORT_RUN, SENT
from billing_core.rating.card import LEGACY_VERSION, RateCard, RateCardFile
from billing_core.rerating.rebooking import waiting_now
from billing_core.types import FLAT_FIELDS, Flag, SyncStatus
from billing_core.values.counts import count_of
from billing_core.values.decimals import EXACT

Progress = Callable[[ImportProgress], None]
Mask = npt.NDArray[np.bool_]


@dataclass(slots=True)
class StagedEvents:
    """The valid rows of an imported file, on disk, and the faults of the others.

    `given` are the columns the file has, `versions` the rate cards its events name.
    """

    stage: StagedRows
    header: tuple[str, ...]
    given: frozenset[str]
    is_csv: bool
    rows: int = 0
    rejected: list[RejectedLine] = field(default_factory=list)
    rejected_rows: int = 0
    without_offset: int = 0
    is_whole: bool = True
    versions: set[str] = field(default_factory=set)

    def refuse(self, reasons: Iterable[RejectedLine], rows: int) -> None:
        """Count rows that cannot be used, and keep their reasons as far as there is room."""
        self.rejected_rows += rows
        for one in reasons:
            if len(self.rejected) < MOST_LISTED:
                self.rejected.append(one)


@dataclass(slots=True)
class ImportComparison:
    """The comparison of a file with the ledger: counts, and what people should know before they apply it."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    lifted: int = 0
    pending: int = 0
    pending_credits: Decimal = Decimal(0)
    pending_elsewhere_paid: set[str] = field(default_factory=set)
    corrected: int = 0
    rebilled: int = 0
    in_closed: int = 0
    effects: dict[str | None, OrganizationEffect] = field(default_factory=dict)

    def outcome(self) -> ImportOutcome:
        """The counts of the import, and the organizations whose sums change, by id; those without one come last."""
        order = sorted(self.effects, key=lambda one: (one is None, one or ""))
        return ImportOutcome(self.new, self.changed, self.unchanged, tuple(self.effects[one] for one in order))


def run_of(import_id: str) -> str:
    """The run id under which an import is booked in the ledger."""
    return IMPORT_RUN + import_id


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


def stage(
    file: File,
    cards: Mapping[str, RateCard],
    zone: ZoneInfo | None,
    now: datetime,
    progress: Progress | None = None,
    *,
    not_billed: tuple[str, ...] = (),
) -> StagedEvents:
    """Read a file of usage events and put its valid rows on disk; memory does not grow with the file.

    `zone` is that of times without an offset, if anybody said it; `not_billed` are globs of environments whose usage
    costs nothing here.
    """
    found = StagedEvents(StagedRows(), (), frozenset(), file.form in {Form.DELIMITED, Form.XLSX})
    rules = ValidationRules(zone, now, {card_id: card.credit_price_usd for card_id, card in cards.items()}, not_billed)
    try:
        found.header = json_header(file) if file.form is Form.JSON else file.header
        columns = without_helpers(found.header)
        found.given = frozenset(columns) & {*FLAT_FIELDS, *EXTRA_FIELDS}
        if file.form is Form.JSON and not found.header:
            return _finished(found)
        if faults := header_faults(columns):
            found.refuse(faults, len(faults))
            found.is_whole = False
            return _finished(found)
        for batch in batches(file, found.header):
            checked = check(batch, rules)
            _take(found, checked, len(batch.numbers) + len(batch.rejected))
            if progress is not None:
                progress(ImportProgress(0.0, found.rows, f"checked {count_of(found.rows, 'row')}"))
    except Unusable as whole:
        found.refuse([RejectedLine(whole.row, whole.field, whole.reason)], 1)
        found.is_whole = False
    return _finished(found)


def _take(found: StagedEvents, checked: Checked, rows: int) -> None:
    found.rows += rows
    found.stage.add(checked.table)
    found.refuse(checked.rejected, checked.rejected_rows)
    found.without_offset += checked.without_offset
    found.versions |= set(pc.unique(checked.table["rate_card_version"]).to_pylist())


def _finished(found: StagedEvents) -> StagedEvents:
    reasons, rows = found.stage.finish()
    found.refuse(reasons, rows)
    found.rejected.sort(key=lambda one: one.row)
    return found


# ── comparing ────────────────────────────────────────────────────────────────────────────────────


def compare(
    staged: StagedEvents, reader: LedgerReader, cards: RateCardFile, closed: Iterable[ClosedSpan]
) -> ImportComparison:
    """What booking staged events would do; nothing is changed."""
    found = ImportComparison()
    for piece in _pieces(staged, reader, cards):
        _count(found, piece, tuple(closed))
    return found


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some rows of the file, what the ledger has beside them, what is booked, and which of it is a change."""

    staged: pa.Table
    stored: pa.Table
    merged: MergedEvents
    is_changed: Mask


def _pieces(staged: StagedEvents, reader: LedgerReader, cards: RateCardFile) -> Iterator[_Piece]:
    waiting = waiting_now(reader.rows)

    def price_at(time: datetime) -> Decimal:
        card = cards.in_force(time)
        return Decimal(0) if card is None else card.credit_price_usd

    for rows in staged.stage.batches():
        ids = rows["id"].combine_chunks()
        stored = beside(rows, existing(reader, ids))
        known = KnownEvents(stored, waiting, _covered(reader, rows, stored), price_at)
        merged = merge(rows, staged.given, known, is_csv=staged.is_csv)
        is_changed = merged.is_lifted
        if not merged.is_new.all():
            differing = reader.differing(merged.events.filter(pa.array(~merged.is_new)))["id"]
            is_changed = is_changed | _mask(pc.is_in(ids, differing.combine_chunks()))
        yield _Piece(rows, stored, merged, is_changed)


def _covered(reader: LedgerReader, rows: pa.Table, stored: pa.Table) -> set[str]:
    """Of events that the file says were billed and that are unsent here those on a bill of ours."""
    said = pc.is_in(rows["sync_status"], pa.array(BILLED))
    unsent = pc.is_in(stored["sync_status"].cast(pa.string()), pa.array((*UNSENT, SyncStatus.EXCLUDED.value)))
    ids = rows["id"].filter(pc.and_(said, unsent)).to_pylist()
    return on_a_bill(reader.rows, ids)


def _count(found: ImportComparison, piece: _Piece, closed: tuple[ClosedSpan, ...]) -> None:
    new, changed, events = piece.merged.is_new, piece.is_changed, piece.merged.events
    found.new += int(new.sum())
    found.changed += int(changed.sum())
    found.unchanged += len(new) - int(new.sum()) - int(changed.sum())
    found.lifted += int(piece.merged.is_lifted.sum())
    sent_here = pc.and_(
        pc.is_in(piece.stored["sync_status"].cast(pa.string()), pa.array(SENT)),
        pc.invert(pc.fill_null(piece.stored["billed_elsewhere"], False)),
    )
    rebilled = changed & _billed_otherwise(piece)
    found.corrected += int((rebilled & _mask(sent_here) & _has_meter_event(piece)).sum())
    touched = new | changed
    times = events["timestamp"].combine_chunks()
    inside = np.zeros(len(new), dtype=bool)
    for span in closed:
        begun = pc.greater_equal(times, pa.scalar(span.start, times.type))
        inside |= _mask(pc.and_(begun, pc.less(times, pa.scalar(span.end, times.type))))
    found.in_closed += int((touched & inside).sum())
    waits = _mask(pc.equal(events["sync_status"], SyncStatus.PENDING.value)) & touched & ~piece.merged.is_lifted
    waits &= ~_is_legacy(events)
    found.rebilled += int((rebilled & waits & ~new).sum())
    pending = events.filter(pa.array(waits & new))
    found.pending += pending.num_rows
    found.pending_credits = EXACT.add(found.pending_credits, pc.sum(pending["credits_total"]).as_py() or Decimal(0))
    if len(found.pending_elsewhere_paid) < MOST_LISTED:
        found.pending_elsewhere_paid |= {one for one in pc.unique(pending["customer_id"]).to_pylist() if one}
    _add(found.effects, events.filter(pa.array(touched)), 1)
    _add(found.effects, piece.stored.filter(pa.array(changed)), -1)


def _billed_otherwise(piece: _Piece) -> Mask:
    """Which events cost something else than they do here, or are paid by somebody else. What only describes an event
    (a name, a link) sends nothing."""
    events, stored = piece.merged.events, piece.stored
    same_cost = _mask(pc.equal(events["credits_total"], stored["credits_total"]))
    one, other = events["customer_id"], stored["customer_id"]
    same_payer = _mask(pc.equal(one, other)) | _mask(pc.and_(pc.is_null(one), pc.is_null(other)))
    return ~(same_cost & same_payer)


def _has_meter_event(piece: _Piece) -> Mask:
    """What the earlier system billed has none of ours, and no push ever corrects it."""
    return _mask(pc.is_valid(piece.stored["meter_event_identifier"])) & ~_is_legacy(piece.merged.events)


def _is_legacy(events: pa.Table) -> Mask:
    return _mask(pc.match_substring(pc.binary_join(events["flags"], ","), Flag.LEGACY_BILLED.value))


def _mask(column: Any) -> Mask:
    mask: Mask = pc.fill_null(column, False).to_numpy(zero_copy_only=False).astype(bool)
    return mask


def _add(effects: dict[str | None, OrganizationEffect], events: pa.Table, sign: int) -> None:
    if not events.num_rows:
        return
    rows = pa.table({name: events[name] for name in ("organization_id", "credit_price_usd", "credits_total")})
    grouped = rows.group_by(["organization_id", "credit_price_usd"]).aggregate(
        [("credits_total", "sum"), ("credits_total", "count")]
    )
    for row in grouped.to_pylist():
        organization = row["organization_id"]
        before = effects.get(organization, OrganizationEffect(organization, 0, Decimal(0), Decimal(0)))
        delta = sign * row["credits_total_sum"]
        amount = EXACT.multiply(delta, row["credit_price_usd"])
        effects[organization] = OrganizationEffect(
            organization,
            before.events + sign * row["credits_total_count"],
            EXACT.add(before.credits, delta),
            EXACT.add(before.amount_usd, amount),
        )


# ── booking ──────────────────────────────────────────────────────────────────────────────────────


def book(
    staged: StagedEvents,
    writer: Writer,
    cards: RateCardFile,
    import_id: str,
    now: datetime,
    progress: Progress | None = None,
) -> ImportComparison:
    """Book all staged events inside one transaction; returns what was done."""
    found = ImportComparison()
    run_id = run_of(import_id)
    for piece in _pieces(staged, writer, cards):
        _count(found, piece, ())
        wanted = piece.merged.is_new | piece.is_changed
        if wanted.any():
            mask = pa.array(wanted)
            writer.book(piece.merged.events.filter(mask), run_id=run_id, imported=_imported(piece))
            forget_foreign_identifiers(writer, run_id)
            if piece.merged.is_lifted.any():
                count_as_billed_elsewhere(writer, _billed(piece), run_id, now)
        if progress is not None:
            done = found.new + found.changed + found.unchanged
            progress(ImportProgress(done / max(staged.stage.rows, 1), done, f"saved {count_of(done, 'event')}"))
    return found


def _imported(piece: _Piece) -> pa.Table:
    """How far new events got before they came here."""
    fresh = piece.staged.filter(pa.array(piece.merged.is_new))
    columns = {name: fresh[name] for name in ("id", "meter_event_identifier", "synced_at", "marks")}
    return pa.table({**columns, "billed_elsewhere": pc.is_in(fresh["sync_status"], pa.array(SENT))})


def _billed(piece: _Piece) -> pa.Table:
    """Events the file says were billed: processed from now on, or as it says of those whose outcome was not known."""
    status = pc.if_else(
        pa.array(unknown_elsewhere(piece.stored)), piece.staged["sync_status"], SyncStatus.PROCESSED.value
    )
    columns = {name: piece.staged[name] for name in ("id", "meter_event_identifier", "synced_at")}
    return pa.table({**columns, "sync_status": status}).filter(pa.array(piece.merged.is_lifted))


def needed_cards(staged: StagedEvents, cards: Mapping[str, RateCard]) -> list[RateCard]:
    """The rate cards that staged events name, to be stored with them."""
    return [cards[name] for name in sorted(staged.versions) if name not in {LEGACY_VERSION, NO_CARD} and name in cards]
