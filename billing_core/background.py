"""One pull in the background of a process, for everybody to watch."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from billing_core.access import Principal
from billing_core.errors import BillingError
from billing_core.pulling import FIRST_PULL_DAYS, PullResult
from billing_core.service import BillingService
from billing_core.usage import PullProgress

__all__ = ["PullJob", "PullState"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PullState:
    """A moment of a job. `ended_at` is set once it is over; then either `result` or `error` says how.

    `number` counts the jobs of this process, so that a page notices that the one it watched is over.
    """

    number: int
    started_by: str
    started_at: datetime
    progress: PullProgress
    ended_at: datetime | None = None
    result: PullResult | None = None
    error: str | None = None

    @property
    def is_running(self) -> bool:
        """Whether it still reads or books."""
        return self.ended_at is None

    def rows_per_second(self, now: datetime) -> float | None:
        """Observations read per second since the start; `None` while there is nothing to divide."""
        seconds = ((self.ended_at or now) - self.started_at).total_seconds()
        return self.progress.observations / seconds if seconds > 0 and self.progress.observations else None


class PullJob:
    """At most one pull at a time; any thread may start it or look at its state."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._state: PullState | None = None
        self._thread: threading.Thread | None = None

    @property
    def state(self) -> PullState | None:
        """The running or the last job; `None` before the first."""
        return self._state

    def start(self, service: BillingService, principal: Principal, *, first_days: int = FIRST_PULL_DAYS) -> bool:
        """Begin an incremental pull in the name of `principal`; `False` if one is under way already.

        The first one ever reads the last `first_days` days.
        """
        with self._turn:
            if self._state is not None and self._state.is_running:
                return False
            number = 1 if self._state is None else self._state.number + 1
            self._state = PullState(number, principal.name, datetime.now(UTC), PullProgress(0.0, 0, "connecting"))
            # A daemon: a pull may be cut off anywhere and is taken up by the next one.
            self._thread = threading.Thread(
                target=self._run, args=(service, principal, first_days), name=f"pull-{number}", daemon=True
            )
            self._thread.start()
            return True

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Return when the running job is over."""
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def _run(self, service: BillingService, principal: Principal, first_days: int) -> None:
        waits = self._says("waiting for another pull")
        try:
            result = service.pull(principal, first_days=first_days, progress=self._see, on_wait=waits)
        except BillingError as error:
            self._end(error=str(error))
        except Exception:  # noqa: BLE001 - a thread has nobody above it who would say so
            _log.exception("pull in the background: unexpected fault")
            self._end(error="Something unexpected went wrong; the log has the details.")
        else:
            self._end(result=result)

    def _says(self, doing: str) -> Callable[[], None]:
        return lambda: self._see(PullProgress(0.0, 0, doing))

    def _see(self, progress: PullProgress) -> None:
        with self._turn:
            if self._state is not None:
                self._state = replace(self._state, progress=progress)

    def _end(self, *, result: PullResult | None = None, error: str | None = None) -> None:
        with self._turn:
            if self._state is not None:
                self._state = replace(self._state, ended_at=datetime.now(UTC), result=result, error=error)
