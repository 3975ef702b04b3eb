"""Reading a project, the way the service does it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import SecretStr

from billing_core.errors import BadParameter, SettingsError, UpstreamError
from billing_core.langfuse.provider import LangfuseProvider, Project
from billing_core.langfuse.reading import UpstreamRead
from billing_core.settings import ApiChoice, load_settings
from billing_core.values.usage_frame import MetadataNames, PullProgress, RejectedRow
from tests.langfuse.conftest import NOW
from tests.langfuse.fake import JSON, Answer, FakeLangfuse, observation

Connect = Callable[..., LangfuseProvider]
Read = Callable[..., UpstreamRead]
Events = Callable[[UpstreamRead], dict[str, JSON]]


def test_missing_keys_are_named() -> None:
    with pytest.raises(SettingsError, match="LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY: missing"):
        LangfuseProvider.from_settings(load_settings({}, env_file=None))


def test_the_environment_makes_a_provider(langfuse: FakeLangfuse) -> None:
    environment = {
        "LANGFUSE_HOST": langfuse.url,
        "LANGFUSE_PUBLIC_KEY": "pk-lf-test",
        "LANGFUSE_SECRET_KEY": "sk-lf-test-secret",
        "LANGFUSE_API": "legacy",
    }
    provider = LangfuseProvider.from_settings(load_settings(environment, env_file=None), MetadataNames())
    assert provider.api() == "legacy"
    assert provider.project() == Project("p1", "Shop", None)
    provider.close()


def test_a_wrong_key_is_one_line_about_keys_and_region(langfuse: FakeLangfuse) -> None:
    provider = LangfuseProvider(langfuse.url, "pk", SecretStr("sk-wrong"))
    with pytest.raises(UpstreamError, match="LANGFUSE_SECRET_KEY, and that LANGFUSE_HOST is the project's own region"):
        provider.project()
    assert len(langfuse.requests) == 1


def test_a_server_that_is_no_langfuse_is_named(langfuse: FakeLangfuse, connect: Connect) -> None:
    for route in ("projects", "health", "v2/observations", "traces"):
        langfuse.answer_times(99, Answer(404, b"<html>"), route)
    with pytest.raises(UpstreamError, match="includes its base path"):
        connect().api()


def test_a_server_that_does_not_name_the_project_is_read_without_links(
    langfuse: FakeLangfuse, read: Read, events: Events
) -> None:
    langfuse.answer_times(99, Answer(404, b"<html>"), "projects")
    langfuse.rows = [observation("inside", "t", "2026-11-10T12:00:00.000Z", costDetails={"total": 2})]
    found = events(read("2026-11-10T00:00:00Z", "2026-11-11T00:00:00Z"))
    assert (found["t"]["cost_usd"], found["t"]["trace_base"]) == (Decimal(2), None)


def test_a_trace_that_crosses_the_windows_edges_is_booked_complete(
    langfuse: FakeLangfuse, read: Read, events: Events
) -> None:
    langfuse.rows = [
        observation("months ago", "t", "2026-08-20T00:00:00.000Z", costDetails={"total": 1}),
        observation("inside", "t", "2026-11-10T12:00:00.000Z", costDetails={"total": 2}),
        observation("days later", "t", "2026-11-15T00:00:00.000Z", costDetails={"total": 4}),
        observation("other", "not touched", "2026-11-15T00:00:00.000Z"),
    ]
    reading = read("2026-11-10T00:00:00Z", "2026-11-11T00:00:00Z")
    found = events(reading)
    assert list(found) == ["t"]
    assert found["t"]["cost_usd"] == Decimal(7)
    assert reading.observations == 3


def test_a_window_up_to_now_asks_only_for_earlier_rows(langfuse: FakeLangfuse, read: Read) -> None:
    langfuse.rows = [observation("a", "t", "2026-11-22T10:00:00.000Z")]
    read("2026-11-22T00:00:00Z", NOW.isoformat())
    assert [r.query["toStartTime"] for r in langfuse.asked() if r.ids] == ["2026-11-22T00:00:00.000Z"]


def test_a_row_that_ended_lately_brings_its_whole_trace(langfuse: FakeLangfuse, read: Read, events: Events) -> None:
    langfuse.rows = [
        observation("long", "t", "2026-11-09T10:00:00.000Z", "2026-11-10T01:00:00.000Z", costDetails={"total": 1}),
        observation("child", "t", "2026-11-09T10:00:01.000Z", "2026-11-09T10:00:02.000Z", costDetails={"total": 2}),
        observation("done", "old", "2026-11-09T10:00:01.000Z", "2026-11-09T10:00:02.000Z"),
    ]
    window = ("2026-11-10T00:00:00Z", "2026-11-11T00:00:00Z")
    assert events(read(*window)) == {}
    reading = read(*window, ended_since=datetime(2026, 11, 10, tzinfo=UTC))
    found = events(reading)
    assert list(found) == ["t"]
    assert (found["t"]["cost_usd"], reading.observations, reading.duplicates) == (Decimal(3), 2, 0)


def test_a_second_read_of_the_same_window_gives_the_same_rows(langfuse: FakeLangfuse, read: Read) -> None:
    langfuse.rows = [
        observation(f"o{i}", f"t{i % 7}", f"2026-11-10T12:00:{i:02d}.000Z", usageDetails={"input": i})
        for i in range(40)
    ]
    first = pa.concat_tables(read("2026-11-10T00:00:00Z", "2026-11-11T00:00:00Z").batches())
    second = pa.concat_tables(read("2026-11-10T00:00:00Z", "2026-11-11T00:00:00Z").batches())
    assert first.equals(second)


def test_batches_are_no_larger_than_asked(langfuse: FakeLangfuse, read: Read) -> None:
    langfuse.rows = [observation(f"o{i}", f"t{i}", "2026-11-10T12:00:00.000Z") for i in range(25)]
    reading = read("2026-11-10T00:00:00Z", "2026-11-11T00:00:00Z")
    assert [len(batch) for batch in reading.batches(size=10)] == [10, 10, 5]
    assert reading.events == 25


def test_discarding_empties_the_spool(langfuse: FakeLangfuse, read: Read, tmp_path: Path) -> None:
    langfuse.rows = [observation("o", "t", "2026-11-10T12:00:00.000Z")]
    reading = read("2026-11-10T00:00:00Z", "2026-11-11T00:00:00Z")
    assert list(tmp_path.rglob("*.arrow"))
    reading.discard()
    assert list(tmp_path.rglob("*.arrow*")) == []
    assert list(reading.batches()) == []


def test_progress_grows_to_one_and_says_what_it_does(langfuse: FakeLangfuse, read: Read) -> None:
    langfuse.rows = [observation("o", "t", "2026-11-10T12:00:00.000Z")]
    seen: list[PullProgress] = []
    read("2026-11-10T00:00:00Z", "2026-11-11T00:00:00Z", progress=seen.append)
    fractions = [step.fraction for step in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert seen[-1].observations == 1
    assert "reading observations" in {step.doing for step in seen}


def test_ctrl_c_keeps_what_was_read_and_the_next_run_continues(
    langfuse: FakeLangfuse, read: Read, connect: Connect
) -> None:
    langfuse.rows = [observation(f"o{i}", f"t{i}", f"2026-11-10T{i:02d}:30:00.000Z") for i in range(20)]
    langfuse.page_limit = 2

    def interrupt(step: PullProgress) -> None:
        if step.observations >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read("2026-11-10T00:00:00Z", "2026-11-11T00:00:00Z", provider=connect(workers=1), progress=interrupt)
    kept = len(langfuse.asked())
    reading = read("2026-11-10T00:00:00Z", "2026-11-11T00:00:00Z")
    assert (reading.events, reading.observations, reading.duplicates) == (20, 20, 0)
    asked_twice = {tuple(r.query.items()) for r in langfuse.asked()[:kept]} & {
        tuple(r.query.items()) for r in langfuse.asked()[kept:]
    }
    assert len(asked_twice) <= 1  # at most the page that was on its way


def test_a_failed_read_leaves_its_pages_and_its_lane(langfuse: FakeLangfuse, read: Read) -> None:
    langfuse.rows = [observation(f"o{i}", f"t{i}", f"2026-11-10T{i:02d}:30:00.000Z") for i in range(20)]
    broken = {"on": True}
    langfuse.scripts.append(
        lambda r: (
            Answer(403, {"message": "no"}) if broken["on"] and "T00:" in r.query.get("fromStartTime", "") else None
        )
    )
    with pytest.raises(UpstreamError, match="403"):
        read("2026-11-10T00:00:00Z", "2026-11-11T00:00:00Z")
    langfuse.scripts.clear()
    assert read("2026-11-10T00:00:00Z", "2026-11-11T00:00:00Z").events == 20


def test_a_trace_is_read_alone_and_complete(langfuse: FakeLangfuse, connect: Connect) -> None:
    langfuse.rows = [
        observation("a", "t", "2024-11-10T12:00:00.000Z", costDetails={"total": 1}),
        observation("b", "t", "2026-11-10T12:00:00.000Z", metadata={"customerId": "x" * 300}, costDetails={"total": 1}),
        observation("c", "other", "2026-11-10T12:00:00.000Z"),
    ]
    [row] = connect().read_trace("t").to_pylist()
    assert (row["cost_usd"], row["customer_id"]) == (Decimal(2), "x" * 300)
    assert connect().read_trace("unknown").num_rows == 0


def test_rows_that_cannot_be_read_are_named(langfuse: FakeLangfuse, read: Read, connect: Connect) -> None:
    langfuse.rows = [observation("good", "t", "2026-11-10T12:00:00.000Z")]
    odd = observation("odd", "t", "2026-11-10T12:00:00.000Z") | {"startTime": None}
    provider = connect(api=ApiChoice.V2)
    langfuse.answer_times(1, Answer(body={"data": [odd, *langfuse.rows], "meta": {}}))
    reading = read("2026-11-10T12:00:00Z", "2026-11-10T12:30:00Z", provider=provider)
    assert reading.rejected == [RejectedRow("observation odd of trace t", "startTime missing or unreadable")]
    assert (reading.events, reading.observations) == (1, 2)


def test_a_base_path_is_part_of_every_address(langfuse: FakeLangfuse) -> None:
    langfuse.answer_when(
        lambda request: request.path.endswith("/lf/api/public/projects"), Answer(body={"data": [langfuse.project]})
    )
    provider = LangfuseProvider(langfuse.url + "/lf/", "pk-lf-test", SecretStr("sk-lf-test-secret"))
    assert provider.project().id == "p1"


def test_windows_before_the_retention_are_refused(langfuse: FakeLangfuse, read: Read) -> None:
    langfuse.project["retentionDays"] = 30
    start = NOW - timedelta(days=31)
    with pytest.raises(BadParameter, match="from: '2026-10-22T12:00Z' is not accepted; expected a time since"):
        read(start.isoformat(), NOW.isoformat())
    assert read((NOW - timedelta(days=30)).isoformat(), NOW.isoformat()).events == 0
