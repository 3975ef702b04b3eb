"""One run of sending: threads that deliver, one item per customer at a time, and the reasons to stop."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeAlias, TypeVar

from billing_core.stripe.model import SendOutcome

Item = TypeVar("Item")

_Ready: TypeAlias = "queue.SimpleQueue[deque[Item] | None]"
_Results: TypeAlias = "queue.SimpleQueue[list[SendOutcome] | Exception]"

MOST_UNANSWERED = 8
"""Deliveries in a row, over all threads, without an answer: Stripe is down, not one event odd."""


class SendRun:
    """The state that the threads of one `send` share; once `over` is set no new call begins."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.is_abandoned = False
        """Nobody reads the outcomes any more."""
        self._lock = threading.Lock()
        self._unanswered = 0
        self._reason: str | None = None

    @property
    def reason(self) -> str:
        """The reason why the run is over, for what was not tried."""
        return self._reason or "sending was interrupted"

    def halt(self, reason: str) -> None:
        """Stop the run: nothing more is sent; the first reason counts."""
        with self._lock:
            self._reason = self._reason or reason
            self.over.set()

    def abandon(self) -> None:
        """Stop the run because nobody takes its outcomes any more."""
        self.is_abandoned = True
        self.over.set()

    def answered(self) -> None:
        """Note that Stripe gave a definite response."""
        with self._lock:
            self._unanswered = 0

    def unanswered(self, reason: str) -> None:
        """Note that a delivery ended without a definite response; too many in a row stop the run."""
        with self._lock:
            self._unanswered += 1
            is_down = self._unanswered >= MOST_UNANSWERED
        if is_down:
            self.halt(f"Stripe is not answering (the last of {MOST_UNANSWERED} in a row: {reason})")


def carry(
    lanes: Sequence[deque[Item]], deliver: Callable[[Item], Iterable[SendOutcome]], *, run: SendRun, workers: int
) -> Iterator[SendOutcome]:
    """Deliver the items of all lanes in threads; yields each outcome as it becomes known.

    A lane is worked off in its order and never by two threads at once. `deliver` must return quickly once
    `run.over` is set; what it raises ends the whole run. When the consumer stops early, the threads begin no
    further call and have ended when the generator is closed.
    """
    waiting = sum(map(len, lanes))
    ready: _Ready[Item] = queue.SimpleQueue()
    results: _Results = queue.SimpleQueue()
    for lane in lanes:
        ready.put(lane)
    threads = [
        threading.Thread(target=_work, args=(ready, results, deliver, run), name="stripe-send", daemon=True)
        for _ in range(min(workers, len(lanes)))
    ]
    try:
        for thread in threads:
            thread.start()
        while waiting:
            outcomes = results.get()
            if isinstance(outcomes, Exception):
                raise outcomes
            waiting -= 1
            yield from outcomes
    finally:
        if waiting:
            run.abandon()
        for _ in threads:
            ready.put(None)
        for thread in threads:
            if thread.ident is not None:
                thread.join()


def _work(
    ready: _Ready[Item], results: _Results, deliver: Callable[[Item], Iterable[SendOutcome]], run: SendRun
) -> None:
    """One thread: take a lane, deliver its first item, put the lane back."""
    while (lane := ready.get()) is not None and not run.is_abandoned:
        try:
            results.put(list(deliver(lane.popleft())))
        except Exception as error:  # noqa: BLE001  -- the consumer raises it; otherwise it would wait for ever
            results.put(error)
        if lane:
            ready.put(lane)
