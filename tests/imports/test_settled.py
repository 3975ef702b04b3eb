"""Files with what was settled: read back into the same ledger nothing changes, and a fresh one sends nothing of it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from billing_core.errors import BadParameter
from billing_core.stripe_sync.settlement_rules import SettlementKind
from tests.factories import EVERYONE
from tests.imports.world import NOW, ImportWorld, booked, line

OLD = NOW - timedelta(days=50)


@pytest.fixture
def world(tmp_path):
    """Two events of 150 credits that are in error, one of them written off."""
    made = ImportWorld(tmp_path, [booked("a", timestamp=OLD), booked("b", timestamp=OLD)])
    with made.ledger.engine.transaction() as writer:
        writer.rows("UPDATE events SET sync_status = 'error', sync_error = 'too old'")
    made.service.stripe.settle(EVERYONE, ["a"], SettlementKind.WRITE_OFF, reason="agreed")
    return made


def test_an_export_of_what_was_written_off_reads_back_unchanged(world, tmp_path):
    exported, before = world.export(), world.published()
    result = world.bring(exported).to_json()
    assert {name: result[name] for name in ("new", "changed", "unchanged", "rejected")} == {
        "new": 0,
        "changed": 0,
        "unchanged": 2,
        "rejected": [],
    }
    assert world.published() == before
    fresh = ImportWorld(tmp_path, name="fresh")
    fresh.bring(exported)
    event = fresh.event("a")
    assert (event.sync_status, event.flags) == ("excluded", ["written_off"])
    assert fresh.statuses()["b"] == "error"


def test_credits_that_nobody_wrote_off_are_not_imported_as_excluded(world):
    plan = world.plan_lines(line("c", sync_status="excluded"))
    assert [one.field for one in plan.rejected] == ["sync_status"]


def test_an_import_over_what_was_written_off_owes_only_its_difference(world):
    more = {"credits_ai_tokens": "140", "credits_total": "190", "amount_usd": "0.0076"}
    world.bring_lines(
        line(
            "a",
            timestamp=f"{OLD:%Y-%m-%dT%H:%M:%S.000Z}",
            ended_at=f"{OLD + timedelta(minutes=1):%Y-%m-%dT%H:%M:%S.000Z}",
            **more,
        )
    )
    assert world.event("a").sync_status == "pending"
    done = world.service.stripe.decide_about(EVERYONE, "hold", ["a"], reason="x")
    assert done.events == 1
    assert world.service.stripe.settle(EVERYONE, ["a"], SettlementKind.WRITE_OFF, reason="too").credits == 40
    assert world.event("a").sync_status == "excluded"


def test_an_import_whose_events_were_settled_is_not_undone(world):
    result = world.bring_lines(line("c", sync_status="error", sync_error="failed"))
    world.service.stripe.settle(EVERYONE, ["c"], SettlementKind.WRITE_OFF, reason="agreed")
    with pytest.raises(BadParameter, match="sent to Stripe or are on their way, or settled"):
        world.undo(result)
