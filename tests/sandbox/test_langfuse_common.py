from __future__ import annotations

import httpx
import pytest

SCORES = "/api/public/scores"
READ = "/api/public/v3/scores"
SCORE = {"id": "s1", "traceId": "t1", "name": "billing_status", "dataType": "CATEGORICAL", "value": "pending"}


def test_health_needs_no_key_and_names_the_version(sandbox, v3, conforms):
    body = httpx.get(sandbox.url + "/api/public/health").json()
    conforms("/api/public/health", body)
    assert body["version"].startswith("4.")
    assert v3.get("/api/public/health").json()["version"].startswith("3.")


def test_the_key_belongs_to_one_project(langfuse, conforms, read_all):
    body = langfuse.get("/api/public/projects").json()
    conforms("/api/public/projects", body)
    assert [project["id"] for project in body["data"]] == [read_all(langfuse)[0]["projectId"]]
    assert httpx.get(str(langfuse.base_url.join("/api/public/projects"))).status_code == 401


def test_an_unknown_route_is_html(langfuse):
    answer = langfuse.get("/api/public/no-such-route")
    assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (404, "text/html")


def test_the_link_of_a_trace_leads_to_its_rows(langfuse, read_all):
    row = read_all(langfuse)[0]
    answer = langfuse.get(f"/project/{row['projectId']}/traces/{row['traceId']}")
    assert (answer.status_code, row["id"] in answer.text) == (200, True)
    assert langfuse.get(f"/project/{row['projectId']}/traces/none").status_code == 404


def test_a_score_is_stored_and_read_back(own_langfuse, conforms):
    answer = own_langfuse.post(SCORES, json=SCORE)
    conforms(SCORES, answer.json(), "post")

    body = own_langfuse.get(READ, params={"traceId": "t1", "fields": "details,subject"}).json()

    conforms(READ, body)
    assert [(score["id"], score["value"]) for score in body["data"]] == [("s1", "pending")]
    assert body["data"][0]["subject"] == {"kind": "trace", "id": "t1"}


def test_a_score_is_overwritten_on_its_day_and_doubled_on_another(own_langfuse):
    times = ("2026-03-01T10:00:00Z", "2026-03-01T11:00:00Z", "2026-03-02T10:00:00Z")
    for time, value in zip(times, ("pending", "invoiced", "void"), strict=True):
        own_langfuse.post(SCORES, json={**SCORE, "value": value, "timestamp": time})

    values = [score["value"] for score in own_langfuse.get(READ).json()["data"]]
    assert values == ["void", "invoiced"]


def test_a_list_of_scores_is_accepted_in_part(own_langfuse):
    good = own_langfuse.post(SCORES, json=[SCORE, {**SCORE, "id": "s2"}])
    mixed = own_langfuse.post(SCORES, json=[{**SCORE, "id": "s3"}, {"name": "no value"}])

    assert (good.status_code, good.json()) == (202, {"message": "Accepted"})
    assert (mixed.status_code, mixed.json()["accepted"], mixed.json()["rejected"]) == (207, 1, 1)
    assert {score["id"] for score in own_langfuse.get(READ).json()["data"]} == {"s1", "s2", "s3"}


def test_scores_are_paged_by_cursor(own_langfuse):
    own_langfuse.post(SCORES, json=[{**SCORE, "id": f"s{number}"} for number in range(5)])

    first = own_langfuse.get(READ, params={"limit": 3}).json()
    second = own_langfuse.get(READ, params={"limit": 3, "cursor": first["meta"]["cursor"]}).json()

    assert (len(first["data"]), len(second["data"])) == (3, 2)
    assert "cursor" not in second["meta"]


@pytest.mark.parametrize("parameters", [{"limit": 101}, {"colour": "red"}, {"fields": "core"}, {"cursor": "?"}])
def test_wrong_parameters_for_scores_are_a_400(langfuse, parameters):
    assert langfuse.get(READ, params=parameters).status_code == 400


@pytest.mark.parametrize("score", [{"name": "x"}, {**SCORE, "value": 3}, {"name": "x", "value": 1}, "text"])
def test_a_score_that_makes_no_sense_is_a_400(langfuse, score):
    assert langfuse.post(SCORES, json=score).status_code == 400
