"""Importing rate cards: what applies afterwards, and what no file may change."""

from __future__ import annotations

import json
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from billing_core.errors import BadParameter
from billing_core.exports.model import Dataset, ExportRequest, Format
from billing_core.imports.detection import CARD_COLUMNS
from billing_core.imports.model import FileKind, ImportOutcome
from billing_core.rating.card import parse_rate_cards
from tests.factories import CARD, EVERYONE, events_table
from tests.imports.world import ImportWorld, booked, line

ACME = """
id: acme-2026-12
effective_from: 2026-12-01
credit_price_usd: 0.00005
margin: 1.25
ai:
  basis: tokens
  rates:
    - {model: "gpt-5*", credits_per_1000_tokens: 60.5}
compute: {credits_per_minute: 50}
storage: {credits_per_gb_month: 500}
plans:
  - {name: Business, credits_per_month: 900000, stripe_price_ids: [price_9]}
"""
ACME_CARD = parse_rate_cards(ACME, "acme").cards[0]


@pytest.fixture
def world(tmp_path):
    return ImportWorld(tmp_path, [booked("a")])


def file(world, text, name="card.yaml"):
    path = world.folder / name
    path.write_text(text)
    return path


def refused(world, text, name="card.yaml"):
    plan = world.plan(world.folder / name if text is None else file(world, text, name))
    assert (plan.kind, plan.can_apply, plan.outcome) == (FileKind.RATE_CARD, False, ImportOutcome())
    with pytest.raises(BadParameter):
        world.desk.apply(plan, EVERYONE)
    return plan.rejected[0]


def test_a_card_that_was_imported_applies_from_then_on(world):
    result = world.bring(file(world, ACME))
    assert (result.plan.kind, result.outcome) == (FileKind.RATE_CARD, ImportOutcome(2, 0, 0))
    current = world.service._cards()
    assert [card.id for card in current.cards] == ["builtin-1", "acme-2026-12"]
    assert current.plans[-1].name == "Business"
    assert world.ledger.card("acme-2026-12") == ACME_CARD
    assert world.ledger.audit_entries()[0]["action"] == "import"


def test_the_same_card_again_changes_nothing(world):
    world.bring(file(world, ACME))
    before = world.content()
    assert world.bring(file(world, ACME)).outcome == ImportOutcome(0, 0, 2)
    assert world.content() == before


def test_a_card_no_event_names_may_be_changed(world):
    world.bring(file(world, ACME))
    assert world.bring(file(world, ACME.replace("margin: 1.25", "margin: 2"))).outcome == ImportOutcome(0, 1, 1)
    assert world.service._cards().by_id("acme-2026-12").margin == 2


def test_a_card_that_events_name_never_changes(world):
    text = ACME.replace("acme-2026-12", "builtin-1").replace("2026-12-01", "2000-01-01")
    found = refused(world, text)
    assert (found.row, found.field) == (1, "id")
    assert "has other content than the card that rated 1 event;" in found.reason


def test_two_cards_in_force_at_once_are_refused(world):
    found = refused(world, ACME.replace("2026-12-01", "2000-01-01"))
    assert found.field == "effective_from"
    assert "both in force" in found.reason


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ACME.replace("0.00005", "-1"), "credit_price_usd = '-1'"),
        (ACME.replace("0.00005", "NaN"), "credit_price_usd"),
        (ACME.replace("margin: 1.25", "discount: 2"), "discount"),
        (ACME.replace("id: acme-2026-12", "id: legacy"), "reserved"),
        ("cards:\n  - id: [", "not readable as YAML in line"),
        ("id: &a x\nai: *a\n", "YAML aliases"),
        ("cards: " + "[" * 900_000, "is nested too deeply; see docs/rate-cards.md"),
        ("cards: " + "{a: " * 200_000, "is nested too deeply"),
        ("cards:\n" + "- " * 400_000, "is nested too deeply"),
        ("cards:\n" + "".join(" " * depth + "a:\n" for depth in range(1, 1_400)), "is nested too deeply"),
        ('{"cards": ' + '[{"ai": ' * 100_000, "is nested too deeply"),
        ("id: x\n" + "# long\n" * 200_000, "a rate card file has at most"),
    ],
)
def test_card_files_that_cannot_be_used_say_why(world, text, says):
    assert says in refused(world, text).reason


RULES = """
exclude: [{name: "agent *", type: AGENT}, {level: DEBUG}]
token_classes: {"*_1h_input_tokens": cache_write, "größe": other}
units: {web_search_requests: 10, "*_images": 0.000001}
"""


@pytest.mark.parametrize("form", [Format.CSV, Format.XLSX, Format.JSON, Format.PARQUET])
@pytest.mark.parametrize("rules", ["", RULES])
def test_cards_as_exported_come_in_as_they_went_out(tmp_path, world, form, rules):
    world.bring(file(world, f"{ACME}{rules}"))
    path = tmp_path / "exported"
    world.service.exports.write(ExportRequest(Dataset.RATE_CARD, form), EVERYONE, path)
    there = ImportWorld(tmp_path, (), "there")
    result = there.bring(path)
    assert result.plan.rejected == ()
    assert there.service._cards().cards == world.service._cards().cards
    if form is Format.JSON:
        assert there.service._cards().plans == world.service._cards().plans
    assert there.bring(path).outcome.changes == 0


PRICES_ONLY = [name for name in CARD_COLUMNS[:8] if name not in {"margin", "effective_to"}]


@pytest.mark.parametrize("text", ["2027-01-01T09:00", "2027-01-01 00:00:00"])
def test_a_card_that_begins_at_a_time_of_day_without_an_offset_is_refused(world, text):
    header = ",".join(PRICES_ONLY)
    found = refused(world, f'{header}\na,{text},0.1,"{{""basis"": ""cost""}}",50,500\n')
    assert (found.row, found.field) == (1, "effective_from")
    assert "without an offset" in found.reason


def test_a_card_out_of_a_european_spreadsheet_is_read_exactly(world):
    header = ";".join(PRICES_ONLY)
    card = file(world, f'{header}\na;2027-01-01;0,00004;"{{""basis"": ""cost""}}";50;500,5\n')
    world.bring(card)
    (found,) = (card for card in world.service._cards().cards if card.id == "a")
    assert (found.credit_price_usd, found.storage.credits_per_gb_month) == (Decimal("0.00004"), Decimal("500.5"))


@pytest.mark.parametrize(
    ("name", "cell"),
    [("units", '{"searches": -1}'), ("token_classes", '{"a": "cached"}'), ("exclude", "[{}]"), ("units", "{")],
)
def test_rules_that_are_wrong_are_named(world, tmp_path, name, cell):
    header = ",".join((*CARD_COLUMNS[:8], name))
    quoted = cell.replace('"', '""')
    plan = world.plan(file(world, f'{header}\na,2027-01-01,,0.1,1,"{{""basis"": ""cost""}}",50,500,"{quoted}"\n'))
    assert [(one.row, one.field) for one in plan.rejected] == [(1, name)]


def test_an_exported_card_that_a_spreadsheet_changed_is_noticed(tmp_path, world):
    path = tmp_path / "cards.csv"
    world.service.exports.write(ExportRequest(Dataset.RATE_CARD, Format.CSV), EVERYONE, path)
    path.write_text(path.read_text().replace("0.00004", "0.00005"))
    plan = world.plan(path)
    assert [(one.row, one.field) for one in plan.rejected] == [(1, "sha256")]


def test_rows_that_are_no_cards_are_named(world, tmp_path):
    header = ",".join(CARD_COLUMNS[:8])  # as files had them before cards had rules for keys and observations
    good = '"{""basis"": ""cost""}",50,500'
    rows = [
        f"a,2027-01-01,,0.1,1,{good}",
        f"b,never,,0.1,1,{good}",
        "c,2027-03-01,,0.1,1,{,50,500",
        f"a,2027-04-01,,1,1,{good}",
    ]
    plan = world.plan(file(world, header + "\n" + "\n".join(rows) + "\n"))
    assert [(one.row, one.field) for one in plan.rejected] == [(2, "effective_from"), (3, "ai"), (4, "id")]
    missing = world.plan(file(world, "id,effective_from,credit_price_usd,colour\n"))
    assert {one.field for one in missing.rejected} >= {"ai", "'colour'"}


def test_cards_that_repeat_one_text_very_often_are_not_unpacked(world):
    table = pa.table({name: ["x" * 50_000] * 900 for name in CARD_COLUMNS})
    pq.write_table(table, world.folder / "cards", compression="zstd")
    assert "unpacks to more than" in refused(world, None, "cards").reason


def test_a_card_import_is_taken_back_unless_events_were_rated_with_it(world):
    result = world.bring(file(world, ACME))
    assert (world.undo(result).removed, world.service._cards().by_id("acme-2026-12")) == (2, None)
    result = world.bring(file(world, ACME))
    world.ledger.book(events_table([booked("x")], card=ACME_CARD), run_id="pull")
    with pytest.raises(BadParameter, match="1 were rated with acme-2026-12"):
        world.undo(result)
    assert world.service._cards().by_id("acme-2026-12") is not None


def test_events_of_an_imported_card_come_in_after_it(world):
    cells = {"rate_card_version": "acme-2026-12", "amount_usd": "0.0075"}
    assert world.plan_lines(line("x", **cells)).rejected_rows == 1
    world.bring(file(world, ACME))
    assert world.bring_lines(line("x", **cells)).outcome.new == 1


def test_plans_of_a_json_export_are_checked(world):
    row = {
        "id": CARD.id,
        "effective_from": CARD.effective_from.isoformat(),
        "credit_price_usd": "0.00004",
        "ai": json.dumps(json.loads(CARD.to_json())["ai"]),
        "compute_credits_per_minute": "50",
        "storage_credits_per_gb_month": "500",
    }
    document = {"meta": {"dataset": "rate-card", "plans": [{"name": "Pro", "credits_per_month": -1}]}, "rows": [row]}
    assert refused(world, json.dumps(document)).field == "plans"
