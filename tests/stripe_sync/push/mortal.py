"""A pusher that can die at any of its steps: before every commit and before every call to Stripe.

Between two steps nothing happens that outlives the process, so "after" a step is "before" the next one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from billing_core.ledger.duckdb_engine import DuckDBEngine
from billing_core.settings import Settings
from billing_core.stripe.limits import RetryLimits
from billing_core.stripe.model import MeterEvent, SendOutcome, Sink
from billing_core.stripe.provider import StripeProvider

METER_EVENTS = "/v1/billing/meter_events"

SHORT = RetryLimits(
    connect_seconds=2,
    answer_seconds=0.6,
    send_tries=2,
    read_tries=2,
    first_backoff_seconds=0.005,
    longest_backoff_seconds=0.01,
    limited_send_seconds=0.02,
    limited_read_seconds=0.02,
)
"""Two tries and hardly a pause: what a fault does to a push shows within the push."""


class Crash(Exception):
    """The end of the process, as far as one process can play it."""


class Fuse:
    """Ends everything at some step, for good: a dead process does nothing more."""

    def __init__(self, end: Callable[[], None] | None = None) -> None:
        self.steps: int | None = None
        self.sends = 0
        self._end = end
        self._is_dead = False
        self._lock = threading.Lock()

    def arm(self, steps: int, after_sends: int = 0) -> None:
        """Die after so many more steps, counted from when so many meter events have been sent."""
        self.steps, self.sends, self._is_dead = steps, after_sends, False

    def renew(self) -> None:
        """A new process, which lives."""
        self.steps, self._is_dead = None, False

    def step(self, *, sends: bool = False) -> None:
        """One step is about to be made; whether it sends a meter event."""
        with self._lock:
            if self.steps is not None and self.sends <= 0 and self.steps <= 0:
                self._is_dead = True
                if self._end is not None:
                    self._end()
            if self._is_dead:
                raise Crash
            if self.sends > 0:
                self.sends -= sends
            elif self.steps is not None:
                self.steps -= 1


class MortalEngine(DuckDBEngine):
    """The ledger of such a process: it may die before every commit."""

    def __init__(self, path: Path, fuse: Fuse) -> None:
        super().__init__(path)
        self._fuse = fuse

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        with super().transaction() as writer:
            yield writer
            self._fuse.step()


class _OnOurClock:
    """A sink whose answers come when the test's clock says."""

    def __init__(self, sink: Sink, clock: Callable[[], datetime]) -> None:
        self._sink = sink
        self._clock = clock
        self.request_of = sink.request_of
        self.close = sink.close

    def send(self, events: Sequence[MeterEvent]) -> Iterator[SendOutcome]:
        """See `Sink.send`."""
        outcomes = self._sink.send(events)
        with closing(outcomes):  # type: ignore[type-var]  # a generator
            for outcome in outcomes:
                yield replace(outcome, answered_at=self._clock())


def impatient_stripe(
    fuse: Fuse, clock: Callable[[], datetime], *, only: str = "", patience: RetryLimits = SHORT
) -> Callable[[Settings], StripeProvider]:
    """Stripe through its SDK, called by a process that may die before every call (to paths like `only`)."""

    def connect(settings: Settings) -> StripeProvider:
        provider = StripeProvider.from_settings(settings, patience)
        call = provider._connection.call

        def mortal_call(method: Any, path: str, *given: Any, **more: Any) -> Any:
            if path.startswith(only):
                fuse.step(sends=path == METER_EVENTS)
            return call(method, path, *given, **more)

        provider._connection.call = mortal_call  # type: ignore[method-assign]
        make_sink = provider.sink
        provider.sink = lambda *given: _OnOurClock(make_sink(*given), clock)  # type: ignore[assignment, method-assign]
        return provider

    return connect
