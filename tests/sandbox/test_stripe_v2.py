from __future__ import annotations

import pytest
import stripe

from tests.sandbox.stripe_world import ACME, BEARER, GLOBEX, METER, World, form

TRIGGERED = "v1.billing.meter.error_report_triggered"
NO_METER = "v1.billing.meter.no_meter_found"
UNKNOWN = "meter_event_customer_not_found"


@pytest.fixture
def world():
    return World()


def event(identifier, value="5", customer=ACME, **more):
    payload = {"stripe_customer_id": customer, "value": value}
    return {"event_name": "credits", "identifier": identifier, "payload": payload, **more}


def stream(world, events, token=None):
    token = token or world.stripe.v2.billing.meter_event_session.create().authentication_token
    return world.stripe.v2.billing.meter_event_stream.create({"events": events}, {"api_key": token})


# single events


def test_v2_takes_rfc_3339_and_answers_it(world):
    given = event("one", timestamp="2026-11-20T11:00:00.000Z")
    accepted = world.stripe.v2.billing.meter_events.create(given)
    assert (accepted.created, accepted.timestamp) == ("2026-11-20T12:00:00.000Z", "2026-11-20T11:00:00.000Z")
    assert (accepted.object, accepted.payload["value"]) == ("v2.billing.meter_event", "5")
    assert world.used() == 5


def test_a_v2_duplicate_has_a_code(world):
    world.send("one")
    with pytest.raises(stripe.InvalidRequestError) as duplicate:
        world.stripe.v2.billing.meter_events.create(event("one"))
    assert (duplicate.value.http_status, duplicate.value.code) == (400, "duplicate_meter_event")


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (event("one", customer="cus_gone"), UNKNOWN),
        (event("one", "many"), "meter_event_invalid_value"),
        (event("one", event_name="steps"), "no_meter"),
        (event("one", timestamp="2026-01-01T00:00:00Z"), "timestamp_too_far_in_past"),
        (event("one", timestamp=1_790_000_000), "invalid_fields"),
        (event("one", timestamp="yesterday"), "invalid_fields"),
        (event("i" * 101), "invalid_fields"),
        ({**event("one"), "payload": {"stripe_customer_id": ACME, "value": 5}}, "invalid_fields"),
    ],
)
def test_v2_refuses_with_a_code(world, given, code):
    with pytest.raises(stripe.InvalidRequestError) as refused:
        world.stripe.v2.billing.meter_events.create(given)
    assert (refused.value.http_status, refused.value.code) == (400, code)


def test_a_v2_key_does_not_repeat_work_that_succeeded_but_repeats_what_failed(world):
    create = world.stripe.v2.billing.meter_events.create
    world.fault("after_success_500", "/v2/")
    with pytest.raises(stripe.APIError):
        create(event("zero"), {"idempotency_key": "z"})
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        create(event("zero"), {"idempotency_key": "z"})
    first = create(event("one"), {"idempotency_key": "k"})
    again = create(event("one"), {"idempotency_key": "k"})
    assert (again.created, "idempotent-replayed" in again.last_response.headers) == (first.created, False)
    with pytest.raises(stripe.IdempotencyError):
        create(event("one", "6"), {"idempotency_key": "k"})
    assert world.control("GET", "/sums") == {ACME: "10"}


def test_v2_cancels_too(world):
    world.send("one")
    adjustment = {"event_name": "credits", "type": "cancel", "cancel": {"identifier": "one"}}
    assert world.stripe.v2.billing.meter_event_adjustments.create(adjustment).status == "pending"
    assert world.used() == 0


# the stream


def test_the_stream_takes_a_hundred_events_with_a_sessions_token(world):
    assert stream(world, [event(str(number)) for number in range(100)]) is None
    assert world.used() == 500


@pytest.mark.parametrize("number", [0, 101])
def test_the_stream_takes_no_other_number_of_events(world, number):
    with pytest.raises(stripe.InvalidRequestError, match=f"{number} given; 1 to 100"):
        stream(world, [event(str(n)) for n in range(number)])
    assert world.used() == 0


def test_a_session_lasts_fifteen_minutes(world):
    session = world.stripe.v2.billing.meter_event_session.create()
    assert session.expires_at == "2026-11-20T12:15:00.000Z"
    world.wait(minutes=14, seconds=59)
    stream(world, [event("one")], session.authentication_token)
    world.wait(seconds=1)
    with pytest.raises(stripe.TemporarySessionExpiredError) as expired:
        stream(world, [event("two")], session.authentication_token)
    assert expired.value.code == "billing_meter_event_session_expired"


def test_the_stream_refuses_the_api_key(world):
    with pytest.raises(stripe.AuthenticationError):
        stream(world, [event("one")], "sk_test_sandbox")


def test_the_stream_drops_duplicates_without_a_word(world):
    stream(world, [event("one"), event("one")])
    stream(world, [event("one", "6"), event("two", "7")])
    assert world.used() == 12
    assert world.reports() == []


def test_the_stream_looks_at_events_later(world):
    stream(world, [event("good"), event("bad", customer="cus_gone"), event("worse", "nan")])
    (report,) = world.reports()
    codes = {kind.code: kind.error_count for kind in report.data.reason.error_types}
    assert codes == {UNKNOWN: 1, "meter_event_invalid_value": 1}
    assert world.used() == 5


# error reports


def test_a_rejected_event_gets_2xx_counts_nowhere_and_turns_up_in_a_report(world):
    world.switch(async_errors={"bad": UNKNOWN})
    world.send("bad-1")
    world.send("good")
    assert world.used() == 5
    (report,) = world.reports(types=[TRIGGERED])
    assert (report.type, report.created, report.object) == (TRIGGERED, "2026-11-20T12:00:00.000Z", "v2.core.event")
    assert (report.data.validation_start, report.data.validation_end) == (
        "2026-11-20T12:00:00.000Z",
        "2026-11-20T12:00:10.000Z",
    )
    assert report.data.developer_message_summary == "There is 1 invalid event"
    assert report.data.reason.error_count == 1
    (kind,) = report.data.reason.error_types
    (sample,) = kind.sample_errors
    assert (kind.code, kind.error_count, sample.request.identifier) == (UNKNOWN, 1, "bad-1")
    assert (report.related_object.id, report.fetch_related_object().event_name) == (METER, "credits")
    rejected, _ = world.control("GET", "/events")
    assert (rejected["code"], rejected["reported"]) == (UNKNOWN, rejected["received"])


def test_a_whole_customer_can_be_rejected(world):
    world.switch(async_errors={GLOBEX: "archived_meter"})
    world.send("one", customer=GLOBEX)
    world.send("two")
    assert world.control("GET", "/sums") == {ACME: "5"}
    assert world.reports()[0].data.reason.error_types[0].code == "archived_meter"


def test_codes_nobody_knows_are_reported_as_they_are(world):
    world.switch(async_errors={ACME: "meter_event_on_a_sunday"})
    world.send("one")
    assert world.reports()[0].data.reason.error_types[0].code == "meter_event_on_a_sunday"


def test_a_report_comes_after_the_delay(world):
    world.switch(async_errors={ACME: UNKNOWN}, async_error_delay_seconds=60)
    world.send("one")
    world.wait(seconds=59)
    assert (world.reports(), world.used()) == ([], 0)
    world.wait(seconds=1)
    assert [report.created for report in world.reports()] == ["2026-11-20T12:01:00.000Z"]


def test_rejections_of_ten_seconds_share_a_report(world):
    world.switch(async_errors={ACME: UNKNOWN})
    for identifier, pause in (("one", 9), ("two", 1), ("three", 0)):
        world.send(identifier)
        world.wait(seconds=pause)
    newer, older = world.reports()
    assert (older.data.reason.error_count, newer.data.reason.error_count) == (2, 1)
    assert older.data.developer_message_summary == "There are 2 invalid events"


def test_a_report_that_was_read_never_changes(world):
    world.switch(async_errors={ACME: UNKNOWN})
    world.send("one")
    (first,) = world.reports()
    world.send("two")
    second, again = world.reports()
    assert again.to_dict() == first.to_dict()
    assert second.data.reason.error_types[0].sample_errors[0].request.identifier == "two"


def test_samples_are_capped_and_the_count_is_not(world):
    world.switch(async_errors={ACME: UNKNOWN}, error_sample_cap=2)
    for number in range(7):
        world.send(str(number))
    (kind,) = world.reports()[0].data.reason.error_types
    assert (kind.error_count, len(kind.sample_errors)) == (7, 2)


def test_samples_may_have_the_older_shape(world):
    world.switch(async_errors={ACME: UNKNOWN}, old_error_shape=True)
    world.send("one", key="k")
    request = world.reports()[0].data.reason.error_types[0].sample_errors[0].request.to_dict()
    assert (set(request), request["idempotency_key"]) == ({"id", "idempotency_key"}, "k")


def test_samples_may_name_the_idempotency_key(world):
    world.switch(async_errors={ACME: UNKNOWN}, report_idempotency_key=True)
    world.send("one", key="one#2")
    (sample,) = world.reports()[0].data.reason.error_types[0].sample_errors
    assert sample.request.identifier == "one#2"


@pytest.mark.parametrize(
    ("fields", "kind", "code"),
    [
        ({"customer": "cus_gone"}, TRIGGERED, UNKNOWN),
        ({"customer": ""}, TRIGGERED, "meter_event_no_customer_defined"),
        ({"value": "many"}, TRIGGERED, "meter_event_invalid_value"),
        ({"value": "0.30000000000000004"}, TRIGGERED, "meter_event_value_too_many_digits"),
        ({"timestamp": 1_600_000_000}, TRIGGERED, "timestamp_too_far_in_past"),
        ({"timestamp": 4_000_000_000}, TRIGGERED, "timestamp_in_future"),
        ({"event_name": "steps"}, NO_METER, "no_meter"),
    ],
)
def test_with_async_validation_a_bad_event_is_accepted_first(world, fields, kind, code):
    world.switch(async_validation=True)
    answer = world.http("POST", "/v1/billing/meter_events", data=form("one", **fields), headers=BEARER)
    assert answer.status_code == 200
    (report,) = world.reports()
    assert (report.type, report.data.reason.error_types[0].code) == (kind, code)
    assert ("related_object" in report) == (kind == TRIGGERED)
    assert world.control("GET", "/sums") == {}


def test_an_inactive_meter_rejects_later_as_archived(world):
    world.switch(async_validation=True, meters=[{"status": "inactive"}])
    world.send("one")
    (report,) = world.reports()
    assert (report.type, report.data.reason.error_types[0].code) == (TRIGGERED, "archived_meter")


def test_a_duplicate_is_refused_at_once_even_with_async_validation(world):
    world.switch(async_validation=True)
    world.send("one", customer="cus_gone")
    assert "already exists" in str(world.refusal("one", customer="cus_gone"))


# the list of events


def reported_each_minute(world, number):
    world.switch(async_errors={ACME: UNKNOWN})
    for minute in range(number):
        world.send(str(minute))
        world.wait(minutes=1)


def created(reports):
    return [report.created[11:16] for report in reports]


def test_events_come_newest_first_and_page_by_url(world):
    reported_each_minute(world, 7)
    page = world.stripe.v2.core.events.list({"limit": 3})
    assert created(page.data) == ["12:06", "12:05", "12:04"]
    assert page.next_page_url.startswith("/v2/core/events?limit=3&page=")
    world.send("late")
    assert created(page.auto_paging_iter()) == [f"12:0{minute}" for minute in range(6, -1, -1)]


def test_pages_keep_the_filters(world):
    reported_each_minute(world, 5)
    wanted = {"types": [TRIGGERED, NO_METER], "created": {"gte": "2026-11-20T12:01:00Z"}, "limit": 2}
    assert created(world.reports(**wanted)) == ["12:04", "12:03", "12:02", "12:01"]


@pytest.mark.parametrize(
    ("bounds", "minutes"),
    [
        ({"gte": "2026-11-20T12:01:00Z", "lt": "2026-11-20T12:03:00Z"}, ["12:02", "12:01"]),
        ({"gt": "2026-11-20T12:01:00Z", "lte": "2026-11-20T12:03:00Z"}, ["12:03", "12:02"]),
    ],
)
def test_events_can_be_asked_for_by_time(world, bounds, minutes):
    reported_each_minute(world, 5)
    assert created(world.reports(created=bounds)) == minutes


def test_events_can_be_asked_for_by_type_and_meter(world):
    world.switch(async_errors={ACME: UNKNOWN, GLOBEX: "no_meter"})
    world.send("one")
    world.send("two", customer=GLOBEX)
    assert [report.type for report in world.reports(types=[NO_METER])] == [NO_METER]
    assert [report.type for report in world.reports(object_id=METER)] == [TRIGGERED]
    assert world.reports(types=["v1.invoice.paid"]) == []


@pytest.mark.parametrize(
    "parameters",
    [
        {"limit": 101},
        {"created": {"gte": 1_790_000_000}},
        {"created": {"since": "2026-11-20T12:00:00Z"}},
        {"types": [f"v1.{number}" for number in range(21)]},
    ],
)
def test_a_question_v2_does_not_know_is_a_400(world, parameters):
    with pytest.raises(stripe.InvalidRequestError) as refused:
        world.reports(**parameters)
    assert (refused.value.http_status, refused.value.code) == (400, "invalid_fields")


def test_events_are_kept_for_thirty_days(world):
    world.switch(async_errors={ACME: UNKNOWN})
    world.send("one")
    world.wait(days=29, hours=23, minutes=59, seconds=59)
    assert len(world.reports()) == 1
    world.wait(seconds=1)
    assert world.reports() == []


def test_one_event_can_be_fetched_with_its_data(world):
    reported_each_minute(world, 1)
    (report,) = world.reports()
    assert world.stripe.v2.core.events.retrieve(report.id).data.reason.error_count == 1
    with pytest.raises(stripe.InvalidRequestError) as missing:
        world.stripe.v2.core.events.retrieve("evt_gone")
    assert (missing.value.http_status, missing.value.code) == (404, "not_found")
