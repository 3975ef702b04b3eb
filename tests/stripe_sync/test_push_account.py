"""What may be with the account while a push runs: test clocks, an archived meter, customers Stripe never knew."""

from __future__ import annotations

from tests.factories import EVERYONE
from tests.stripe_sync.push_world import at, use


def was_killed(world):
    """As a push leaves it that was killed after "is being tried" was committed."""
    with world.ledger.engine.transaction() as writer:
        writer.rows("UPDATE intents SET state = 'sending', unknown_since = created_at, attempts = 1")


def test_usage_of_a_customer_on_a_test_clock_is_judged_by_its_own_periods(world, stripe):
    stripe.switch(test_clocks=["cus_a"], anchors={"cus_a": int(at(0, 30).timestamp())})
    world.book(use("before", at(0, 10)), use("after", at(0, 50), "20"), use("listed", at(0, 10), "7", "cus_b"))
    world.push()
    hours = [(event["customer"], event["payload"]["value"], event["timestamp"]) for event in stripe.received()]
    edge = int(at(0, 30).timestamp())
    assert ("cus_a", "20", edge) in hours  # cut at the edge of a period that no list shows
    assert ("cus_b", "7", int(at().timestamp())) in hours


def test_usage_of_an_ended_period_on_a_test_clock_is_held_like_any_other(world, stripe):
    start = int(at(-24 * 40).timestamp())
    stripe.switch(test_clocks=["cus_a"], anchors={"cus_a": start, "cus_b": start})
    late = at(-24 * 12)
    world.book(use("clock", late), use("listed", late, "7", "cus_b"))
    world.push()
    statuses, reasons = world.statuses(), {id_: event.sync_error for id_, event in world.events().items()}
    assert statuses == {"clock": "error", "listed": "error"}
    assert reasons["clock"] == reasons["listed"]


def test_a_meter_archived_during_a_push_leaves_the_rest_pending_and_says_so_once(world, stripe):
    world.book(*(use(str(n), at(-n, 10), "7") for n in range(40)))
    stripe.switch(archive_meters_after=5)
    result = world.push()
    assert (result.sent, result.rejected) == (5, 0)
    [problem] = result.problems
    assert "Stripe has no active meter of the event name 'credits'" in problem
    assert f"{result.waiting:,} meter events were not sent" in problem
    assert result.waiting == 35
    found = list(world.statuses().values())
    assert (found.count("pending"), found.count("error"), found.count("sending")) == (35, 0, 0)
    stripe.switch(archive_meters_after=None)
    assert world.push().sent == 35
    assert stripe.sums() == {"cus_a": 280}


def test_a_meter_that_is_gone_by_an_error_report_leaves_the_usage_pending(world, stripe):
    world.book(use("1", at(0, 10)))
    stripe.switch(async_errors={"cus_a": "archived_meter"})
    world.push()
    stripe.switch(async_errors={})
    world.push()
    assert stripe.sums() == {"cus_a": 150}


def test_a_customer_stripe_never_knew_is_rejected_at_once_also_after_a_killed_push(world, stripe):
    world.book(use("1", at(0, 10), customer="cus_nobody"), use("2", at(0, 10), customer="cus_b"))
    stripe.fault("reset", times=50)
    world.push()
    stripe.no_faults()
    was_killed(world)
    result = world.push()
    assert result.rejected == 1
    assert world.statuses()["1"] == "error"
    assert "No such customer" in world.events()["1"].sync_error


def test_a_customer_that_was_deleted_may_have_got_an_earlier_try(world, stripe):
    world.book(use("1", at(0, 10)))
    stripe.fault("reset", times=50)
    world.push()
    stripe.no_faults()
    was_killed(world)
    stripe.switch(deleted_customers=["cus_a"])
    assert world.push().rejected == 0
    assert world.statuses() == {"1": "sending"}


def test_two_live_subscriptions_on_the_meter_are_a_finding(world, stripe):
    stripe.switch(second_subscriptions=["cus_a"], test_clocks=["cus_a"])
    world.book(use("1", at(0, 10)), use("2", at(0, 10), customer="cus_b"))
    world.push()
    found = world.desk.reconcile(EVERYONE, at(-1), at(2))
    [finding] = [one for one in found.findings if one.kind == "several_subscriptions"]
    assert (finding.customer_id, finding.credits) == ("cus_a", 150)
    assert "2 live subscriptions on the meter" in finding.says
    assert not [one for one in found.findings if one.kind == "no_metered_item"]
