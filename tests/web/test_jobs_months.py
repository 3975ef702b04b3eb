"""Months and cards in the background: what was found about a month stays until the same is done with it again."""

from __future__ import annotations

from types import SimpleNamespace

from billing_core.errors import UpstreamError
from billing_core.month_close.service import MonthCloseService
from billing_core.rerating.service import ReratingService
from billing_core.web.jobs import CloseJob, CloseProgress, MonthTask, RerateJob, Share
from tests.factories import EVERYONE, NOON
from tests.stand_ins import called_as


class Months:
    """Answers with what it was asked; may fail."""

    def __init__(self):
        self.error = None
        self.seen = []

    def _answer(self, *asked, progress):
        progress(0.5, "reading")
        if self.error is not None:
            raise self.error
        return asked

    def checklist(self, period, principal, *, progress):
        return self._answer("checklist", period, principal.name, progress=progress)

    def close(self, period, principal, *, accept, reason, progress):
        return self._answer("close", period, principal.name, accept, reason, progress=progress)

    def verify(self, period, principal, *, progress):
        return self._answer("verify", period, principal.name, progress=progress)


def world():
    months = Months()
    return CloseJob(), SimpleNamespace(now=lambda: NOON, months=called_as(MonthCloseService, months)), months


def test_a_month_is_checked_closed_and_verified_in_the_name_of_who_asked():
    job, service, _ = world()
    for begin, found in (
        (lambda: job.check(service, EVERYONE, "2026-10"), ("checklist", "2026-10", "tester")),
        (
            lambda: job.close(service, EVERYONE, "2026-10", ["unsent"], "agreed"),
            ("close", "2026-10", "tester", ("unsent",), "agreed"),
        ),
        (lambda: job.verify(service, EVERYONE, "2026-10"), ("verify", "2026-10", "tester")),
    ):
        assert begin()
        job.wait(10)
        assert job.state.result == found


def test_progress_names_the_month_and_the_task():
    job, service, _ = world()
    job.check(service, EVERYONE, "2026-10")
    job.wait(10)
    assert job.state.progress == CloseProgress(MonthTask.CHECK, "2026-10", 0.5, "reading")


def test_what_was_found_about_a_month_outlives_work_on_another_one():
    job, service, months = world()
    assert job.last(MonthTask.CHECK, "2026-10") is None
    job.check(service, EVERYONE, "2026-10")
    job.wait(10)
    months.error = UpstreamError("Stripe did not answer")
    job.verify(service, EVERYONE, "2026-09")
    job.wait(10)
    assert job.last(MonthTask.CHECK, "2026-10").result[1] == "2026-10"
    assert job.last(MonthTask.VERIFY, "2026-09").error == "Stripe did not answer"
    assert job.last(MonthTask.CHECK, "2026-09") is None
    assert job.last(MonthTask.CLOSE, "2026-10") is None


def test_the_newer_of_two_runs_of_a_kind_counts():
    job, service, months = world()
    job.check(service, EVERYONE, "2026-10")
    job.wait(10)
    months.error = UpstreamError("Langfuse did not answer")
    job.check(service, EVERYONE, "2026-10")
    job.wait(10)
    assert job.last(MonthTask.CHECK, "2026-10").error == "Langfuse did not answer"


def test_cards_are_applied_to_the_window_they_were_asked_for_and_waiting_is_told():
    asked, told = [], []
    job = RerateJob()

    def apply(principal, cards, start, end, *, progress, on_wait):
        asked.append((principal.name, cards, start, end))
        on_wait()
        told.append(job.state.progress)
        progress(0.5, "booked 10 events")
        return "booked"

    service = SimpleNamespace(now=lambda: NOON, rerating=called_as(ReratingService, SimpleNamespace(apply=apply)))
    assert job.start(service, EVERYONE, "cards", NOON, None)
    job.wait(10)
    assert asked == [("tester", "cards", NOON, None)]
    assert told == [Share(0.0, "waiting for a pull to end")]
    assert (job.state.progress, job.state.result) == (Share(0.5, "booked 10 events"), "booked")
