"""Undoes imports, each as one revision: nothing is deleted from the history, it only counts no longer.

What somebody built upon since stays: events that were sent, changed or closed are not taken from under them, and then
nothing is taken back at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from billing_core.errors import BadParameter
from billing_core.imports.events import run_of
from billing_core.imports.model import ImportRecord
from billing_core.ledger.active_cards import take_back_import
from billing_core.ledger.directory import DirectoryChange
from billing_core.ledger.engine import Writer
from billing_core.ledger.imports import built_upon, take_back
from billing_core.ledger.journal import events_naming
from billing_core.ledger.schema import UNDO_RUN
from billing_core.organizations.directory_file import Change


def undo_events(writer: Writer, record: ImportRecord, *, now: datetime) -> tuple[int, int]:
    """Undo an import of events: those it added are removed, those it changed restored; returns how many of each.

    Raises BadParameter: if some were sent or are on their way, changed since, or lie in a closed month.
    """
    run_id = run_of(record.import_id)
    if reasons := list(_against(built_upon(writer.rows, run_id, record.imported_at))):
        raise BadParameter("import", record.import_id, f"an import that nothing was built on; {', '.join(reasons)}")
    return take_back(writer, run_id, now=now)


def _against(events: Mapping[str, int]) -> Iterator[str]:
    """Why it cannot be taken back."""
    if count := events["on a bill"]:
        yield f"{count:,} of its events were sent to Stripe or are on their way, or settled"
    if count := events["changed"]:
        yield f"{count:,} were changed since"
    if count := events["closed"]:
        yield f"{count:,} lie in a closed month (reopen it first)"


def as_before(
    written: Sequence[DirectoryChange], present: Mapping[str, DirectoryChange], record: ImportRecord
) -> list[Change]:
    """The directory changes that restore the lines an import wrote.

    Raises BadParameter: if somebody changed some of them since.
    """
    if changed := sum(present[row.organization_id].seq != row.seq for row in written):
        raise BadParameter(
            "import",
            record.import_id,
            f"an import that nothing was built on; {changed:,} of its lines were changed since",
        )
    return [Change(row.organization_id, row.before.name or "", row.before.customer_id or "") for row in written]


def undo_cards(writer: Writer, record: ImportRecord, *, now: datetime) -> int:
    """Undo an import of rate cards: they are no longer in use; returns how many cards and plans those are.

    Raises BadParameter: if events were rated with one of them.
    """
    imported = take_back_import(writer, record.import_id, now=now)
    for card in imported.cards:
        if named := events_naming(writer.rows, card.id):
            raise BadParameter(
                "import",
                record.import_id,
                f"cards that no event names; {named:,} were rated with {card.id}. Import one that follows it instead",
            )
    writer.advance(UNDO_RUN + run_of(record.import_id))
    return len(imported.cards) + len(imported.plans)
