"""When a receiver is tried again, and how far a message got."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.ledger.deliveries import DeliveryOutcome, DeliveryTry
from billing_core.notify.state import DeliveryState, delivery_of, due_at

RAISED = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def failures(count, first=RAISED):
    return [
        DeliveryTry("n", n + 1, first + n * timedelta(seconds=1), DeliveryOutcome.FAILED, 500, "500")
        for n in range(count)
    ]


def test_goes_grow_apart_and_never_more_than_six_hours():
    assert due_at(RAISED, []) == RAISED
    waits = [due_at(RAISED, failures(3 * goes)) - failures(3 * goes)[-1].at for goes in range(1, 10)]
    minutes = [wait // MINUTE for wait in waits]
    assert minutes == [5, 10, 20, 40, 80, 160, 320, 360, 360]


def test_a_go_that_was_cut_off_counts_as_one():
    assert due_at(RAISED, failures(1)) == RAISED + 5 * MINUTE
    assert due_at(RAISED, failures(4)) == failures(4)[-1].at + 10 * MINUTE


@pytest.mark.parametrize("outcome", [DeliveryOutcome.DELIVERED, DeliveryOutcome.GIVEN_UP, DeliveryOutcome.COVERED])
def test_what_is_over_is_never_due_again(outcome):
    assert due_at(RAISED, [*failures(2), DeliveryTry("n", 3, RAISED, outcome)]) is None


@given(st.integers(1, 200))
def test_a_failed_notice_is_always_due_later_than_its_last_try(count):
    tries = failures(count)
    assert due_at(RAISED, tries) > tries[-1].at


def test_a_delivery_tells_how_far_it_got():
    done = [*failures(2), DeliveryTry("n", 3, RAISED + MINUTE, DeliveryOutcome.DELIVERED, 204)]
    late = [
        *failures(3),
        DeliveryTry("n", 0, RAISED + timedelta(days=1), DeliveryOutcome.GIVEN_UP, None, "not delivered"),
    ]

    def state(tries, has_webhook=True):
        found = delivery_of(RAISED, tries, has_webhook=has_webhook)
        return found.state, found.tries

    assert state([], has_webhook=False) == (DeliveryState.NOT_SENT, 0)
    assert state([]) == (DeliveryState.WAITING, 0)
    assert state(failures(3)) == (DeliveryState.FAILED, 3)
    assert state(done) == (DeliveryState.DELIVERED, 3)
    assert state(late) == (DeliveryState.GIVEN_UP, 3)
    assert state([DeliveryTry("n", 0, RAISED, DeliveryOutcome.COVERED)]) == (DeliveryState.COVERED, 0)
    assert delivery_of(RAISED, failures(3), has_webhook=True).next_at == failures(3)[-1].at + 5 * MINUTE
    assert delivery_of(RAISED, done, has_webhook=True).next_at is None
