"""Taking imports back: as one revision, whole, and never from under what was built on them."""

from __future__ import annotations

import pytest

from billing_core.errors import BadParameter, NotFound
from billing_core.imports.model import ImportOutcome
from billing_core.ledger.sync import SyncStore
from billing_core.ledger.sync_queries import candidates
from billing_core.types import GetUsageEventsParams
from tests.factories import EVERYONE, events_table, usage_row
from tests.imports.world import NOW, ImportWorld, as_csv, booked, line

CORRECTED = {"credits_ai_tokens": "40", "credits_total": "90", "amount_usd": "0.0036"}


@pytest.fixture
def world(tmp_path):
    """Two events, 150 credits each."""
    return ImportWorld(tmp_path, [booked("a"), booked("b")])


def send(world, *ids):
    """As a push would: an intent that covers them, accepted a minute later."""
    with world.ledger.engine.transaction() as writer:
        writer.insert(
            "intents",
            {
                "identifier": "usage_x",
                "customer_id": "cus_a",
                "state": "accepted",
                "created_at": world.now,
                "stamp": NOW,
            },
        )
        for event_id in ids:
            writer.insert(
                "coverage", {"identifier": "usage_x", "event_id": event_id, "customer_id": "cus_a", "credits": 150}
            )


def test_what_an_import_brought_leaves_and_what_it_changed_is_as_before(world):
    before = world.published()
    result = world.bring_lines(line("a", **CORRECTED), line("c"))
    found = world.undo(result)
    assert (found.removed, found.restored) == (1, 1)
    assert world.published() == before
    [record] = world.desk.imports(EVERYONE)
    assert (record.undone_by, record.undone_at) == ("tester", NOW)
    assert world.ledger.audit_entries()[0]["action"] == "import undone"


def test_it_is_one_revision_and_what_was_can_still_be_seen(world):
    result = world.bring_lines(line("a", **CORRECTED), line("c"), line("d"))
    as_of = world.published()
    then = world.service.version()
    world.undo(result)
    assert world.published(as_of=then) == as_of
    assert world.service.version() == then + 1
    undone = "SELECT count(*) FROM event_revisions WHERE changed_columns = 'import undone' AND superseded_seq = {}"
    assert world.rows(undone.format(then + 1)) == [(3,)]


def test_an_event_that_was_lifted_waits_again(world):
    result = world.bring_lines(line("a", sync_status="processed"))
    world.undo(result)
    assert world.statuses() == {"a": "pending", "b": "pending"}
    assert sorted(world.ledger.engine.read(candidates(NOW))["id"].to_pylist()) == ["a", "b"]


def test_the_same_file_can_be_imported_and_taken_back_again(world):
    before = world.published()
    path = as_csv(world.folder / "f", [line("a", **CORRECTED), line("c")])
    for _ in range(3):
        result = world.bring(path)
        assert result.outcome.changes == 2
        world.undo(result)
        assert world.published() == before
    assert len(world.desk.imports(EVERYONE)) == 3


def test_an_import_is_taken_back_once(world):
    result = world.bring_lines(line("c"))
    world.undo(result)
    with pytest.raises(
        BadParameter, match=r"an import that was not undone; tester undid this one at 2026-11-20 12:00 UTC"
    ):
        world.undo(result)
    with pytest.raises(NotFound, match="import 'x' is not known"):
        world.desk.undo("x", EVERYONE)


def test_an_import_some_of_whose_events_were_sent_stays_whole(world):
    result = world.bring_lines(line("c"), line("d"), line("e"))
    send(world, "c", "d")
    before = world.content()
    with pytest.raises(BadParameter, match="2 of its events were sent to Stripe or are on their way"):
        world.undo(result)
    assert world.content() == before


def test_what_was_sent_before_an_import_does_not_keep_it_from_being_taken_back(tmp_path):
    world = ImportWorld(tmp_path, [booked("a")])
    send(world, "a")
    world.now = NOW.replace(hour=13)
    result = world.bring_lines(line("a", **CORRECTED))
    assert world.undo(result).restored == 1


def test_an_import_whose_events_changed_since_stays(world):
    result = world.bring_lines(line("c"), line("d"))
    world.ledger.book(events_table([usage_row(id="c", user_id="another")]), run_id="pull")
    with pytest.raises(BadParameter, match="an import that nothing was built on; 1 were changed since"):
        world.undo(result)


def test_an_import_into_a_month_that_was_closed_since_stays_until_it_is_reopened(world):
    result = world.bring_lines(line("c"))
    with world.ledger.engine.transaction() as writer:
        start, end = NOW.replace(day=1, hour=0), NOW.replace(month=12, day=1, hour=0)
        writer.insert("closes", {"seq": 2, "period": "2026-11", "start_at": start, "end_at": end})
    with pytest.raises(BadParameter, match=r"1 lie in a closed month \(reopen it first\)"):
        world.undo(result)


def test_a_second_import_keeps_the_first_from_being_taken_back(world):
    first = world.bring_lines(line("c"))
    second = world.bring_lines(line("c", user_id="another"))
    with pytest.raises(BadParameter, match="1 were changed since"):
        world.undo(first)
    world.undo(second)
    assert world.event("c").user_id == "user-1"


def test_holds_of_events_that_left_are_over(world):
    result = world.bring_lines(line("c"))
    SyncStore(world.ledger.engine).hold(["c"], reason="ask", actor="fay", now=NOW)
    world.undo(result)
    assert world.rows("SELECT count(*) FROM holds WHERE released_at IS NULL AND event_id = 'c'") == [(0,)]


def test_the_list_of_imports_is_newest_first_and_bounded(world):
    for number in range(3):
        world.now = NOW.replace(minute=number)
        world.bring_lines(line(f"n{number}"))
    assert [one.imported_at.minute for one in world.desk.imports(EVERYONE, 2)] == [2, 1]


def test_nothing_of_an_import_that_was_taken_back_counts_in_any_sum(world):
    totals = world.service.get_usage_events(GetUsageEventsParams(), EVERYONE).totals
    world.undo(world.bring_lines(line("c"), line("a", **CORRECTED)))
    assert world.service.get_usage_events(GetUsageEventsParams(), EVERYONE).totals == totals
    assert world.plan_lines(line("c"), line("a")).outcome == ImportOutcome(
        1, 0, 1, world.plan_lines(line("c")).outcome.organizations
    )


def test_what_stripe_said_of_an_event_meanwhile_stays_said(tmp_path):
    """It was sent, changed by the import, and rejected by a later error report."""
    world = ImportWorld(tmp_path, [booked("a")])
    stand = "UPDATE events SET sync_status = '{}', sync_error = {}, meter_event_identifier = 'usage_1'"
    with world.ledger.engine.transaction() as writer:
        writer.rows(stand.format("processed", "NULL"))
        writer.advance("test")
    path = world.export()
    path.write_text(path.read_text(encoding="utf-8").replace("user-1", "user-2"), encoding="utf-8")
    result = world.bring(path)
    with world.ledger.engine.transaction() as writer:
        writer.rows(stand.format("error", "'no such customer'"))
        writer.advance("test")
    world.undo(result)
    found = world.rows("SELECT user_id, sync_status, sync_error FROM events")
    assert found == [("user-1", "error", "no such customer")]
