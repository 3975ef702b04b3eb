"""A seeded, deterministic amount of Langfuse data and the truth about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from threading import Lock

from billing_core.runtime import clock
from billing_core.sandbox.data import history
from billing_core.sandbox.data.earlier_system import billed_before
from billing_core.sandbox.data.plan import EPOCH, ExpectedEvent, TracePlan, truth_of
from billing_core.sandbox.langfuse.store import RowStore

DEFAULT_SEED = 2026
DEFAULT_EVENTS = 20_000
DEFAULT_DAYS = 30


class SandboxDataset:
    """Exactly `events` traces that start within the last `days` days before `now` (default: this moment).

    Equal arguments give equal data, byte for byte, and data of a later `now` agrees with it wherever both have
    data, except in the oldest tenth of the window. A trace may have rows after `now`; they show up when their time
    comes.

    With `taken_over`, an earlier system billed every customer up to the billing period that is current then, and
    marked those traces.

    Raises ValueError: if `events` or `days` is not positive, or `now` has no offset.
    """

    def __init__(
        self,
        seed: int = DEFAULT_SEED,
        events: int = DEFAULT_EVENTS,
        days: int = DEFAULT_DAYS,
        *,
        now: datetime | None = None,
        taken_over: datetime | None = None,
    ) -> None:
        if events < 1:
            raise ValueError(f"events: {events} is not accepted; expected 1 or more")
        if days < 1:
            raise ValueError(f"days: {days} is not accepted; expected 1 or more")
        now = clock.now() if now is None else now
        if now.tzinfo is None:
            raise ValueError("now: expected an aware time")
        self.seed = seed
        self.events = events
        self.days = days
        self.now = now.astimezone(UTC)
        self.taken_over = taken_over
        self._store: RowStore | None = None
        self._lock = Lock()

    def plans(self) -> Iterator[TracePlan]:
        """Every trace as the generator intends it, oldest day first; generated anew on every call."""
        now = (self.now - EPOCH) // timedelta(milliseconds=1)
        plans = history.plans(self.seed, events=self.events, days=self.days, now=now)
        return plans if self.taken_over is None else billed_before(plans, self.taken_over)

    def store(self) -> RowStore:
        """The rows, generated on the first call: about twenty microseconds each. Safe to call from any thread."""
        with self._lock:
            if self._store is None:
                self._store = RowStore(self.plans())
            return self._store

    def truth(self) -> Mapping[str, ExpectedEvent]:
        """What a correct reader finds, by trace id, from the generator's intent and not from the rows.

        Rows appended later are not part of it.
        """
        return {plan.trace_id: truth_of(plan) for plan in self.plans()}
