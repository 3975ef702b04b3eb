"""Which rate cards apply: the file's, and what was imported."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from billing_core.errors import RateCardError
from billing_core.ledger.active_cards import ActiveCards, ImportedCards, combined, keep_import, take_back_import
from billing_core.rating.card import Plan, RateCardFile, builtin_cards
from tests.factories import CARD, ledger_at

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BUILTIN = builtin_cards()


def card(card_id="acme", begin=datetime(2026, 12, 1, tzinfo=UTC), **facts):
    return CARD.model_copy(update={"id": card_id, "effective_from": begin, **facts})


def ids(file):
    return [one.id for one in file.cards]


@pytest.fixture
def ledger(tmp_path):
    return ledger_at(tmp_path / "a.duckdb")


def bring(ledger, import_id, *cards, plans=(), minute=0):
    with ledger.engine.transaction() as writer:
        keep_import(writer, import_id, ImportedCards(cards, plans), actor="ann", now=NOW.replace(minute=minute))


def test_without_imports_the_file_applies(ledger):
    assert ActiveCards(ledger, BUILTIN).current() == BUILTIN


def test_an_imported_card_applies_beside_the_files_and_the_newest_import_of_an_id_wins(ledger):
    book = ActiveCards(ledger, BUILTIN)
    bring(ledger, "1", card(margin=Decimal(2)), card("later", datetime(2027, 1, 1, tzinfo=UTC)))
    assert ids(book.current()) == ["builtin-1", "acme", "later"]
    bring(ledger, "2", card(margin=Decimal(3)), minute=1)
    assert book.current().by_id("acme").margin == 3
    with ledger.engine.transaction() as writer:
        take_back_import(writer, "2", now=NOW)
    assert book.current().by_id("acme").margin == 2


def test_plans_of_an_import_join_the_files_and_the_metadata_names_stay(ledger):
    file = RateCardFile(
        cards=(CARD,), plans=(Plan(name="Pro", credits_per_month=1), Plan(name="Old", credits_per_month=2))
    )
    bring(ledger, "1", plans=(Plan(name="Pro", credits_per_month=5),))
    found = ActiveCards(ledger, file).current()
    assert [(plan.name, plan.credits_per_month) for plan in found.plans] == [("Pro", 5), ("Old", 2)]
    assert found.metadata == file.metadata


def test_the_cards_are_read_again_only_after_an_import_or_an_undo(ledger):
    book = ActiveCards(ledger, BUILTIN)
    bring(ledger, "1", card())
    assert book.current() is book.current()


def test_a_file_that_contradicts_an_import_is_said(ledger):
    bring(ledger, "1", card("acme", CARD.effective_from))
    with pytest.raises(RateCardError, match=r"both in force at .*; give the earlier card an effective_to, or undo"):
        ActiveCards(ledger, BUILTIN).current()


def test_what_an_import_brings_is_kept_exactly():
    brought = ImportedCards(
        (card(credit_price_usd=Decimal("0.000000000001")),), (Plan(name="Pro", credits_per_month=5),)
    )
    assert ImportedCards.from_json(brought.to_json()) == brought


def test_cards_that_were_brought_one_after_the_other_combine_in_that_order():
    found = combined(BUILTIN, [ImportedCards((card(margin=Decimal(2)),)), ImportedCards((card(margin=Decimal(4)),))])
    assert found.by_id("acme").margin == 4
