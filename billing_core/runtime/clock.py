"""The present time: the one place of the product that reads the machine's clock.

`BillingService(clock=…)` and all it makes go by the clock they are given; pages ask the service. Waiting goes by
`time.monotonic`, which nobody can set back.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Says what time it is; aware, UTC."""


def now() -> datetime:
    """The present time, aware, in UTC."""
    return _machine()


def seconds() -> float:
    """The present time in seconds since 1970."""
    return now().timestamp()


def _machine() -> datetime:
    """What tests put another clock in place of."""
    return datetime.now(UTC)  # noqa: TID251 - the one place
