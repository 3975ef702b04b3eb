from __future__ import annotations

import asyncio
import time

import pytest
import stripe

from tests.sandbox.stripe_world import ACME, BEARER, CUSTOMERS, GLOBEX, NOON, World, form, unix

CREATE = "/v1/billing/meter_events"


@pytest.fixture
def world():
    return World()


def post(world, identifier, key=None, **more):
    headers = BEARER if key is None else {**BEARER, "Idempotency-Key": key}
    return world.http("POST", CREATE, data=form(identifier, **more), headers=headers)


# acceptance


def test_an_accepted_event_is_answered_without_id_and_status(world):
    answer = post(world, "one", timestamp=unix("2026-11-20T11:00"))
    assert answer.json() == {
        "object": "billing.meter_event",
        "created": unix("2026-11-20T12:00"),
        "event_name": "credits",
        "identifier": "one",
        "livemode": False,
        "payload": {"stripe_customer_id": ACME, "value": "5"},
        "timestamp": unix("2026-11-20T11:00"),
    }


def test_an_event_without_a_timestamp_is_of_the_moment_of_its_receipt(world):
    assert world.send("one").timestamp == unix("2026-11-20T12:00")


def test_an_event_without_an_identifier_gets_one(world):
    payload = {"stripe_customer_id": ACME, "value": "1"}
    first, second = (
        world.stripe.v1.billing.meter_events.create({"event_name": "credits", "payload": payload}) for _ in range(2)
    )
    assert first.identifier != second.identifier


@pytest.mark.parametrize("value", ["5", "0", "-17", "0.000001", "123456789.012345", "007"])
def test_decimals_and_negative_values_are_accepted(world, value):
    assert world.send("one", value).payload["value"] == value


def test_sums_are_exact(world):
    for number, value in enumerate(["0.1", "0.2", "-0.000001", "999999999999999"]):
        world.send(str(number), value)
    world.send("other", "3", GLOBEX)
    assert world.control("GET", "/sums") == {ACME: "999999999999999.299999", GLOBEX: "3"}


# refusals


@pytest.mark.parametrize(
    ("more", "status", "param", "code", "text"),
    [
        (
            {"customer": "cus_gone"},
            400,
            "payload[stripe_customer_id]",
            "resource_missing",
            "No such customer: 'cus_gone'",
        ),
        ({"customer": ""}, 400, "payload[stripe_customer_id]", "parameter_missing", "payload key"),
        ({"value": ""}, 400, "payload[value]", "parameter_missing", "payload key"),
        ({"value": "nan"}, 400, "payload[value]", None, "not a number"),
        ({"value": "1E+3"}, 400, "payload[value]", None, "not a number"),
        ({"value": "1234567890.123456"}, 400, "payload[value]", None, "15 significant digits"),
        ({"event_name": "steps"}, 400, "event_name", None, "No active meter"),
        ({"event_name": ""}, 400, "event_name", "parameter_missing", "event_name"),
        ({"timestamp": "2026-11-20T12:00:00Z"}, 400, "timestamp", "parameter_invalid_integer", "Invalid integer"),
        ({"timestamp": unix("2026-11-20T12:05:01")}, 400, "timestamp", None, "too far in the future"),
        ({"timestamp": unix("2026-10-16T11:59:59")}, 400, "timestamp", None, "too far in the past"),
    ],
)
def test_an_event_that_breaks_a_rule_is_refused_at_once(world, more, status, param, code, text):
    answer = post(world, "one", **more)
    error = answer.json()["error"]
    assert (answer.status_code, error.get("param"), error.get("code")) == (status, param, code)
    assert error["type"] == "invalid_request_error"
    assert text in error["message"]
    assert world.control("GET", "/events") == []


@pytest.mark.parametrize("timestamp", ["2026-11-20T12:05:00", "2026-10-16T12:00:00"])
def test_35_days_back_and_5_minutes_ahead_are_just_accepted(world, timestamp):
    assert world.send("one", timestamp=unix(timestamp)).timestamp == unix(timestamp)


def test_a_deleted_customer_is_refused_like_a_missing_one(world):
    world.switch(deleted_customers=[ACME])
    error = world.refusal("one")
    assert (error.http_status, error.code, error.param) == (400, "resource_missing", "payload[stripe_customer_id]")


def test_an_event_for_an_inactive_meter_is_refused(world):
    world.switch(meters=[{"status": "inactive"}])
    assert "No active meter" in str(world.refusal("one"))


# duplicates


def test_a_duplicate_identifier_is_a_400_without_a_code(world):
    world.send("one")
    error = world.refusal("one")
    assert isinstance(error, stripe.InvalidRequestError)
    assert (error.http_status, error.code, error.param) == (400, None, None)
    assert error.user_message == "An event already exists with identifier one."
    assert error.headers["stripe-should-retry"] == "false"


def test_a_duplicate_with_another_value_is_just_a_duplicate(world):
    world.send("one", "5")
    assert "already exists" in str(world.refusal("one", "6"))
    assert world.control("GET", "/sums") == {ACME: "5"}


def test_an_identifier_is_free_again_24_hours_after_its_receipt(world):
    world.send("one", timestamp=unix("2026-11-18T00:00"))
    world.wait(hours=23, minutes=59, seconds=59)
    world.refusal("one")
    world.wait(seconds=1)
    world.send("one")
    assert world.control("GET", "/sums") == {ACME: "10"}


def test_a_refused_duplicate_does_not_prolong_the_window(world):
    world.send("one")
    world.wait(hours=23)
    world.refusal("one")
    world.wait(hours=1)
    world.send("one")


def test_two_meters_do_not_share_identifiers(world):
    world.switch(meters=[{}, {"id": "mtr_2", "event_name": "tokens"}])
    world.send("one")
    assert world.send("one", event_name="tokens").event_name == "tokens"


def test_the_clock_can_be_moved_past_the_window(world):
    world.send("one")
    world.switch(clock_offset_seconds=86_400)
    assert world.send("one").created == unix("2026-11-21T12:00")


# idempotency keys


def test_a_key_replays_the_first_answer_and_says_so(world):
    first, second = post(world, "one", key="k"), post(world, "one", key="k")
    assert (first.json(), first.headers.get("idempotent-replayed")) == (second.json(), None)
    assert second.headers["idempotent-replayed"] == "true"
    assert len(world.control("GET", "/events")) == 1


def test_a_key_used_with_another_body_is_an_idempotency_error(world):
    world.send("one", "5", key="k")
    error = world.refusal("one", "6", key="k")
    assert isinstance(error, stripe.IdempotencyError)
    assert (error.http_status, error.error.code) == (400, None)


def test_the_order_of_form_fields_is_no_other_body(world):
    post(world, "one", key="k")
    fields = dict(reversed(form("one").items()))
    answer = world.http("POST", CREATE, data=fields, headers={**BEARER, "Idempotency-Key": "k"})
    assert answer.headers["idempotent-replayed"] == "true"


def test_a_stored_500_is_replayed_and_the_identifier_still_guards(world):
    world.fault("after_success_500")
    first, second = post(world, "one", key="k"), post(world, "one", key="k")
    assert [first.status_code, second.status_code] == [500, 500]
    assert second.headers["idempotent-replayed"] == "true"
    assert "already exists" in post(world, "one", key="k#2").json()["error"]["message"]
    assert world.control("GET", "/sums") == {ACME: "5"}


def test_a_500_before_the_work_can_be_stored_too(world):
    world.fault("500_timeout", stored=True)
    assert [post(world, "one", key=key).status_code for key in ("k", "k", "k#2")] == [500, 500, 200]


def test_a_500_that_is_not_stored_may_be_tried_again_with_the_key(world):
    world.fault("500_timeout")
    assert [post(world, "one", key="k").status_code for _ in range(2)] == [500, 200]


def test_refusals_are_not_stored_under_a_key(world):
    assert post(world, "one", key="k", customer="cus_new").status_code == 400
    world.switch(extra_customers=["cus_new"])
    answer = post(world, "one", key="k", customer="cus_new")
    assert (answer.status_code, answer.headers.get("idempotent-replayed")) == (200, None)


def test_a_429_is_not_stored_under_a_key(world):
    world.switch(rate_limit_per_second=0)
    assert post(world, "one", key="k").status_code == 429
    world.switch(rate_limit_per_second=None)
    assert post(world, "one", key="k").status_code == 200


def test_a_key_is_forgotten_after_24_hours(world):
    post(world, "one", key="k")
    world.wait(hours=24)
    answer = post(world, "two", key="k")
    assert (answer.status_code, answer.json()["identifier"]) == (200, "two")


def test_a_key_longer_than_255_characters_is_refused(world):
    assert post(world, "one", key="k" * 256).json()["error"]["type"] == "idempotency_error"


# concurrency and rates


def together(world, *requests):
    async def send():
        calls = [world.ask("POST", CREATE, data=fields, headers={**BEARER, **more}) for fields, more in requests]
        return await asyncio.gather(*calls)

    return asyncio.run(send())


def test_a_second_call_in_flight_for_one_customer_and_meter_is_a_409(world):
    world.switch(meter_event_latency_seconds=0.05)
    answers = together(world, (form("one"), {}), (form("two"), {}), (form("three", customer=GLOBEX), {}))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 409]
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refused.json()["error"]["code"] == "too_many_concurrent_requests"
    assert world.send("again").identifier == "again"


def test_two_requests_in_flight_with_one_key_are_a_409(world):
    world.switch(meter_event_latency_seconds=0.05)
    answers = together(world, (form("one"), {"Idempotency-Key": "k"}), (form("one"), {"Idempotency-Key": "k"}))
    assert [answer.status_code for answer in answers] == [200, 409]
    assert answers[1].json()["error"]["code"] == "idempotency_key_in_use"


def test_calls_beyond_the_rate_are_a_429_with_a_reason_and_no_advice_to_retry(world):
    world.switch(rate_limit_per_second=2)
    world.send("one")
    world.send("two")
    error = world.refusal("three")
    assert isinstance(error, stripe.RateLimitError)
    assert error.headers["stripe-rate-limited-reason"] == "global-rate"
    assert "stripe-should-retry" not in error.headers
    time.sleep(1)
    assert world.send("three").identifier == "three"


# adjustments


def cancel(world, identifier):
    return world.stripe.v1.billing.meter_event_adjustments.create(
        {"event_name": "credits", "type": "cancel", "cancel": {"identifier": identifier}}
    )


def test_an_event_can_be_cancelled_within_24_hours_of_its_receipt(world):
    world.send("one", "5", timestamp=unix("2026-11-01T00:00"))
    world.send("two", "7")
    world.wait(hours=23)
    assert cancel(world, "one").status == "pending"
    assert (world.control("GET", "/sums"), world.used()) == ({ACME: "7"}, 7)


@pytest.mark.parametrize(
    ("identifier", "hours", "text"), [("one", 24, "more than 24 hours ago"), ("other", 0, "No meter event exists")]
)
def test_an_event_that_cannot_be_cancelled_stays(world, identifier, hours, text):
    world.send("one")
    world.wait(hours=hours)
    with pytest.raises(stripe.InvalidRequestError, match=text):
        cancel(world, identifier)
    assert world.control("GET", "/sums") == {ACME: "5"}


def test_an_event_is_cancelled_once_and_its_identifier_stays_used(world):
    world.send("one")
    cancel(world, "one")
    with pytest.raises(stripe.InvalidRequestError, match="cancelled already"):
        cancel(world, "one")
    assert "already exists" in str(world.refusal("one"))


# what only the onlooker sees


def test_somebody_elses_events_count_like_ours_and_are_told_apart(world):
    world.send("ours", "5", key="k")
    world.control("POST", "/events", json={"customer": ACME, "value": "8", "identifier": "theirs"})
    ours, theirs = world.control("GET", "/events")
    assert (ours["source"], ours["idempotency_key"], ours["received"]) == ("v1", "k", unix("2026-11-20T12:00") * 1000)
    assert (theirs["source"], theirs["identifier"], theirs["payload"]["value"]) == ("planted", "theirs", "8")
    assert world.control("GET", "/sums") == {ACME: "13"}


def test_many_events_can_be_planted_with_times_of_their_own(world):
    history = [{"customer": ACME, "value": "1", "timestamp": unix("2026-01-01"), "received": unix("2026-01-02")}] * 3
    planted = world.control("POST", "/events", json=history)
    assert len({event["identifier"] for event in planted}) == 3
    assert world.used(start="2026-01-01", end="2026-01-02") == 3


def test_a_lost_event_is_gone_though_its_identifier_is_remembered(world):
    world.send("env/acme/1", "5")
    world.send("two", "7")
    world.control("DELETE", "/events/env/acme/1")
    assert (world.control("GET", "/sums"), world.used()) == ({ACME: "7"}, 7)
    assert "already exists" in str(world.refusal("env/acme/1"))
    assert world.http("DELETE", "/_sandbox/stripe/events/never").status_code == 404


def test_events_can_be_asked_for_by_customer(world):
    world.send("one")
    world.send("two", customer=GLOBEX)
    assert [event["identifier"] for event in world.control("GET", f"/events?customer={GLOBEX}")] == ["two"]


def test_an_unknown_switch_is_refused_and_changes_nothing(world):
    answer = world.http("PATCH", "/_sandbox/stripe", json={"summary_lag_seconds": 5, "gravity": False})
    assert (answer.status_code, "gravity" in answer.text) == (400, True)
    assert world.control("GET")["summary_lag_seconds"] == 0


def test_a_reset_forgets_events_keys_and_switches(world):
    world.switch(async_errors={ACME: "no_meter"}, rate_limit_per_second=9)
    world.send("one", key="k")
    world.control("DELETE")
    assert world.control("GET", "/events") == []
    assert world.control("GET")["rate_limit_per_second"] is None
    assert world.send("one", "6", key="k").payload["value"] == "6"


def test_extra_customers_can_be_billed_at_once(world):
    world.switch(extra_customers=["cus_bench_1", "cus_bench_2"])
    world.send("one", customer="cus_bench_2")
    assert world.stripe.v1.customers.retrieve("cus_bench_1").name == "bench_1"
    assert len(world.stripe.v1.customers.list({"limit": 100}).data) == len(CUSTOMERS) + 2


# memory


def test_a_journal_carries_events_and_reports_over_a_restart(tmp_path):
    before = World(stripe_journal=tmp_path / "stripe.jsonl")
    before.switch(async_errors={"bad": "meter_event_invalid_value"})
    for identifier in ("kept", "cancelled", "lost", "bad"):
        before.send(identifier)
    cancel(before, "cancelled")
    before.control("DELETE", "/events/lost")
    told = before.reports()

    after = World(NOON, stripe_journal=tmp_path / "stripe.jsonl")

    assert after.control("GET", "/events") == before.control("GET", "/events")
    assert after.control("GET", "/sums") == {ACME: "5"}
    assert [report.id for report in after.reports()] == [report.id for report in told]
    for identifier in ("kept", "cancelled", "lost", "bad"):
        assert "already exists" in str(after.refusal(identifier))


def test_a_torn_last_line_of_the_journal_is_cut_off(tmp_path):
    journal = tmp_path / "stripe.jsonl"
    first = World(stripe_journal=journal)
    first.send("one")
    first.send("two")
    journal.write_bytes(journal.read_bytes()[:-20])

    World(stripe_journal=journal).send("three")

    assert [e["identifier"] for e in World(stripe_journal=journal).control("GET", "/events")] == ["one", "three"]


def test_two_sandboxes_over_one_journal_know_what_each_other_received(tmp_path):
    one, other = (World(stripe_journal=tmp_path / "stripe.jsonl") for _ in range(2))
    one.send("first", "5")
    assert "already exists" in str(other.refusal("first"))
    other.send("second", "7")
    cancel(one, "second")
    assert one.control("GET", "/sums") == other.control("GET", "/sums") == {ACME: "5"}
    other.control("DELETE")
    assert one.control("GET", "/events") == []
    one.send("first", "6")
    assert one.control("GET", "/sums") == other.control("GET", "/sums") == {ACME: "6"}
