"""Rows of a trace become one usage row."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_core.langfuse.decode import FactReader
from billing_core.langfuse.rollup import DailyTotal, RolledPartition, Rollup
from billing_core.values.usage_frame import TOKEN_CLASSES, USAGE_SCHEMA, MetadataNames, Window
from billing_core.values.usage_keys import KeyMeaning, read_key
from tests.examples import examples
from tests.langfuse.fake import JSON, observation

WINDOW = Window(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 3, tzinfo=UTC))
READ_AT = datetime(2026, 11, 4, tzinfo=UTC)


def at(seconds: float, day: int = 1) -> str:
    return f"2026-11-{day:02d}T00:{int(seconds // 60):02d}:{seconds % 60:06.3f}Z"


def child(identity: str, trace: str, start: str, end: str | None = None, **more: Any) -> JSON:
    return observation(identity, trace, start, end, **{"parentObservationId": "root", **more})


def roll_up(*rows: JSON, repeated: tuple[JSON, ...] = (), expanded: tuple[JSON, ...] = ()) -> RolledPartition:
    reader = FactReader(MetadataNames())

    def facts(some: tuple[JSON, ...], **options: bool) -> pa.Table:
        return reader.observations(json.dumps({"data": some, "meta": {}}).encode(), **options).table

    table = pa.concat_tables([facts(rows), facts(repeated, repeat=True), facts(expanded, repeat=True, expanded=True)])
    with Rollup(WINDOW, "https://host/project/p1/traces/", READ_AT, only_touched=False) as rollup:
        return rollup.roll(table)


def event(*rows: JSON, **more: Any) -> JSON:
    [row] = roll_up(*rows, **more).table.to_pylist()
    return row


def test_the_result_has_the_published_columns() -> None:
    rolled = roll_up(observation("a", "t", at(0)))
    assert rolled.table.schema == USAGE_SCHEMA
    row = rolled.table.to_pylist()[0]
    assert (row["id"], row["project_id"], row["trace_base"]) == ("t", "p1", "https://host/project/p1/traces/")


def test_nothing_rolls_up_to_nothing() -> None:
    assert roll_up().table == USAGE_SCHEMA.empty_table()


def test_a_trace_lasts_from_its_first_start_to_its_last_end() -> None:
    row = event(observation("a", "t", at(5), at(6)), child("b", "t", at(1), at(2)), child("c", "t", at(9)))
    assert (row["ended_at"] - row["timestamp"]).total_seconds() == 8


def test_an_end_before_the_start_never_shortens_a_trace() -> None:
    row = event(observation("a", "t", at(5), at(1)))
    assert row["ended_at"] == row["timestamp"]


def test_cost_and_tokens_are_summed_over_every_type() -> None:
    row = event(
        observation("a", "t", at(0), type="AGENT", costDetails={"total": 0.1}, usageDetails={"input": 1}),
        child("b", "t", at(1), type="EMBEDDING", costDetails={"x": 0.2}, usageDetails={"output": 2, "total": 5}),
        child("c", "t", at(2), type="TOOL"),
    )
    assert (row["cost_usd"], row["tokens_in"], row["tokens_out"], row["tokens_total"]) == (Decimal("0.3"), 1, 2, 6)


def test_what_nobody_names_is_unknown_and_not_zero() -> None:
    row = event(observation("a", "t", at(0)))
    assert (row["cost_usd"], row["tokens_in"], row["tokens_out"], row["tokens_total"]) == (None,) * 4
    assert (row["usage"], row["models"], row["storage_gb"], row["problems"]) == ([], [], None, [])


def test_usage_is_kept_per_model_and_class() -> None:
    row = event(
        observation("a", "t", at(0), model="gpt-5", usageDetails={"input": 5, "total": 7}, costDetails={"total": 1}),
        child("b", "t", at(1), model="gpt-5", usageDetails={"output": 3}),
        child("c", "t", at(2), usageDetails={"cache_read": 2}),
        child("d", "t", at(3), model="ada"),
    )
    assert row["models"] == ["ada", "gpt-5"]
    nothing = dict.fromkeys(TOKEN_CLASSES, 0)
    assert row["usage"] == [
        nothing | {"model": None, "cache_read": 2, "cost_usd": None},
        nothing | {"model": "gpt-5", "input": 5, "output": 3, "other": 2, "cost_usd": Decimal(1)},
    ]


def test_unpriced_usage_is_marked() -> None:
    assert event(observation("a", "t", at(0), usageDetails={"input": 5}))["unpriced"]
    assert not event(observation("a", "t", at(0), usageDetails={"input": 5}, costDetails={"total": 0}))["unpriced"]


@pytest.mark.parametrize(
    ("levels", "has_error"),
    [
        (["DEFAULT", "ERROR", "WARNING"], True),
        (["DEFAULT", "WARNING", "DEBUG"], False),
        ([None, "ERROR"], True),
        ([None, "DEFAULT"], False),
        ([None, None], None),
    ],
)
def test_a_trace_has_an_error_if_any_row_failed_and_none_if_any_level_is_known(
    levels: list[str | None], has_error: bool | None
) -> None:
    rows = [child(f"o{n}", "t", at(n), level=level) for n, level in enumerate(levels)]
    assert event(*rows)["has_error"] is has_error


def test_an_error_that_a_newer_version_took_back_does_not_count() -> None:
    failed = observation("a", "t", at(0), updatedAt=at(10), level="ERROR")
    assert event(failed, observation("a", "t", at(0), updatedAt=at(20)))["has_error"] is False


def test_the_level_of_a_synthetic_root_says_nothing_about_the_work() -> None:
    synthetic = observation("t-t", "t", at(0), level="DEFAULT")
    assert event(synthetic)["has_error"] is None
    assert event(synthetic, child("a", "t", at(1), level=None))["has_error"] is None
    assert event(synthetic, child("a", "t", at(1), level="ERROR"))["has_error"] is True


def test_the_newest_version_of_a_row_counts() -> None:
    old = observation("a", "t", at(0), at(9), updatedAt=at(10), costDetails={"total": 5})
    new = observation("a", "t", at(0), updatedAt=at(20), costDetails={"total": 1})
    for rows in ([old, new], [new, old]):
        rolled = roll_up(*rows)
        assert rolled.table["cost_usd"].to_pylist() == [Decimal(1)]
        assert (rolled.observations, rolled.duplicates) == (2, 1)


def test_of_equally_new_versions_the_finished_one_counts() -> None:
    open_, ended = observation("a", "t", at(0)), observation("a", "t", at(0), at(4))
    for rows in ([open_, ended], [ended, open_]):
        row = event(*rows)
        assert (row["ended_at"] - row["timestamp"]).total_seconds() == 4


def test_rows_of_different_projects_or_traces_are_not_duplicates() -> None:
    assert roll_up(observation("a", "t1", at(0)), observation("a", "t2", at(0))).duplicates == 0


def test_metadata_in_full_wins_over_the_cut_one_and_is_no_duplicate() -> None:
    cut = observation("a", "t", at(0), metadata={"customerId": "x" * 200})
    full = observation("a", "t", at(0), metadata={"customerId": "x" * 300})
    rolled = roll_up(cut, expanded=(full,))
    assert rolled.table["customer_id"].to_pylist() == ["x" * 300]
    assert (rolled.observations, rolled.duplicates) == (1, 0)


def test_a_newer_cut_version_wins_over_an_older_full_one() -> None:
    new = observation("a", "t", at(0), updatedAt=at(9), metadata={"customerId": "new"})
    full = observation("a", "t", at(0), updatedAt=at(1), metadata={"customerId": "old"})
    assert event(new, expanded=(full,))["customer_id"] == "new"


# -- attributes ------------------------------------------------------------------------------------------------


def test_the_logical_roots_attributes_come_first_then_the_latest_written() -> None:
    root = observation("root", "t", at(0), userId="root user")
    early = child("a", "t", at(1), userId="early", sessionId="s early", updatedAt=at(5))
    late = child("b", "t", at(2), userId="late", sessionId="s late", updatedAt=at(9))
    row = event(early, late, root)
    assert (row["user_id"], row["session_id"]) == ("root user", "s late")


def test_a_row_the_application_marked_as_root_comes_before_the_physical_root() -> None:
    physical = observation("root", "t", at(0), name="http", environment="proxy", metadata={"customerId": "a"})
    marked = child(
        "app", "t", at(1), isRootObservation=True, name="chat", environment="prod", metadata={"customerId": "b"}
    )
    row = event(physical, marked)
    assert (row["chatflow_name"], row["environment"], row["customer_id"]) == ("chat", "prod", "b")
    assert json.loads(row["metadata"]) == {"customerId": "b"}


def test_of_several_roots_the_first_comes_first() -> None:
    row = event(observation("b", "t", at(1), environment="later"), observation("a", "t", at(0), environment="first"))
    assert row["environment"] == "first"


@pytest.mark.parametrize(
    ("rows", "name"),
    [
        ([observation("r", "t", at(0), name="root name", traceName="trace name")], "trace name"),
        ([observation("r", "t", at(0), name="root name")], "root name"),
        ([observation("r", "t", at(0), name="root"), child("c", "t", at(1), traceName="from child")], "from child"),
        ([observation("r", "t", at(0), traceName="trace", metadata={"chatflowName": "flow"})], "flow"),
        ([child("c", "t", at(1), name="only a child")], None),
    ],
)
def test_a_chatflow_is_named_by_metadata_else_by_its_trace(rows: list[JSON], name: str | None) -> None:
    assert event(*rows)["chatflow_name"] == name


def test_a_synthetic_root_gives_attributes_and_is_not_counted() -> None:
    synthetic = observation("t-t", "t", at(0), name="chat", userId="u", metadata={"organizationId": "o"})
    row = event(synthetic, child("a", "t", at(1), at(2), parentObservationId="t-t"))
    assert (row["user_id"], row["organization_id"], row["chatflow_name"], row["observations"]) == ("u", "o", "chat", 1)


def test_a_trace_of_a_synthetic_root_alone_is_an_event_without_duration() -> None:
    row = event(observation("t-t", "t", at(0)))
    assert (row["observations"], row["tokens_total"], row["ended_at"]) == (0, None, row["timestamp"])


@pytest.mark.parametrize(
    ("one", "other", "sentence"),
    [
        ({"userId": "a"}, {"userId": "b"}, "user differs within the trace: 'a', 'b'"),
        ({"metadata": {"userId": "a"}}, {"metadata": {"userId": "b"}}, "user differs within the trace: 'a', 'b'"),
        ({"sessionId": "a"}, {"sessionId": "b"}, "session differs"),
        ({"metadata": {"customerId": 1}}, {"metadata": {"customerId": "2"}}, "customer differs"),
        ({"metadata": {"organizationId": 1}}, {"metadata": {"organizationId": 2}}, "organization differs"),
        ({"metadata": {"chatflowid": 1}}, {"metadata": {"chatflowId": 2}}, "chatflow differs"),
        ({"metadata": {"aiCredentialsOwnership": "user"}}, {"metadata": {"aiCredentialsOwnership": "x"}}, "Ownership"),
        ({"metadata": {"storageGb": 1}}, {"metadata": {"storageGb": 2}}, "storage differs"),
    ],
)
def test_conflicting_attributes_are_flagged_with_their_values(one: JSON, other: JSON, sentence: str) -> None:
    row = event(observation("a", "t", at(0), **one), child("b", "t", at(1), **other))
    assert row["conflicting_attributes"]
    assert sentence in row["problems"][0]


@pytest.mark.parametrize("root_names_it", [True, False])
def test_the_traces_own_user_on_any_row_wins_over_what_metadata_says_on_any(root_names_it: bool) -> None:
    rows: list[JSON] = [{"userId": "trace's"}, {"metadata": {"userId": "metadata's"}}]
    one, other = rows if root_names_it else rows[::-1]
    row = event(observation("a", "t", at(0), **one), child("b", "t", at(1), **other))
    assert (row["user_id"], row["conflicting_attributes"]) == ("trace's", False)


def test_what_metadata_says_of_the_user_is_no_conflict_beside_another_one() -> None:
    one: JSON = {"userId": "trace's", "metadata": {"organizationId": "a"}}
    other = {"organizationId": "b", "userId": "metadata's"}
    row = event(observation("a", "t", at(0), **one), child("b", "t", at(1), metadata=other))
    assert [problem.split(" differs")[0] for problem in row["problems"]] == ["organization"]


def test_the_same_value_as_number_and_text_is_no_conflict() -> None:
    row = event(
        observation("a", "t", at(0), metadata={"customerId": 12345}),
        child("b", "t", at(1), metadata={"customerId": "12345"}),
    )
    assert (row["customer_id"], row["conflicting_attributes"]) == ("12345", False)


def test_bad_usage_is_flagged_with_the_observation_and_the_value() -> None:
    row = event(observation("a", "t", at(0), usageDetails={"input": -7}))
    assert (row["bad_usage"], row["tokens_total"]) == (True, None)
    assert row["problems"] == ["observation a: usage input = -7 is not a token count from 0 to 1000000000; not rated"]


def test_the_same_problem_in_shared_metadata_is_told_once() -> None:
    shared = {"metadata": {"storageGb": "lots"}}
    row = event(observation("a", "t", at(0), **shared), child("b", "t", at(1), **shared))
    assert (row["bad_usage"], len(row["problems"])) == (True, 1)


def test_double_counting_is_flagged_and_summed_as_sent() -> None:
    row = event(
        observation("root", "t", at(0), costDetails={"total": 1}), child("b", "t", at(1), costDetails={"total": 1})
    )
    assert (row["double_count_suspect"], row["cost_usd"]) == (True, Decimal(2))
    assert "counted twice" in row["problems"][0]


def test_overlapping_usage_keys_are_a_double_count_suspect() -> None:
    assert event(observation("a", "t", at(0), usageDetails={"input": 9, "cached": 9, "total": 9}))[
        "double_count_suspect"
    ]


def test_what_the_earlier_system_recorded_is_kept() -> None:
    billed = {
        "billing_status": "processed",
        "stripeError": "card_declined",
        "billing_details": {
            "breakdown": {
                "ai_tokens": {"base_credits": 1.25},
                "compute": {"base_credits": 2},
                "storage": {"base_credits": "3"},
            },
            "total_credits": 6.25,
        },
    }
    row = event(observation("a", "t", at(0), metadata=billed))
    assert (row["legacy_status"], row["legacy_error"]) == ("processed", "card_declined")
    parts = [row[f"legacy_{name}"] for name in ("ai_tokens", "compute", "storage", "total")]
    assert parts == [Decimal("1.25"), Decimal(2), Decimal(3), Decimal("6.25")]


def test_days_are_utc_days_of_the_window() -> None:
    rolled = roll_up(
        observation("a", "t", at(0, day=1), costDetails={"total": 1}),
        child("b", "t", at(0, day=2), usageDetails={"input": 3}),
        child("far", "t", at(0, day=9), costDetails={"total": 5}),
    )
    assert rolled.daily == [
        DailyTotal(date(2026, 11, 1), 1, None, Decimal(1)),
        DailyTotal(date(2026, 11, 2), 1, 3, None),
    ]


def test_partitions_follow_each_other_without_traces_of_the_last() -> None:
    reader = FactReader(MetadataNames())

    def facts(*rows: JSON) -> pa.Table:
        return reader.observations(json.dumps({"data": rows, "meta": {}}).encode()).table

    with Rollup(WINDOW, None, READ_AT, only_touched=False) as rollup:
        first = rollup.roll(facts(observation("a", "t1", at(0)), observation("a", "t1", at(0))))
        second = rollup.roll(facts(observation("b", "t2", at(0))))
    assert (first.table["id"].to_pylist(), first.duplicates) == (["t1"], 1)
    assert (second.table["id"].to_pylist(), second.duplicates) == (["t2"], 0)


# ── times that no run can have ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (at(1), "2106-02-07T06:28:15.000Z"),
        (at(1), "2026-11-04T01:00:01.000Z"),  # later than it was read, and by more than clocks differ
        ("1970-01-01T00:00:00.000Z", at(9)),
        ("1970-01-21T10:00:00.000Z", None),
        ("2106-02-07T06:28:15.000Z", None),
        ("2026-09-01T00:00:00.000Z", at(9)),
    ],
)
def test_times_that_no_run_can_have_are_flagged_and_not_believed(start: str, end: str | None) -> None:
    row = event(
        observation("a", "t", at(5), at(6)), child("b", "t", start, end, usageDetails={"input": 10, "output": 5})
    )
    assert row["bad_usage"]
    assert (row["timestamp"], row["ended_at"]) == (row["timestamp"], row["timestamp"])
    assert row["timestamp"].isoformat() == "2026-11-01T00:00:05+00:00"
    assert row["tokens_total"] == 15
    assert any("observation b ran from" in problem for problem in row["problems"])


@pytest.mark.parametrize("end", ["2026-11-01T23:00:00.000Z", "2026-11-04T00:59:59.000Z"])
def test_long_runs_and_clocks_a_little_ahead_are_believed(end: str) -> None:
    row = event(observation("a", "t", at(5), end))
    assert not row["bad_usage"]
    assert row["ended_at"] > row["timestamp"]


def test_a_trace_whose_only_row_has_no_time_keeps_the_one_it_has() -> None:
    row = event(observation("a", "t", "1970-01-01T00:00:00.000Z", at(9)))
    assert (row["timestamp"].year, row["ended_at"].year, row["bad_usage"]) == (1970, 1970, True)


# ── what a card may decide by ─────────────────────────────────────────────────────────────────────────────

INTERVALS = st.lists(st.tuples(st.integers(0, 600), st.integers(0, 120)), min_size=1, max_size=12)


@settings(max_examples=examples(25))
@given(INTERVALS)
def test_active_time_is_the_union_of_the_times_in_which_observations_ran(intervals: list[tuple[int, int]]) -> None:
    rows = [observation(f"o{n}", "t", at(start), at(start + lasts)) for n, (start, lasts) in enumerate(intervals)]
    ran = {second for start, lasts in intervals for second in range(start, start + lasts)}
    row = event(*rows)
    assert row["active_seconds"] == len(ran)
    assert row["active_seconds"] <= (row["ended_at"] - row["timestamp"]).total_seconds()


USED = st.dictionaries(
    st.sampled_from(["input", "output", "input_cached_tokens", "reasoning", "images", "frobs", "total"]),
    st.integers(0, 1000),
    max_size=4,
)
KIND = st.tuples(st.sampled_from(["gpt-5", "ada", None]), st.sampled_from(["call", "agent run", None]))


@settings(max_examples=examples(25))
@given(st.lists(st.tuples(KIND, USED), min_size=1, max_size=8))
def test_lines_by_key_add_up_to_what_is_kept_by_model_and_class(used: list[tuple[Any, dict[str, int]]]) -> None:
    rows = [
        observation(f"o{n}", "t", at(n), model=model, name=name, usageDetails=details)
        for n, ((model, name), details) in enumerate(used)
    ]
    row = event(*rows)
    by_model: Counter[tuple[str | None, str]] = Counter()
    for line in row["usage_lines"]:
        kind = read_key(line["key"])
        if kind.counted is not KeyMeaning.UNITS:
            by_model[line["model"], TOKEN_CLASSES[kind.token_class]] += line["quantity"]
    kept = {(one["model"], name): one[name] for one in row["usage"] for name in TOKEN_CLASSES if one[name]}
    assert dict(by_model) == kept
    assert any(line["unpriced"] for line in row["usage_lines"]) == row["unpriced"]


def test_lines_say_which_observations_repeat_others_and_what_each_kind_cost() -> None:
    row = event(
        observation("p", "t", at(0), type="AGENT", name="agent run", usageDetails={"input": 100}),
        child(
            "a",
            "t",
            at(1),
            parentObservationId="p",
            model="m",
            name="x" * 300,
            usageDetails={"input": 60},
            costDetails={"total": 0.2},
        ),
        child(
            "b",
            "t",
            at(2),
            parentObservationId="p",
            model="m",
            name="x" * 300,
            usageDetails={"input": 40},
            costDetails={"total": 0.1},
        ),
    )
    agent, cost, calls = row["usage_lines"]
    assert (agent["type"], agent["name"], agent["quantity"], agent["repeats"]) == ("AGENT", "agent run", 100, True)
    assert (cost["key"], cost["quantity"], cost["cost_usd"]) == (None, None, Decimal("0.3"))
    assert (calls["key"], calls["quantity"], calls["repeats"], len(calls["name"])) == ("input", 100, False, 200)
