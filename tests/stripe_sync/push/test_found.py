"""What goes wrong only in a certain order of things; found by `test_stateful`, each told once."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from billing_core.stripe_sync.pipeline import Action
from tests.stripe_sync.push.stripe_server import at
from tests.stripe_sync.push.world import FLAT, HALF_PAST, START

AN_HOUR_AGO = START - timedelta(hours=1)
A_DAY_LATER = {"hours": 26}
"""Stripe has forgotten the identifiers, and its sums have settled."""


def status(world, event_id="a"):
    event = world.events()[event_id]
    return event["sync_status"]


def push_without_an_answer(world, kind="after_success_cut"):
    """Every try ends without an answer; `reset` ones never reach Stripe, the others do."""
    world.stripe.fault(kind, times=None)
    world.push()
    world.stripe.heal()
    assert status(world) == "sending"


def push_and_take_back(world, customer):
    """Stripe accepts, and rejects afterwards."""
    world.stripe.switch(async_errors={customer: "meter_event_invalid_value"})
    world.push()
    world.stripe.switch(async_errors={})
    world.push()


# ── outcomes that are not known ──────────────────────────────────────────────────────────────────


def test_what_arrived_without_an_answer_is_not_sent_again_when_stripe_has_forgotten_it(world):
    world.book("a", HALF_PAST, AN_HOUR_AGO, tokens=100)
    push_without_an_answer(world)
    world.stripe.wait(**A_DAY_LATER)
    world.push()
    assert status(world) in {"processed", "confirmed"}
    assert world.stripe.sums == {HALF_PAST: 10}


def test_what_never_arrived_is_sent_under_a_new_identifier_once_stripe_s_sum_shows_that(world):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=100)
    push_without_an_answer(world, "reset")
    world.stripe.wait(**A_DAY_LATER)
    world.push()
    assert sorted(i["state"] for i in world.intents().values()) in (["accepted", "void"], ["confirmed", "void"])
    assert world.stripe.sums == {FLAT: 10}


def test_a_duplicate_is_a_delivery_also_when_stripe_no_longer_knows_the_key(world):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=100)
    push_without_an_answer(world)
    world.stripe.account.answers.clear()
    world.push()
    assert status(world) in {"processed", "confirmed"}
    assert world.stripe.sums == {FLAT: 10}


def test_of_two_equal_values_in_one_hour_of_which_one_arrived_none_is_guessed(world):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=50)
    push_without_an_answer(world)
    world.book("b", FLAT, AN_HOUR_AGO, tokens=50)
    push_without_an_answer(world, "reset")
    world.stripe.wait(**A_DAY_LATER)
    world.push()
    assert (status(world, "a"), status(world, "b")) == ("sending", "sending")
    assert world.stripe.sums == {FLAT: 5}


def test_an_hour_whose_sum_may_still_change_settles_nothing(world):
    """A correction of -5 never arrived; 5 more, just accepted, are not in the sum yet: it looks as if -5 had."""
    world.book("a", FLAT, AN_HOUR_AGO, tokens=50)
    world.push()
    world.book("a", FLAT, AN_HOUR_AGO, tokens=0)
    push_without_an_answer(world, "reset")
    world.stripe.wait(hours=25)
    world.stripe.fault("403", "/v1/billing/meters/", times=None)  # no sums for now
    world.book("b", FLAT, AN_HOUR_AGO, tokens=50)
    world.push()
    world.stripe.heal()
    world.stripe.switch(summary_lag_seconds=3600.0)
    world.stripe.wait(minutes=1)
    world.push()
    assert status(world) == "sending"
    world.stripe.wait(hours=5)
    world.push()
    assert world.stripe.sums == {FLAT: 5}
    world.check_quiet()


def test_what_was_tried_in_time_is_not_sent_again_once_it_is_too_old(world):
    world.book("a", FLAT, START - timedelta(days=34, hours=22), tokens=100)
    push_without_an_answer(world, "after_success_500")
    world.stripe.wait(hours=3)  # Stripe would say no, and would be wrong
    world.push()
    assert status(world) == "sending"
    world.stripe.wait(**A_DAY_LATER)
    world.push()
    assert status(world) in {"processed", "confirmed"}


@pytest.mark.parametrize("kind", ["after_success_500", "after_success_cut"])
def test_a_customer_deleted_between_two_tries_does_not_hide_that_the_first_arrived(world, kind):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=100)
    push_without_an_answer(world, kind)
    world.stripe.account.answers.clear()  # Stripe does not promise to keep keys of calls that broke
    world.stripe.switch(deleted_customers=[FLAT])
    world.push()
    assert status(world) == "sending"
    world.stripe.wait(**A_DAY_LATER)
    world.push()
    assert status(world) in {"processed", "confirmed"}


def test_what_was_tried_in_time_is_not_sent_again_once_its_invoice_is_final(world):
    world.book("a", HALF_PAST, AN_HOUR_AGO, tokens=100)
    push_without_an_answer(world, "reset")
    world.stripe.wait(hours=2)  # the period ended at 10:20:30, the invoice became final an hour later
    world.push()
    assert status(world) == "sending"
    assert world.stripe.sums == {}
    world.stripe.wait(**A_DAY_LATER)
    world.push()
    assert world.held() == {"a": "closed_period"}


def test_usage_that_disappears_while_its_outcome_is_unknown_and_never_arrived_is_excluded(world):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=100)
    push_without_an_answer(world, "reset")
    world.book("a", FLAT, AN_HOUR_AGO, tokens=0)
    world.stripe.wait(**A_DAY_LATER)
    world.push()
    world.push()
    assert status(world) == "excluded"


# ── rejections that come later ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("steps", range(8))
def test_a_rejection_is_not_lost_when_the_pusher_dies_while_reading_it(world, steps):
    world.book("a", HALF_PAST, AN_HOUR_AGO, tokens=100)
    world.stripe.switch(async_errors={HALF_PAST: "meter_event_invalid_value"})
    world.push()
    world.stripe.switch(async_errors={})
    world.push_and_die(steps)
    world.push()
    assert status(world) == "error"


def test_when_the_first_of_two_intents_is_rejected_the_event_waits_and_a_retry_sends_what_is_missing(world):
    world.book("a", HALF_PAST, AN_HOUR_AGO, tokens=100)
    world.stripe.switch(async_errors={HALF_PAST: "meter_event_invalid_value"}, async_error_delay_seconds=1200.0)
    world.push()
    world.stripe.switch(async_errors={})
    world.book("a", HALF_PAST, AN_HOUR_AGO, tokens=130)
    world.push()
    assert world.stripe.sums == {HALF_PAST: 3}
    world.stripe.wait(minutes=20)
    world.push()
    world.push()
    assert status(world) == "error"
    assert world.stripe.sums == {HALF_PAST: 3}
    world.decide(Action.RETRY)
    world.push()
    assert world.stripe.sums == {HALF_PAST: 13}
    world.check_quiet()


def test_what_was_sent_before_a_rejection_is_given_back_when_the_usage_disappears(world):
    world.book("a", HALF_PAST, AN_HOUR_AGO, tokens=100)
    world.push()
    world.book("a", HALF_PAST, AN_HOUR_AGO, tokens=130)
    push_and_take_back(world, HALF_PAST)
    assert status(world) == "error"
    world.book("a", HALF_PAST, AN_HOUR_AGO, tokens=0)
    world.push()
    assert world.stripe.sums == {}
    world.check_quiet()


# ── customers that change ────────────────────────────────────────────────────────────────────────


def test_usage_that_loses_its_customer_after_sending_is_given_back_and_waits_for_one(world):
    world.book("a", HALF_PAST, AN_HOUR_AGO, tokens=100)
    world.push()
    world.book("a", None, AN_HOUR_AGO, tokens=100)
    world.push()
    assert world.stripe.sums == {}
    assert (status(world), world.held()) == ("error", {"a": "no_customer"})
    world.book("a", FLAT, AN_HOUR_AGO, tokens=100)
    world.push()
    assert world.stripe.sums == {FLAT: 10}
    world.check_quiet()


def test_credits_that_cannot_be_given_back_are_not_tried_for_ever(world):
    world.book("a", HALF_PAST, AN_HOUR_AGO, tokens=100)
    world.push()
    world.stripe.switch(deleted_customers=[HALF_PAST])
    world.book("a", FLAT, AN_HOUR_AGO, tokens=100)
    for _ in range(3):
        world.push()
    assert status(world) == "error"
    assert world.stripe.sums == {HALF_PAST: 10, FLAT: 10}
    assert len(world.intents()) == 3
    world.stripe.switch(deleted_customers=[])
    world.decide(Action.RETRY)
    world.push()
    assert world.stripe.sums == {FLAT: 10}
    world.check_quiet()


def test_a_rejected_return_of_usage_without_a_customer_can_be_tried_again(world):
    world.book("a", HALF_PAST, AN_HOUR_AGO, tokens=100)
    world.push()
    world.book("a", None, AN_HOUR_AGO, tokens=100)
    push_and_take_back(world, HALF_PAST)
    assert world.stripe.sums == {HALF_PAST: 10}
    world.decide(Action.RETRY)
    world.push()
    assert world.stripe.sums == {}
    assert world.held() == {"a": "no_customer"}
    world.check_quiet()


def test_releasing_usage_that_has_lost_its_customer_meanwhile_keeps_the_reason_it_waits_for(world):
    world.book("a", HALF_PAST, AN_HOUR_AGO, tokens=100)
    world.decide(Action.HOLD)
    world.book("a", None, AN_HOUR_AGO, tokens=100)
    world.decide(Action.RELEASE)
    assert world.events()["a"]["sync_error"].startswith("no customer")
    world.push()
    assert world.held() == {"a": "no_customer"}


def test_usage_that_owes_nothing_more_after_a_rejection_stands_where_its_earlier_intent_stands(world):
    world.book("a", HALF_PAST, AN_HOUR_AGO, tokens=100)
    world.push()
    world.book("a", HALF_PAST, AN_HOUR_AGO, tokens=130)
    push_and_take_back(world, HALF_PAST)
    world.book("a", HALF_PAST, AN_HOUR_AGO, tokens=100)
    world.push()
    assert status(world) in {"processed", "confirmed"}
    assert world.stripe.sums == {HALF_PAST: 10}
    world.check_quiet()


# ── times ────────────────────────────────────────────────────────────────────────────────────────


def test_usage_right_after_the_edge_of_a_period_is_dated_into_the_new_period(world):
    world.stripe.wait(hours=2)
    world.book("a", HALF_PAST, at("2026-11-15T10:25:00"), tokens=100)
    world.push()
    assert [i["stamp"] for i in world.intents().values()] == [at("2026-11-15T10:20:30")]


@pytest.mark.parametrize("then", [HALF_PAST, FLAT])
def test_usage_that_moves_to_a_later_hour_and_another_customer_and_back_gets_new_identifiers(world, then):
    times = [START - timedelta(hours=6), START - timedelta(hours=2), START - timedelta(hours=4)]
    for customer, time, tokens in zip([HALF_PAST, then, HALF_PAST], times, [100, 110, 120], strict=True):
        world.book("a", customer, time, tokens)
        world.push()
    assert world.stripe.sums == {HALF_PAST: Decimal(12)}
    world.check_quiet()
