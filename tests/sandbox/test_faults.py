from __future__ import annotations

import time

import httpx
import pytest
import stripe

from tests.sandbox.stripe_world import ACME, GLOBEX, World, form

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


@pytest.mark.parametrize(
    ("kind", "status", "text"),
    [
        ("401", 401, "Invalid credentials"),
        ("403", 403, "Access denied"),
        ("409", 409, "Conflict"),
        ("404_html", 404, "<html>"),
        ("html", 200, "<html>"),
        ("after_success_500", 500, "Timeout error"),
    ],
)
def test_more_refusals_of_langfuse(langfuse, plant, kind, status, text):
    plant(kind)
    answer = read(langfuse)
    assert answer.status_code == status
    assert text in answer.text


# Stripe, through its SDK over a real connection


@pytest.fixture
def events(sandbox, langfuse):
    """Creates meter events; gives up soon."""
    http = stripe.RequestsClient(timeout=5)
    url = sandbox.environment["STRIPE_API_BASE"]
    client = stripe.StripeClient("sk_test_sandbox", base_addresses={"api": url}, http_client=http)
    langfuse.delete("/_sandbox/stripe")
    yield client.v1.billing.meter_events
    langfuse.delete("/_sandbox/stripe")


def meter_event(identifier, customer=ACME):
    payload = {"stripe_customer_id": customer, "value": "5"}
    return {"event_name": "credits", "identifier": identifier, "payload": payload}


def received(langfuse):
    return [event["identifier"] for event in langfuse.get("/_sandbox/stripe/events").json()]


def spoil(langfuse, kind, **more):
    fault = {"path_prefix": "/v1/billing/meter_events", "kind": kind, **more}
    assert langfuse.post("/_sandbox/faults", json=fault).status_code == 200


@pytest.mark.parametrize(
    ("kind", "error", "arrived"),
    [
        ("429", stripe.RateLimitError, False),
        ("500_timeout", stripe.APIError, False),
        ("503", stripe.APIError, False),
        ("504_html", stripe.APIError, False),
        ("401", stripe.AuthenticationError, False),
        ("403", stripe.PermissionError, False),
        ("404_html", stripe.APIError, False),
        ("409", stripe.APIError, False),
        ("html", stripe.APIError, False),
        ("reset", stripe.APIConnectionError, False),
        ("cut", stripe.APIConnectionError, True),
        ("broken_json", stripe.APIError, True),
        ("after_success_500", stripe.APIError, True),
        ("after_success_cut", stripe.APIConnectionError, True),
    ],
)
def test_the_sdk_sees_each_failure_and_only_some_leave_an_event_behind(langfuse, events, kind, error, arrived):
    spoil(langfuse, kind)
    with pytest.raises(error):
        events.create(meter_event("one"))
    assert received(langfuse) == (["one"] if arrived else [])


def test_the_answer_can_come_after_the_client_gave_up_though_the_work_was_done(langfuse, sandbox, events):
    spoil(langfuse, "after_success_timeout", seconds=0.5)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{sandbox.url}/v1/billing/meter_events",
            data=form("one"),
            headers={"Authorization": "Bearer sk_test_sandbox"},
            timeout=0.2,
        )
    assert received(langfuse) == ["one"]
    spoil(langfuse, "after_success_timeout", seconds=0.1)
    assert events.create(meter_event("two")).identifier == "two"


def test_a_missing_permission_is_named(langfuse, events):
    spoil(langfuse, "403")
    with pytest.raises(stripe.PermissionError, match="rak_billing_meter_event_write"):
        events.create(meter_event("one"))


def test_a_fault_can_be_aimed_at_one_identifier(langfuse, events):
    spoil(langfuse, "500_timeout", times=None, body_contains="env/acme:2")
    for identifier in ("env/acme:1", "env/acme:3"):
        events.create(meter_event(identifier))
    with pytest.raises(stripe.APIError):
        events.create(meter_event("env/acme:2"))
    assert received(langfuse) == ["env/acme:1", "env/acme:3"]


@pytest.mark.parametrize(("kind", "arrived"), [("reset", False), ("after_success_cut", True)])
def test_one_identifiers_connection_can_be_reset(langfuse, events, kind, arrived):
    spoil(langfuse, kind, body_contains="two")
    events.create(meter_event("one"))
    with pytest.raises(stripe.APIConnectionError):
        events.create(meter_event("two"))
    assert received(langfuse) == (["one", "two"] if arrived else ["one"])


def test_a_fault_can_be_aimed_at_the_reads_of_one_customer():
    world = World()
    world.fault("503", "/v1/invoices", times=None, body_contains=ACME)
    statuses = [world.http("GET", "/v1/invoices", params={"customer": one}).status_code for one in (ACME, GLOBEX)]
    assert statuses == [503, 200]


def test_a_fault_on_a_body_leaves_the_body_to_the_application():
    world = World()
    world.fault("slow", seconds=0, body_contains="one")
    assert world.send("one").payload["value"] == "5"


def test_a_stored_500_is_for_posts_only():
    world = World()
    world.fault("500_timeout", "/v1/", stored=True)
    assert world.http("GET", "/v1/customers").status_code == 500


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
