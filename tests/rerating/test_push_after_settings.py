"""A push after `rerate --settings --apply` over a closed month: Stripe gets the difference, the month stays closed."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from billing_core.rating.events import Policy
from billing_core.types import Flag, GetUsageEventsParams
from tests.factories import EVERYONE
from tests.lived_in import FINANCE, HeldClock
from tests.month_close.world import Books
from tests.stripe_sync.push_world import World, use

HOME, OVERRIDE = Policy(None, False, ("langfuse-*",), {}), Policy("cus_c", True, ("langfuse-*",), {})
EXCLUDED = Policy(None, False, ("langfuse-*", "production"), {})
OCTOBER, NOVEMBER = {"from": "2026-10-01", "to": "2026-11-01"}, {"from": "2026-11-01", "to": "2026-12-01"}


def when(month, day, hour=12):
    return datetime(2026, month, day, hour, tzinfo=UTC)


@pytest.fixture
def world(tmp_path):
    """October is sent, confirmed and closed; one event of November is sent. Billing periods begin on the 15th."""
    stripe = HeldClock()
    stripe.start()
    stripe.reset()
    begins = int(when(9, 15, 0).timestamp())
    stripe.switch(
        extra_customers=["cus_a", "cus_b", "cus_c"], anchors=dict.fromkeys(("cus_a", "cus_b", "cus_c"), begins)
    )
    world = World(tmp_path, stripe)
    world.service.months._stripe = Books(world.ledger)
    go(world, 10, 10)
    book(world, use("ended-period", when(10, 9), "40"))
    world.push()
    go(world, 11, 2)
    book(world, use("oct-a", when(10, 20), "150.4"), use("oct-b", when(10, 20, 13), "60", "cus_b"))
    world.push()
    world.wait(minutes=10)
    world.push()
    world.service.months._stripe.made_at = stripe.now()
    world.service.months.close("2026-10", FINANCE, accept=("unsettled",), reason="agreed")
    book(world, use("nov-a", when(11, 1), "7"))
    world.push()
    yield world
    world.close()
    stripe.stop()


def go(world, month, day):
    world.stripe.offset = when(month, day) - HeldClock.moment


def book(world, *rows):
    world.book(*rows, policy=HOME)


def apply(world, policy):
    world.service.rerating._policy = lambda: policy
    return world.service.rerating.apply_settings(EVERYONE)


def rows(world, window):
    asked = GetUsageEventsParams.parse({**window, "sort": "timestamp", "order": "asc", "limit": 1000})
    return world.service.get_usage_events(asked, EVERYONE).events


def by_customer(events):
    sums = defaultdict(Decimal)
    for event in events:
        sums[event.customer_id] += event.credits.total
    return {customer: total for customer, total in sums.items() if total}


def whole(sums):
    """What Stripe is sent of these credits: whole ones, fractions carried."""
    return {customer: int(total) for customer, total in sums.items() if customer and int(total)}


def at_stripe(world):
    return {customer: value for customer, value in world.stripe.sums().items() if value}


@pytest.mark.parametrize("policy", [OVERRIDE, EXCLUDED], ids=["another customer", "not billed"])
def test_what_changed_moves_at_stripe_once_and_the_closed_month_is_proven_as_before(world, policy):
    closed, before = rows(world, OCTOBER), by_customer(rows(world, {}))
    assert at_stripe(world) == whole(before) == {"cus_a": 197, "cus_b": 60}
    apply(world, policy)
    after = by_customer(rows(world, {}))
    pushed = world.push()

    # Sent: back from those who paid, to who pays now; not sent: what is on an invoice that is final.
    held = {"cus_a": Decimal(40), **({"cus_c": Decimal(-40)} if policy is OVERRIDE else {})}
    carried_out = {one: after.get(one, 0) + held.get(one, 0) for one in {*after, *held}}
    assert at_stripe(world) == whole(carried_out)
    assert (pushed.sent, pushed.held, pushed.rejected, pushed.unknown) == (6 if policy is OVERRIDE else 3, 1, 0, 0)
    assert pushed.failures == (
        "event ended-period is held: the billing period ended by 2026-10-15 00:00 UTC and its invoice is final",
    )

    # October stays what it was; the difference is late usage of November.
    assert rows(world, OCTOBER) == closed
    assert world.service.months.verify("2026-10", FINANCE).differences == ()
    late = [event for event in rows(world, NOVEMBER) if Flag.LATE_AFTER_CLOSE in event.flags]
    october = by_customer(closed)
    reversed_ = by_customer(event for event in late if event.credits.total < 0)
    assert reversed_ == {customer: -total for customer, total in october.items()}
    assert by_customer([*closed, *rows(world, NOVEMBER)]) == after

    # Nothing twice: neither by another push a day later, nor when the settings are as before.
    world.wait(days=1)
    assert world.push().sent == 0
    assert at_stripe(world) == whole(carried_out)
    apply(world, HOME)
    world.push()
    assert at_stripe(world) == whole(before)
    assert by_customer(rows(world, {})) == before
    assert world.push().sent == 0
    assert rows(world, OCTOBER) == closed
    assert world.service.months.verify("2026-10", FINANCE).differences == ()
