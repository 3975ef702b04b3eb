from __future__ import annotations

import json
from datetime import datetime, timedelta
from decimal import Decimal

import httpx
import pytest

from billing_core.sandbox.app import create_app
from billing_core.sandbox.data.dataset import SandboxDataset
from billing_core.sandbox.data.plan import Oddity

OBSERVATIONS = "/api/public/v2/observations"
METRICS = "/api/public/v2/metrics"
EVERY_FIELD = "core,basic,time,io,metadata,model,usage,prompt,metrics,trace_context"


def condition(type_, column, operator, value, **more):
    return json.dumps([{"type": type_, "column": column, "operator": operator, "value": value, **more}])


def test_reading_everything_gives_exactly_the_traces_there_are(langfuse, read_all, dataset):
    rows = read_all(langfuse, fromStartTime="2026-01-01T00:00:00Z", toStartTime="2026-04-01T00:00:00Z")

    truth = dataset.truth()
    assert {row["traceId"] for row in rows} == truth.keys()
    assert len(rows) == sum(trace.rows for trace in truth.values())


@pytest.mark.parametrize("fields", [None, "core", "core,basic,time,model,usage,metadata,trace_context", EVERY_FIELD])
def test_rows_are_what_the_published_description_says(langfuse, conforms, fields):
    parameters = {"limit": 400} if fields is None else {"limit": 400, "fields": fields}
    conforms(OBSERVATIONS, langfuse.get(OBSERVATIONS, params=parameters).json())


def test_every_row_is_what_the_published_description_says(langfuse, read_all, conforms):
    conforms(OBSERVATIONS, {"data": read_all(langfuse, fields=EVERY_FIELD), "meta": {}})


def test_groups_not_asked_for_leave_their_keys_out(langfuse):
    def keys(fields):
        return set(langfuse.get(OBSERVATIONS, params={"limit": 1, "fields": fields}).json()["data"][0])

    core = {
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
    }
    assert keys("core") == core
    assert keys("usage") - core >= {"usageDetails", "costDetails", "totalCost"}
    assert keys("io") - core == {"input", "output"}
    assert keys("prompt") - core == {"promptId", "promptName", "promptVersion"}
    assert keys("usage,no-such-group") == keys("usage")  # a typo loses data without an error


def test_first_token_times_and_prices_are_null_until_their_group_is_asked_for(langfuse):
    def first(fields):
        parameters = {"limit": 1, "fields": fields, "filter": condition("string", "model", "=", "gpt-5-mini")}
        return langfuse.get(OBSERVATIONS, params=parameters).json()["data"][0]

    assert (first("basic")["timeToFirstToken"], first("basic")["inputPrice"]) == (None, None)
    assert first("metrics")["timeToFirstToken"] > 0
    assert first("model")["inputPrice"] == "0.00000025"


def test_the_model_is_called_model_on_the_wire(langfuse, read_all):
    rows = read_all(langfuse)
    assert {"gpt-5-mini", "claude-sonnet-5", ""} <= {row["model"] for row in rows}
    assert not any("providedModelName" in row for row in rows)


@pytest.mark.parametrize(
    "parameters",
    [
        {"limit": 1001},
        {"limit": 0},
        {"fromStartTime": "2026-03-01T00:00:00"},
        {"toStartTime": "yesterday"},
        {"cursor": "nonsense"},
        {"filter": "not json"},
        {"filter": condition("numberObject", "metadata", ">", 1, key="a")},
        {"filter": condition("stringObject", "metadata", "is set", "", key="a")},
        {"filter": condition("string", "noSuchColumn", "=", "x")},
        {"parseIoAsJson": "true"},
        {"isRootObservation": "maybe"},
    ],
)
def test_what_the_api_does_not_take_is_a_400_that_names_it(langfuse, parameters):
    answer = langfuse.get(OBSERVATIONS, params=parameters)

    assert answer.status_code == 400
    assert answer.json()["error"][0]["path"] == list(parameters)


def test_an_offset_other_than_z_is_understood(langfuse, read_all):
    utc = read_all(langfuse, fromStartTime="2026-03-09T23:00:00Z")
    berlin = read_all(langfuse, fromStartTime="2026-03-10T00:00:00+01:00")
    assert utc == berlin != []


def test_a_wrong_key_is_a_401_with_only_a_message(sandbox):
    answer = httpx.get(sandbox.url + OBSERVATIONS, auth=("pk-lf-demo", "wrong"))
    assert (answer.status_code, list(answer.json())) == (401, ["message"])


def test_given_traces_are_found_beside_a_window_over_their_start(langfuse, read_all, dataset):
    far = [trace for trace in dataset.truth().values() if trace.oddity is Oddity.FAR_APART]
    ids = [trace.id for trace in far]
    wanted = condition("stringOptions", "traceId", "any of", ids)

    rows = read_all(langfuse, filter=wanted)
    later = read_all(langfuse, filter=wanted, fromStartTime=(far[0].timestamp + timedelta(hours=2)).isoformat())

    assert {row["traceId"] for row in rows} == set(ids)
    assert len(rows) == sum(trace.rows for trace in far)
    assert 0 < sum(row["traceId"] == far[0].id for row in later) < far[0].rows


def test_rows_that_ended_since_a_time_are_found(langfuse, read_all):
    since = "2026-03-10T08:00:00.000Z"
    rows = read_all(langfuse, filter=condition("datetime", "endTime", ">=", since))
    everything = read_all(langfuse)
    assert rows == [row for row in everything if row["endTime"] and row["endTime"] >= since] != []


def test_filters_and_parameters_agree(langfuse, read_all):
    everything = read_all(langfuse)

    roots = [row for row in everything if row["isRootObservation"]]
    assert read_all(langfuse, isRootObservation="true") == roots
    assert read_all(langfuse, filter=condition("boolean", "isRootObservation", "=", True)) == roots
    judged = [row for row in everything if row["environment"] == "langfuse-llm-as-a-judge"]
    assert read_all(langfuse, environment="langfuse-llm-as-a-judge") == judged != []
    user = next(row["userId"] for row in everything if row["userId"])
    assert {row["userId"] for row in read_all(langfuse, userId=user)} == {user}
    acme = condition("stringObject", "metadata", "=", "org_acme", key="organizationId")
    assert {row["metadata"]["organizationId"] for row in read_all(langfuse, filter=acme)} == {"org_acme"}
    costly = condition("number", "totalCost", ">", 0.05)
    assert read_all(langfuse, filter=costly) == [row for row in everything if (row["totalCost"] or 0) > 0.05]


def test_failed_observations_are_found_by_their_level(langfuse, read_all, dataset):
    wanted = [row for row in read_all(langfuse) if row["level"] == "ERROR"]

    assert read_all(langfuse, level="ERROR") == wanted != []
    assert read_all(langfuse, filter=condition("stringOptions", "level", "any of", ["ERROR"])) == wanted
    assert {row["traceId"] for row in wanted} == {id_ for id_, trace in dataset.truth().items() if trace.has_error}


def test_metadata_compares_the_stored_text_of_a_number(langfuse, read_all):
    customer = condition("stringObject", "metadata", "=", "1048577", key="customerId")
    assert {row["metadata"]["customerId"] for row in read_all(langfuse, filter=customer)} == {1048577}


def test_a_filter_on_start_time_cancels_both_parameters(langfuse, read_all):
    since = condition("datetime", "startTime", ">=", "2026-03-09T00:00:00Z")
    rows = read_all(langfuse, filter=since, fromStartTime="2026-03-10T00:00:00Z", toStartTime="2026-03-10T01:00:00Z")
    assert rows == read_all(langfuse, fromStartTime="2026-03-09T00:00:00Z")


def test_metadata_is_cut_unless_expanded(langfuse, read_all, dataset):
    long = next(trace for trace in dataset.truth().values() if trace.oddity is Oddity.LONG_NAME)

    def names(**parameters):
        rows = read_all(langfuse, traceId=long.id, **parameters)
        return {row["metadata"]["chatflowName"] for row in rows if "chatflowName" in row["metadata"]}

    assert names() == {long.chatflow_name[:200]}
    assert names(expandMetadata="") == names()
    assert names(expandMetadata="anything") == {long.chatflow_name}


def test_a_nested_object_too_long_arrives_as_cut_text(langfuse, read_all, dataset):
    legacy = next(trace for trace in dataset.truth().values() if trace.oddity is Oddity.LEGACY_NESTED)

    def details(**parameters):
        rows = read_all(langfuse, traceId=legacy.id, **parameters)
        return next(row["metadata"]["billing_details"] for row in rows if "billing_details" in row["metadata"])

    assert len(details()) == 200
    assert details(expandMetadata="billing_details")["total_credits"] == legacy.legacy_credits[3]


def test_rows_show_up_when_their_time_comes(now, call):
    dataset = SandboxDataset(7, 900, now=now)
    late = next(trace for trace in dataset.truth().values() if trace.oddity is Oddity.LATE)
    moment = late.ended_at + timedelta(minutes=1)

    def seen(at: datetime) -> int:
        app = create_app(dataset, clock=lambda: int(at.timestamp() * 1000))
        answer = call(app, "GET", OBSERVATIONS, params={"traceId": late.id}, auth=("pk-lf-demo", "sk-lf-demo"))
        return len(answer.json()["data"])

    assert seen(moment) == late.rows - 1
    assert seen(late.complete_at) == late.rows


def ask(langfuse, **changes):
    query = {
        "view": "observations",
        "metrics": [
            {"measure": "totalCost", "aggregation": "sum"},
            {"measure": "totalTokens", "aggregation": "sum"},
            {"measure": "count", "aggregation": "count"},
        ],
        "dimensions": [],
        "filters": [],
        "timeDimension": {"granularity": "day"},
        "fromTimestamp": "2026-03-01T00:00:00Z",
        "toTimestamp": "2026-03-09T23:59:59.999Z",
        "config": {"row_limit": 1000},
        **changes,
    }
    return langfuse.get(METRICS, params={"query": json.dumps(query)})


def test_metrics_sum_the_rows_of_each_utc_day(langfuse, read_all, conforms):
    answer = ask(langfuse)
    conforms(METRICS, answer.json())
    rows = read_all(langfuse, fromStartTime="2026-03-01T00:00:00Z", toStartTime="2026-03-10T00:00:00Z")

    days = answer.json()["data"]

    assert [day["time_dimension"] for day in days] == [f"2026-03-0{number}" for number in range(1, 10)]
    for day in days:
        of_day = [row for row in rows if row["startTime"].startswith(day["time_dimension"])]
        cost = sum(Decimal(repr(row["costDetails"].get("total", 0))) for row in of_day)
        assert Decimal(repr(day["sum_totalCost"])) == round(cost, 12)
        assert day["count_count"] == str(len(of_day))
        assert day["sum_totalTokens"] == str(sum(row["usageDetails"].get("total", 0) for row in of_day))


def test_the_end_of_a_metrics_window_is_inclusive(langfuse, read_all):
    first = read_all(langfuse, toStartTime="2026-03-10T00:00:00Z")[0]["startTime"]
    window = {"fromTimestamp": first, "toTimestamp": first, "timeDimension": None}
    assert ask(langfuse, **window).json()["data"][0]["count_count"] != "0"


def test_days_without_rows_are_filled_with_zeros_and_too_many_rows_are_cut_silently(langfuse):
    empty = ask(langfuse, fromTimestamp="2025-01-01T00:00:00Z", toTimestamp="2025-01-02T00:00:00Z").json()["data"]
    assert [(day["time_dimension"], day["count_count"]) for day in empty] == [("2025-01-01", "0"), ("2025-01-02", "0")]
    assert len(ask(langfuse, config={"row_limit": 3}).json()["data"]) == 3


def test_metrics_group_by_model(langfuse, read_all):
    whole = {"timeDimension": None, "fromTimestamp": "2026-01-01T00:00:00Z", "toTimestamp": "2026-04-01T00:00:00Z"}
    data = ask(langfuse, dimensions=[{"field": "providedModelName"}], **whole).json()["data"]

    counts = {row["providedModelName"]: int(row["count_count"]) for row in data}
    rows = read_all(langfuse)
    assert counts == {model: sum(row["model"] == model for row in rows) for model in {row["model"] for row in rows}}


def test_unknown_metrics_are_a_400(langfuse):
    assert ask(langfuse, view="traces").status_code == 400
    assert ask(langfuse, dimensions=[{"field": "userId"}]).status_code == 400
