"""Self-hosted v3: traces and observations, joined."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest

from billing_core.langfuse.provider import LangfuseProvider
from billing_core.langfuse.reading import UpstreamRead
from tests.langfuse.fake import JSON, Answer, FakeLangfuse, Request

Read = Callable[..., UpstreamRead]
Events = Callable[[UpstreamRead], dict[str, JSON]]


@pytest.fixture(autouse=True)
def version_3(langfuse: FakeLangfuse) -> None:
    langfuse.offers_v2, langfuse.offers_legacy, langfuse.version = False, True, "3.160.0"


def trace(identity: str, time: str, **more: Any) -> JSON:
    return {
        "id": identity,
        "projectId": "p1",
        "timestamp": time,
        "name": None,
        "userId": None,
        "sessionId": None,
        "environment": "default",
        "updatedAt": time,
        "metadata": {},
        "input": {"messages": "a prompt"},
        "output": "an answer",
        "totalCost": 0,
        "latency": 0,
    } | more


def v1(identity: str, trace_id: str, start: str, end: str | None = None, **more: Any) -> JSON:
    return {
        "id": identity,
        "traceId": trace_id,
        "projectId": "p1",
        "startTime": start,
        "endTime": end,
        "parentObservationId": None,
        "type": "GENERATION",
        "name": None,
        "model": None,
        "environment": "default",
        "updatedAt": start,
        "metadata": None,
        "input": "a prompt",
        "output": "an answer",
        "latency": 987654,
        "usageDetails": {},
        "costDetails": {},
        "calculatedTotalCost": None,
    } | more


def test_traces_and_observations_become_one_event(langfuse: FakeLangfuse, read: Read, events: Events) -> None:
    langfuse.traces = [
        trace(
            "t",
            "2026-11-20T10:00:01.000Z",
            name="chat",
            userId="u",
            totalCost=0.5,
            latency=4,
            metadata={"customerId": 7},
        )
    ]
    langfuse.rows = [
        v1(
            "a",
            "t",
            "2026-11-20T10:00:00.000Z",
            "2026-11-20T10:00:04.000Z",
            model="gpt-5",
            usageDetails={"input": 3, "output": 4, "total": 7},
            costDetails={"total": 0.5},
        )
    ]
    reading = read("2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z")
    row = events(reading)["t"]
    assert (reading.api, reading.observations, reading.duplicates) == ("legacy", 1, 0)
    assert (row["chatflow_name"], row["user_id"], row["customer_id"], row["models"]) == ("chat", "u", "7", ["gpt-5"])
    assert (row["cost_usd"], row["tokens_total"], row["observations"], row["problems"]) == (Decimal("0.5"), 7, 1, [])
    assert row["timestamp"].isoformat() == "2026-11-20T10:00:00+00:00"  # the trace's own time does not count
    assert (row["ended_at"] - row["timestamp"]).total_seconds() == 4


def test_a_trace_without_observations_is_an_event_without_usage(
    langfuse: FakeLangfuse, read: Read, events: Events
) -> None:
    langfuse.traces = [trace("t", "2026-11-20T10:00:01.000Z")]
    row = events(read("2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z"))["t"]
    assert (row["observations"], row["tokens_total"], row["ended_at"]) == (0, None, row["timestamp"])


def test_a_trace_seen_only_through_an_observation_is_fetched_whole(
    langfuse: FakeLangfuse, read: Read, events: Events
) -> None:
    langfuse.traces = [trace("t", "2026-11-18T10:00:00.000Z", userId="u", totalCost=3, latency=172800)]
    langfuse.rows = [
        v1("old", "t", "2026-11-18T10:00:00.000Z", costDetails={"total": 1}),
        v1("new", "t", "2026-11-20T10:00:00.000Z", costDetails={"total": 2}),
    ]
    reading = read("2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z")
    row = events(reading)["t"]
    assert (row["cost_usd"], row["user_id"], row["observations"], row["problems"]) == (Decimal(3), "u", 2, [])
    assert (reading.observations, reading.duplicates) == (1, 0)


@pytest.mark.parametrize("told", [{"totalCost": 3, "latency": -1}, {"totalCost": -1, "latency": 36000}])
def test_a_trace_whose_sums_differ_is_fetched_whole(
    langfuse: FakeLangfuse, read: Read, events: Events, told: JSON
) -> None:
    langfuse.traces = [trace("t", "2026-11-20T10:00:00.000Z", **told)]
    langfuse.rows = [
        v1("now", "t", "2026-11-20T10:00:00.000Z", costDetails={"total": 1}),
        v1("later", "t", "2026-11-20T20:00:00.000Z", costDetails={"total": 2}),
    ]
    row = events(read("2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z"))["t"]
    assert (row["cost_usd"], row["problems"]) == (Decimal(3), [])


def test_a_difference_that_remains_is_told_but_no_flag(langfuse: FakeLangfuse, read: Read, events: Events) -> None:
    langfuse.traces = [trace("t", "2026-11-20T10:00:00.000Z", totalCost=0.25)]
    langfuse.rows = [v1("a", "t", "2026-11-20T10:00:00.000Z", costDetails={"input": 1, "tool": 1})]
    row = events(read("2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z"))["t"]
    assert row["problems"] == ["Langfuse's trace names 0.25 USD, its observations sum to 2 USD"]
    assert not row["bad_usage"]


def test_a_trace_deleted_meanwhile_is_booked_as_far_as_it_was_seen(
    langfuse: FakeLangfuse, read: Read, events: Events
) -> None:
    langfuse.rows = [v1("a", "gone", "2026-11-20T10:00:00.000Z", costDetails={"total": 1})]
    assert events(read("2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z"))["gone"]["cost_usd"] == Decimal(1)


def test_traces_beyond_the_windows_edges_are_not_booked(langfuse: FakeLangfuse, read: Read, events: Events) -> None:
    langfuse.traces = [trace("before", "2026-11-20T09:30:00.000Z"), trace("after", "2026-11-20T12:00:00.000Z")]
    langfuse.rows = [v1("a", "before", "2026-11-20T09:30:00.000Z"), v1("b", "after", "2026-11-20T12:00:00.000Z")]
    reading = read("2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z")
    assert events(reading) == {}
    assert reading.observations == 0


def test_a_crowded_hour_is_split_instead_of_paged_deeply(langfuse: FakeLangfuse, read: Read, events: Events) -> None:
    langfuse.traces = [trace(f"t{i}", f"2026-11-20T10:{i % 60:02d}:{i // 60:02d}.000Z") for i in range(2100)]
    assert len(events(read("2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z"))) == 2100
    assert max(int(request.query["page"]) for request in langfuse.asked("traces")) <= 20


def test_a_page_that_shifted_while_reading_is_read_again(langfuse: FakeLangfuse, read: Read, events: Events) -> None:
    langfuse.traces = [trace(f"t{i:03d}", "2026-11-20T10:00:00.000Z") for i in range(150)]

    def insert(request: Request) -> Answer | None:
        if request.path == "traces" and request.query.get("page") == "2" and len(langfuse.traces) == 150:
            langfuse.traces.insert(0, trace("late", "2026-11-20T10:00:00.000Z"))
        return None

    langfuse.scripts.append(insert)
    assert len(events(read("2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z"))) == 151


def test_a_trace_too_heavy_to_fetch_whole_is_read_in_pages(langfuse: FakeLangfuse, read: Read, events: Events) -> None:
    langfuse.traces = [trace("t", "2026-11-20T10:00:00.000Z", totalCost=3)]
    langfuse.rows = [
        v1("now", "t", "2026-11-20T10:00:00.000Z", costDetails={"total": 1}),
        v1("later", "t", "2026-11-20T20:00:00.000Z", costDetails={"total": 2}),
    ]
    langfuse.answer_when(lambda request: request.path == "traces/t", Answer(524, b"<html>"))
    assert events(read("2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z"))["t"]["cost_usd"] == Decimal(3)


def test_a_row_that_ended_lately_brings_its_whole_trace(langfuse: FakeLangfuse, read: Read, events: Events) -> None:
    langfuse.traces = [trace("t", "2026-11-19T10:00:00.000Z", totalCost=3)]
    langfuse.rows = [
        v1("long", "t", "2026-11-19T10:00:00.000Z", "2026-11-20T10:30:00.000Z", costDetails={"total": 1}),
        v1("short", "t", "2026-11-19T10:00:00.000Z", "2026-11-19T10:00:01.000Z", costDetails={"total": 2}),
    ]
    since = datetime.fromisoformat("2026-11-20T09:00:00+00:00")
    reading = read("2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z", ended_since=since)
    assert events(reading)["t"]["cost_usd"] == Decimal(3)


@pytest.mark.parametrize(("level", "has_error"), [("ERROR", True), ("DEFAULT", False), (None, None)])
def test_whether_something_failed_is_known_from_observations_and_not_from_the_record(
    langfuse: FakeLangfuse, read: Read, events: Events, level: str | None, has_error: bool | None
) -> None:
    langfuse.traces = [trace("t", "2026-11-20T10:00:00.000Z"), trace("alone", "2026-11-20T10:00:00.000Z")]
    langfuse.rows = [v1("a", "t", "2026-11-20T10:00:00.000Z", level=level)]
    found = events(read("2026-11-20T10:00:00Z", "2026-11-20T11:00:00Z"))
    assert (found["t"]["has_error"], found["alone"]["has_error"]) == (has_error, None)


def test_one_trace_is_read_alone(langfuse: FakeLangfuse, connect: Callable[..., LangfuseProvider]) -> None:
    langfuse.traces = [trace("a/b", "2026-11-20T10:00:00.000Z", name="chat")]
    langfuse.rows = [v1("o", "a/b", "2026-11-20T10:00:00.000Z", costDetails={"total": 1})]
    [row] = connect().read_trace("a/b").to_pylist()
    assert (row["id"], row["chatflow_name"], row["cost_usd"]) == ("a/b", "chat", Decimal(1))
    assert connect().read_trace("unknown").num_rows == 0
