"""One job of a kind at a time, watched by everybody, never in anybody's way."""

import errno
import threading
from datetime import timedelta
from types import SimpleNamespace

from billing_core.errors import UpstreamError
from billing_core.ingest.pull import PullResult
from billing_core.organizations.limits_service import LimitsService
from billing_core.service import BillingService
from billing_core.stripe_sync.push import PushProgress, PushResult
from billing_core.stripe_sync.service import StripeSyncService
from billing_core.values.usage_frame import PullProgress, Window
from billing_core.web.jobs import PlansJob, PullJob, PushJob, ReconcileJob, Share
from tests.factories import EVERYONE, NOON
from tests.stand_ins import called_as

DONE = PullResult("v2", Window(NOON, NOON + timedelta(hours=1)), observations=30)


def at_noon():
    return NOON


class Pulls:
    """A service whose pull reports once and then waits to be let go."""

    now = staticmethod(at_noon)

    def __init__(self, outcome=DONE):
        self.outcome = outcome
        self.reported, self.go = threading.Event(), threading.Event()
        self.count = 0

    def pull(self, principal, *, first_days=None, progress, on_wait):
        self.count += 1
        progress(PullProgress(0.5, 15, "reading"))
        self.reported.set()
        assert self.go.wait(10)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def ended(outcome):
    job, service = PullJob(), Pulls(outcome)
    service.go.set()
    assert job.start(called_as(BillingService, service), EVERYONE)
    job.wait(10)
    return job.state


def test_nothing_runs_before_somebody_asks():
    assert PullJob().state is None


def test_everybody_sees_how_far_it_is_and_nobody_starts_a_second_one():
    job, service = PullJob(), Pulls()
    assert job.start(service, EVERYONE)
    assert service.reported.wait(10)
    assert job.state.is_running
    assert (job.state.progress.fraction, job.state.progress.observations) == (0.5, 15)
    assert not job.start(service, EVERYONE)
    service.go.set()
    job.wait(10)
    assert not job.state.is_running
    assert job.state.result is DONE
    assert service.count == 1


def test_a_run_begins_and_ends_by_the_services_clock():
    state = ended(DONE)
    assert (state.started_at, state.ended_at) == (NOON, NOON)


def test_the_next_one_has_the_next_number():
    job, service = PullJob(), Pulls()
    service.go.set()
    for number in (1, 2):
        assert job.start(service, EVERYONE)
        job.wait(10)
        assert job.state.number == number


def test_an_expected_failure_is_kept_as_its_sentence():
    state = ended(UpstreamError("Langfuse answered 401: check LANGFUSE_SECRET_KEY"))
    assert state.error == "Langfuse answered 401: check LANGFUSE_SECRET_KEY"
    assert state.result is None


def test_what_the_machine_refuses_is_told_in_a_line_and_the_next_one_may_begin():
    full = OSError(errno.ENOSPC, "No space left on device", "/books/billing.duckdb.spool")
    for fault, says in ((full, "/books/billing.duckdb.spool: No space left"), (MemoryError(), "out of memory")):
        state = ended(fault)
        assert says in state.error
        assert state.result is None
        assert not state.is_running


def test_a_thread_that_cannot_begin_is_a_run_that_is_over(monkeypatch):
    def refuses(_self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuses)
    job = PullJob()
    assert job.start(Pulls(), EVERYONE)
    assert (job.state.is_running, job.state.error) == (False, "pull: can't start new thread")
    monkeypatch.undo()
    service = Pulls()
    service.go.set()
    assert job.start(service, EVERYONE)
    job.wait(10)
    assert job.state.result is DONE


def test_an_unexpected_failure_tells_people_nothing_of_its_inside(caplog):
    state = ended(RuntimeError("password=hunter2"))
    assert state.error == "Something unexpected went wrong; the log has the details."
    assert "unexpected fault" in caplog.text


def test_the_rate_is_rows_over_time_and_unknown_before_the_first_row():
    state = ended(DONE)
    later = state.started_at + timedelta(seconds=10)
    running = type(state)(1, "ada", state.started_at, PullProgress(0.5, 500, "reading"))
    assert running.per_second(running.progress.observations, later) == 50
    assert running.per_second(0, later) is None


def test_a_push_shows_how_far_it_is_and_runs_in_the_name_of_who_started_it():
    reported, go, actors = threading.Event(), threading.Event(), []

    def push(principal, *, progress, on_wait):
        actors.append(principal.name)
        on_wait()
        progress(PushProgress(20, 80, 1500, "sending"))
        reported.set()
        assert go.wait(10)
        return PushResult(sent=80)

    job, service = (
        PushJob(),
        SimpleNamespace(now=at_noon, stripe=called_as(StripeSyncService, SimpleNamespace(push=push))),
    )
    assert job.start(service, EVERYONE)
    assert reported.wait(10)
    assert job.state.progress == PushProgress(20, 80, 1500, "sending")
    assert job.state.per_second(job.state.progress.done, job.state.started_at + timedelta(seconds=4)) == 5
    assert not job.start(service, EVERYONE)
    go.set()
    job.wait(10)
    assert job.state.result.sent == 80
    assert actors == ["tester"]


def test_a_reconciliation_covers_the_window_it_was_asked_for():
    asked = []

    def reconcile(principal, start, end, *, progress):
        asked.append((start, end))
        progress(0.5, "reading Stripe")
        return "found"

    job = ReconcileJob()
    job.start(
        SimpleNamespace(now=at_noon, stripe=called_as(StripeSyncService, SimpleNamespace(reconcile=reconcile))),
        EVERYONE,
        NOON,
        NOON + timedelta(hours=2),
    )
    job.wait(10)
    assert asked == [(NOON, NOON + timedelta(hours=2))]
    assert job.state.progress == Share(0.5, "reading Stripe")
    assert (job.state.result, job.state.error) == ("found", None)


def test_plans_are_read_in_the_name_of_who_asked_and_by_one_at_a_time():
    go, actors = threading.Event(), []

    def refresh(principal):
        actors.append(principal.name)
        assert go.wait(10)
        return "refreshed"

    job = PlansJob()
    service = SimpleNamespace(
        now=at_noon, organizations=SimpleNamespace(limits=called_as(LimitsService, SimpleNamespace(refresh=refresh)))
    )
    assert job.start(service, EVERYONE)
    assert not job.start(service, EVERYONE)
    go.set()
    job.wait(10)
    assert (job.state.result, job.state.error, actors) == ("refreshed", None, ["tester"])
