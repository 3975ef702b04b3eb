"""Limits for sending to Stripe: calls per second, waits and tries."""

from __future__ import annotations

import random
from dataclasses import dataclass

LIVE_PER_SECOND = 900
"""Stripe allows 1,000 meter events a second in live mode (notes, section 1.4); others may send too."""

STREAM_LIVE_PER_SECOND = 90
"""Batches of up to 100: the stream takes 10,000 events a second."""

TEST_PER_SECOND = 20
"""In sandboxes everything shares 25 calls a second."""

BURST_SECONDS = 0.1
"""Calls may come early by this much: with it any one second stays below Stripe's limit."""


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How long and how often calls to Stripe are repeated, unless its answers say otherwise."""

    connect_seconds: float = 5.0
    answer_seconds: float = 15.0
    send_tries: int = 4
    read_tries: int = 3
    first_backoff_seconds: float = 0.5
    longest_backoff_seconds: float = 20.0
    limited_send_seconds: float = 120.0
    """All waiting for rate limits on behalf of one meter event."""
    limited_read_seconds: float = 30.0
    """The same for one read: a person may be waiting."""

    def backoff_seconds(self, failures: int) -> float:
        """The pause in seconds after this many failures: doubling, with jitter downwards to half."""
        longest: float = min(self.first_backoff_seconds * 2 ** (failures - 1), self.longest_backoff_seconds)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311  -- jitter, not a secret
