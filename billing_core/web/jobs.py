"""Background jobs of the server process, which everybody can watch: a pull, a push, a reconciliation, a close.

Each kind runs at most once at a time per process. The threads are daemons: all of this work may be cut off anywhere
and is taken up by the next run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from billing_core.access import Principal
from billing_core.ingest.pull import FIRST_PULL_DAYS, PullResult
from billing_core.runtime.clock import Clock
from billing_core.runtime.faults import text_for_page
from billing_core.service import BillingService
from billing_core.values.usage_frame import PullProgress

if TYPE_CHECKING:
    from billing_core.month_close.model import Checklist, Closing, Verification
    from billing_core.organizations.limits_service import Refreshed
    from billing_core.rating.card import RateCardFile
    from billing_core.reconcile.report import Reconciliation
    from billing_core.rerating.model import Rerating
    from billing_core.stripe_sync.push import PushProgress, PushResult  # both bring Stripe's SDK

    CloseResult: TypeAlias = Checklist | Closing | Verification

P = TypeVar("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class JobState(Generic[P, R]):
    """The state of a background job. `ended_at` is set once it is over; then either `result` or `error` says how.

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
        """Whether the job still runs."""
        return self.ended_at is None

    def per_second(self, count: int, now: datetime) -> float | None:
        """A count per second since the job's start; `None` while there is nothing to divide."""
        seconds = ((self.ended_at or now) - self.started_at).total_seconds()
        return count / seconds if seconds > 0 and count else None


class Job(Generic[P, R]):
    """A kind of background job, at most one run at a time; any thread may start it or read its state.

    name: As the log and the thread shall call it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._turn = threading.Lock()
        self._state: JobState[P, R] | None = None
        self._thread: threading.Thread | None = None

    @property
    def state(self) -> JobState[P, R] | None:
        """The state of the running or the last run; `None` before the first."""
        return self._state

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Wait until the running job is over."""
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def run(self, clock: Clock, principal: Principal, begin: P, work: Callable[[], R]) -> bool:
        """Run `work` in a thread of its own in the name of `principal`; `False` if one is under way."""
        with self._turn:
            former = self._state
            if former is not None and former.is_running:
                return False
            if former is not None:
                self._keep(former)  # before the new state is seen: nobody sees a moment at which the former one is lost
            number = 1 if former is None else former.number + 1
            self._state = JobState(number, principal.name, clock(), begin)
            thread = threading.Thread(target=self._work, args=(clock, work), name=f"{self._name}-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the machine has no further thread: it never began
                self._state = replace(self._state, ended_at=clock(), error=f"{self._name}: {error}")
                return True
            self._thread = thread
            return True

    def report(self, progress: P) -> None:
        """Set the progress of the running job; called by its work."""
        with self._turn:
            if self._state is not None:
                self._state = replace(self._state, progress=progress)

    def _keep(self, former: JobState[P, R]) -> None:
        """Called with a run that is over before the next one takes its place."""

    def _work(self, clock: Clock, work: Callable[[], R]) -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - a thread has nobody above it who would say so
            self._end(clock(), error=text_for_page(error, f"{self._name} in the background"))
        else:
            self._end(clock(), result=result)

    def _end(self, at: datetime, *, result: R | None = None, error: str | None = None) -> None:
        with self._turn:
            if self._state is not None:
                self._state = replace(self._state, ended_at=at, result=result, error=error)


@dataclass(frozen=True, slots=True)
class Share:
    """The progress of a job that knows how much there is: the part done, 0 to 1, and what is done now."""

    fraction: float
    doing: str


class MonthTask(StrEnum):
    """The background jobs on a month: check, close, verify."""

    CHECK = "check"
    CLOSE = "close"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True)
class CloseProgress:
    """The progress of a job on a month: which month and task, the part done, 0 to 1, and what is done now."""

    task: MonthTask
    period: str
    fraction: float
    doing: str


PullState: TypeAlias = JobState[PullProgress, PullResult]
PushState: TypeAlias = JobState["PushProgress", "PushResult"]
ReconcileState: TypeAlias = JobState[Share, "Reconciliation"]
PlansState: TypeAlias = JobState[None, "Refreshed"]
CloseState: TypeAlias = JobState[CloseProgress, "CloseResult"]
RerateState: TypeAlias = JobState[Share, "Rerating"]


class PullJob(Job[PullProgress, PullResult]):
    """The background job that reads Langfuse into the ledger."""

    def __init__(self) -> None:
        super().__init__("pull")

    def start(self, service: BillingService, principal: Principal, *, first_days: int = FIRST_PULL_DAYS) -> bool:
        """Begin an incremental pull; `False` if one is under way. The first ever reads the last `first_days` days."""

        def waits() -> None:
            self.report(PullProgress(0.0, 0, "waiting for another pull"))

        def work() -> PullResult:
            return service.pull(principal, first_days=first_days, progress=self.report, on_wait=waits)

        return self.run(service.now, principal, PullProgress(0.0, 0, "connecting"), work)


class PushJob(Job["PushProgress", "PushResult"]):
    """The background job that sends pending credits to Stripe."""

    def __init__(self) -> None:
        super().__init__("push")

    def start(self, service: BillingService, principal: Principal) -> bool:
        """Begin a push; `False` if one is under way."""
        from billing_core.stripe_sync.push import PushProgress

        def waits() -> None:
            self.report(PushProgress(0, 0, 0, "waiting for another push"))

        def work() -> PushResult:
            return service.stripe.push(principal, progress=self.report, on_wait=waits)

        return self.run(service.now, principal, PushProgress(0, 0, 0, "reading billing periods and planning"), work)


class PlansJob(Job[None, "Refreshed"]):
    """The background job that reads plans from Stripe."""

    def __init__(self) -> None:
        super().__init__("plans")

    def start(self, service: BillingService, principal: Principal) -> bool:
        """Begin to read plans from Stripe; `False` if that is under way."""
        return self.run(service.now, principal, None, lambda: service.organizations.limits.refresh(principal))


class ReconcileJob(Job[Share, "Reconciliation"]):
    """The background job that compares Langfuse, ledger and Stripe."""

    def __init__(self) -> None:
        super().__init__("reconcile")

    def start(self, service: BillingService, principal: Principal, start: datetime, end: datetime) -> bool:
        """Begin to reconcile `[start, end)`; `False` if one is under way."""

        def report(fraction: float, doing: str) -> None:
            self.report(Share(fraction, doing))

        def work() -> Reconciliation:
            return service.stripe.reconcile(principal, start, end, progress=report)

        return self.run(service.now, principal, Share(0.0, "connecting"), work)


class RerateJob(Job[Share, "Rerating"]):
    """The background job that books what events would have cost under another card."""

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
        """Begin to apply cards to the events of `[start, end)`; `False` if that is under way."""

        def report(fraction: float, doing: str) -> None:
            self.report(Share(fraction, doing))

        def work() -> Rerating:
            waits = lambda: report(0.0, "waiting for a pull to end")  # noqa: E731
            return service.rerating.apply(principal, cards, start, end, progress=report, on_wait=waits)

        return self.run(service.now, principal, Share(0.0, "reading events"), work)


class CloseJob(Job[CloseProgress, "CloseResult"]):
    """The background job that checks, closes and verifies months; findings are kept beside the newest run."""

    def __init__(self) -> None:
        super().__init__("close")
        self._before: dict[tuple[MonthTask, str], CloseState] = {}

    def last(self, task: MonthTask, period: str) -> CloseState | None:
        """The newest finished job of this kind on a month; `None` if there is none."""
        state = self.state
        if state is not None and not state.is_running and _about(state) == (task, period):
            return state
        return self._before.get((task, period))

    def check(self, service: BillingService, principal: Principal, period: str) -> bool:
        """Begin to look for what prevents closing a month; `False` if a job on a month is under way."""
        return self._start(
            service,
            principal,
            MonthTask.CHECK,
            period,
            lambda: service.months.checklist(period, principal, progress=self._share),
        )

    def close(
        self, service: BillingService, principal: Principal, period: str, accept: Iterable[str], reason: str
    ) -> bool:
        """Begin to close a month, accepting these causes; `False` as for `check`."""
        causes = tuple(accept)
        return self._start(
            service,
            principal,
            MonthTask.CLOSE,
            period,
            lambda: service.months.close(period, principal, accept=causes, reason=reason, progress=self._share),
        )

    def verify(self, service: BillingService, principal: Principal, period: str) -> bool:
        """Begin to prove that a closed month has not changed; `False` as for `check`."""
        return self._start(
            service,
            principal,
            MonthTask.VERIFY,
            period,
            lambda: service.months.verify(period, principal, progress=self._share),
        )

    def _start(
        self,
        service: BillingService,
        principal: Principal,
        task: MonthTask,
        period: str,
        work: Callable[[], CloseResult],
    ) -> bool:
        return self.run(service.now, principal, CloseProgress(task, period, 0.0, "connecting"), work)

    def _keep(self, former: CloseState) -> None:
        self._before[_about(former)] = former

    def _share(self, fraction: float, doing: str) -> None:
        if (state := self.state) is not None:
            self.report(replace(state.progress, fraction=fraction, doing=doing))


def _about(state: CloseState) -> tuple[MonthTask, str]:
    return state.progress.task, state.progress.period
