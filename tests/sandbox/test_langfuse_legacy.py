from __future__ import annotations

from datetime import timedelta

import httpx
import pytest

from billing_core.sandbox.app import create_app
from billing_core.sandbox.data.plan import Oddity
from billing_core.sandbox.server import SandboxProcess

TRACES = "/api/public/traces"
OBSERVATIONS = "/api/public/observations"
WHOLE = {"fromTimestamp": "2026-01-01T00:00:00Z", "toTimestamp": "2026-04-01T00:00:00Z"}
WHOLE_BY_START = {"fromStartTime": "2026-01-01T00:00:00Z", "toStartTime": "2026-04-01T00:00:00Z"}


def every(client: httpx.Client, path: str, **parameters) -> list[dict]:
    items, page = [], 1
    while True:
        body = client.get(path, params={**parameters, "page": page, "limit": 100}).json()
        items += body["data"]
        if page >= body["meta"]["totalPages"]:
            return items
        page += 1


@pytest.fixture(scope="module")
def traces(v3):
    return every(v3, TRACES, orderBy="timestamp.asc", fields="core,io,metrics", **WHOLE)


@pytest.fixture(scope="module")
def observations(v3):
    return every(v3, OBSERVATIONS, **WHOLE_BY_START)


def test_every_trace_is_listed_once_oldest_first(traces, dataset):
    assert [trace["id"] for trace in traces] == list(dict.fromkeys(trace["id"] for trace in traces))
    assert {trace["id"] for trace in traces} == dataset.truth().keys()
    times = [trace["timestamp"] for trace in traces]
    assert times == sorted(times)


def test_traces_and_observations_are_what_the_published_description_says(v3, conforms, traces, observations):
    meta = {"page": 1, "limit": 100, "totalItems": 1, "totalPages": 1}
    conforms(TRACES, {"data": traces, "meta": meta})
    conforms(OBSERVATIONS, {"data": observations, "meta": meta})
    conforms("/api/public/traces/{traceId}", v3.get(f"{TRACES}/{traces[0]['id']}").json())


def test_the_record_of_a_trace_knows_its_attributes(traces, dataset):
    truth = dataset.truth()
    for trace in traces:
        known = truth[trace["id"]]
        user = trace["userId"] or trace["metadata"].get("userId")
        assert (user, trace["sessionId"], trace["environment"]) == (known.user_id, known.session_id, known.environment)
        assert (trace["metadata"].get("chatflowName") or trace["name"]) == known.chatflow_name


def test_cost_counts_only_totals_as_v3_does_and_latency_is_in_seconds(traces, dataset):
    truth = dataset.truth()
    for trace in traces:
        known = truth[trace["id"]]
        if known.oddity is Oddity.COST_WITHOUT_TOTAL:
            assert trace["totalCost"] < known.cost_usd
        else:
            assert trace["totalCost"] == pytest.approx(float(known.cost_usd or 0))
        assert trace["latency"] == (known.ended_at - known.timestamp).total_seconds()


def test_observations_are_shown_in_one_version_and_without_synthetic_roots(observations, dataset):
    assert len(observations) == sum(trace.observations for trace in dataset.truth().values())
    assert not any(row["id"].startswith("t-") or str(row["parentObservationId"])[:2] == "t-" for row in observations)


def test_failed_observations_are_found_by_their_level(v3, observations, dataset):
    wanted = [row for row in observations if row["level"] == "ERROR"]

    assert every(v3, OBSERVATIONS, level="ERROR", **WHOLE_BY_START) == wanted
    assert {row["traceId"] for row in wanted} == {id_ for id_, trace in dataset.truth().items() if trace.has_error}
    assert all(row["statusMessage"] for row in wanted)


def test_total_items_count_versions_that_are_not_shown(v3, observations):
    meta = v3.get(OBSERVATIONS, params={"limit": 1, **WHOLE_BY_START}).json()["meta"]
    assert meta["totalItems"] > len(observations)


def test_missing_texts_are_null_here(observations):
    assert "" not in {row[key] for row in observations for key in ("model", "name", "version", "statusMessage")}


def test_groups_not_asked_for_say_minus_one_and_stay_empty(v3):
    trace = v3.get(TRACES, params={"limit": 1, "fields": "core", **WHOLE}).json()["data"][0]
    assert (trace["totalCost"], trace["latency"]) == (-1, -1)
    assert (trace["metadata"], trace["observations"], trace["input"]) == ({}, [], None)


def test_one_trace_comes_with_its_observations_and_an_unknown_one_is_404(v3, dataset):
    known = next(iter(dataset.truth().values()))
    body = v3.get(f"{TRACES}/{known.id}").json()
    assert len(body["observations"]) == known.observations
    missing = v3.get(f"{TRACES}/unknown")
    assert (missing.status_code, missing.json()["error"]) == (404, "LangfuseNotFoundError")


def test_observations_of_one_trace_in_a_window(v3, dataset):
    far = next(trace for trace in dataset.truth().values() if trace.oddity is Oddity.FAR_APART)
    late = {"fromStartTime": (far.timestamp + timedelta(hours=2)).isoformat()}
    assert len(every(v3, OBSERVATIONS, traceId=far.id)) == far.observations
    assert 0 < len(every(v3, OBSERVATIONS, traceId=far.id, **late)) < far.observations


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        (TRACES, {"limit": 101}),
        (TRACES, {"fromTimestamp": "2026-03-01T00:00:00"}),
        (TRACES, {"orderBy": "cost.asc"}),
        (OBSERVATIONS, {"limit": 101}),
        (OBSERVATIONS, {"page": 0}),
    ],
)
def test_what_the_api_does_not_take_is_a_400(v3, path, parameters):
    assert v3.get(path, params=parameters).status_code == 400


def test_filters_apply_to_the_trace_as_a_whole(v3, traces):
    user = next(trace["userId"] for trace in traces if trace["userId"])
    assert {t["id"] for t in every(v3, TRACES, userId=user, **WHOLE)} == {
        trace["id"] for trace in traces if trace["userId"] == user
    }
    assert len(every(v3, TRACES, environment="sdk-experiment", **WHOLE)) == sum(
        trace["environment"] == "sdk-experiment" for trace in traces
    )


def test_v4_rejects_the_legacy_routes_before_it_looks_at_the_key(sandbox: SandboxProcess):
    for path in (TRACES, OBSERVATIONS, f"{TRACES}/x"):
        answer = httpx.get(sandbox.url + path)
        assert (answer.status_code, list(answer.json())) == (404, ["message"])


def test_v3_looks_at_the_key_before_it_says_that_v2_is_missing(v3):
    answer = v3.get("/api/public/v2/observations")
    assert (answer.status_code, answer.json()["error"]) == (404, "LangfuseNotFoundError")
    assert httpx.get(str(v3.base_url.join("/api/public/v2/observations")), auth=("a", "b")).status_code == 401
    assert httpx.get(str(v3.base_url.join(TRACES)), auth=("a", "b")).status_code == 401


def test_dual_mode_offers_both(dataset, call):
    app = create_app(dataset, mode="dual")
    for path in (TRACES, OBSERVATIONS, "/api/public/v2/observations"):
        assert call(app, "GET", path, params={"limit": 1}, auth=("pk-lf-demo", "sk-lf-demo")).status_code == 200


def test_an_unknown_mode_is_refused(dataset):
    with pytest.raises(ValueError, match="v5"):
        create_app(dataset, mode="v5")
