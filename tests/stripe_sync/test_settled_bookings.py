"""Settlements in the books of an accounting program: nobody owes a write-off, an invoice item is owed as usual."""

from __future__ import annotations

from decimal import Decimal

import pytest

from billing_core.exports.model import Dataset, ExportRequest, Format
from billing_core.stripe_sync.settlement_rules import SettlementKind
from billing_core.types import GetUsageEventsParams
from tests.factories import EVERYONE
from tests.stripe_sync.push_world import at, use

OLD = -24 * 40


@pytest.fixture
def stuck(world):
    world.book(
        use("old", at(OLD), "1000000"),
        use("theirs", at(OLD), "500000.2", "cus_b"),
        use("nobody's", at(OLD), "75", None),
    )
    world.push()
    return world


def booked(world, tmp_path):
    """Totals of the bookings of everything, after checking that the file can be written."""
    request = ExportRequest(Dataset.USAGE_EVENTS, Format.XERO, GetUsageEventsParams())
    totals = world.service.exports.write(request, EVERYONE, tmp_path / "books.csv").totals
    assert totals["debit_usd"] == totals["credit_usd"]
    return {name: totals[f"{name}_usd"] for name in ("receivable", "written_off", "without_customer")}


def test_written_off_usage_is_booked_back_and_comes_again_when_that_is_taken_back(stuck, tmp_path):
    before = booked(stuck, tmp_path)
    assert before == {"receivable": Decimal("60.00"), "written_off": 0, "without_customer": Decimal("0.003")}
    done = stuck.desk.settle(EVERYONE, ["old", "nobody's"], SettlementKind.WRITE_OFF, reason="too old")
    assert booked(stuck, tmp_path) == {**before, "receivable": Decimal("20.00"), "written_off": Decimal("40.00")}
    for settlement_id in done.settlements:
        stuck.desk.take_back(EVERYONE, settlement_id, reason="a mistake")
    assert booked(stuck, tmp_path) == before


def test_an_invoice_item_is_owed_like_what_was_metered(stuck, tmp_path):
    before = booked(stuck, tmp_path)
    stuck.desk.settle(EVERYONE, ["old", "theirs"], SettlementKind.INVOICE_ITEM, reason="too old")
    assert booked(stuck, tmp_path) == before


def test_of_usage_that_was_corrected_since_no_more_is_written_off_than_it_comes_to(stuck, tmp_path):
    stuck.desk.settle(EVERYONE, ["old"], SettlementKind.WRITE_OFF, reason="too old")
    stuck.book(use("old", at(OLD), "400000"))
    assert booked(stuck, tmp_path)["receivable"] == Decimal("20.00")
    assert booked(stuck, tmp_path)["written_off"] == Decimal("16.00")


def test_receivables_come_to_what_the_meter_and_the_items_bill(world, tmp_path):
    world.book(use("old", at(OLD), "1000120"), use("older", at(OLD - 3), "250120"), use("sent", at(-2), "150"))
    world.push()
    for event_id in ("old", "older"):  # 40.0048 and 10.0048, each rounded by itself
        world.desk.settle(EVERYONE, [event_id], SettlementKind.INVOICE_ITEM, reason="too old")
    items = sum(one.amount for one in world.desk.settlements(EVERYONE))
    assert items == 4000 + 1000
    assert booked(world, tmp_path)["receivable"] == Decimal("0.01") + Decimal(items) / 100
