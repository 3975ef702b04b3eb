"""The common part of both sinks: checks before a call, threads around it, outcomes after it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from billing_core.runtime.pacing import Pace
from billing_core.stripe.bodies import check
from billing_core.stripe.delivery import CallOutcome
from billing_core.stripe.limits import BURST_SECONDS, RetryLimits
from billing_core.stripe.model import MeterEvent, OutcomeKind, SendOutcome
from billing_core.stripe.run import SendRun, carry
from billing_core.stripe.wire import Connection

Parcel = TypeVar("Parcel")
"""What one call carries."""


class ThreadedSink(ABC, Generic[Parcel]):
    """A `Sink` that sends from several threads; subclasses say how events are packed and what one delivery is.

    per_second: Calls a second at most; `None` for no limit of our own.
    workers: Calls in flight at most.
    """

    def __init__(
        self, connection: Connection, per_second: float | None, patience: RetryLimits | None, workers: int
    ) -> None:
        self._connection = connection
        self._patience = patience or RetryLimits()
        self._pace = Pace(per_second, burst_seconds=BURST_SECONDS)
        self._workers = workers
        self._runs: WeakSet[SendRun] = WeakSet()
        self._is_closed = False

    def send(self, events: Sequence[MeterEvent]) -> Iterator[SendOutcome]:
        """Send meter events; see `Sink.send`. Nothing happens before the first outcome is asked for."""
        run = SendRun()
        self._runs.add(run)
        if self._is_closed:
            run.halt("the connection is closed")
        good: list[MeterEvent] = []
        for event in events:
            try:
                check(event)
            except ValueError as fault:
                yield SendOutcome(
                    event.identifier, OutcomeKind.REJECTED, self._connection.clock(), 0, f"not sent: {fault}"
                )
            else:
                good.append(event)
        yield from carry(self._lanes(good), partial(self._deliver, run), run=run, workers=self._workers)

    def close(self) -> None:
        """Stop sending: no further call begins, and what was not tried comes back `REFUSED`."""
        self._is_closed = True
        for run in list(self._runs):
            run.halt("the connection was closed")

    @abstractmethod
    def request_of(self, event: MeterEvent) -> dict[str, Any]:
        """The exact request for a meter event (`Sink.request_of`); `ValueError` for what would not be sent."""

    @abstractmethod
    def _lanes(self, events: Sequence[MeterEvent]) -> Sequence[deque[Parcel]]:
        """Parcels in lanes: those of one lane go one after the other."""

    @abstractmethod
    def _deliver(self, run: SendRun, parcel: Parcel) -> Sequence[SendOutcome]:
        """Every outcome of one parcel; quick once `run` is over."""

    def _outcome(self, event: MeterEvent, ending: CallOutcome) -> SendOutcome:
        reason = None if ending.reason is None else self._connection.without_key(ending.reason)
        now = self._connection.clock()
        return SendOutcome(
            event.identifier, ending.kind, now, ending.tries, reason, ending.code, ending.request_id, ending.after_doubt
        )
