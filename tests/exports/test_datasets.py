"""Organizations, customers, reconciliations and rate cards as files; files of closed months never change."""

from __future__ import annotations

import csv
import io
import json
from datetime import date, timedelta
from decimal import Decimal

import pytest

from billing_core.access import Principal, Role
from billing_core.organizations.directory import Directory
from billing_core.organizations.directory_file import Change
from billing_core.rating.card import RateCard, RateCardFile, builtin_cards
from billing_core.reconcile.report import Cause, ComparisonStep, CustomerDay, DifferencePart
from billing_core.runtime import clock
from tests.exports.exported import asked, read
from tests.factories import EVERYONE, service_over, usage_row
from tests.month_close.world import NOVEMBER, OCTOBER, MonthWorld, trace

LIMITED = Principal("fin", Role.FINANCE, frozenset({"org_a"}))


def named(service, organization_id, name, customer_id=None):
    directory = service.organizations.directory
    change = Change(organization_id, name, customer_id)
    directory.apply(EVERYONE, directory.preview(EVERYONE, [change]))


@pytest.fixture
def world(tmp_path):
    rows = [trace("one"), trace("two", 20, organization_id="org_b"), trace("late-month", organization_id=None)]
    world = MonthWorld(tmp_path / "billing.duckdb", rows)
    yield world
    world.service.close()


# ── closed months ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("form", "dataset"),
    [
        ("csv", "usage-events"),
        ("json", "usage-events"),
        ("focus", "usage-events"),
        ("journal", "usage-events"),
        ("csv", "organizations"),
    ],
)
def test_a_file_of_a_closed_month_is_the_same_for_ever(world, form, dataset):
    named(world.service, "org_a", "Acme")
    request = asked(form, dataset, **OCTOBER)
    before = world.service.exports.digest(request, EVERYONE)
    world.close()
    assert world.service.exports.digest(request, EVERYONE).sha256 == before.sha256
    world.now += timedelta(hours=1)
    world.book(trace("one", latency_seconds=600), trace("new", 6))
    world.send("confirmed")
    named(world.service, "org_a", "Renamed")
    assert world.service.exports.digest(request, EVERYONE).sha256 == before.sha256
    assert before.rows > 0


def test_what_came_after_the_close_is_in_the_open_month_with_a_row_that_takes_back(world, tmp_path):
    world.close()
    world.book(trace("one", latency_seconds=600))
    now = clock.now()
    window = {"from": "2026-11-01", "to": f"{now.year + 1}-01-01"}
    world.service.exports.write(asked(**window), EVERYONE, tmp_path / "late.csv")
    rows = read(tmp_path / "late.csv", "csv")
    assert [(row["id"], Decimal(row["credits_total"])) for row in rows] == [
        ("one", Decimal(-150)),
        ("one", Decimal(600)),
    ]
    assert all("late_after_close" in json.loads(row["flags"]) for row in rows)


def test_names_of_an_open_month_are_todays(world, tmp_path):
    world.close()
    world.now += timedelta(hours=1)
    world.book(usage_row(id="nov"))
    named(world.service, "org_a", "New name")
    for window, name in ((OCTOBER, None), (NOVEMBER, "New name"), ({}, "New name")):
        world.service.exports.write(asked("csv", "organizations", **window), EVERYONE, tmp_path / "out")
        assert {row["organization_id"]: row["name"] for row in read(tmp_path / "out", "csv")}["org_a"] == name


# ── customers ────────────────────────────────────────────────────────────────────────────────────


def test_the_customer_map_is_read_back_by_its_own_import_in_every_csv(world, tmp_path):
    named(world.service, "org_a", 'Acme, "Inc"; =1', "cus_9")
    named(world.service, "unused", None, "cus_1")
    for separator in (",", ";"):
        request = asked("csv", "customers", separator=separator, bom=separator == ";")
        world.service.exports.write(request, EVERYONE, tmp_path / "map.csv")
        parsed = Directory.parse_import((tmp_path / "map.csv").read_bytes())
        assert parsed.rejected == ()
        assert {one.organization_id for one in parsed.changes} == {"org_a", "org_b", "unused"}
        preview = world.service.organizations.directory.preview(EVERYONE, parsed)
        assert preview.steps == ()  # nothing would change
    world.service.exports.write(asked("csv", "customers"), LIMITED, tmp_path / "mine.csv")
    assert [row["organization_id"] for row in read(tmp_path / "mine.csv", "csv")] == ["org_a"]


# ── reconciliation ───────────────────────────────────────────────────────────────────────────────

BOOKS = (
    CustomerDay(
        "cus_a",
        date(2026, 10, 5),
        Decimal(150),
        Decimal(150),
        Decimal(150),
        Decimal(100),
        (DifferencePart(ComparisonStep.SENT_STRIPE, Cause.LOST_AT_STRIPE, Decimal(50), (), ("m1",)),),
    ),
    CustomerDay(None, date(2026, 10, 5), None, Decimal(150), Decimal(0), None),
)


def test_a_window_is_reconciled_once_and_its_file_is_then_the_same(world, tmp_path):
    world.books.rows = BOOKS
    desk = world.service.exports
    desk._stripe = world.books
    request = asked("csv", "reconciliation", **OCTOBER)
    first = desk.write(request, EVERYONE, tmp_path / "out.csv")
    assert desk.digest(request, EVERYONE).sha256 == first.sha256
    assert len(world.books.asked) == 1
    known, unknown = read(tmp_path / "out.csv", "csv")
    assert (known["customer_id"], known["day"], known["unexplained_credits"]) == ("cus_a", "2026-10-05", "50")
    assert json.loads(known["causes"])[0]["cause"] == "lost_at_stripe"
    assert (unknown["langfuse_credits"], unknown["stripe_credits"]) == (None, None)
    assert first.totals["langfuse_credits"] is None  # a sum with an unknown part is unknown
    assert first.totals["unexplained_credits"] == Decimal(50)
    newest = desk.digest(asked("csv", "reconciliation"), EVERYONE)
    assert newest.rows == 2
    assert desk.digest(asked("csv", "reconciliation", customer="cus_a"), EVERYONE).rows == 1


# ── rate cards ───────────────────────────────────────────────────────────────────────────────────


def test_a_rate_card_comes_back_from_its_row_as_it_was(world, tmp_path):
    world.service.exports.write(asked("json", "rate-card"), EVERYONE, tmp_path / "card.json")
    document = json.loads((tmp_path / "card.json").read_text(encoding="utf-8"))
    cards = builtin_cards()
    for row in document["rows"]:
        card = RateCard.model_validate(
            {
                "id": row["id"],
                "effective_from": row["effective_from"],
                "effective_to": row["effective_to"],
                "credit_price_usd": row["credit_price_usd"],
                "margin": row["margin"],
                "ai": row["ai"],
                "compute": {"credits_per_minute": row["compute_credits_per_minute"]},
                "storage": {"credits_per_gb_month": row["storage_credits_per_gb_month"]},
            }
        )
        assert card.fingerprint() == row["sha256"] == cards.by_id(card.id).fingerprint()
    plans = RateCardFile(cards=cards.cards, plans=document["meta"]["plans"]).plans
    assert plans == cards.plans


def test_a_rate_card_csv_has_one_row_per_card(tmp_path):
    service = service_over(tmp_path / "billing.duckdb")
    service.exports.write(asked("csv", "rate-card"), EVERYONE, tmp_path / "card.csv")
    text = (tmp_path / "card.csv").read_text(encoding="utf-8")
    assert [row["id"] for row in csv.DictReader(io.StringIO(text))] == [card.id for card in builtin_cards().cards]
    service.close()
