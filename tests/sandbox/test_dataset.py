"""The truth is written down where usage is invented; here it is held against the rows by another, plain way."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from decimal import Decimal

import msgspec
import pytest

from billing_core.sandbox.data import traces
from billing_core.sandbox.data.dataset import SandboxDataset
from billing_core.sandbox.data.plan import Oddity
from billing_core.sandbox.langfuse.wire import CUT_LENGTH


@pytest.fixture(scope="module")
def world(now):
    """Large enough for every oddity several times: truth, and the newest version of every row by trace."""
    dataset = SandboxDataset(11, 2500, now=now)
    served, newest = defaultdict(list), defaultdict(dict)
    for stored in dataset.store().rows:
        row = msgspec.to_builtins(stored.whole)
        served[row["traceId"]].append(row)
        known = newest[row["traceId"]].get(row["id"])
        if known is None or known["updatedAt"] < row["updatedAt"]:
            newest[row["traceId"]][row["id"]] = row
    return dataset.truth(), {trace: list(rows.values()) for trace, rows in newest.items()}, served


def usd(value):
    return round(Decimal(repr(value)), 12)


def test_every_oddity_occurs_and_stays_rare(world):
    truth, _, _ = world

    kinds = [trace.oddity for trace in truth.values()]
    assert set(kinds) == set(Oddity)
    assert kinds.count(Oddity.PLAIN) > 0.9 * len(kinds)


def test_the_truth_knows_every_trace_and_every_row(world):
    truth, newest, served = world

    assert truth.keys() == newest.keys()
    for id_, trace in truth.items():
        assert trace.rows == len(served[id_])
        assert trace.observations == sum(row["id"] != f"t-{id_}" for row in newest[id_])


def test_times_span_from_the_first_start_to_the_last_end(world):
    truth, newest, _ = world

    for id_, trace in truth.items():
        starts = [datetime.fromisoformat(row["startTime"]) for row in newest[id_]]
        ends = [datetime.fromisoformat(row["endTime"] or row["startTime"]) for row in newest[id_]]
        assert (trace.timestamp, trace.ended_at) == (min(starts), max(ends))


def test_cost_is_the_total_or_else_the_sum_of_the_parts_and_unknown_without_either(world):
    truth, newest, _ = world

    for id_, trace in truth.items():
        costs = [
            usd(row["costDetails"]["total"])
            if "total" in row["costDetails"]
            else sum(usd(cost) for cost in row["costDetails"].values())
            for row in newest[id_]
            if row["costDetails"]
        ]
        assert trace.cost_usd == (sum(costs) if costs else None), trace.oddity


def test_tokens_are_the_sums_of_what_can_be_believed(world):
    truth, newest, _ = world

    for id_, trace in truth.items():
        received, written, rest = [], [], []
        for row in newest[id_]:
            usage = {key: value for key, value in row["usageDetails"].items() if 0 <= value <= 10**9}
            parts = {key: value for key, value in usage.items() if key != "total"}
            received += [value for key, value in parts.items() if "input" in key]
            written += [value for key, value in parts.items() if "output" in key]
            rest += [usage["total"]] if usage and not parts else []
        assert trace.tokens_in == (sum(received) if received else None), trace.oddity
        assert trace.tokens_out == (sum(written) if written else None), trace.oddity
        every = received + written + rest
        assert trace.tokens_total == (sum(every) if every else None), trace.oddity


def test_attributes_can_be_found_on_some_row(world):
    truth, newest, _ = world
    keys = {
        "organization_id": ("organizationId",),
        "customer_id": ("stripeCustomerId", "customerId"),
        "chatflow_id": ("chatflowid", "chatflowId"),
        "ai_credentials_ownership": ("aiCredentialsOwnership",),
    }

    for id_, trace in truth.items():
        rows = newest[id_]
        for name, spellings in keys.items():
            found = {str(row["metadata"][key]) for row in rows for key in spellings if key in row["metadata"]}
            assert found == ({getattr(trace, name)} - {None}), (name, trace.oddity)
        users = {row["userId"] for row in rows} | {row["metadata"].get("userId", "") for row in rows}
        assert trace.user_id in users or trace.user_id is None
        assert (len(users - {""}) > 1) == ("conflicting_attributes" in trace.flags)
        assert {row["environment"] for row in rows} == {trace.environment}
        assert trace.models == tuple(sorted({row["model"] for row in rows} - {""}))


def test_flags_say_what_is_wrong_with_usage(world):
    truth, newest, _ = world

    for id_, trace in truth.items():
        unpriced = any(row["usageDetails"] and not row["costDetails"] for row in newest[id_])
        assert ("unpriced" in trace.flags) == unpriced, trace.oddity
        bad = trace.oddity in {Oddity.NEGATIVE_USAGE, Oddity.ABSURD_USAGE, Oddity.BAD_STORAGE}
        assert ("bad_usage" in trace.flags) == bad
        assert ("double_count_suspect" in trace.flags) == (trace.oddity is Oddity.DOUBLE_COUNT)


def of_kind(world, oddity):
    truth, _, served = world
    return [(trace, served[id_]) for id_, trace in truth.items() if trace.oddity is oddity]


def test_a_duplicate_is_an_older_version_before_or_after_the_newer_one(world):
    orders = set()
    for _, rows in of_kind(world, Oddity.DUPLICATE):
        ids = [row["id"] for row in rows]
        pair = [row for row in rows if ids.count(row["id"]) == 2]
        assert len(pair) == 2
        assert pair[0]["startTime"] == pair[1]["startTime"]
        orders.add(pair[0]["updatedAt"] < pair[1]["updatedAt"])
    assert orders == {True, False}


def test_rows_far_apart_reach_over_days_and_midnight_is_crossed(world):
    gaps = [trace.ended_at - trace.timestamp for trace, _ in of_kind(world, Oddity.FAR_APART)]
    assert max(gaps).days >= 1
    for trace, _ in of_kind(world, Oddity.ACROSS_MIDNIGHT):
        assert trace.ended_at.date() > trace.timestamp.date()


def test_a_cost_without_total_shows_zero_or_null_as_servers_of_both_ages_do(world):
    shown = {
        row["totalCost"]
        for _, rows in of_kind(world, Oddity.COST_WITHOUT_TOTAL)
        for row in rows
        if row["costDetails"] and "total" not in row["costDetails"]
    }
    assert shown == {0, None}


def test_a_numeric_looking_customer_arrives_as_a_number(world):
    for trace, rows in of_kind(world, Oddity.NUMERIC_CUSTOMER):
        assert trace.customer_id == "1048577"
        assert 1048577 in [row["metadata"].get("customerId") for row in rows]


def test_long_values_exceed_what_the_server_shows(world):
    for trace, _ in of_kind(world, Oddity.LONG_NAME):
        assert len(trace.chatflow_name) > CUT_LENGTH


def test_traces_billed_before_carry_their_breakdown_dotted_and_nested(world):
    for trace, rows in of_kind(world, Oddity.LEGACY_DOTTED):
        ai_tokens, compute, storage, total = trace.legacy_credits
        assert total == ai_tokens + compute + storage
        assert rows[-1]["metadata"]["billing_details.total_credits"] == total
    for trace, rows in of_kind(world, Oddity.LEGACY_NESTED):
        breakdown = rows[-1]["metadata"]["billing_details"]["breakdown"]
        assert breakdown["ai_tokens"]["base_credits"] == trace.legacy_credits[0]
        assert trace.legacy_status == "processed"


def test_synthetic_roots_have_neither_end_nor_cost_and_may_stand_alone(world):
    for _, rows in of_kind(world, Oddity.SYNTHETIC_ROOT):
        root = next(row for row in rows if row["id"].startswith("t-"))
        assert (root["endTime"], root["costDetails"], root["isRootObservation"]) == (None, {}, True)
        assert any(row["parentObservationId"] == root["id"] for row in rows)
    for trace, rows in of_kind(world, Oddity.EMPTY_TRACE):
        assert (len(rows), trace.observations, trace.cost_usd, trace.tokens_total) == (1, 0, None, None)


def test_late_rows_are_written_minutes_to_hours_after_their_end(world):
    for trace, _ in of_kind(world, Oddity.LATE):
        assert 5 * 60 < (trace.complete_at - trace.ended_at).total_seconds() < 10 * 3600


def test_one_organization_has_no_customer(world):
    truth, _, _ = world

    customers = {trace.customer_id for trace in truth.values() if trace.organization_id == "org_soylent"}
    assert None in customers
    assert customers <= {None, "1048577"}


def test_costs_use_all_twelve_decimals_somewhere(world):
    truth, _, _ = world

    assert any(trace.cost_usd is not None and trace.cost_usd.as_tuple().digits[-1] != 0 for trace in truth.values())


def test_about_one_trace_in_fifty_has_a_model_call_that_failed_and_says_why(world):
    truth, newest, _ = world

    failed = [row for rows in newest.values() for row in rows if row["level"] != "DEFAULT"]
    assert {(row["level"], row["type"]) for row in failed} == {("ERROR", "GENERATION")}
    assert all(row["statusMessage"] for row in failed)
    assert not any(row["statusMessage"] for rows in newest.values() for row in rows if row["level"] == "DEFAULT")
    assert {row["traceId"] for row in failed} == {id_ for id_, trace in truth.items() if trace.has_error}
    assert 0.01 < len(failed) / len(truth) < 0.03


def test_whether_an_empty_trace_failed_is_not_known(world):
    truth, _, _ = world

    assert {trace.oddity for trace in truth.values() if trace.has_error is None} == {Oddity.EMPTY_TRACE}


def test_a_failure_changes_no_other_value(now, monkeypatch):
    def rows():
        return [row.whole for row in SandboxDataset(11, 400, now=now).store().rows]

    def without_level(row):
        return msgspec.structs.replace(row, level="", status_message="")

    few = rows()
    monkeypatch.setattr(traces, "FAILURE_EVERY", 1)
    many = rows()
    assert sum(row.level == "ERROR" for row in few) < 20
    assert sum(row.level == "ERROR" for row in many) > 380
    assert list(map(without_level, few)) == list(map(without_level, many))


def test_sessions_hold_several_traces(world):
    truth, _, _ = world

    sessions = [trace.session_id for trace in truth.values() if trace.session_id]
    assert len(set(sessions)) < len(sessions)
