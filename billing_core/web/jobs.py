"""Long work in the background of a process, for everybody to watch: a pull, a push, a reconciliation, a close, plans.

Each kind runs at most once at a time per process. The threads are daemons: all of this work may be cut off anywhere
and is taken up by the next run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from billing_core.access import Principal
from billing_core.ingest.pull import FIRST_PULL_DAYS, PullResult
from billing_core.runtime.clock import Clock
from billing_core.runtime.faults import said_of
from billing_core.service import BillingService
from billing_core.values.usage_frame import PullProgress

if TYPE_CHECKING:
    from billing_core.month_close.model import Checklist, Closing, Verification
    from billing_core.organizations.limits_service import Refreshed
    from billing_core.rating.card import RateCardFile
    from billing_core.reconcile.report import Reconciliation
    from billing_core.rerating.model import Rerating
    from billing_core.stripe_sync.push import PushProgress, PushResult  # both bring Stripe's SDK

    Found: TypeAlias = Checklist | Closing | Verification

P = TypeVar("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class JobState(Generic[P, R]):
    """A moment of a job. `ended_at` is set once it is over; then either `result` or `error` says how.

    `number` counts the jobs of one kind in this process, so that a page notices that the one it watched is over.
    """

    number: int
    started_by: str
    started_at: datetime
    progress: P
    ended_at: datetime | None = None
    result: R | None = None
    error: str | None = None

    @property
    def is_running(self) -> bool:
        """Whether it is still at work."""
        return self.ended_at is None

    def per_second(self, count: int, now: datetime) -> float | None:
        """`count` per second since the start; `None` while there is nothing to divide."""
        seconds = ((self.ended_at or now) - self.started_at).total_seconds()
        return count / seconds if seconds > 0 and count else None


class PullState(JobState[PullProgress, PullResult]):
    """A moment of a pull."""

    __slots__ = ()

    def rows_per_second(self, now: datetime) -> float | None:
        """Observations read per second since the start."""
        return self.per_second(self.progress.observations, now)


class PushState(JobState["PushProgress", "PushResult"]):
    """A moment of a push."""

    __slots__ = ()

    def answers_per_second(self, now: datetime) -> float | None:
        """Meter events answered per second since the start."""
        return self.per_second(self.progress.done, now)


@dataclass(frozen=True, slots=True)
class ReconcileProgress:
    """A moment of a reconciliation: the part done, 0 to 1, and what is done now."""

    fraction: float
    doing: str


class ReconcileState(JobState[ReconcileProgress, "Reconciliation"]):
    """A moment of a reconciliation."""

    __slots__ = ()


class PlansState(JobState[None, "Refreshed"]):
    """A moment of a reading of plans."""

    __slots__ = ()


class MonthTask(StrEnum):
    """What is done with a month in the background."""

    CHECK = "check"
    CLOSE = "close"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class CloseProgress:
    """A moment of work on a month: which, what for, the part done, 0 to 1, and what is done now."""

    task: MonthTask
    period: str
    fraction: float
    doing: str


class CloseState(JobState[CloseProgress, "Found"]):
    """A moment of work on a month; what it results in follows from its task."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Share:
    """A moment of work that knows how much there is: the part done, 0 to 1, and what is done now."""

    fraction: float
    doing: str


class RerateState(JobState[Share, "Rerating"]):
    """A moment of booking what another card would have cost."""

    __slots__ = ()


S = TypeVar("S", bound=JobState[Any, Any])


class Job(Generic[S]):
    """At most one run at a time; any thread may start it or look at its state.

    Parameters
    ----------
    name:
        As the log and the thread shall call it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._turn = threading.Lock()
        self._state: S | None = None
        self._thread: threading.Thread | None = None

    @property
    def state(self) -> S | None:
        """The running or the last run; `None` before the first."""
        return self._state

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Return when the running one is over."""
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def _begin(self, clock: Clock, first: Callable[[int, datetime], S], work: Callable[[], Any]) -> bool:
        """Run `work` in a thread of its own; `False` if one is under way.

        `first` makes the first state of a run from its number and the time.
        """
        with self._turn:
            if self._state is not None and self._state.is_running:
                return False
            number = 1 if self._state is None else self._state.number + 1
            self._state = first(number, clock())
            thread = threading.Thread(target=self._run, args=(clock, work), name=f"{self._name}-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the machine has no further thread: it never began
                self._state = replace(self._state, ended_at=clock(), error=f"{self._name}: {error}")
                return True
            self._thread = thread
            return True

    def _run(self, clock: Clock, work: Callable[[], Any]) -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - a thread has nobody above it who would say so
            self._end(clock(), error=said_of(error, f"{self._name} in the background"))
        else:
            self._end(clock(), result=result)

    def _see(self, progress: Any) -> None:
        with self._turn:
            if self._state is not None:
                self._state = replace(self._state, progress=progress)

    def _end(self, at: datetime, *, result: Any = None, error: str | None = None) -> None:
        with self._turn:
            if self._state is not None:
                self._state = replace(self._state, ended_at=at, result=result, error=error)


class PullJob(Job[PullState]):
    """Reading Langfuse."""

    def __init__(self) -> None:
        super().__init__("pull")

    def start(self, service: BillingService, principal: Principal, *, first_days: int = FIRST_PULL_DAYS) -> bool:
        """Begin an incremental pull in the name of `principal`; `False` if one is under way already.

        The first one ever reads the last `first_days` days.
        """

        def work() -> PullResult:
            waits = lambda: self._see(PullProgress(0.0, 0, "waiting for another pull"))  # noqa: E731
            return service.pull(principal, first_days=first_days, progress=self._see, on_wait=waits)

        begin = PullProgress(0.0, 0, "connecting")
        return self._begin(service.now, lambda number, at: PullState(number, principal.name, at, begin), work)


class PushJob(Job[PushState]):
    """Sending to Stripe."""

    def __init__(self) -> None:
        super().__init__("push")

    def start(self, service: BillingService, principal: Principal) -> bool:
        """Begin a push in the name of `principal`; `False` if one is under way already."""
        from billing_core.stripe_sync import push

        def work() -> PushResult:
            waits = lambda: self._see(push.PushProgress(0, 0, 0, "waiting for another push"))  # noqa: E731
            return service.stripe.push(principal, progress=self._see, on_wait=waits)

        begin: PushProgress = push.PushProgress(0, 0, 0, "reading billing periods and planning")
        return self._begin(service.now, lambda number, at: PushState(number, principal.name, at, begin), work)


class PlansJob(Job[PlansState]):
    """Reading plans from Stripe."""

    def __init__(self) -> None:
        super().__init__("plans")

    def start(self, service: BillingService, principal: Principal) -> bool:
        """Begin to read plans in the name of `principal`; `False` if that is under way already."""

        def work() -> Refreshed:
            return service.organizations.limits.refresh(principal)

        return self._begin(service.now, lambda number, at: PlansState(number, principal.name, at, None), work)


class ReconcileJob(Job[ReconcileState]):
    """Comparing Langfuse, ledger and Stripe."""

    def __init__(self) -> None:
        super().__init__("reconcile")

    def start(self, service: BillingService, principal: Principal, start: datetime, end: datetime) -> bool:
        """Begin to reconcile `[start, end)` in the name of `principal`; `False` if one is under way already."""

        def see(fraction: float, doing: str) -> None:
            self._see(ReconcileProgress(fraction, doing))

        def work() -> Reconciliation:
            return service.stripe.reconcile(principal, start, end, progress=see)

        begin = ReconcileProgress(0.0, "connecting")
        return self._begin(service.now, lambda number, at: ReconcileState(number, principal.name, at, begin), work)


class CloseJob(Job[CloseState]):
    """Checking, closing and verifying months. What was found last about a month is kept beside the newest run."""

    def __init__(self) -> None:
        super().__init__("close")
        self._before: dict[tuple[MonthTask, str], CloseState] = {}

    def last(self, task: MonthTask, period: str) -> CloseState | None:
        """The newest run of this kind over this month that has ended."""
        state = self.state
        if state is not None and not state.is_running and _about(state) == (task, period):
            return state
        return self._before.get((task, period))

    def check(self, service: BillingService, principal: Principal, period: str) -> bool:
        """Begin to look for what stands against closing a month; `False` if work on a month is under way."""
        return self._start(
            service.now,
            MonthTask.CHECK,
            period,
            principal,
            lambda: service.months.checklist(period, principal, progress=self._tell),
        )

    def close(
        self, service: BillingService, principal: Principal, period: str, accept: Iterable[str], reason: str
    ) -> bool:
        """Begin to close a month, accepting these causes; `False` as for `check`."""
        causes = tuple(accept)

        def work() -> Closing:
            return service.months.close(period, principal, accept=causes, reason=reason, progress=self._tell)

        return self._start(service.now, MonthTask.CLOSE, period, principal, work)

    def verify(self, service: BillingService, principal: Principal, period: str) -> bool:
        """Begin to prove that a closed month is as it was closed; `False` as for `check`."""
        return self._start(
            service.now,
            MonthTask.VERIFY,
            period,
            principal,
            lambda: service.months.verify(period, principal, progress=self._tell),
        )

    def _start(self, clock: Clock, task: MonthTask, period: str, principal: Principal, work: Callable[[], Any]) -> bool:
        def first(
            number: int, at: datetime
        ) -> CloseState:  # called in turn: nobody sees a moment at which the former run is lost
            if (before := self._state) is not None:
                self._before[_about(before)] = before
            return CloseState(number, principal.name, at, CloseProgress(task, period, 0.0, "connecting"))

        return self._begin(clock, first, work)

    def _tell(self, fraction: float, doing: str) -> None:
        if (state := self.state) is not None:
            self._see(replace(state.progress, fraction=fraction, doing=doing))


def _about(state: CloseState) -> tuple[MonthTask, str]:
    return state.progress.task, state.progress.period


class RerateJob(Job[RerateState]):
    """Booking what another card would have cost."""

    def __init__(self) -> None:
        super().__init__("rerate")

    def start(
        self,
        service: BillingService,
        principal: Principal,
        cards: RateCardFile,
        start: datetime | None,
        end: datetime | None,
    ) -> bool:
        """Begin to apply cards to the events of `[start, end)`; `False` if that is under way already."""

        def see(fraction: float, doing: str) -> None:
            self._see(Share(fraction, doing))

        def work() -> Rerating:
            waits = lambda: see(0.0, "waiting for a pull to end")  # noqa: E731
            return service.rerating.apply(principal, cards, start, end, progress=see, on_wait=waits)

        begin = Share(0.0, "reading events")
        return self._begin(service.now, lambda number, at: RerateState(number, principal.name, at, begin), work)
