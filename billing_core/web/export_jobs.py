"""Exports in the background of the server process: each belongs to the person who started it.

Files lie in a private temporary folder and are gone an hour after they were finished, or with the process.
"""

from __future__ import annotations

import secrets
import tempfile
import threading
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from billing_core.access import Principal
from billing_core.errors import BadParameter, NotFound
from billing_core.exports.model import Cancelled, ExportProgress, ExportRequest, ExportResult
from billing_core.runtime.clock import Clock, now
from billing_core.runtime.faults import explained, text_for_page

if TYPE_CHECKING:
    from billing_core.service import BillingService

KEPT = timedelta(hours=1)
PER_PERSON = 3
AT_ALL = 8


@dataclass(frozen=True, slots=True)
class ExportState:
    """The state of a background export. `ended_at` is set once it is over; then either `result` or `error` says how."""

    id: str
    request: ExportRequest
    file_name: str
    started_at: datetime
    progress: ExportProgress
    ended_at: datetime | None = None
    result: ExportResult | None = None
    error: str | None = None
    was_cancelled: bool = False

    @property
    def is_running(self) -> bool:
        """Whether the export still runs."""
        return self.ended_at is None


@dataclass(slots=True)
class _Job:
    """An export, whose it is, and the folder of its file."""

    owner: Principal
    state: ExportState
    folder: tempfile.TemporaryDirectory[str]
    stop: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread | None = None

    @property
    def path(self) -> Path:
        return Path(self.folder.name) / self.state.file_name


class ExportJobs:
    """The background exports of this process. Thread-safe; one per process."""

    def __init__(self, clock: Clock = now) -> None:
        self._clock = clock
        self._turn = threading.RLock()
        self._jobs: dict[str, _Job] = {}

    def start(self, service: BillingService, principal: Principal, request: ExportRequest) -> str:
        """Begin a background export in the name of `principal`; returns its id.

        Raises BadParameter: if there is no such file, or too many exports are at work already.
        """
        name = service.exports.file_name(request)
        with self._turn:
            self._forget_old()
            self._make_room(principal)
            job_id = secrets.token_urlsafe(16)
            state = ExportState(job_id, request, name, self._clock(), ExportProgress(0, None, "starting"))
            job = _Job(principal, state, _folder())
            self._jobs[job_id] = job
            job.thread = threading.Thread(
                target=self._run, args=(job, service), name=f"export-{len(self._jobs)}", daemon=True
            )
            job.thread.start()
        return job_id

    def state(self, job_id: str, principal: Principal) -> ExportState:
        """The state of a background export: how far it is, or how it ended.

        Raises NotFound: if there is no such export, or it is somebody else's: the two read the same.
        """
        return self._mine(job_id, principal).state

    def cancel(self, job_id: str, principal: Principal) -> None:
        """Stop a background export soon; of one that is over nothing changes. Raises as `state`."""
        self._mine(job_id, principal).stop.set()

    def file(self, job_id: str, principal: Principal) -> tuple[Path, ExportResult]:
        """The finished file of a background export, and its result.

        Raises NotFound: as `state`; also while there is no file.
        """
        job = self._mine(job_id, principal)
        if job.state.result is None:
            raise _not_there(job_id)
        return job.path, job.state.result

    def wait(self, job_id: str, principal: Principal, timeout_seconds: float | None = None) -> None:
        """Wait until a background export is over; raises as `state`."""
        thread = self._mine(job_id, principal).thread
        if thread is not None:
            thread.join(timeout_seconds)

    def close(self) -> None:
        """Stop all background exports and remove every file."""
        with self._turn:
            jobs, self._jobs = list(self._jobs.values()), {}
        for job in jobs:
            job.stop.set()
        for job in jobs:
            if job.thread is not None:
                job.thread.join()
            job.folder.cleanup()

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _mine(self, job_id: str, principal: Principal) -> _Job:
        with self._turn:
            self._forget_old()
            job = self._jobs.get(job_id)
        if job is None or job.owner != principal:  # who may see other rows by now is somebody else
            raise _not_there(job_id)
        return job

    def _forget_old(self) -> None:
        now = self._clock()
        for job_id, job in list(self._jobs.items()):
            if job.state.ended_at is not None and now - job.state.ended_at >= KEPT:
                self._forget(job_id)

    def _forget(self, job_id: str) -> None:
        self._jobs.pop(job_id).folder.cleanup()

    def _make_room(self, principal: Principal) -> None:
        """The oldest finished ones give way; those at work do not."""
        mine = lambda job: job.owner.name == principal.name  # noqa: E731
        for most, counts in ((PER_PERSON, mine), (AT_ALL, lambda _: True)):
            kept = [job for job in self._jobs.values() if counts(job)]
            over = sorted((job for job in kept if not job.state.is_running), key=lambda job: job.state.started_at)
            while len(kept) >= most and over:
                oldest = over.pop(0)
                kept.remove(oldest)
                self._forget(oldest.state.id)
            if len(kept) >= most:
                raise BadParameter(
                    "export", len(kept), f"fewer than {most} exports at work; wait for one, or cancel it"
                )

    def _run(self, job: _Job, service: BillingService) -> None:
        try:
            result = service.exports.write(
                job.state.request,
                job.owner,
                job.path,
                progress=lambda progress: self._update(job, progress=progress),
                cancelled=job.stop.is_set,
            )
        except Cancelled as error:
            self._update(job, ended_at=self._clock(), error=str(error), was_cancelled=True)
        except BaseException as error:  # noqa: BLE001 - a thread has nobody above it who would say so
            self._update(job, ended_at=self._clock(), error=text_for_page(error, "an export in the background"))
        else:
            self._update(job, ended_at=self._clock(), result=result)

    def _update(self, job: _Job, **changes: object) -> None:
        with self._turn:
            job.state = replace(job.state, **changes)  # type: ignore[arg-type]


def _folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="billing-export-")
    except OSError as error:
        raise explained(error) from error


def _not_there(job_id: str) -> NotFound:
    return NotFound(f"export {job_id!r} is not there; files are kept for an hour: export again")
