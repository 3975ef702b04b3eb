"""Pages into facts, odd rows included."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from billing_core.langfuse.client import BrokenBody
from billing_core.langfuse.decode import DecodedPage, FactReader
from billing_core.langfuse.facts import FACTS_SCHEMA, MARKED_ROOT, NOT_ROOT, ROOT, TRACE_RECORD
from billing_core.values.usage_frame import MetadataNames, RejectedRow
from tests.langfuse.fake import observation

START = "2026-11-01T00:00:00.000Z"


def decode(*rows: Any, meta: Any = None) -> DecodedPage:
    return FactReader(MetadataNames()).observations(json.dumps({"data": rows, "meta": meta or {}}).encode())


def one(**more: Any) -> dict[str, Any]:
    facts = decode(observation("o", "t", START, **more))
    assert facts.rejected == []
    [row] = facts.table.to_pylist()
    return row


def test_numbers_stay_exact() -> None:
    assert one(costDetails={"input": 1e-7, "output": 0.1})["cost_usd"] == Decimal("0.1000001")


def test_empty_text_is_missing() -> None:
    row = one(userId="", model="", name="", environment="")
    assert (row["user_id"], row["model"], row["name"], row["environment"]) == (None, None, None, None)


def test_the_model_is_read_under_both_names() -> None:
    assert one(model="gpt-5", providedModelName="other")["model"] == "gpt-5"
    assert one(model="", providedModelName="other")["model"] == "other"


def test_the_rows_own_user_comes_before_the_metadatas() -> None:
    assert one(userId="u", metadata={"userId": "m"})["user_id"] == "u"
    assert (one(metadata={"userId": 5})["user_id"], one(metadata={"userId": 5})["metadata_user_id"]) == (None, "5")


@pytest.mark.parametrize(
    ("parent", "is_root", "rank"),
    [(None, True, ROOT), (None, None, ROOT), ("p", True, MARKED_ROOT), ("p", False, NOT_ROOT), ("p", None, NOT_ROOT)],
)
def test_roots_are_told_apart(parent: str | None, is_root: bool | None, rank: int) -> None:
    assert one(parentObservationId=parent, isRootObservation=is_root)["rank"] == rank


def test_only_roots_keep_their_metadata() -> None:
    assert one(metadata={"a": 1})["metadata"] == '{"a": 1}'
    assert one(metadata={"a": 1}, parentObservationId="p", isRootObservation=False)["metadata"] is None


@pytest.mark.parametrize(
    ("usage", "cost", "usd", "unpriced"),
    [
        ({"input": 5}, {}, None, True),
        ({"input": 5}, {"total": 0}, Decimal(0), False),
        ({"input": 0}, {}, None, False),
        ({}, {}, None, False),
        ({"input": 5}, {"total": -1}, None, False),  # there is a cost entry, a bad one
    ],
)
def test_usage_without_any_cost_entry_is_unpriced(
    usage: dict[str, int], cost: dict[str, int], usd: Decimal | None, unpriced: bool
) -> None:
    row = one(usageDetails=usage, costDetails=cost)
    assert (row["cost_usd"], row["unpriced"]) == (usd, unpriced)


@pytest.mark.parametrize(
    ("level", "failed"),
    [
        ("ERROR", True),
        ("DEFAULT", False),
        ("WARNING", False),
        ("DEBUG", False),
        ("LOUD", False),  # of a server newer than this program
        ("", None),
        (None, None),
        (5, None),
        (["ERROR"], None),
    ],
)
def test_an_observation_failed_if_its_level_says_so_and_nobody_knows_without_one(
    level: object, failed: bool | None
) -> None:
    assert one(level=level)["failed"] is failed


def test_a_row_that_names_no_level_at_all_is_not_known_to_have_gone_well() -> None:
    row = observation("o", "t", START)
    del row["level"]
    assert decode(row).table["failed"].to_pylist() == [None]


def test_unknown_keys_types_and_levels_are_fine() -> None:
    assert one(type="HOLOGRAM", level="LOUD", brandNew={"a": [1]})["id"] == "o"


@pytest.mark.parametrize(
    "odd",
    [
        {"metadata": "text"},
        {"metadata": [1, 2]},
        {"usageDetails": None, "costDetails": None},
        {"environment": 5},
        {"isRootObservation": "yes"},
        {"totalCost": "free"},
        {"endTime": 5},
        {"endTime": "soon"},
        {"costDetails": {"total": None}},
    ],
)
def test_an_odd_value_costs_nothing_else(odd: dict[str, Any]) -> None:
    rows = [observation("good", "t", START), observation("odd", "t", START, **odd)]
    facts = decode(*rows)
    assert (facts.rejected, facts.table["id"].to_pylist()) == ([], ["good", "odd"])


def test_usage_that_is_no_object_is_flagged() -> None:
    assert one(usageDetails=[1])["bad_usage"]
    assert one(costDetails="0.5 dollars")["bad_usage"]


@pytest.mark.parametrize(
    ("odd", "rejected"),
    [
        ({"id": None}, RejectedRow("observation ? of trace t", "id missing or unreadable")),
        ({"id": ""}, RejectedRow("observation ? of trace t", "id missing")),
        ({"traceId": None}, RejectedRow("observation o of trace ?", "traceId missing or unreadable")),
        ({"startTime": None}, RejectedRow("observation o of trace t", "startTime missing or unreadable")),
        ({"startTime": "soon"}, RejectedRow("observation o of trace t", "startTime 'soon' is not a time")),
    ],
)
def test_a_row_that_cannot_be_placed_is_named(odd: dict[str, Any], rejected: RejectedRow) -> None:
    facts = decode(observation("good", "t", START), observation("o", "t", START) | odd)
    assert facts.rejected == [rejected]
    assert facts.table["id"].to_pylist() == ["good"]
    assert facts.rows == 2


def test_a_row_that_is_no_object_is_named() -> None:
    assert decode(5).rejected == [RejectedRow("a row that is not an object", "found int")]


def test_ids_that_are_numbers_become_text() -> None:
    assert decode(observation("x", "t", START) | {"id": 12345}).table["id"].to_pylist() == ["12345"]


def test_python_style_numbers_do_not_fail_the_page() -> None:
    body = json.dumps({"data": [observation("o", "t", START, usageDetails={"input": float("nan")})], "meta": {}})
    [row] = FactReader(MetadataNames()).observations(body.encode()).table.to_pylist()
    assert row["bad_usage"]


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"data": 5}', b"[]", b'{"data": [{"id": "a"'])
def test_what_is_no_page_is_broken(body: bytes) -> None:
    with pytest.raises(BrokenBody):
        FactReader(MetadataNames()).observations(body)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-01T00:00:00Z", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T02:00:00.5+02:00", datetime(2026, 11, 1, 0, 0, 0, 500000, tzinfo=UTC)),
        ("2026-11-01T00:00:00.123456789Z", datetime(2026, 11, 1, 0, 0, 0, 123456, tzinfo=UTC)),
        ("2026-11-01T00:00:00", datetime(2026, 11, 1, tzinfo=UTC)),
    ],
)
def test_times_in_other_spellings_are_utc(text: str, time: datetime) -> None:
    assert decode(observation("o", "t", text)).table["start_time"].to_pylist() == [time]


def test_the_oldest_time_left_is_known_only_in_the_documented_order() -> None:
    early, late = "2026-11-01T00:00:00.000Z", "2026-11-01T00:00:01.000Z"
    assert decode(observation("a", "t", late), observation("b", "t", early)).newest_left == 1793491200001
    assert decode(observation("a", "t", early), observation("b", "t", late)).newest_left is None


def test_an_empty_page_has_the_same_columns() -> None:
    assert decode().table.schema == FACTS_SCHEMA


def test_a_legacy_trace_record_becomes_the_row_newer_servers_write_for_it() -> None:
    record = {
        "id": "t",
        "timestamp": START,
        "name": "chat",
        "userId": "u",
        "metadata": {"customerId": 5},
        "input": "a prompt",
        "totalCost": 0.25,
        "latency": 1.5,
    }
    body = json.dumps({"data": [record], "meta": {}}).encode()
    [row] = FactReader(MetadataNames()).traces(body).table.to_pylist()
    assert (row["id"], row["rank"], row["trace_name"], row["user_id"]) == ("t-t", TRACE_RECORD, "chat", "u")
    assert (row["record_cost"], row["record_latency"], row["customer_id"]) == (Decimal("0.25"), 1.5, "5")
    assert "a prompt" not in str(row)


def test_metrics_that_were_not_requested_are_unknown() -> None:
    body = json.dumps({"data": [{"id": "t", "timestamp": START, "totalCost": -1, "latency": -1}], "meta": {}}).encode()
    [row] = FactReader(MetadataNames()).traces(body).table.to_pylist()
    assert (row["record_cost"], row["record_latency"]) == (None, None)


def test_the_usage_of_older_servers_is_read_where_details_are_missing() -> None:
    old = {"usageDetails": None, "usage": {"unit": "TOKENS", "input": 3, "output": 4, "total": 7}}
    row = one(**old)
    assert (row["tokens_in"], row["tokens_out"], row["tokens_total"]) == (3, 4, 7)
    assert one(usageDetails=None, usage={"unit": "CHARACTERS", "input": 3})["tokens_total"] is None
    for details in (None, {"input": 3, "output": 4, "total": 7}):
        row = one(usageDetails=details, usage={"unit": "CHARACTERS", "input": 3, "output": 4, "total": 7})
        assert (row["tokens_total"], row["usage_keys"], row["usage_counts"]) == (
            None,
            ["input_characters", "output_characters"],
            [3, 4],
        )
    assert one(usageDetails={"total": 9}, usage={"unit": "SECONDS"})["usage_keys"] == ["seconds"]
    for unit in ("tokens", "TOKENS", "", None, [], {}):
        assert one(usageDetails={"input": 9}, usage={"unit": unit})["usage_keys"] == ["input"]
    assert one(usageDetails=None, usage={"unit": "TOKENS", "input": 0, "output": 0, "total": 0})["tokens_total"] is None


def test_a_whole_legacy_trace_with_an_odd_record_keeps_its_observations() -> None:
    rows = [observation("a", "t", START, costDetails={"total": 0.5}), observation("b", "t", START, usageDetails="odd")]
    record = {"id": "t", "timestamp": START, "name": 5, "latency": "slow", "metadata": {"customerId": 7}}
    pages = FactReader(MetadataNames()).whole_trace(json.dumps(record | {"observations": rows}).encode())
    found = {row["id"]: row for page in pages for row in page.table.to_pylist()}
    assert found.keys() == {"a", "b", "t-t"}
    assert found["a"]["cost_usd"] == Decimal("0.5")
    assert (found["t-t"]["customer_id"], found["t-t"]["record_latency"]) == ("7", None)
