"""How fast one may send and how long one waits."""

import threading

import pytest

from billing_core.stripe.limits import LIVE_PER_SECOND, TEST_PER_SECOND, Brake, RetryLimits


@pytest.mark.parametrize(("per_second", "stripes_limit"), [(LIVE_PER_SECOND, 1000), (TEST_PER_SECOND, 25)])
def test_no_second_ever_holds_more_calls_than_stripe_allows(per_second, stripes_limit):
    now = [100.0]
    brake = Brake(per_second, clock=lambda: now[0])
    slots = []
    for number in range(5 * per_second):
        slots.append(now[0] + brake.reserve())
        if number == 2 * per_second:
            now[0] += 7.0  # a rest, after which nothing may be made up for
    for first in range(0, len(slots), 7):
        assert sum(slots[first] <= slot < slots[first] + 1 for slot in slots) <= stripes_limit


def test_the_pace_is_kept_up():
    brake = Brake(TEST_PER_SECOND, clock=lambda: 100.0)
    assert [brake.reserve() for _ in range(101)][-1] == pytest.approx(5, abs=0.15)


def test_without_a_limit_of_our_own_nobody_waits():
    brake = Brake(None, clock=lambda: 100.0)
    assert {brake.reserve() for _ in range(1000)} == {0.0}


def test_a_pause_holds_for_everyone_and_a_shorter_one_does_not_end_it():
    brake = Brake(None, clock=lambda: 100.0)
    brake.pause(9)
    brake.pause(1)
    assert [brake.reserve(), brake.reserve()] == [9.0, 9.0]


def test_a_pause_ordered_while_one_waits_holds_for_that_one_too():
    now = [100.0]
    brake = Brake(None, clock=lambda: now[0])
    brake.pause(1)
    waits = []

    class Over(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            now[0] += timeout
            if len(waits) == 1:
                brake.pause(5)
            return False

    assert brake.acquire(Over()) is True
    assert waits == [1.0, 5.0]


def test_waiting_ends_when_the_run_is_over():
    brake, over = Brake(None), threading.Event()
    brake.pause(60)
    over.set()
    assert brake.acquire(over) is False
    assert Brake(None).acquire(over) is False


def test_pauses_double_with_jitter_up_to_a_longest():
    patience = RetryLimits()
    for failures, longest in [(1, 0.5), (2, 1.0), (3, 2.0), (9, 20.0), (60, 20.0)]:
        found = [patience.backoff_seconds(failures) for _ in range(50)]
        assert longest / 2 <= min(found) <= max(found) <= longest
        assert len(set(found)) > 1
