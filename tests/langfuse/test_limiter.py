"""One brake for everyone who reads the same organization."""

from __future__ import annotations

import threading
import time

import pytest

from billing_core.langfuse.limiter import RateLimiter, ReadStopped


def test_requests_are_spaced_evenly() -> None:
    limiter = RateLimiter(30, clock=lambda: 100.0)
    assert [limiter.reserve() for _ in range(3)] == [0.0, 2.0, 4.0]


def test_without_a_limit_nobody_waits() -> None:
    limiter = RateLimiter(clock=lambda: 100.0)
    assert [limiter.reserve() for _ in range(3)] == [0.0, 0.0, 0.0]


def test_a_pause_of_many_minutes_holds_for_everyone() -> None:
    limiter = RateLimiter(clock=lambda: 100.0)
    limiter.pause(900)
    limiter.pause(5)
    assert limiter.reserve() == 900


def test_a_pause_ordered_while_waiting_is_obeyed() -> None:
    now = [0.0]
    limiter = RateLimiter(clock=lambda: now[0])
    waited: list[float] = []

    class Clockwork(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0)
            now[0] += timeout or 0
            if len(waited) == 1:
                limiter.pause(70)
            return False

    limiter.pause(10)
    limiter.acquire(Clockwork())
    assert waited == [10, 70]


def test_a_waiting_reader_can_be_called_off() -> None:
    limiter = RateLimiter()
    limiter.pause(600)
    stop = threading.Event()
    threading.Timer(0.02, stop.set).start()
    began = time.monotonic()
    with pytest.raises(ReadStopped):
        limiter.acquire(stop)
    assert time.monotonic() - began < 60


def test_an_organization_has_one_limiter_and_the_strictest_limit_counts() -> None:
    first = RateLimiter.shared("host", "org-of-this-test", 60)
    assert RateLimiter.shared("host", "org-of-this-test", 30) is first
    assert RateLimiter.shared("other-host", "org-of-this-test") is not first
    first.reserve()
    assert first.reserve() == pytest.approx(2.0, abs=0.1)
