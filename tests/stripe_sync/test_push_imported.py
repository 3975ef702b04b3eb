"""Usage that came with a file is sent once, whoever sent it: Stripe's own sums tell what it counts already."""

from datetime import timedelta

import pytest

from billing_core.errors import UpstreamError
from billing_core.exports.model import Dataset, ExportRequest, Format
from billing_core.ledger.sync import SyncStore
from billing_core.ledger.verification import unsent
from tests.factories import EVERYONE
from tests.stripe_sync.push_world import METER_EVENTS, World, at, use

SUMMARIES = "/v1/billing/meters"
LONG_AFTER = timedelta(hours=30)
"""By then Stripe takes an identifier it had before for a new one."""


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


def bring_what_was_sent_since(world, restored, stripe, path, form=Format.CSV):
    """A file is written, its ledger goes on to send, and long after that the file comes to another ledger."""
    file = exported(world, path, form)
    world.push()
    stripe.offset += LONG_AFTER
    restored.bring(file)


@pytest.mark.parametrize("form", [Format.CSV, Format.JSON, Format.PARQUET])
def test_what_was_sent_after_a_file_was_written_is_not_sent_again_from_that_file(
    world, restored, stripe, tmp_path, form
):
    world.book(use("1", at(0, 10), "150"), use("2", at(1, 10), "7", customer="cus_b"))
    bring_what_was_sent_since(world, restored, stripe, tmp_path / "usage", form)
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
    SyncStore(restored.ledger.engine).release(["1"], actor="ada", now=stripe.now())
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


def test_an_import_that_is_undone_and_made_again_decides_nothing(world, restored, stripe, tmp_path):
    world.book(use("1", at(0, 10), "150"))
    file = exported(world, tmp_path / "usage.csv")
    world.push()
    stripe.offset += LONG_AFTER
    for bring in (lambda: restored.bring(file), lambda: restored.book(use("1", at(0, 10), "150"))):
        first = restored.bring(file).import_ids
        assert restored.push().held == 1
        restored.service.imports.undo(first[0], EVERYONE)
        bring()
        assert (restored.push().held, stripe.sums()) == (1, {"cus_a": 150})
        restored.ledger.engine.rows("DELETE FROM events")


@pytest.mark.parametrize(
    "later",
    [use("p", at(0, 10), "250"), use("p", at(1, 20), "150"), use("p", at(0, 10), "140")],
    ids=["more", "in another hour", "less"],
)
def test_what_a_pull_says_later_of_billed_usage_hides_nothing_that_was_sent(world, restored, stripe, tmp_path, later):
    world.book(use("p", at(0, 10), "150"))
    world.push()
    world.book(use("q", at(1, 20), "100"), use("r", at(0, 20), "100"))
    bring_what_was_sent_since(world, restored, stripe, tmp_path / "usage.csv")
    restored.book(later)
    assert (restored.push().held, stripe.sums()) == (2, {"cus_a": 350})


def test_billed_usage_that_shrinks_holds_nothing_back(world, restored, stripe, tmp_path):
    world.book(use("p", at(0, 10), "150"))
    world.push()
    world.book(use("q", at(0, 20), "100"))
    restored.bring(exported(world, tmp_path / "usage.csv"))
    restored.book(use("p", at(0, 10), "140"))
    assert (restored.push().credits_sent, stripe.sums()) == (100, {"cus_a": 250})


def test_fractions_that_the_other_ledger_carried_from_hour_to_hour_are_not_sent_again(
    world, restored, stripe, tmp_path
):
    world.book(*[use(f"a{hour}", at(-hour, 10), "1.9") for hour in range(10)])
    world.push()
    world.book(*[use(f"b{hour}", at(-hour, 20), "1.4") for hour in range(10)])
    world.book(*[use(f"c{hour}", at(-hour, 10), "0.5", customer="cus_b") for hour in range(10)])
    file = exported(world, tmp_path / "usage.csv")
    world.push()
    sent = stripe.sums()
    assert sent == {"cus_a": 33, "cus_b": 5}
    stripe.offset += LONG_AFTER
    restored.bring(file)
    assert (restored.push().credits_sent, stripe.sums()) == (0, sent)


def test_usage_that_moved_by_an_hour_is_looked_for_where_the_file_has_it(world, restored, stripe, tmp_path):
    world.book(use("p", at(0, 59), "150"))
    bring_what_was_sent_since(world, restored, stripe, tmp_path / "usage.csv")
    restored.book(use("p", at(1, 0), "150"))
    assert (restored.push().held, stripe.sums()) == (1, {"cus_a": 150})


def test_a_meter_event_that_never_left_is_looked_at_anew(world, restored, stripe, tmp_path):
    world.book(use("p", at(0, 10), "150"))
    restored.bring(exported(world, tmp_path / "usage.csv"))
    stripe.fault("401", METER_EVENTS, times=100)
    restored.push()
    assert [(one["state"], one["value"]) for one in restored.intents()] == [("open", 150)]
    stripe.no_faults()
    world.push()
    stripe.offset += LONG_AFTER
    assert (restored.push().held, stripe.sums()) == (1, {"cus_a": 150})
    assert list(unsent(restored.ledger.engine.rows, {})) == []


def test_less_than_a_credit_costs_no_reads(world, restored, stripe, tmp_path):
    world.book(use("p", at(0, 10), "0.4"), use("q", at(0, 10), "0.7", customer="cus_b"))
    restored.bring(exported(world, tmp_path / "usage.csv"))
    restored.push()
    calls = [call["path"] for call in stripe.control("GET", "/_sandbox/requests")]
    assert not [path for path in calls if "event_summaries" in path]
