"""A ledger that does not remember what was sent (restored, lost, a second copy) bills nothing twice.

`PUSHING_EXAMPLES=2000` (and `PUSHING_STEPS`) searches longer than a run of the suite does.
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from billing_core.errors import UpstreamError
from billing_core.pipeline import Action
from billing_core.sent_elsewhere import MEMORY
from billing_core.types import Flag, GetUsageEventsParams
from tests.factories import EVERYONE
from tests.pushing.world import FLAT, ON_THE_HOUR, START

SUMS = "/v1/billing/meters/"
AN_HOUR_AGO = START - timedelta(hours=1)
FORGOTTEN = timedelta(hours=30)
"""By then Stripe takes an identifier it had before for a new one."""


@pytest.fixture
def world(stripe, template, tmp_path):
    """An empty ledger, and a Stripe that has received nothing; what else goes to that Stripe this ledger may not know."""
    stripe.reset(START, **SWITCHES)
    made = World(template, tmp_path, stripe)
    yield made
    made.close()


def flags(world, name):
    events = world.service.get_usage_events(GetUsageEventsParams(limit=1000), EVERYONE).events
    return next(event.flags for event in events if event.id == name)


def looks(world):
    """Looks at customers' sums since the last call of this."""
    requests = world.stripe._layer.requests
    count = sum("event_summaries" in call["path"] for call in requests)
    requests.clear()
    return count


# ── a ledger that was restored or lost ───────────────────────────────────────────────────────────


@pytest.mark.parametrize("later", [timedelta(minutes=5), timedelta(hours=21), FORGOTTEN, timedelta(days=3)])
def test_a_ledger_that_is_lost_and_pulled_anew_bills_nothing_again(world, later):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=9000)
    world.push()
    world.stripe.wait(seconds=later.total_seconds())
    world.lose()
    result = world.push()
    assert (world.stripe.sums, result.newly_held) == ({FLAT: 900}, 1)
    assert world.held() == {"a": "sent_elsewhere"}
    assert Flag.SENT_ELSEWHERE in flags(world, "a")
    reason = world.events()["a"]["sync_error"]
    assert "900 credits in the hour from 2026-11-15 08:00 UTC, of which 0 are known" in reason
    assert world.push().newly_held == 0


def test_a_ledger_restored_from_yesterday_sends_only_what_nobody_sent(world):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=100)
    world.push()
    world.back_up()
    world.book("b", FLAT, AN_HOUR_AGO + timedelta(minutes=20), tokens=200)
    world.push()
    world.stripe.wait(hours=30)
    world.book("c", FLAT, world.now() - timedelta(hours=2), tokens=400)
    world.restore()
    world.push()
    assert world.stripe.sums == {FLAT: 70}
    assert world.held() == {"b": "sent_elsewhere"}


def test_a_correction_that_was_sent_before_a_backup_came_back_is_not_sent_again(world):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=100)
    world.push()
    world.back_up()
    world.book("a", FLAT, AN_HOUR_AGO, tokens=150)
    world.push()
    assert world.stripe.sums == {FLAT: 15}
    world.stripe.wait(hours=30)
    world.restore()
    world.push()
    assert (world.stripe.sums, world.held()) == ({FLAT: 15}, {"a": "sent_elsewhere"})
    assert world.events()["a"]["sync_status"] in {"processed", "confirmed"}
    assert world.decide(Action.RELEASE) == 1
    world.push()
    assert (world.stripe.sums, world.held()) == ({FLAT: 20}, {})


def test_fractions_that_the_lost_ledger_had_carried_are_not_sent_again(world):
    world.book("a", FLAT, AN_HOUR_AGO - timedelta(hours=3), tokens=107)
    world.push()
    world.back_up()
    world.book("b", FLAT, AN_HOUR_AGO, tokens=6)
    world.push()
    assert world.stripe.sums == {FLAT: 11}
    world.stripe.wait(hours=30)
    world.restore()
    world.push()
    for number, tokens in enumerate([8, 6, 3, 9, 7]):
        world.book(f"later-{number}", FLAT, world.now() - timedelta(hours=2), tokens=tokens)
        world.stripe.wait(hours=1)
        world.push()
        used = sum(usage.tokens for usage in world.usage.values())
        assert world.stripe.sums == {FLAT: used // 10}


def test_what_an_earlier_push_wrote_down_and_another_ledger_sent_is_withdrawn(world):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=100)
    world.stripe.fault("401", times=None)
    world.push()
    world.back_up()
    world.stripe.heal()
    world.push()
    world.stripe.wait(hours=30)
    world.restore()
    result = world.push()
    assert (world.stripe.sums, result.newly_held, world.held()) == ({FLAT: 10}, 1, {"a": "sent_elsewhere"})
    assert [i["state"] for i in world.intents().values()] == ["void"]


# ── what a person decides ────────────────────────────────────────────────────────────────────────


def test_what_is_released_is_sent_once_and_stays_released_until_stripe_counts_more(world):
    world.stripe.plant(FLAT, 40, AN_HOUR_AGO)
    world.book("a", FLAT, AN_HOUR_AGO, tokens=100)
    assert world.push().newly_held == 1
    world.decide(Action.RELEASE)
    assert Flag.SENT_ELSEWHERE not in flags(world, "a")
    world.push()
    world.book("b", FLAT, AN_HOUR_AGO, tokens=20)
    world.stripe.wait(hours=30)
    world.push()
    assert (world.stripe.sums, world.held()) == ({FLAT: 52}, {})
    world.stripe.plant(FLAT, 5, AN_HOUR_AGO)
    world.stripe.wait(hours=30)
    world.book("c", FLAT, AN_HOUR_AGO, tokens=30)
    world.push()
    assert (world.stripe.sums, world.held()) == ({FLAT: 57}, {"c": "sent_elsewhere"})


def test_while_some_of_it_is_kept_back_late_usage_waits_with_it(world):
    world.stripe.plant(FLAT, 40, AN_HOUR_AGO)
    world.book("a", FLAT, AN_HOUR_AGO, tokens=100)
    world.push()
    world.book("late", FLAT, AN_HOUR_AGO - timedelta(hours=5), tokens=30)
    world.push()
    assert world.held() == {"a": "sent_elsewhere", "late": "sent_elsewhere"}
    assert world.stripe.sums == {FLAT: 40}


def test_usage_after_the_hour_and_of_other_customers_is_sent(world):
    world.stripe.plant(FLAT, 40, AN_HOUR_AGO - timedelta(hours=2))
    world.book("a", FLAT, AN_HOUR_AGO - timedelta(hours=2), tokens=100)
    world.book("b", FLAT, AN_HOUR_AGO, tokens=50)
    world.book("c", ON_THE_HOUR, AN_HOUR_AGO - timedelta(hours=2), tokens=20)
    world.push()
    assert world.stripe.sums == {FLAT: 45, ON_THE_HOUR: 2}


# ── what it costs to ask, and what happens when nobody answers ───────────────────────────────────


def test_the_first_push_of_a_new_ledger_asks_once_per_customer_and_sends_everything(world):
    for hour in range(24 * 12):
        world.book(f"a{hour}", FLAT, AN_HOUR_AGO - timedelta(hours=hour), tokens=20)
    looks(world)
    result = world.push()
    assert (result.sent, result.newly_held) == (24 * 12, 0)
    before_sending, confirming = 1, 3  # pages of a hundred hours
    assert looks(world) == before_sending + confirming


def test_nothing_is_sent_for_a_customer_whose_sums_cannot_be_read_and_everything_for_the_others(world):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=100)
    world.book("b", ON_THE_HOUR, AN_HOUR_AGO, tokens=50)
    world.stripe.fault("503", SUMS, times=None, body_contains=FLAT)
    with pytest.raises(UpstreamError, match=f"nothing was sent for {FLAT} into hours that Stripe may count already"):
        world.service.stripe.push(EVERYONE)
    assert world.stripe.sums == {ON_THE_HOUR: 5}
    world.stripe.heal()
    world.push()
    assert world.stripe.sums == {FLAT: 10, ON_THE_HOUR: 5}


def test_hours_this_ledger_sent_into_lately_are_not_asked_about(world):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=100)
    world.push()
    world.book("a", FLAT, AN_HOUR_AGO, tokens=150)
    looks(world)
    world.push()
    assert looks(world) == 0
    world.stripe.wait(seconds=MEMORY.total_seconds())
    world.book("a", FLAT, AN_HOUR_AGO, tokens=170)
    world.push()
    assert looks(world) >= 1
    assert world.stripe.sums == {FLAT: 17}
