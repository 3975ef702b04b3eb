"""Spaces the calls of many threads to one server, and pauses them all together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pace:
    """A rate limiter that gives out evenly spaced slots. Thread-safe.

    per_second: The most calls to start in a second, evenly spaced; `None` for no limit of our own.
    burst_seconds: By how much calls may come early after a rest.
    clock: Monotonic seconds.
    """

    def __init__(
        self,
        per_second: float | None = None,
        *,
        burst_seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interval = 1.0 / per_second if per_second else 0.0
        self._burst = burst_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._next_slot = 0.0
        self._paused_until = 0.0

    def slow_down_to(self, per_second: float | None) -> None:
        """Lower the limit to so many calls a second; a stricter one stays."""
        with self._lock:
            self._interval = max(self._interval, 1.0 / per_second if per_second else 0.0)

    def pause(self, seconds: float) -> None:
        """Start no call for `seconds` from now; a longer pause already in force stays."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def reserve(self) -> float:
        """Take the next slot and return the seconds until it."""
        with self._lock:
            now = self._clock()
            slot = max(self._next_slot, now - self._burst, self._paused_until)
            self._next_slot = slot + self._interval
            return max(slot - now, 0.0)

    def wait(self, over: threading.Event) -> bool:
        """Wait for the next slot; `False` if `over` was set meanwhile and no call may be made."""
        seconds = self.reserve()
        while seconds > 0:
            if over.wait(seconds):
                return False
            # A pause ordered while this one waited holds for it too.
            with self._lock:
                seconds = self._paused_until - self._clock()
        return not over.is_set()
