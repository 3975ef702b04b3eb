"""One rate limiter per Langfuse organization, shared by every thread that reads it.

Langfuse Cloud counts requests per organization, so threads, providers and projects of one organization in
this process share one limiter.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from billing_core.runtime.pacing import Pace


class ReadStopped(Exception):
    """A read was cancelled while a thread waited for the rate limit."""


class RateLimiter(Pace):
    """The rate limit of everyone who reads one Langfuse organization.

    Parameters
    ----------
    requests_per_minute:
        The most requests to start in a minute, evenly spaced; `None` for no limit of our own (self-hosted
        servers have none, Cloud answers 429 with the time to wait).
    clock:
        Monotonic seconds.
    """

    def __init__(self, requests_per_minute: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(_interval(requests_per_minute), clock=clock)

    def slow_down_to(self, requests_per_minute: int | None) -> None:
        """Lower the limit to a number of requests per minute; a stricter one stays."""
        self.stretch_to(_interval(requests_per_minute))

    def acquire(self, stop: threading.Event) -> None:
        """Wait until a request may be sent.

        Raises
        ------
        Stopped
            If `stop` is set meanwhile.
        """
        if not self.wait(stop):
            raise ReadStopped

    _shared: dict[tuple[str, str], RateLimiter] = {}  # noqa: RUF012  -- the point is that everyone shares it
    _shared_lock = threading.Lock()

    @classmethod
    def shared(cls, host: str, owner: str, requests_per_minute: int | None = None) -> RateLimiter:
        """The one rate limiter of this process for an organization (or project, or key) on a host."""
        with cls._shared_lock:
            limiter = cls._shared.setdefault((host, owner), cls())
        limiter.slow_down_to(requests_per_minute)
        return limiter


def _interval(requests_per_minute: int | None) -> float:
    """Seconds between two requests."""
    return 60.0 / requests_per_minute if requests_per_minute else 0.0
