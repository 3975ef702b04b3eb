"""What an import brought as billed, beside a push, a reconciliation and a change of the customer map."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from billing_core.organizations.directory_file import Change
from billing_core.reconcile.compare import compare
from tests.factories import EVERYONE
from tests.imports.world import as_csv, line
from tests.reconcile.literal import NOW as NOW_THERE
from tests.reconcile.literal import books, causes, the_row, usage
from tests.stripe_sync.push_world import at, use


def compared(events, **more):
    return the_row(compare(books(events, **more), now=NOW_THERE))


def test_credits_billed_elsewhere_are_explained_and_not_missing():
    event = usage("a", "150", sync_status="processed", billed_elsewhere=True)
    assert causes(compared([event])) == [("ledger_sent", "legacy_billed", Decimal(150))]


def test_stripe_counts_what_the_other_system_sent_and_that_is_explained_as_well():
    event = usage("a", "150", sync_status="confirmed", billed_elsewhere=True)
    row = compared([event], stripe={("cus_a", 10): 150})
    assert causes(row) == [
        ("ledger_sent", "legacy_billed", Decimal(150)),
        ("sent_stripe", "legacy_billed", Decimal(-150)),
    ]


def test_what_langfuse_says_of_it_by_now_is_late_and_no_correction_to_send():
    event = usage("a", "150", sync_status="processed", billed_elsewhere=True)
    row = compared([event], upstream=[usage("a", "200")])
    assert ("langfuse_ledger", "late", Decimal(50)) in causes(row)


def test_a_push_sends_pending_events_of_a_file_and_none_that_were_billed(world, tmp_path):
    moment = at(minutes=5)
    times = {"timestamp": moment.isoformat(), "ended_at": (moment + timedelta(seconds=60)).isoformat()}
    rows = [line("waits", **times), line("billed", **times, sync_status="processed", meter_event_identifier="usage_1")]
    plan = world.service.imports.plan(as_csv(tmp_path / "f", rows), EVERYONE)
    world.service.imports.apply(plan, EVERYONE)
    world.push()
    assert world.stripe.sums() == {"cus_a": 150}
    assert world.statuses() == {"billed": "processed", "waits": "confirmed"}
    world.book(use("billed", moment, "700"))
    world.push()
    assert world.stripe.sums() == {"cus_a": 150}


def test_the_customer_map_does_not_move_it(world, tmp_path):
    moment = at(minutes=5)
    times = {"timestamp": moment.isoformat(), "ended_at": (moment + timedelta(seconds=60)).isoformat()}
    billed = line("billed", **times, customer_id="", flags='["no_customer"]', sync_status="processed")
    plan = world.service.imports.plan(as_csv(tmp_path / "f", [billed]), EVERYONE)
    world.service.imports.apply(plan, EVERYONE)
    directory = world.service.organizations.directory
    directory.apply(EVERYONE, directory.preview(EVERYONE, [Change("org_a", None, "cus_b")]))
    assert world.events()["billed"].customer_id is None
