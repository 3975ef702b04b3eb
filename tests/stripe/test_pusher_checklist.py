"""The lines of "Checklist for a correct pusher" in the Stripe notes that talking to Stripe has to keep.

Leases, the ledger, quarantine, reconciliation and the dry run belong to whoever calls.
"""

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from billing_core.errors import SettingsError, UpstreamError
from billing_core.runtime import clock
from billing_core.settings import load_settings
from billing_core.stripe.limits import RetryLimits
from billing_core.stripe.model import OutcomeKind
from billing_core.stripe.provider import StripeProvider
from tests.stripe import objects
from tests.stripe.events import NOON, event, events
from tests.stripe.fake import KEY, QUICK, Reply, duplicate, error, html, page, patience_with, receipt, stripe_that

ACCEPTED, DUPLICATE, REJECTED, UNKNOWN = (
    OutcomeKind.ACCEPTED,
    OutcomeKind.DUPLICATE,
    OutcomeKind.REJECTED,
    OutcomeKind.UNKNOWN,
)


def sent(answer, given, meter_api="v1", patience=QUICK):
    with stripe_that(answer) as fake:
        return {o.identifier: o for o in fake.provider(patience).sink(meter_api).send(given)}, fake.asked


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("rk_live_1", {"livemode": False}),
        (KEY, {"livemode": True}),
        (KEY, {"status": "inactive"}),
        (KEY, {"default_aggregation": {"formula": "count"}}),
        (KEY, {"customer_mapping": {"event_payload_key": "customer"}}),
        (KEY, {"event_time_window": "day"}),
        (KEY, {"event_name": "something else"}),
    ],
)
def test_refuses_to_start_unless_key_prefix_livemode_and_meter_match(key, changes):
    with stripe_that(lambda asked: page(objects.meter(**changes))) as fake, pytest.raises(SettingsError):
        fake.provider(key=key).preflight()


@pytest.mark.parametrize("reply", [error(401), error(403), html(), error(500), Reply(reset=True)])
def test_refuses_to_start_while_the_meter_cannot_be_read(reply):
    with stripe_that(lambda asked: reply) as fake, pytest.raises(UpstreamError):
        fake.provider().preflight()


def test_the_idempotency_key_equals_the_identifier():
    _, asked = sent(receipt, [event("a"), event("b")])
    assert [(a.key, a.body["identifier"]) for a in asked] == [("a", "a"), ("b", "b")]


@pytest.mark.parametrize(("value", "text"), [(5, "5"), (-5, "-5"), (10**14, "100000000000000"), (10**15 - 1, "9" * 15)])
def test_the_value_is_a_plain_text_without_exponent(value, text):
    for meter_api in ("v1", "v2_stream"):
        with stripe_that(receipt) as fake:
            body = fake.provider().sink(meter_api).request_of(event(value=value))["body"]
        assert body.get("events", [body])[0]["payload"]["value"] == text


@pytest.mark.parametrize("value", [0, 10**15, -(10**15), 0.5, float("nan"), True, None])
def test_a_value_that_is_zero_too_long_or_not_whole_is_never_sent(value):
    outcomes, asked = sent(receipt, [event(value=value)])
    assert (outcomes["evt-1"].kind, outcomes["evt-1"].tries, asked) == (REJECTED, 0, [])


def test_the_timestamp_is_the_facts_own_in_utc_and_never_clamped():
    abroad = datetime(2026, 11, 20, 17, 30, 5, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    ancient = datetime(2020, 1, 1, tzinfo=UTC)
    with stripe_that(receipt) as fake:
        v1, v2 = fake.provider().sink("v1"), fake.provider().sink("v2_stream")
    for moment, number, text in [
        (abroad, 1795176005, "2026-11-20T12:00:05.000Z"),
        (ancient, 1577836800, "2020-01-01T00:00:00.000Z"),
    ]:
        assert v1.request_of(event(timestamp=moment))["body"]["timestamp"] == number
        assert v2.request_of(event(timestamp=moment))["body"]["events"][0]["timestamp"] == text


def test_the_payload_holds_exactly_the_customer_key_and_the_value_key():
    _, asked = sent(receipt, [event()])
    assert asked[0].body["payload"] == {"stripe_customer_id": "cus_1", "value": "5"}
    assert set(asked[0].body) == {"event_name", "identifier", "timestamp", "payload"}


@pytest.mark.parametrize(("key", "per_second"), [("rk_live_1", 1000), ("rk_test_1", 25)])
def test_the_global_pace_stays_below_stripes_limit(key, per_second):
    settings = load_settings({"BILLING_MODE": "live", "STRIPE_API_KEY": key}, env_file=None)
    pace = StripeProvider.from_settings(settings).sink()._pace
    assert sum(pace.reserve() < 1 for _ in range(2 * per_second)) <= per_second


def test_retries_are_ours_alone_and_timeouts_are_short():
    patience = RetryLimits()
    assert patience.connect_seconds + patience.answer_seconds <= 20
    with stripe_that(lambda asked: error(500, headers={"Stripe-Should-Retry": "true"})) as fake:
        (outcome,) = fake.provider().sink().send([event()])
    assert outcome.tries == len(fake.asked) == patience.send_tries


@pytest.mark.parametrize("fault", [error(409), error(500), Reply(hang=True), Reply(reset=True)])
def test_a_conflict_a_server_error_and_a_broken_network_are_unknown_and_not_failures(fault):
    outcomes, _ = sent(lambda asked: fault, [event()], patience=patience_with(fault))
    assert outcomes["evt-1"].kind == UNKNOWN


@pytest.mark.parametrize("meter_api", ["v1", "v2_stream"])
def test_429_is_waited_for_with_our_own_backoff(meter_api):
    replies = [error(429), error(429)]

    def answer(asked):
        if asked.path.endswith("session"):
            return Reply(body={"authentication_token": "t"})
        return replies.pop() if replies else (receipt(asked) if meter_api == "v1" else Reply(body={}))

    outcomes, _ = sent(answer, [event()], meter_api)
    assert (outcomes["evt-1"].kind, outcomes["evt-1"].tries) == (ACCEPTED, 3)


def test_a_duplicate_is_delivered_by_code_or_message_and_never_aborts_the_batch():
    replies = {"evt-1": duplicate, "evt-2": lambda asked: error(400, "no", code="duplicate_meter_event")}
    outcomes, _ = sent(lambda asked: replies.get(asked.body["identifier"], receipt)(asked), events(5))
    assert [outcomes[f"evt-{n}"].kind for n in range(5)] == [ACCEPTED, DUPLICATE, DUPLICATE, ACCEPTED, ACCEPTED]


def test_an_idempotency_error_raises_an_alarm():
    outcomes, _ = sent(lambda asked: error(400, "other parameters", type="idempotency_error"), [event()])
    assert (outcomes["evt-1"].kind, outcomes["evt-1"].code) == (REJECTED, "idempotency_error")
    assert outcomes["evt-1"].reason.startswith("ALARM: other bytes")


def test_one_bad_row_cannot_block_the_others():
    def answer(asked):
        return error(400, "bad", code="resource_missing") if asked.body["identifier"] == "evt-1" else receipt(asked)

    outcomes, _ = sent(answer, events(4))
    assert [outcomes[f"evt-{n}"].kind for n in range(4)] == [ACCEPTED, REJECTED, ACCEPTED, ACCEPTED]


def test_the_stream_sends_a_hundred_at_most_to_the_overridden_host():
    def answer(asked):
        return Reply(body={"authentication_token": "t"} if asked.path.endswith("session") else {})

    outcomes, asked = sent(answer, events(250), "v2_stream")
    batches = [a for a in asked if a.path == "/v2/billing/meter_event_stream"]
    assert (len(outcomes), sorted(len(a.body["events"]) for a in batches)) == (250, [50, 100, 100])


@pytest.mark.parametrize("request_of_sample", [{"identifier": "abc"}, {"id": "req_1", "idempotency_key": "abc"}])
def test_error_events_are_polled_and_both_request_shapes_are_read(request_of_sample):
    sample = {"error_message": "no", "request": request_of_sample}
    body = {"data": [objects.report(samples=[sample], code="never_heard_of", count=40)], "next_page_url": None}
    with stripe_that(lambda asked: Reply(body=body)) as fake:
        (report,) = fake.provider().error_reports(clock.now() - timedelta(days=1))
    (reported,) = report.errors
    assert (reported.code, reported.count, reported.identifiers) == ("never_heard_of", 40, ("abc",))


def test_a_correction_is_a_negative_value_under_its_own_identifier():
    _, asked = sent(receipt, [event("evt-1-r2", value=-250)])
    assert (asked[0].body["identifier"], asked[0].body["payload"]["value"]) == ("evt-1-r2", "-250")


def test_what_would_be_sent_can_be_shown_without_sending():
    with stripe_that(receipt) as fake:
        sink = fake.provider().sink()
        began = time.monotonic()
        shown = [sink.request_of(event(f"evt-{n}", timestamp=NOON)) for n in range(1000)]
    assert (len(shown), fake.asked) == (1000, [])
    assert time.monotonic() - began < 2
