"""Usage that came with a file is sent once, whoever sent it: Stripe's own sums tell what it counts already."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.counted_elsewhere import judge
from billing_core.errors import UpstreamError
from billing_core.ledger.brought import Brought
from billing_core.ledger.sync import SyncBooks
from billing_core.transfer.export.model import Dataset, ExportRequest, Format
from tests.factories import EVERYONE
from tests.push_world import World, at, use

SUMMARIES = "/v1/billing/meters"
HOUR = datetime(2026, 11, 3, 9, tzinfo=UTC)


@pytest.fixture
def restored(tmp_path, stripe, world):
    """An empty ledger beside `world`, for the same account, and what brings an export of `world` into it."""
    folder = tmp_path / "restored"
    folder.mkdir()
    other = World(folder, stripe)

    def bring(path):
        return other.service.imports.apply(other.service.imports.plan(path, EVERYONE), EVERYONE)

    other.bring = bring
    yield other
    other.close()


def exported(world, path, form=Format.CSV):
    world.service.exports.write(ExportRequest(Dataset.USAGE_EVENTS, form), EVERYONE, path)
    return path


@pytest.mark.parametrize("form", [Format.CSV, Format.JSON, Format.PARQUET])
def test_what_was_sent_after_a_file_was_written_is_not_sent_again_from_that_file(
    world, restored, stripe, tmp_path, form
):
    world.book(use("1", at(0, 10), "150"), use("2", at(1, 10), "7", customer="cus_b"))
    file = exported(world, tmp_path / "usage", form)
    world.push()
    restored.bring(file)
    stripe.offset += timedelta(hours=30)  # long after Stripe would know the identifiers again
    preview = restored.push(dry_run=True)
    assert (preview.intents, preview.newly_held) == (0, 2)
    result = restored.push()
    assert (result.intents, result.held, result.newly_held) == (0, 2, 2)
    assert stripe.sums() == {"cus_a": 150, "cus_b": 7}
    assert restored.statuses() == {"1": "pending", "2": "pending"}
    assert "Stripe counts 150 credits in the hour from" in restored.events()["1"].sync_error
    assert restored.push().newly_held == 0


def test_what_nobody_sent_is_sent_from_where_it_was_imported(world, restored, stripe, tmp_path):
    world.book(use("1", at(0, 10), "150"), use("2", at(1, 10), "7"))
    restored.bring(exported(world, tmp_path / "usage.csv"))
    assert (restored.push().credits_sent, stripe.sums()) == (157, {"cus_a": 157})


def test_what_the_file_says_was_billed_in_the_same_hour_keeps_nothing_back(world, restored, stripe, tmp_path):
    world.book(use("1", at(0, 10), "150.4"))
    world.push()
    world.book(use("2", at(0, 20), "20"))
    restored.bring(exported(world, tmp_path / "usage.csv"))
    assert restored.statuses() == {"1": "confirmed", "2": "pending"}
    result = restored.push()
    assert (result.credits_sent, result.newly_held, stripe.sums()) == (20, 0, {"cus_a": 170})


def test_a_person_who_knows_better_releases_it(world, restored, stripe, tmp_path):
    world.book(use("1", at(0, 10), "150"))
    restored.bring(exported(world, tmp_path / "usage.csv"))
    stripe.plant("cus_a", 40, at(0, 30))
    assert restored.push().newly_held == 1
    SyncBooks(restored.ledger.engine).release(["1"], actor="ada", now=stripe.now())
    assert (restored.push().credits_sent, stripe.sums()) == (150, {"cus_a": 190})


def test_a_pull_that_reads_it_again_does_not_forget_where_it_came_from(world, restored, stripe, tmp_path):
    world.book(use("1", at(0, 10), "150"))
    file = exported(world, tmp_path / "usage.csv")
    world.push()
    restored.bring(file)
    restored.book(use("1", at(0, 10), "160"))
    assert (restored.push().newly_held, stripe.sums()) == (1, {"cus_a": 150})


def test_while_stripes_sums_cannot_be_read_it_is_not_sent(world, restored, stripe, tmp_path):
    world.book(use("1", at(0, 10), "150"))
    restored.bring(exported(world, tmp_path / "usage.csv"))
    stripe.fault("503", f"{SUMMARIES}/", times=100)
    with pytest.raises(UpstreamError):
        restored.push()
    assert stripe.sums() == {}
    stripe.no_faults()
    assert restored.push().credits_sent == 150


credits_ = st.decimals(0, 1000, places=6)


@given(credits_, credits_, st.integers(0, 59))
def test_events_are_kept_back_exactly_when_stripe_counts_a_whole_credit_more_than_is_known(billed, counted, minute):
    event = Brought("e", HOUR + timedelta(minutes=minute))
    kept = list(judge([event], {HOUR: billed}, {HOUR: counted}))
    assert bool(kept) == (counted - billed >= Decimal(1))
    assert list(judge([event], {HOUR: billed}, {HOUR + timedelta(hours=1): counted})) == []
