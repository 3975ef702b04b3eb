"""One brake per Langfuse organization, pulled by every thread that reads it.

Langfuse Cloud counts requests per organization, so threads, providers and projects of one organization in
this process share one limiter.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["RateLimiter", "Stopped"]


class Stopped(Exception):
    """The read was called off while a thread waited."""


class RateLimiter:
    """Spaces requests and lets everyone pause together.

    Parameters
    ----------
    requests_per_minute:
        The most requests to start in a minute, evenly spaced; `None` for no limit of our own (self-hosted
        servers have none, Cloud answers 429 with the time to wait).
    clock:
        Monotonic seconds.
    """

    def __init__(self, requests_per_minute: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._interval = 60.0 / requests_per_minute if requests_per_minute else 0.0
        self._next_slot = 0.0
        self._paused_until = 0.0

    def slow_down_to(self, requests_per_minute: int | None) -> None:
        """Take the stricter of the current and the given limit."""
        if requests_per_minute:
            with self._lock:
                self._interval = max(self._interval, 60.0 / requests_per_minute)

    def pause(self, seconds: float) -> None:
        """Nobody starts a request for `seconds` from now; a longer pause already in force stays."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def reserve(self) -> float:
        """Take the next slot and return the seconds to wait for it."""
        with self._lock:
            now = self._clock()
            slot = max(now, self._next_slot, self._paused_until)
            self._next_slot = slot + self._interval
            return slot - now

    def acquire(self, stop: threading.Event) -> None:
        """Wait until a request may start.

        Raises
        ------
        Stopped
            If `stop` is set meanwhile.
        """
        seconds = self.reserve()
        while seconds > 0:
            if stop.wait(seconds):
                raise Stopped
            # A pause ordered while we slept holds for this request too.
            with self._lock:
                seconds = self._paused_until - self._clock()
        if stop.is_set():
            raise Stopped

    _shared: dict[tuple[str, str], RateLimiter] = {}  # noqa: RUF012  -- the point is that everyone shares it
    _shared_lock = threading.Lock()

    @classmethod
    def shared(cls, host: str, owner: str, requests_per_minute: int | None = None) -> RateLimiter:
        """The one limiter of this process for an organization (or project, or key) on a host."""
        with cls._shared_lock:
            limiter = cls._shared.setdefault((host, owner), cls())
        limiter.slow_down_to(requests_per_minute)
        return limiter
