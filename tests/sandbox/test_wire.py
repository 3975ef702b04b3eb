from __future__ import annotations

import json

import msgspec
import pytest

from billing_core.sandbox.langfuse.wire import cut_metadata, from_mapping, iso, milliseconds, select_groups

ROW = {
    "id": "o1",
    "traceId": "t1",
    "startTime": "2026-03-01T10:00:00.000Z",
    "name": 'says ,"model": and ,"traceName":',
    "metadata": {"model": 1, "traceName": "x", "metadata": {"usageDetails": 2}},
    "traceName": "the name",
}


def test_times_are_written_in_utc_with_milliseconds():
    assert iso(1_772_359_200_007) == "2026-03-01T10:00:00.007Z"
    assert milliseconds("2026-03-01T11:00:00.007+01:00") == 1_772_359_200_007


def test_a_time_without_offset_is_refused():
    with pytest.raises(ValueError, match="offset"):
        milliseconds("2026-03-01T10:00:00")


def test_a_row_given_as_a_mapping_has_the_keys_of_a_generated_one_in_their_order(dataset):
    generated = json.loads(msgspec.json.encode(dataset.store().rows[0].shown))
    given = json.loads(msgspec.json.encode(from_mapping({**ROW, "unknown": 1})))
    assert list(given) == list(generated)


def test_only_the_groups_asked_for_and_what_is_always_sent_are_shown():
    row = from_mapping(ROW)
    full = msgspec.to_builtins(row)

    selected = select_groups(row, frozenset({"core", "metadata"}))

    assert selected["metadata"] == full["metadata"]
    assert set(selected) == {
        "id",
        "traceId",
        "startTime",
        "endTime",
        "projectId",
        "parentObservationId",
        "type",
        "latency",
        "timeToFirstToken",
        "modelId",
        "inputPrice",
        "outputPrice",
        "totalPrice",
        "metadata",
    }
    every = frozenset({"core", "basic", "time", "model", "usage", "metadata", "trace_context"})
    assert select_groups(row, every) == full


def test_metadata_is_cut_to_200_characters_and_then_arrives_as_text():
    cut = cut_metadata({"short": "a", "long": "b" * 201, "number": 7, "object": {"key": "c" * 300}, "fits": {"k": 1}})

    assert cut["short"] == "a"
    assert cut["long"] == "b" * 200
    assert cut["number"] == 7
    assert cut["object"] == '{"key":"' + "c" * 192
    assert cut["fits"] == {"k": 1}
