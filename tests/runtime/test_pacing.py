"""One pace for everyone who calls the same server."""

import threading
import time

from billing_core.runtime.pacing import Pace


def test_calls_are_spaced_evenly():
    pace = Pace(0.5, clock=lambda: 100.0)
    assert [pace.reserve() for _ in range(3)] == [0.0, 2.0, 4.0]


def test_whoever_waits_can_be_called_off():
    pace, stop = Pace(), threading.Event()
    pace.pause(600)
    threading.Timer(0.02, stop.set).start()
    began = time.monotonic()
    assert pace.wait(stop) is False
    assert time.monotonic() - began < 60


def test_without_a_limit_nobody_waits():
    pace = Pace(clock=lambda: 100.0)
    assert {pace.reserve() for _ in range(1000)} == {0.0}


def test_a_pause_holds_for_everyone_and_a_shorter_one_does_not_end_it():
    pace = Pace(clock=lambda: 100.0)
    pace.pause(9)
    pace.pause(1)
    assert [pace.reserve(), pace.reserve()] == [9.0, 9.0]


def test_a_pause_ordered_while_one_waits_holds_for_that_one_too():
    now = [100.0]
    pace = Pace(clock=lambda: now[0])
    pace.pause(1)
    waits = []

    class Over(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout)
            now[0] += timeout
            if len(waits) == 1:
                pace.pause(5)
            return False

    assert pace.wait(Over()) is True
    assert waits == [1.0, 5.0]


def test_waiting_ends_when_the_run_is_over():
    pace, over = Pace(), threading.Event()
    pace.pause(60)
    over.set()
    assert pace.wait(over) is False
    assert Pace().wait(over) is False
