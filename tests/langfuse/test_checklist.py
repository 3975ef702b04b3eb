"""The checklist for a correct client, line by line (section "Checklist" of the Langfuse notes)."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from billing_core.errors import BadParameter, UpstreamError
from billing_core.langfuse.metrics import DailyDifference, compare_daily
from billing_core.langfuse.provider import LangfuseProvider, Project
from billing_core.langfuse.reading import UpstreamRead
from billing_core.langfuse.rollup import DailyTotal
from billing_core.values.usage_frame import Window
from tests.langfuse.fake import JSON, Answer, FakeLangfuse, Request, observation

Connect = Callable[..., LangfuseProvider]
Read = Callable[..., UpstreamRead]
Events = Callable[[UpstreamRead], dict[str, JSON]]

DAY = ("2026-11-10T00:00:00Z", "2026-11-11T00:00:00Z")
NOON = "2026-11-10T12:00:00.000Z"


@pytest.mark.parametrize("status", [401, 403])
def test_checklist_01_refused_keys_are_no_reason_to_fall_back(
    langfuse: FakeLangfuse, connect: Connect, status: int
) -> None:
    langfuse.offers_legacy = True
    langfuse.answer_times(9, Answer(status, {"message": "no"}))
    with pytest.raises(UpstreamError, match=str(status)):
        connect().api()
    assert langfuse.asked("traces") == []


@pytest.mark.parametrize(
    "answer", [Answer(422, {"message": "Request timed out"}), Answer(429, {"message": "slow"}, {"Retry-After": "0"})]
)
def test_checklist_01_neither_are_overload_and_rate_limits(
    langfuse: FakeLangfuse, connect: Connect, answer: Answer
) -> None:
    langfuse.offers_legacy = True
    langfuse.rows = [observation("a", "t", NOON)]
    langfuse.answer_times(1, answer)
    assert connect().api() == "v2"


def test_checklist_02_bulk_reading_does_without_the_sdk_and_keeps_money_exact(
    langfuse: FakeLangfuse, read: Read, events: Events
) -> None:
    langfuse.rows = [observation(f"o{i}", "t", NOON, costDetails={"total": 0.1}) for i in range(3)]
    assert events(read(*DAY))["t"]["cost_usd"] == Decimal("0.3")
    code = "import sys, billing_core.langfuse.provider; sys.exit('langfuse' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_checklist_03_every_question_is_bounded_in_utc_with_explicit_fields_and_full_pages(
    langfuse: FakeLangfuse, read: Read
) -> None:
    langfuse.rows = [observation("a", "t", NOON, metadata={"customerId": "x" * 300})]
    read("2026-11-10T01:00:00+01:00", "2026-11-11T01:00:00+01:00")
    asked = langfuse.asked()
    assert {r.query["fields"] for r in asked} == {"core,basic,time,model,usage,metadata,trace_context"}
    assert {r.query["limit"] for r in asked} == {"1000"}
    bounds = [(r.query["fromStartTime"], r.query["toStartTime"]) for r in asked]
    assert all(
        start.endswith(".000Z") or "expandMetadata" in r.query for (start, _), r in zip(bounds, asked, strict=True)
    )
    inside = [b for b, r in zip(bounds, asked, strict=True) if not r.ids]
    assert (min(inside)[0], max(inside)[1]) == ("2026-11-10T00:00:00.000Z", "2026-11-11T00:00:00.000Z")
    assert not any("io" in r.query["fields"].split(",") for r in asked)


def test_checklist_03_rows_dated_outside_any_time_of_use_are_looked_for_with_two_questions(
    langfuse: FakeLangfuse, read: Read
) -> None:
    langfuse.rows = [observation("a", "t", NOON)]
    read("2026-11-10T00:00:00Z", "2026-11-11T00:00:00Z")
    asked = [(r.query["fromStartTime"], r.query["toStartTime"], r.ids) for r in langfuse.requests if r.is_astray]
    assert sorted(asked) == [
        ("1970-01-01T00:00:00.000Z", "2020-01-01T00:00:00.000Z", []),
        ("2026-11-23T12:00:00.000Z", "2200-01-01T00:00:00.000Z", []),
    ]


def test_checklist_03_a_row_on_the_edge_belongs_to_one_window_only(langfuse: FakeLangfuse, read: Read) -> None:
    langfuse.rows = [observation("a", "t", "2026-11-10T00:00:00.000Z")]
    assert read("2026-11-09T00:00:00Z", "2026-11-10T00:00:00Z").events == 0
    assert read("2026-11-10T00:00:00Z", "2026-11-11T00:00:00Z").events == 1


def test_checklist_04_model_under_both_names_empty_text_and_unknown_values(
    langfuse: FakeLangfuse, read: Read, events: Events
) -> None:
    langfuse.rows = [
        observation("a", "t", NOON, model="gpt-5", userId="", type="HOLOGRAM", level="LOUD", brandNew=[1]),
        observation("b", "t", NOON, model="", providedModelName="ada"),
    ]
    row = events(read(*DAY))["t"]
    assert (row["models"], row["user_id"]) == (["ada", "gpt-5"], None)


def test_checklist_05_duplicates_keep_the_newest_across_pages(
    langfuse: FakeLangfuse, read: Read, events: Events
) -> None:
    old = observation("a", "t", "2026-11-10T12:00:01.000Z", updatedAt=NOON, costDetails={"total": 9})
    new = observation("a", "t", NOON, updatedAt="2026-11-10T13:00:00.000Z", costDetails={"total": 1})
    langfuse.rows = [old, new]
    langfuse.page_limit = 1
    reading = read(*DAY)
    assert events(reading)["t"]["cost_usd"] == Decimal(1)
    assert (reading.observations, reading.duplicates) == (2, 1)


def test_checklist_06_pages_until_the_cursor_is_absent_resending_everything(langfuse: FakeLangfuse, read: Read) -> None:
    langfuse.rows = [observation(f"o{i}", f"t{i}", NOON) for i in range(10)]
    langfuse.page_limit = 2
    assert read("2026-11-10T12:00:00Z", "2026-11-10T12:30:00Z").events == 10
    pages = [r.query for r in langfuse.asked() if not r.ids]
    assert len(pages) == 5
    without_cursor = {tuple(sorted((k, v) for k, v in page.items() if k != "cursor")) for page in pages}
    assert len(without_cursor) == 1


def test_checklist_06_a_repeated_cursor_never_loops_and_loses_nothing(langfuse: FakeLangfuse, read: Read) -> None:
    langfuse.rows = [observation(f"o{i}", f"t{i}", f"2026-11-10T12:0{i}:00.000Z") for i in range(10)]
    langfuse.page_limit = 2
    repeated: list[Request] = []

    def repeat(request: Request) -> Answer | None:
        cursor = request.query.get("cursor")
        if cursor is None or request.ids or len(repeated) >= 2:
            return None
        repeated.append(request)
        answer = langfuse._route(request)
        return Answer(body=answer.body | {"meta": {"cursor": cursor}})

    langfuse.scripts.append(repeat)
    assert read("2026-11-10T12:00:00Z", "2026-11-10T12:30:00Z").events == 10
    assert repeated


def test_checklist_06_a_server_that_only_repeats_itself_is_reported(langfuse: FakeLangfuse, read: Read) -> None:
    row = observation("a", "t", NOON)
    langfuse.answer_when(
        lambda r: r.path == "v2/observations" and r.query["limit"] != "1",
        Answer(body={"data": [row], "meta": {"cursor": "same"}}),
    )
    with pytest.raises(UpstreamError, match="same cursor"):
        read("2026-11-10T12:00:00Z", "2026-11-10T12:30:00Z")


def test_checklist_06_an_empty_page_with_a_cursor_is_followed(
    langfuse: FakeLangfuse, read: Read, events: Events
) -> None:
    langfuse.rows = [observation("a", "t", NOON)]

    def script(request: Request) -> Answer | None:
        if request.path != "v2/observations" or request.is_astray or request.ids or request.query["limit"] == "1":
            return None
        is_first = "cursor" not in request.query
        return Answer(body={"data": [], "meta": {"cursor": "on"}} if is_first else {"data": langfuse.rows, "meta": {}})

    langfuse.scripts.append(script)
    assert list(events(read("2026-11-10T12:00:00Z", "2026-11-10T12:30:00Z"))) == ["t"]


@pytest.mark.parametrize("cursors", [["same"], [f"next {n}" for n in range(100)]], ids=["repeated", "ever new"])
def test_checklist_06_empty_pages_without_an_end_are_reported(
    langfuse: FakeLangfuse, read: Read, cursors: list[str]
) -> None:
    left = [0]

    def script(request: Request) -> Answer | None:
        if request.path != "v2/observations" or request.query["limit"] == "1":
            return None
        left[0] += 1
        return Answer(body={"data": [], "meta": {"cursor": cursors[left[0] % len(cursors)]}})

    langfuse.scripts.append(script)
    with pytest.raises(UpstreamError, match="empty pages"):
        read("2026-11-10T12:00:00Z", "2026-11-10T12:30:00Z")


def test_checklist_06_the_cursor_survives_an_outage(langfuse: FakeLangfuse, read: Read, connect: Connect) -> None:
    langfuse.rows = [observation(f"o{i}", f"t{i}", NOON) for i in range(10)]
    langfuse.page_limit = 2
    window = ("2026-11-10T12:00:00Z", "2026-11-10T12:30:00Z")
    down = {"after": 3}

    def outage(request: Request) -> Answer | None:
        if request.path != "v2/observations" or request.query["limit"] == "1":
            return None
        down["after"] -= 1
        return Answer(403, {"message": "suspended"}) if down["after"] < 0 else None

    langfuse.scripts.append(outage)
    with pytest.raises(UpstreamError, match="suspended"):
        read(*window)
    langfuse.scripts.clear()
    before = len(langfuse.asked())
    reading = read(*window)
    assert (reading.events, reading.observations, reading.duplicates) == (10, 10, 0)
    assert langfuse.asked()[before].query["cursor"]
    assert len([r for r in langfuse.asked()[before:] if not r.ids]) == 2


def test_checklist_07_traces_are_completed_by_id_beyond_the_windows_edge(
    langfuse: FakeLangfuse, read: Read, events: Events
) -> None:
    langfuse.rows = [
        observation("before", "t", "2026-11-09T23:59:59.999Z", costDetails={"total": 1}),
        observation("inside", "t", NOON, costDetails={"total": 2}),
        observation("after", "t", "2026-11-11T00:00:00.000Z", costDetails={"total": 4}),
    ]
    assert events(read(*DAY))["t"]["cost_usd"] == Decimal(7)
    assert {tuple(r.ids) for r in langfuse.asked() if r.ids} == {("t",)}


def test_checklist_08_cost_of_every_type_and_unpriced_instead_of_free(
    langfuse: FakeLangfuse, read: Read, events: Events
) -> None:
    langfuse.rows = [
        observation("a", "t", NOON, type="EMBEDDING", costDetails={"input": 0.1, "search": 0.2}, totalCost=0),
        observation("b", "t", NOON, type="TOOL", usageDetails={"input": 3}, costDetails={}, totalCost=0),
        observation("c", "unknown", NOON, usageDetails={"input": 3}, costDetails={}, totalCost=0),
    ]
    found = events(read(*DAY))
    assert (found["t"]["cost_usd"], found["t"]["unpriced"]) == (Decimal("0.3"), True)
    assert (found["unknown"]["cost_usd"], found["unknown"]["unpriced"]) == (None, True)


def test_checklist_09_tokens_come_from_usage_details_without_total_and_minus_one(
    langfuse: FakeLangfuse, read: Read, events: Events
) -> None:
    usage = {"input": 10, "cache_read_input_tokens": 5, "output": -1, "total": 99}
    langfuse.rows = [observation("a", "t", NOON, usageDetails=usage, inputUsage=777, outputUsage=888)]
    row = events(read(*DAY))["t"]
    assert (row["tokens_in"], row["tokens_out"], row["tokens_total"], row["bad_usage"]) == (15, None, 15, True)


def test_checklist_10_latency_comes_from_timestamps_never_from_the_latency_field(
    langfuse: FakeLangfuse, read: Read, events: Events
) -> None:
    langfuse.rows = [
        observation("a", "t", NOON, "2026-11-10T12:00:30.000Z", latency=30000),
        observation("b", "t", "2026-11-10T12:00:10.000Z", "2026-11-10T12:01:00.000Z", latency=50),
    ]
    row = events(read(*DAY))["t"]
    assert (row["ended_at"] - row["timestamp"]).total_seconds() == 60


def test_checklist_11_logical_root_first_any_other_next_conflicts_reported(
    langfuse: FakeLangfuse, read: Read, events: Events
) -> None:
    langfuse.rows = [
        observation("root", "t", NOON, metadata={"customerId": 12345}),
        observation("x", "t", NOON, parentObservationId="root", userId="u1", metadata={"customerId": "12345"}),
        observation("y", "t", NOON, parentObservationId="root", userId="u2"),
    ]
    row = events(read(*DAY))["t"]
    assert (row["customer_id"], row["conflicting_attributes"]) == ("12345", True)
    assert row["problems"][0].startswith("user differs within the trace: 'u1', 'u2'")


def test_checklist_11_values_cut_at_200_characters_are_fetched_whole(
    langfuse: FakeLangfuse, read: Read, events: Events
) -> None:
    details = {"total_credits": 12.5, "note": "n" * 300}
    long = observation("a", "t", NOON, metadata={"organizationId": "o" * 250, "billing_details": details})
    langfuse.rows = [long, observation("b", "short", NOON, metadata={"organizationId": "acme"})]
    reading = read(*DAY)
    found = events(reading)
    assert (found["t"]["organization_id"], found["t"]["legacy_total"]) == ("o" * 250, Decimal("12.5"))
    assert (reading.observations, reading.duplicates) == (2, 0)
    [again] = [r for r in langfuse.asked() if "expandMetadata" in r.query]
    assert again.ids == ["t"]
    assert {"organizationId", "billing_details"} <= set(again.query["expandMetadata"].split(","))


def test_checklist_12_synthetic_roots_are_not_counted_and_evaluator_traces_stay_visible(
    langfuse: FakeLangfuse, read: Read, events: Events
) -> None:
    langfuse.rows = [
        observation("t-t", "t", NOON, userId="u"),
        observation("a", "t", NOON, parentObservationId="t-t"),
        observation("judge", "e", NOON, environment="langfuse-llm-as-a-judge"),
    ]
    found = events(read(*DAY))
    assert (found["t"]["observations"], found["t"]["user_id"]) == (1, "u")
    assert found["e"]["environment"] == "langfuse-llm-as-a-judge"  # excluding it is the service's visible setting


def test_checklist_13_a_second_run_sees_late_rows_and_late_ends(
    langfuse: FakeLangfuse, read: Read, events: Events
) -> None:
    langfuse.rows = [observation("a", "t", NOON, costDetails={"total": 1})]
    first = read(*DAY)
    first.discard()
    langfuse.rows += [
        observation("late", "t", NOON, costDetails={"total": 1}),
        observation("long", "l", "2026-11-08T12:00:00.000Z", "2026-11-10T18:00:00.000Z"),
    ]
    second = events(read(*DAY, ended_since=datetime(2026, 11, 10, 13, tzinfo=UTC)))
    assert second["t"]["cost_usd"] == Decimal(2)
    assert "l" in second


def test_checklist_14_everyone_waits_for_the_same_retry_after(
    langfuse: FakeLangfuse, read: Read, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    langfuse.project["organization"]["id"] = "org-of-checklist-14"
    one, other = connect(), connect()
    one.project(), other.project()
    assert one._client.limiter is other._client.limiter
    pauses: list[float] = []
    monkeypatch.setattr(one._client.limiter, "pause", pauses.append)
    langfuse.rows = [observation("a", "t", NOON)]
    one.api()
    reset = "Sun Nov 22 2026 13:00:00 GMT+0000 (Coordinated Universal Time)"
    langfuse.answer_times(1, Answer(429, {"message": "slow"}, {"Retry-After": "90", "X-RateLimit-Reset": reset}))
    assert read(*DAY, provider=one).events == 1
    assert pauses == [90.0]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(422, {"message": "Request timed out"}),
        Answer(500, {"message": "Timeout error"}),
        Answer(504, b"<html>"),
        Answer(524, b"<html>"),
    ],
)
def test_checklist_15_an_overloaded_server_is_asked_for_shorter_windows(
    langfuse: FakeLangfuse, read: Read, answer: Answer
) -> None:
    langfuse.rows = [observation(f"o{i}", f"t{i}", f"2026-11-10T{i:02d}:30:00.000Z") for i in range(24)]
    langfuse.answer_when(
        lambda r: bool(r.path == "v2/observations" and not r.ids and r.hours > 0.6 and r.query["limit"] != "1"), answer
    )
    assert read(*DAY).events == 24


def test_checklist_15_an_overload_in_the_middle_keeps_what_was_read(langfuse: FakeLangfuse, read: Read) -> None:
    langfuse.rows = [observation(f"o{i}", f"t{i}", f"2026-11-10T00:{i:02d}:00.000Z") for i in range(60)]
    langfuse.page_limit = 10
    langfuse.answer_when(
        lambda r: "cursor" in r.query and r.hours > 0.3 and not r.ids, Answer(422, {"message": "Request timed out"})
    )
    reading = read("2026-11-10T00:00:00Z", "2026-11-10T01:00:00Z")
    assert (reading.events, reading.observations, reading.duplicates) == (60, 60, 0)


def test_checklist_15_then_for_fewer_rows(langfuse: FakeLangfuse, read: Read) -> None:
    langfuse.rows = [observation(f"o{i:02d}", f"t{i}", NOON) for i in range(90)]
    langfuse.answer_when(
        lambda r: r.path == "v2/observations" and int(r.query["limit"]) > 50 and not r.ids,
        Answer(422, {"message": "memory limit"}),
    )
    assert read("2026-11-10T12:00:00Z", "2026-11-10T12:01:00Z").events == 90


def test_checklist_15_and_a_server_that_never_answers_is_reported(langfuse: FakeLangfuse, read: Read) -> None:
    langfuse.answer_when(lambda r: r.path == "v2/observations" and r.query["limit"] != "1", Answer(504, b"<html>"))
    with pytest.raises(UpstreamError, match="even for the smallest question"):
        read("2026-11-10T12:00:00Z", "2026-11-10T12:30:00Z")


def test_checklist_15_a_client_side_timeout_is_tried_again(
    langfuse: FakeLangfuse, read: Read, connect: Connect
) -> None:
    langfuse.rows = [observation("a", "t", NOON)]
    held = threading.Event()
    left = [1]
    provider = connect(timeout_seconds=0.3)
    provider.api()

    def hold(request: Request) -> Answer | None:
        if request.path == "v2/observations" and left[0]:
            left[0] -= 1
            held.wait(1.0)
        return None

    langfuse.scripts.append(hold)
    assert read("2026-11-10T12:00:00Z", "2026-11-10T12:30:00Z", provider=provider).events == 1
    assert left == [0]


@pytest.mark.parametrize(
    "fault", [Answer(503, {"message": "down"}), Answer(502, b""), Answer(200, {"data": [1] * 99}, cut=True)]
)
def test_checklist_15_passing_faults_and_cut_connections_cost_nothing(
    langfuse: FakeLangfuse, read: Read, fault: Answer
) -> None:
    langfuse.rows = [observation("a", "t", NOON)]
    langfuse.answer_times(3, fault)
    reading = read("2026-11-10T12:00:00Z", "2026-11-10T12:30:00Z")
    assert (reading.events, reading.duplicates) == (1, 0)


def test_checklist_16_probable_double_counting_is_flagged_and_left_to_the_operator(
    langfuse: FakeLangfuse, read: Read, events: Events
) -> None:
    langfuse.rows = [
        observation("agent", "t", NOON, costDetails={"total": 0.5}),
        observation("tool", "t", NOON, parentObservationId="agent"),
        observation("llm", "t", NOON, parentObservationId="tool", costDetails={"total": 0.49}),
    ]
    row = events(read(*DAY))["t"]
    assert (row["double_count_suspect"], row["cost_usd"]) == (True, Decimal("0.99"))


def test_checklist_17_version_3_is_read_in_hours_ascending_a_hundred_at_a_time(
    langfuse: FakeLangfuse, read: Read
) -> None:
    langfuse.offers_v2, langfuse.offers_legacy = False, True
    langfuse.traces = [{"id": f"t{i:03d}", "timestamp": NOON, "totalCost": -1, "latency": -1} for i in range(130)]
    assert read(*DAY).events == 130
    asked = langfuse.asked("traces")
    assert {(r.query["limit"], r.query["orderBy"], r.query["fields"]) for r in asked} == {
        ("100", "timestamp.asc", "core,io,metrics")
    }
    hours = {
        (datetime.fromisoformat(r.query["toTimestamp"]) - datetime.fromisoformat(r.query["fromTimestamp"])).seconds
        for r in asked
    }
    assert max(hours) <= 3600
    rows = langfuse.asked("observations")
    assert min(r.query["fromStartTime"] for r in rows) == "2026-11-09T23:00:00.000Z"
    assert max(r.query["toStartTime"] for r in rows) == "2026-11-11T06:00:00.000Z"


def test_checklist_18_each_day_can_be_compared_with_langfuses_own_sums(
    langfuse: FakeLangfuse, read: Read, connect: Connect
) -> None:
    langfuse.rows = [
        observation("a", "t", NOON, costDetails={"total": 1}, usageDetails={"input": 5}),
        observation("edge", "t", "2026-11-11T00:00:00.000Z", costDetails={"total": 8}),
    ]
    provider = connect()
    reading = read(*DAY, provider=provider)
    assert reading.daily == [DailyTotal(date(2026, 11, 10), 1, 5, Decimal(1))]
    row = {"time_dimension": "2026-11-10", "sum_totalCost": 2, "sum_totalTokens": "5", "count_count": "2"}
    langfuse.answer_times(1, Answer(body={"data": [row]}), "v2/metrics")
    window = Window(datetime(2026, 11, 10, tzinfo=UTC), datetime(2026, 11, 11, tzinfo=UTC))
    upstream = provider.daily_totals(window)
    assert upstream is not None
    assert compare_daily(reading.daily, upstream) == [DailyDifference(date(2026, 11, 10), 1, 0, Decimal(1))]


def test_checklist_19_reading_never_writes_to_langfuse(langfuse: FakeLangfuse, read: Read) -> None:
    langfuse.rows = [observation("a", "t", NOON, metadata={"customerId": "x" * 300})]
    read(*DAY, ended_since=datetime(2026, 11, 9, tzinfo=UTC))
    assert {r.method for r in langfuse.requests} == {"GET"}


def test_checklist_20_the_project_tests_the_keys_and_old_windows_are_refused(
    langfuse: FakeLangfuse, read: Read, connect: Connect
) -> None:
    langfuse.project["retentionDays"] = 7
    assert connect().project() == Project("p1", "Shop", 7)
    with pytest.raises(BadParameter, match="keeps its data for 7 days"):
        read(*DAY)
