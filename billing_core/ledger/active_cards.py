"""The rate cards in use: those of the rate card file, and imported ones.

An imported card adds to the file's, or takes the place of the one with its id; the newest import wins. The file stays
as it is, and so does what events were rated with: a card that events name is never exchanged for another.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from billing_core.errors import RateCardError
from billing_core.ledger.engine import Rows, Writer
from billing_core.ledger.journal import Ledger
from billing_core.rating.card import Plan, RateCard, RateCardFile, first_fault


@dataclass(frozen=True, slots=True)
class ImportedCards:
    """The rate cards and plans of one import; no plans if the import names none."""

    cards: tuple[RateCard, ...]
    plans: tuple[Plan, ...] = ()

    def to_json(self) -> str:
        """The cards and plans as the JSON text the ledger stores."""
        cards = [json.loads(card.to_json()) for card in self.cards]
        return json.dumps({"cards": cards, "plans": [plan.model_dump(mode="json") for plan in self.plans]})

    @classmethod
    def from_json(cls, text: str) -> ImportedCards:
        """Cards and plans from the JSON text of `to_json`."""
        found = json.loads(text)
        return cls(tuple(map(RateCard.model_validate, found["cards"])), tuple(map(Plan.model_validate, found["plans"])))


class ActiveCards:
    """The rate cards in use, of the card file and of imports. Thread-safe; read anew after imports only."""

    def __init__(self, ledger: Ledger, file_cards: RateCardFile) -> None:
        self._ledger = ledger
        self._file = file_cards
        self._reading = threading.Lock()
        self._known: tuple[object, RateCardFile] | None = None

    def current(self) -> RateCardFile:
        """The rate cards in use now, file and imports together.

        Raises RateCardError: if the file was changed since so that it contradicts what was imported.
        """
        state = self._ledger.engine.rows("SELECT count(*), count(undone_at) FROM imported_cards")[0]
        with self._reading:
            if self._known is None or self._known[0] != state:
                self._known = state, combined(self._file, imported(self._ledger.engine.rows))
            return self._known[1]


def imported(rows: Rows) -> list[ImportedCards]:
    """The cards and plans of all imports that were not undone, oldest first."""
    query = """SELECT c.content FROM imported_cards c LEFT JOIN imports i ON i.id = c.import_id
               WHERE c.undone_at IS NULL ORDER BY c.imported_at, i.seq"""
    return [ImportedCards.from_json(row[0]) for row in rows(query, [])]


def combined(base: RateCardFile, imports: Iterable[ImportedCards]) -> RateCardFile:
    """The cards of the file with imported ones added in order; of the same card id or plan name the newest wins.

    Raises RateCardError: if two cards would be in force at the same time.
    """
    cards = {card.id: card for card in base.cards}
    plans = {plan.name: plan for plan in base.plans}
    for one in imports:
        cards |= {card.id: card for card in one.cards}
        plans |= {plan.name: plan for plan in one.plans}
    try:
        return RateCardFile(cards=tuple(cards.values()), plans=tuple(plans.values()), metadata=base.metadata)
    except ValidationError as error:
        raise RateCardError(
            f"rate cards of the file and of imports together: {first_fault(error)}; give the earlier card an "
            "effective_to, or undo the import"
        ) from None


def keep_import(writer: Writer, import_id: str, cards: ImportedCards, *, actor: str, now: datetime) -> None:
    """Store the cards of an import: they are in use from now on."""
    writer.insert(
        "imported_cards", {"import_id": import_id, "content": cards.to_json(), "imported_at": now, "imported_by": actor}
    )


def take_back_import(writer: Writer, import_id: str, *, now: datetime) -> ImportedCards:
    """Undo an import of cards: they are in use no longer; returns what it had brought."""
    content = writer.rows("SELECT content FROM imported_cards WHERE import_id = ?", [import_id])[0][0]
    writer.update("imported_cards", {"import_id": import_id, "undone_at": now}, key="import_id")
    return ImportedCards.from_json(content)
