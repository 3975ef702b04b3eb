"""Rows dated when nothing can have been used, and rows far from the others: booked with their trace, or named."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_core.langfuse import reader, strays
from billing_core.service import BillingService
from billing_core.settings import load_settings
from billing_core.types import GetUsageEventsParams
from tests.examples import examples
from tests.factories import EVERYONE
from tests.langfuse.fake import PUBLIC_KEY, SECRET_KEY, Answer, FakeLangfuse, iso, observation

START, END = datetime(2026, 10, 10, tzinfo=UTC), datetime(2026, 10, 11, tzinfo=UTC)
NOW = datetime(2026, 11, 5, tzinfo=UTC)
NOON = START + timedelta(hours=12)
LOST, MISREAD = datetime(1970, 1, 1, tzinfo=UTC), datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC)
USED = {"usageDetails": {"input": 1000}, "metadata": {"customerId": "cus_1"}}


@pytest.fixture(params=["v2", "legacy"])
def langfuse(request):
    server = FakeLangfuse()
    speak(server, request.param)
    yield server
    server.close()


def speak(server: FakeLangfuse, api: str) -> None:
    server.offers_v2, server.offers_legacy = api == "v2", api == "legacy"


@pytest.fixture
def service(langfuse, tmp_path):
    service = serving(langfuse, tmp_path)
    yield service
    service.close()


def serving(langfuse: FakeLangfuse, folder: Path) -> BillingService:
    environment = {
        "LANGFUSE_HOST": langfuse.url,
        "LANGFUSE_PUBLIC_KEY": PUBLIC_KEY,
        "LANGFUSE_SECRET_KEY": SECRET_KEY,
        "BILLING_WAREHOUSE_URL": f"duckdb:///{folder}/billing.duckdb",
    }
    return BillingService(load_settings(environment, env_file=None), clock=lambda: NOW)


def hold(langfuse, **traces):
    """Make the server hold traces with rows at these times, and on the older API a record at the first of them."""
    langfuse.rows = [
        observation(f"{trace}-{n}", trace, iso(time), iso(time), **USED)
        for trace, times in traces.items()
        for n, time in enumerate(times)
    ]
    langfuse.traces = [
        {"id": trace, "timestamp": iso(times[0]), "metadata": {}} for trace, times in traces.items() if times
    ]


def pull(service, start=START, end=END):
    return service.pull(EVERYONE, start=start, end=end)


def booked(service):
    page = service.get_usage_events(GetUsageEventsParams(limit=1000), EVERYONE)
    return {event.id: event for event in page.events}


@pytest.mark.parametrize("time", [LOST, LOST + timedelta(days=20), MISREAD])
def test_a_trace_seen_only_when_nothing_can_have_been_used_is_booked_and_flagged(langfuse, service, time):
    hold(langfuse, odd=[time, time], usual=[NOON])
    assert pull(service).counts.new == 2
    event = booked(service)["odd"]
    assert (event.tokens_total, event.timestamp) == (2000, time)
    assert "bad_usage" in event.flags
    by_card = 0 if time.year < 2000 else 200  # no card is that old
    assert (event.credits.ai_tokens, event.credits.compute) == (by_card, 0)
    again = pull(service)
    assert (again.counts.unchanged, again.counts.changed, again.rejected) == (2, 0, ())


@pytest.mark.parametrize("time", [LOST, MISREAD])
def test_such_a_time_can_be_pulled_as_any_other(langfuse, service, time):
    hold(langfuse, odd=[time, time + timedelta(seconds=5)], usual=[NOON])
    result = pull(service, time, time + timedelta(days=1))
    assert (list(booked(service)), result.rejected, result.notes) == (["odd"], (), ())
    assert pull(service).counts.unchanged == 1


@pytest.mark.parametrize("time", [LOST, MISREAD])
def test_a_trace_of_another_window_is_not_booked_for_one_row_without_a_place_in_time(langfuse, service, time):
    """Else a pull of this month would bill, or replace by a part of it, what belongs to another one."""
    elsewhere = datetime(2025, 3, 1, 12, tzinfo=UTC)
    hold(langfuse, other=[elsewhere, time], usual=[NOON])
    result = pull(service)
    assert (list(booked(service)), result.rejected) == (["usual"], ())
    pull(service, elsewhere - timedelta(days=1), elsewhere + timedelta(days=1))
    assert booked(service)["other"].tokens_total == 2000
    assert pull(service).counts.changed == 0
    assert booked(service)["other"].tokens_total == 2000


@pytest.mark.parametrize("langfuse", ["legacy"], indirect=True)
def test_observations_without_a_trace_record_are_booked_as_well(langfuse, service):
    hold(langfuse, odd=[LOST])
    langfuse.traces = []
    pull(service)
    assert list(booked(service)) == ["odd"]


@pytest.mark.parametrize("time", [LOST, MISREAD])
def test_a_row_without_usage_dated_impossibly_keeps_what_it_says_and_flags_its_trace(langfuse, service, time):
    hold(langfuse, torn=[NOON, time])
    langfuse.rows[0]["metadata"] = {}
    langfuse.rows[1] |= {"usageDetails": {}, "type": "SPAN"}
    result = pull(service)
    event = booked(service)["torn"]
    assert (event.timestamp, event.customer_id, event.tokens_total) == (NOON, "cus_1", 1000)
    assert (event.latency_seconds, event.credits.compute, "bad_usage" in event.flags) == (0, 0, True)
    assert result.rejected == ()
    assert pull(service).counts.unchanged == 1


@pytest.mark.parametrize("langfuse", ["legacy"], indirect=True)
def test_a_record_dated_later_than_rows_of_its_trace_does_not_put_a_part_in_place_of_the_whole(langfuse, service):
    """The server's sums of a record leave out rows that began an hour before the window asked for."""
    early = NOON - timedelta(days=5)
    hold(langfuse, torn=[early, NOON], usual=[NOON])
    langfuse.rows[1]["metadata"] = {}
    langfuse.traces[0] |= {"timestamp": iso(NOON), "totalCost": 0, "latency": 0}
    pull(service, early - timedelta(hours=1), early + timedelta(hours=1))
    for _ in range(2):
        result = pull(service)
        event = booked(service)["torn"]
        assert (event.timestamp, event.customer_id, event.tokens_total) == (early, "cus_1", 2000)
        assert (result.counts.changed, result.rejected) == (0, ())


@pytest.mark.parametrize("langfuse", ["v2"], indirect=True)
@pytest.mark.parametrize("far", [datetime(2020, 1, 2, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC)])
def test_rows_years_before_the_others_are_booked_with_them(langfuse, service, far):
    hold(langfuse, torn=[NOON, far])
    pull(service)
    assert booked(service)["torn"].tokens_total == 2000


@pytest.mark.parametrize("langfuse", ["v2"], indirect=True)
def test_rows_years_after_the_others_are_booked_with_them(langfuse, service):
    old = datetime(2022, 5, 1, 12, tzinfo=UTC)
    hold(langfuse, torn=[old, NOON])
    pull(service, old - timedelta(hours=1), old + timedelta(hours=1))
    assert booked(service)["torn"].tokens_total == 2000


@pytest.mark.parametrize("langfuse", ["v2"], indirect=True)
def test_that_a_server_does_not_answer_about_years_is_said_and_costs_one_refusal(langfuse, service):
    traces = {f"t{n}": [NOON, NOON - timedelta(days=80), datetime(2021, 1, 1, tzinfo=UTC)] for n in range(250)}
    hold(langfuse, **traces)
    too_long = Answer(422, {"message": "Request timed out", "error": "Request timed out"})
    refused = []

    def refuse(request):
        if request.path == "v2/observations" and request.ids and request.hours > 24 * 100:
            refused.append(request)
            return too_long
        return None

    langfuse.scripts.append(refuse)
    result = pull(service)
    assert {event.tokens_total for event in booked(service).values()} == {2000}
    [note] = result.to_json()["notes"]
    assert "more than 93 days" in note
    assert len(refused) <= 4  # as many as are asked at the same time, not one per group of traces
    assert result.rejected == ()


@pytest.mark.parametrize("langfuse", ["v2"], indirect=True)
def test_a_trace_whose_other_rows_cannot_be_asked_for_is_named_and_not_booked_in_part(langfuse, service):
    hold(langfuse, odd=[LOST], usual=[NOON])
    langfuse.answer_when(
        lambda r: r.path == "v2/observations" and r.ids == ["odd"] and r.hours > 24 * 100, Answer(422, {"message": "-"})
    )
    result = pull(service)
    assert list(booked(service)) == ["usual"]
    assert [row.row for row in result.rejected] == ["trace odd"]


@pytest.mark.parametrize("status", [400, 422])
def test_that_a_server_does_not_answer_about_odd_times_is_said(langfuse, service, status):
    hold(langfuse, usual=[NOON])
    langfuse.answer_when(lambda r: r.is_astray, Answer(status, {"message": "no such time"}))
    notes = " ".join(pull(service).notes)
    assert "before 2020" in notes
    assert "in the future" in notes
    assert list(booked(service)) == ["usual"]


def test_a_broken_clock_that_dates_everything_1970_costs_a_bounded_read_and_is_named(langfuse, service, monkeypatch):
    monkeypatch.setattr(strays, "MOST_STRAYS", 3)
    hold(langfuse, usual=[NOON], **{f"odd{n}": [LOST + timedelta(seconds=n)] for n in range(5)})
    result = pull(service)
    assert sorted(booked(service)) == ["odd0", "odd1", "odd2", "usual"]
    assert [row.row for row in result.rejected] == ["trace odd3", "trace odd4"]
    assert "--from" in result.rejected[0].reason  # what it advises helps
    pull(service, LOST, LOST + timedelta(days=1))
    assert len(booked(service)) == 6


@pytest.mark.parametrize("langfuse", ["v2"], indirect=True)
def test_more_pages_of_such_rows_than_are_read_are_named(langfuse, service, monkeypatch):
    monkeypatch.setattr(reader, "MOST_ASTRAY_PAGES", 2)
    langfuse.page_limit = 2
    hold(langfuse, **{f"odd{n}": [LOST + timedelta(seconds=n)] for n in range(9)})
    result = pull(service)
    assert len(booked(service)) == 4
    assert ["before 2020" in note for note in result.notes] == [True]


BEGAN = datetime(2020, 1, 1, tzinfo=UTC)
TIMES = st.one_of(
    st.datetimes(datetime(1970, 1, 1), datetime(2019, 12, 31, 23)),
    st.datetimes(datetime(2020, 1, 1), datetime(2026, 11, 4, 23)),
    st.datetimes(datetime(2026, 10, 10), datetime(2026, 10, 10, 23, 59)),
    st.datetimes(datetime(2026, 11, 7), datetime(2199, 12, 30)),
).map(lambda time: time.replace(tzinfo=UTC, microsecond=time.microsecond // 1000 * 1000))


@settings(max_examples=examples(8))
@given(st.lists(st.lists(TIMES, min_size=1, max_size=3), min_size=1, max_size=12))
def test_every_trace_is_booked_whole_or_lies_whole_in_time_outside_the_window(traces):
    server = FakeLangfuse()
    try:
        with TemporaryDirectory() as folder:
            service = serving(server, Path(folder))
            hold(server, **{f"t{n}": times for n, times in enumerate(traces)})
            result = pull(service)
            found = {event: one.tokens_total for event, one in booked(service).items()}
            service.close()
    finally:
        server.close()
    expected = {
        f"t{n}": 1000 * len(times)
        for n, times in enumerate(traces)
        if any(START <= time < END for time in times) or not any(BEGAN <= time < NOW for time in times)
    }
    assert found == expected
    assert (result.rejected, result.notes) == ((), ())
