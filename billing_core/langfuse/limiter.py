"""One rate limit for each Langfuse organization, shared by every thread, provider and project of it in this process:
Langfuse Cloud counts requests per organization.
"""

from __future__ import annotations

import threading

from billing_core.runtime.pacing import Pace

_shared: dict[tuple[str, str], Pace] = {}
_lock = threading.Lock()


class ReadStopped(Exception):
    """A read was cancelled while a thread waited for the rate limit."""


def shared_pace(host: str, owner: str, requests_per_minute: int | None = None) -> Pace:
    """The pace of an organization (or project, or key) on a host; the strictest limit anybody names counts.

    Self-hosted servers have no limit; Cloud answers 429 with the time to wait.
    """
    with _lock:
        pace = _shared.setdefault((host, owner), Pace())
    pace.slow_down_to(per_second(requests_per_minute))
    return pace


def per_second(requests_per_minute: int | None) -> float | None:
    """Requests a second."""
    return requests_per_minute / 60 if requests_per_minute else None
