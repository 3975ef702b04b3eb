"""Exports in the background: each belongs to one person, can be stopped, and does not stay for ever."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from billing_core.access import Principal, Role
from billing_core.errors import BadParameter, NotFound
from billing_core.exports.model import Format
from billing_core.web.export_jobs import ExportJobs
from tests.exports.exported import asked, mixed_rows
from tests.factories import EVERYONE, service_over

ANN, BOB = Principal("ann", Role.ANALYST), Principal("bob", Role.ADMIN)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    service = service_over(tmp_path_factory.mktemp("jobs") / "billing.duckdb", mixed_rows(20))
    yield service
    service.close()


class Clock:
    """A time the test sets."""

    now = datetime(2026, 11, 20, tzinfo=UTC)

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def jobs(clock):
    jobs = ExportJobs(clock)
    yield jobs
    jobs.close()


class Waiting:
    """Stands in for the service: every export waits until the test lets it go on."""

    def __init__(self, service):
        self.exports = self
        self._desk = service.exports
        self.go_on = threading.Event()

    def file_name(self, request):
        return self._desk.file_name(request)

    def write(self, request, principal, path, *, progress, cancelled):
        self.go_on.wait(30)
        return self._desk.write(request, principal, path, progress=progress, cancelled=cancelled)


def done(jobs, service, principal=ANN, **params):
    job_id = jobs.start(service, principal, asked(**params))
    jobs.wait(job_id, principal, 60)
    return job_id


def test_a_finished_export_has_a_file_and_says_what_is_in_it(jobs, service):
    job_id = done(jobs, service)
    path, result = jobs.file(job_id, ANN)
    assert jobs.state(job_id, ANN).result == result
    assert path.stat().st_size == result.bytes
    assert result.sha256 == service.exports.digest(asked(), EVERYONE).sha256
    assert path.parent.stat().st_mode & 0o077 == 0  # nobody else on this machine reads it


def test_somebody_elses_export_reads_like_one_that_does_not_exist(jobs, service):
    job_id = done(jobs, service)
    said = []
    for asked_id in (job_id, "no-such-export"):
        for call in (jobs.state, jobs.cancel, jobs.file):
            with pytest.raises(NotFound) as refused:
                call(asked_id, BOB)
            said.append(str(refused.value).replace(asked_id, "ID"))
    assert len(set(said)) == 1
    less = Principal("ann", Role.ANALYST, frozenset({"org_a"}))  # whose rights were cut since
    with pytest.raises(NotFound):
        jobs.file(job_id, less)


def test_a_cancelled_export_leaves_no_file(jobs, service):
    waiting = Waiting(service)
    job_id = jobs.start(waiting, ANN, asked())
    assert jobs.state(job_id, ANN).is_running
    with pytest.raises(NotFound):
        jobs.file(job_id, ANN)
    jobs.cancel(job_id, ANN)
    waiting.go_on.set()
    jobs.wait(job_id, ANN, 60)
    state = jobs.state(job_id, ANN)
    assert (state.was_cancelled, state.result) == (True, None)
    with pytest.raises(NotFound):
        jobs.file(job_id, ANN)


def test_a_refusal_is_said_in_its_own_words(jobs, service):
    job_id = jobs.start(service, ANN, asked("csv", "organizations"))
    jobs.wait(job_id, ANN, 60)
    assert "needs" in jobs.state(job_id, ANN).error


def test_the_oldest_finished_one_of_a_person_gives_way(jobs, service, clock):
    ids = []
    for _ in range(4):
        clock.now += timedelta(seconds=1)
        ids.append(done(jobs, service))
    with pytest.raises(NotFound):
        jobs.state(ids[0], ANN)
    assert all(jobs.state(one, ANN).result for one in ids[1:])


def test_no_more_than_three_of_a_person_and_eight_in_all_are_at_work(jobs, service):
    waiting = Waiting(service)
    people = [Principal(name, Role.ANALYST) for name in ("ann", "bob", "cat")]
    for person in people[:2]:
        for _ in range(3):
            jobs.start(waiting, person, asked())
        with pytest.raises(BadParameter, match="fewer than 3"):
            jobs.start(waiting, person, asked())
    jobs.start(waiting, people[2], asked())
    jobs.start(waiting, people[2], asked())
    with pytest.raises(BadParameter, match="fewer than 8"):
        jobs.start(waiting, people[2], asked())
    waiting.go_on.set()


def test_after_an_hour_a_file_is_gone(jobs, service, clock):
    job_id = done(jobs, service)
    path, _ = jobs.file(job_id, ANN)
    clock.now += timedelta(minutes=59)
    assert jobs.file(job_id, ANN)
    clock.now += timedelta(minutes=1)
    with pytest.raises(NotFound):
        jobs.file(job_id, ANN)
    assert not path.parent.exists()


def test_closing_removes_every_file(service):
    jobs = ExportJobs()
    path, _ = jobs.file(done(jobs, service), ANN)
    jobs.close()
    assert not path.parent.exists()


def test_a_file_that_cannot_be_is_refused_at_once(jobs, service):
    with pytest.raises(BadParameter):
        jobs.start(service, ANN, asked(Format.FOCUS, "organizations"))
