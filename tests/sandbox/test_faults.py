from __future__ import annotations

import time

import httpx
import pytest

OBSERVATIONS = "/api/public/v2/observations"


@pytest.fixture
def plant(langfuse):
    def add(kind, **more):
        answer = langfuse.post("/_sandbox/faults", json={"path_prefix": OBSERVATIONS, "kind": kind, **more})
        assert answer.status_code == 200, answer.text

    return add


def read(langfuse, **parameters):
    return langfuse.get(OBSERVATIONS, params={"limit": 5, **parameters})


def test_too_many_requests_name_the_seconds_to_wait_and_end_after_their_times(langfuse, plant):
    plant("429", times=2, retry_after=7)

    answers = [read(langfuse) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["Retry-After"] == "7"
    assert answers[0].json()["details"]["retryAfterSeconds"] == 7


@pytest.mark.parametrize(
    ("kind", "status", "text"),
    [
        ("500_timeout", 500, "Timeout error"),
        ("422", 422, "Request timed out"),
        ("503", 503, "Database unavailable"),
        ("504_html", 504, "<html>"),
    ],
)
def test_refusals_are_worded_as_langfuse_and_its_proxies_do(langfuse, plant, kind, status, text):
    plant(kind)
    answer = read(langfuse)
    assert answer.status_code == status
    assert text in answer.text
    assert read(langfuse).status_code == 200


def test_a_refusal_can_depend_on_the_length_of_the_window(langfuse, plant):
    plant("422", times=None, min_window_seconds=3600)

    hour = {"fromStartTime": "2026-03-01T00:00:00Z", "toStartTime": "2026-03-01T01:00:00Z"}
    more = {**hour, "toStartTime": "2026-03-01T01:00:01Z"}

    assert [read(langfuse, **window).status_code for window in (hour, more, {})] == [200, 422, 422]


def test_a_cut_connection_breaks_in_the_middle_of_the_body(langfuse, plant):
    plant("cut")
    with pytest.raises(httpx.RemoteProtocolError):
        read(langfuse)
    assert read(langfuse).status_code == 200


def test_broken_json_arrives_with_a_good_status(langfuse, plant):
    plant("broken_json")
    answer = read(langfuse)
    assert answer.status_code == 200
    with pytest.raises(ValueError, match=r"Unterminated|Expecting"):
        answer.json()


def test_a_repeated_cursor_leads_to_the_same_page_again(langfuse, plant):
    plant("duplicate_cursor")
    first = read(langfuse).json()["meta"]["cursor"]
    assert read(langfuse, cursor=first).json()["meta"]["cursor"] == first
    assert read(langfuse, cursor=first).json()["meta"]["cursor"] != first


def test_a_slow_answer_is_complete(langfuse, plant):
    plant("slow", seconds=0.2)
    begin = time.monotonic()
    assert len(read(langfuse).json()["data"]) == 5
    assert time.monotonic() - begin >= 0.2


def test_faults_hit_only_their_paths_are_listed_and_can_be_taken_away(langfuse, plant):
    plant("503", times=None)
    read(langfuse)

    assert langfuse.get("/api/public/projects").status_code == 200
    (fault,) = langfuse.get("/_sandbox/faults").json()
    assert (fault["kind"], fault["hits"]) == ("503", 1)
    langfuse.delete("/_sandbox/faults")
    assert read(langfuse).status_code == 200


def test_an_unknown_fault_is_refused(langfuse):
    answer = langfuse.post("/_sandbox/faults", json={"path_prefix": "/", "kind": "earthquake"})
    assert answer.status_code == 400
    assert "earthquake" in answer.text


def test_stripe_paths_get_faults_in_stripes_words(langfuse):
    langfuse.post("/_sandbox/faults", json={"path_prefix": "/v1/", "kind": "429"})
    answer = langfuse.get("/v1/customers")
    assert answer.headers["Stripe-Rate-Limited-Reason"] == "global-rate"
    assert answer.json()["error"]["code"] == "rate_limit"


def test_requests_are_logged_without_secrets(langfuse):
    langfuse.delete("/_sandbox/requests")
    read(langfuse, fields="core,usage")

    (request,) = langfuse.get("/_sandbox/requests").json()

    assert request == {"method": "GET", "path": OBSERVATIONS, "query": "limit=5&fields=core%2Cusage"}


def test_added_rows_are_served_by_both_apis(own_langfuse):
    row = {
        "id": "late",
        "traceId": "added",
        "startTime": "2026-03-10T15:00:00.000Z",
        "endTime": "2026-03-10T15:00:02.500Z",
        "type": "GENERATION",
        "isRootObservation": True,
        "traceName": "a late trace",
        "usageDetails": {"input": 10, "output": 5, "total": 15},
        "costDetails": {"total": 0.25},
    }
    assert own_langfuse.post("/_sandbox/observations", json=[row]).json() == {"appended": 1}

    fields = {"traceId": "added", "fields": "core,usage,trace_context"}
    (served,) = own_langfuse.get(OBSERVATIONS, params=fields).json()["data"]
    trace = own_langfuse.get("/api/public/traces/added").json()

    assert {key: served[key] for key in ("id", "endTime", "usageDetails", "traceName")} == {
        key: row[key] for key in ("id", "endTime", "usageDetails", "traceName")
    }
    assert (trace["name"], trace["totalCost"], trace["latency"]) == ("a late trace", 0.25, 2.5)


def test_odd_rows_can_be_added_as_they_are(own_langfuse):
    odd = {"id": "odd", "traceId": "odd", "startTime": "2026-03-10T15:00:00Z", "metadata": "text", "totalCost": "much"}
    own_langfuse.post("/_sandbox/observations", json=[odd])

    fields = {"traceId": "odd", "fields": "metadata,usage"}
    (served,) = own_langfuse.get(OBSERVATIONS, params=fields).json()["data"]
    assert (served["metadata"], served["totalCost"]) == ("text", "much")


def test_a_row_without_an_id_is_refused(own_langfuse):
    answer = own_langfuse.post("/_sandbox/observations", json=[{"traceId": "x"}])
    assert (answer.status_code, answer.json()["message"].split(":")[0]) == (400, "id")
