"""A ledger that does not remember what was sent (restored, lost, a second copy) bills nothing twice, and takes nothing
back twice."""

from __future__ import annotations

from datetime import timedelta

import pytest

from billing_core.errors import UpstreamError
from billing_core.stripe_sync.pipeline import Action
from billing_core.stripe_sync.sent_elsewhere import MEMORY
from billing_core.types import Flag, GetUsageEventsParams
from tests.factories import EVERYONE
from tests.stripe_sync.push.world import FLAT, ON_THE_HOUR, START, SWITCHES, World

SUMS = "/v1/billing/meters/"
AN_HOUR_AGO = START - timedelta(hours=1)
FORGOTTEN = timedelta(hours=30)
"""By then Stripe takes an identifier it had before for a new one."""


@pytest.fixture
def world(stripe, template, tmp_path):
    """An empty ledger, and a Stripe that has received nothing; the ledger need not know of all it receives."""
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


# ── what another copy took back ──────────────────────────────────────────────────────────────────


def took_back(world, *, later=FORGOTTEN):
    """150 credits are sent; another copy of the ledger takes 50 of them back, and this one does not know."""
    world.book("a", FLAT, AN_HOUR_AGO, tokens=1500)
    world.push()
    world.back_up()
    world.book("a", FLAT, AN_HOUR_AGO, tokens=1000)
    world.push()
    assert world.stripe.sums == {FLAT: 100}
    world.stripe.wait(seconds=later.total_seconds())
    world.restore()


@pytest.mark.parametrize("later", [timedelta(minutes=5), timedelta(hours=21), FORGOTTEN, timedelta(days=3)])
def test_what_another_copy_took_back_is_not_taken_back_again(world, later):
    took_back(world, later=later)
    world.push()
    assert world.stripe.sums == {FLAT: 100}
    assert world.push().newly_held == 0


def test_a_correction_that_is_kept_back_is_named_with_both_figures_and_sent_once_released(world):
    took_back(world)
    result = world.push()
    assert (result.newly_held, result.held_corrections, world.held()) == (1, 1, {"a": "sent_elsewhere"})
    assert (
        "Stripe counts 100 credits in the hour from 2026-11-15 08:00 UTC, of which this ledger sent 150"
        in (result.failures[0])
    )
    assert Flag.SENT_ELSEWHERE in flags(world, "a")
    assert world.decide(Action.RELEASE) == 1
    world.push()
    world.push()
    assert (world.stripe.sums, world.held()) == ({FLAT: 50}, {})


def test_new_usage_is_sent_while_a_correction_is_kept_back(world):
    took_back(world)
    world.push()
    world.book("b", FLAT, AN_HOUR_AGO, tokens=200)
    world.push()
    assert (world.stripe.sums, world.held()) == ({FLAT: 120}, {"a": "sent_elsewhere"})


@pytest.mark.parametrize(("grown", "shrunk"), [(300, 1000), (900, 1000)], ids=["less in sum", "more in sum"])
def test_what_one_meter_event_carried_together_is_kept_back_together(world, grown, shrunk):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=1500)
    world.push()
    world.back_up()
    world.book("a", FLAT, AN_HOUR_AGO, tokens=shrunk)
    world.book("b", FLAT, AN_HOUR_AGO, tokens=grown)
    world.push()
    sums = dict(world.stripe.sums)
    world.stripe.wait(hours=30)
    world.restore()
    world.push()
    assert (world.stripe.sums, set(world.held())) == (sums, {"a", "b"})


def test_a_correction_is_sent_where_stripe_counts_what_was_delivered(world):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=1500)
    world.push()
    world.stripe.wait(hours=30)
    world.book("a", FLAT, AN_HOUR_AGO, tokens=1000)
    looks(world)
    result = world.push()
    assert (result.newly_held, world.stripe.sums) == (0, {FLAT: 100})
    before_sending, confirming = 1, 1
    assert looks(world) == before_sending + confirming


def test_a_correction_waits_while_stripes_sums_cannot_be_read(world):
    took_back(world)
    world.stripe.fault("503", SUMS, times=None)
    with pytest.raises(UpstreamError, match=f"nothing was sent for {FLAT}"):
        world.service.stripe.push(EVERYONE)
    world.stripe.heal()
    world.push()
    assert (world.stripe.sums, world.held()) == ({FLAT: 100}, {"a": "sent_elsewhere"})


def test_a_correction_that_was_written_down_and_that_another_copy_sent_is_withdrawn(world):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=1500)
    world.push()
    world.stripe.wait(hours=21)
    world.book("a", FLAT, AN_HOUR_AGO, tokens=1000)
    world.stripe.fault("401", times=None)
    world.push()
    world.back_up()
    world.stripe.heal()
    world.push()
    world.stripe.wait(hours=30)
    world.restore()
    world.push()
    assert (world.stripe.sums, world.held()) == ({FLAT: 100}, {"a": "sent_elsewhere"})


def test_while_the_sum_may_lag_a_correction_another_copy_sent_is_not_sent_again(world):
    """Its identifier is known with the same bytes, and no longer to Stripe's memory of calls."""
    took_back(world, later=timedelta(minutes=5))
    world.stripe.account.answers.clear()
    world.stripe.switch(summary_lag_seconds=3600)
    world.push()
    world.push()
    assert len(world.stripe.received) == 2
    world.stripe.wait(hours=5)
    world.push()
    assert (world.stripe.sums, world.events()["a"]["sync_status"]) == ({FLAT: 100}, "confirmed")


def test_a_smaller_correction_than_another_copy_sent_is_named_and_not_sent_beside_it(world):
    took_back(world, later=timedelta(minutes=5))
    world.book("a", FLAT, AN_HOUR_AGO, tokens=1200)
    world.stripe.account.answers.clear()
    world.push()
    world.push()
    world.stripe.wait(hours=5)
    world.push()
    assert (world.stripe.sums, world.held()) == ({FLAT: 100}, {"a": "sent_elsewhere"})


# ── usage that moved after another copy sent it ──────────────────────────────────────────────────


def sent_by_another_copy(world, later=FORGOTTEN):
    """90 credits are sent, and this ledger has them as unsent."""
    world.book("a", FLAT, AN_HOUR_AGO, tokens=900)
    world.back_up()
    world.push()
    world.restore()
    world.stripe.wait(seconds=later.total_seconds())


@pytest.mark.parametrize("later", [timedelta(minutes=5), FORGOTTEN])
@pytest.mark.parametrize("hours", [-30, -3, 1, 30])
def test_usage_that_moved_to_another_hour_after_it_was_sent_is_not_sent_there_again(world, later, hours):
    sent_by_another_copy(world, later)
    world.stripe.wait(hours=30)
    world.book("a", FLAT, AN_HOUR_AGO + timedelta(hours=hours), tokens=900, as_pulled=True)
    world.push()
    assert (world.stripe.sums, world.held()) == ({FLAT: 90}, {"a": "sent_elsewhere"})


@pytest.mark.parametrize("later", [timedelta(minutes=5), FORGOTTEN])
def test_usage_that_moved_to_another_customer_after_it_was_sent_is_not_sent_there_too(world, later):
    sent_by_another_copy(world, later)
    world.book("a", ON_THE_HOUR, AN_HOUR_AGO, tokens=900, as_pulled=True)
    result = world.push()
    assert (world.stripe.sums, world.held()) == ({FLAT: 90}, {"a": "sent_elsewhere"})
    assert (
        f"Stripe counts 90 credits in the hour from 2026-11-15 08:00 UTC of {FLAT}, where this usage was before, of "
        "which 0 are known"
    ) in result.failures[0]


def test_once_usage_that_moved_is_released_nothing_of_its_former_customer_waits_for_it(world):
    sent_by_another_copy(world, timedelta(minutes=5))
    world.book("a", ON_THE_HOUR, AN_HOUR_AGO, tokens=900, as_pulled=True)
    world.push()
    world.decide(Action.RELEASE)
    world.book("late", FLAT, AN_HOUR_AGO - timedelta(hours=1), tokens=50)
    world.push()
    assert (world.stripe.sums, world.held()) == ({FLAT: 95, ON_THE_HOUR: 90}, {})


def test_usage_that_moved_is_sent_where_stripe_counts_nothing_that_is_not_known(world):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=900)
    world.book("a", ON_THE_HOUR, AN_HOUR_AGO + timedelta(minutes=59), tokens=900, as_pulled=True)
    world.stripe.wait(hours=2)
    looks(world)
    assert world.push().newly_held == 0
    of_both_customers, confirming = 2, 1
    assert looks(world) == of_both_customers + confirming
    assert world.stripe.sums == {ON_THE_HOUR: 90}


def test_a_customer_change_that_another_copy_sent_is_not_sent_again(world):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=900, as_pulled=True)
    world.push()
    world.back_up()
    world.book("a", ON_THE_HOUR, AN_HOUR_AGO, tokens=900, as_pulled=True)
    world.push()
    assert world.stripe.sums == {ON_THE_HOUR: 90}
    world.stripe.wait(hours=30)
    world.restore()
    world.push()
    assert (world.stripe.sums, world.held()) == ({ON_THE_HOUR: 90}, {"a": "sent_elsewhere"})


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
    hours = 24 * 5
    for hour in range(hours):
        world.book(f"a{hour}", FLAT, AN_HOUR_AGO - timedelta(hours=hour), tokens=20)
    looks(world)
    result = world.push()
    assert (result.sent, result.newly_held) == (hours, 0)
    before_sending, confirming = 1, 2  # pages of a hundred hours
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


# ── identifiers that Stripe had before ───────────────────────────────────────────────────────────


def other_copy_sends(world, tokens, *, value):
    """Another copy of the ledger has sent the hour's first meter event, with a value of its own; nobody sees it yet."""
    world.book("a", FLAT, AN_HOUR_AGO, tokens=tokens)
    (request,) = world.service.stripe.push(EVERYONE, dry_run=True).requests
    world.stripe.plant(FLAT, value, AN_HOUR_AGO, identifier=request["idempotency_key"])
    world.stripe.switch(summary_lag_seconds=3600)
    assert world.push().credits_sent == 0
    assert world.events()["a"]["sync_status"] == "sending"
    world.stripe.switch(summary_lag_seconds=0)


def test_a_duplicate_nobody_here_sent_is_a_delivery_once_the_sum_is_what_was_to_be_sent(world):
    other_copy_sends(world, 1500, value=150)
    result = world.push()
    assert (result.duplicates, result.credits_sent, result.unknown) == (1, 150, 0)
    assert world.events()["a"]["sync_status"] == "confirmed"
    assert world.stripe.sums == {FLAT: 150}


def test_a_duplicate_with_another_value_is_named_with_both_figures_and_not_delivered(world):
    other_copy_sends(world, 1500, value=100)
    result = world.push()
    assert (result.duplicates, result.credits_sent, result.newly_held) == (0, 0, 1)
    assert "Stripe counts 100 credits in the hour from 2026-11-15 08:00 UTC, of which 0 are known" in result.failures[0]
    assert world.held() == {"a": "sent_elsewhere"}
    assert world.push().newly_held == 0
    world.decide(Action.RELEASE)
    world.push()
    assert world.stripe.sums == {FLAT: 250}


def test_while_the_sum_may_lag_a_duplicate_nobody_here_sent_is_neither_delivered_nor_sent_again(world):
    other_copy_sends(world, 1500, value=100)
    world.stripe.switch(summary_lag_seconds=6 * 3600)
    result = world.push()
    assert (result.unknown, len(result.problems)) == (1, 1)
    assert "before 150 credits were sent from here" in result.problems[0]
    assert len(world.stripe.received) == 1


def test_what_stripe_had_and_does_not_count_is_sent_under_an_identifier_of_its_own(world):
    other_copy_sends(world, 1500, value=100)
    world.stripe.account.book.drop(world.stripe.received[0])
    world.stripe.wait(hours=5)
    world.push()
    world.push()
    assert world.stripe.sums == {FLAT: 150}


def test_an_identifier_that_stripe_knows_with_other_bytes_is_looked_into_before_a_retry_sends(world):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=1000)
    world.back_up()
    world.push()
    world.restore()
    world.book("a", FLAT, AN_HOUR_AGO, tokens=1500)
    world.stripe.switch(summary_lag_seconds=6 * 3600)
    assert world.push().rejected == 1  # the idempotency key had another body
    for _ in range(3):
        world.decide(Action.RETRY)
        world.push()
    assert (world.stripe.sums, world.held()) == ({FLAT: 100}, {"a": "sent_elsewhere"})
