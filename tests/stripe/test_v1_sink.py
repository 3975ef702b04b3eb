"""What becomes of meter events sent one by one, whatever Stripe answers."""

import itertools
import threading
import time
from collections import defaultdict
from dataclasses import replace
from datetime import datetime

import pytest

from billing_core.runtime import clock
from billing_core.stripe.limits import RetryLimits
from billing_core.stripe.model import OutcomeKind
from tests.stripe.events import NOON, event, events
from tests.stripe.fake import (
    KEY,
    QUICK,
    FakeStripe,
    Reply,
    duplicate,
    error,
    html,
    nobody_listening,
    patience_with,
    receipt,
    stripe_that,
)

ACCEPTED, DUPLICATE, REJECTED, REFUSED, UNKNOWN = (
    OutcomeKind.ACCEPTED,
    OutcomeKind.DUPLICATE,
    OutcomeKind.REJECTED,
    OutcomeKind.REFUSED,
    OutcomeKind.UNKNOWN,
)
REPLAYED = {"Idempotent-Replayed": "true"}


def answers(*replies):
    """The given replies in turn, the last one for ever; a callable is asked."""
    turns = itertools.chain(replies, itertools.repeat(replies[-1]))
    lock = threading.Lock()

    def answer(asked):
        with lock:
            reply = next(turns)
        return reply(asked) if callable(reply) else reply

    return answer


def sent(fake, given, patience=QUICK):
    provider = fake.provider(patience)
    try:
        return list(provider.sink().send(given))
    finally:
        provider.close()


def only(fake, given=None, patience=QUICK):
    (outcome,) = sent(fake, [given or event()], patience)
    return outcome


def test_an_accepted_event_was_sent_as_exact_bytes():
    with stripe_that(receipt) as fake:
        outcome = only(fake, event(value=-12))
    assert (outcome.kind, outcome.tries, outcome.reason, outcome.request_id) == (ACCEPTED, 1, None, "req_1")
    (asked,) = fake.asked
    assert (asked.method, asked.path, asked.key) == ("POST", "/v1/billing/meter_events", "evt-1")
    assert asked.raw == (
        b"event_name=credits&identifier=evt-1&timestamp=1795176000&payload[stripe_customer_id]=cus_1&payload[value]=-12"
    )
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["stripe-version"] == "2026-10-28.endive"


def test_the_request_shown_is_the_request_sent():
    with stripe_that(receipt) as fake:
        provider = fake.provider()
        sink = provider.sink()
        shown = sink.request_of(event())
        list(sink.send([event()]))
    (asked,) = fake.asked
    assert shown == {
        "method": "POST",
        "path": "/v1/billing/meter_events",
        "idempotency_key": "evt-1",
        "body": {
            "event_name": "credits",
            "identifier": "evt-1",
            "timestamp": 1795176000,
            "payload": {"stripe_customer_id": "cus_1", "value": "5"},
        },
    }
    assert (asked.method, asked.path, asked.key) == (shown["method"], shown["path"], shown["idempotency_key"])
    assert asked.body == {**shown["body"], "timestamp": "1795176000"}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"value": 0}, "0 credits are nothing to send"),
        ({"value": 10**15}, "more than 15 digits"),
        ({"value": True}, "not a whole number"),
        ({"identifier": "x" * 101}, "101 characters"),
        ({"identifier": ""}, "0 characters"),
        ({"customer_id": ""}, "customer_id: empty"),
        ({"timestamp": datetime(2026, 11, 20, 12)}, "no timezone"),
        ({"timestamp": NOON.replace(microsecond=1)}, "not a whole second"),
    ],
)
def test_what_stripe_would_misread_is_rejected_before_it_is_sent(changes, says):
    with stripe_that(receipt) as fake:
        outcome = only(fake, event(**changes))
    assert (outcome.kind, outcome.tries, fake.asked) == (REJECTED, 0, [])
    assert says in outcome.reason


@pytest.mark.parametrize(
    "reply", [duplicate, error(400, "no", code="duplicate_meter_event")], ids=["by message", "by code"]
)
def test_a_duplicate_is_delivered(reply):
    with stripe_that(answers(reply)) as fake:
        outcome = only(fake)
    assert (outcome.kind, outcome.tries) == (DUPLICATE, 1)


def test_a_definite_refusal_is_rejected_with_stripes_words():
    refusal = error(400, "No such customer: 'cus_1'", code="resource_missing", param="payload[stripe_customer_id]")
    with stripe_that(answers(refusal)) as fake:
        outcome = only(fake)
    assert (outcome.kind, outcome.tries, outcome.code) == (REJECTED, 1, "resource_missing")
    assert outcome.reason == "No such customer: 'cus_1' (HTTP 400, resource_missing, payload[stripe_customer_id])"


def test_other_bytes_under_the_same_key_raise_an_alarm():
    with stripe_that(answers(error(400, "Keys for idempotent requests…", type="idempotency_error"))) as fake:
        outcome = only(fake)
    assert (outcome.kind, outcome.code) == (REJECTED, "idempotency_error")
    assert outcome.reason.startswith("ALARM")


@pytest.mark.parametrize(
    "fault",
    [
        Reply(hang=True),
        Reply(reset=True),
        html(200),
        html(404),
        html(502),
        Reply(body=b'{"object": "billing.met'),
        Reply(body=b"[]"),
        error(500, "oh"),
        error(503, "oh"),
        error(424, "A dependency failed"),
        error(409, "There is currently another in-progress request", code="idempotency_key_in_use"),
        Reply(body={"object": "billing.meter_event", "identifier": "somebody else's"}),
        Reply(body={"object": "list", "data": []}),
        Reply(500, b"", {"Content-Type": "text/plain"}),
        Reply(500, {"error": ["odd"]}),
        Reply(302, b"", {"Location": "/elsewhere"}),
    ],
    ids=[
        "timeout",
        "reset",
        "HTML 200",
        "HTML 404",
        "HTML 502",
        "broken JSON",
        "JSON list",
        "500",
        "503",
        "424",
        "409",
        "receipt of another event",
        "another object",
        "empty 500",
        "odd error object",
        "redirect",
    ],
)
class TestADoubtfulTry:
    def test_is_repeated_with_the_same_bytes_under_the_same_key(self, fault):
        with stripe_that(answers(fault, receipt)) as fake:
            outcome = only(fake, patience=patience_with(fault))
        assert (outcome.kind, outcome.tries) == (ACCEPTED, 2)
        first, second = fake.asked
        assert (first.raw, first.key) == (second.raw, second.key)

    def test_that_was_taken_all_the_same_ends_as_a_duplicate(self, fault):
        with stripe_that(answers(fault, duplicate)) as fake:
            assert only(fake, patience=patience_with(fault)).kind == DUPLICATE

    def test_that_is_refused_afterwards_may_have_been_taken_and_stays_unknown(self, fault):
        with stripe_that(answers(fault, error(400, "No such customer: 'cus_1'", code="resource_missing"))) as fake:
            outcome = only(fake, patience=patience_with(fault))
        assert (outcome.kind, outcome.tries) == (UNKNOWN, 2)
        assert "No such customer" in outcome.reason
        assert "may have arrived" in outcome.reason

    def test_that_never_clears_up_is_unknown_after_four_tries(self, fault):
        with stripe_that(answers(fault)) as fake:
            outcome = only(fake, patience=patience_with(fault))
        assert (outcome.kind, outcome.tries) == (UNKNOWN, 4)
        assert len(fake.asked) <= 4
        assert outcome.reason
        assert "\n" not in outcome.reason


def test_a_stored_500_is_left_behind_by_a_new_key_while_the_identifier_guards():
    stored = error(500, "oh", headers=REPLAYED)
    with stripe_that(answers(error(500, "oh"), stored, stored, duplicate)) as fake:
        outcome = only(fake)
    assert (outcome.kind, outcome.tries) == (DUPLICATE, 4)
    assert fake.keys() == ["evt-1", "evt-1", "evt-1#2", "evt-1#3"]
    assert len({asked.raw for asked in fake.asked}) == 1


def test_a_replayed_success_is_a_success():
    with stripe_that(lambda asked: Reply(body=receipt(asked).body, headers=REPLAYED)) as fake:
        assert only(fake).kind == ACCEPTED


class TestARateLimit:
    def test_is_obeyed_for_as_long_as_it_says(self):
        limit = error(429, "slow down", headers={"Retry-After": "0.2", "Stripe-Rate-Limited-Reason": "global-rate"})
        with stripe_that(answers(limit, receipt)) as fake:
            began = time.monotonic()
            outcome = only(fake)
        assert (outcome.kind, outcome.tries) == (ACCEPTED, 2)
        assert time.monotonic() - began >= 0.2

    @pytest.mark.parametrize(
        "limit", [error(429), html(429), error(400, code="rate_limit"), error(429, headers={"Retry-After": "0"})]
    )
    def test_without_a_time_is_waited_for_with_growing_pauses(self, limit):
        with stripe_that(answers(limit, limit, receipt)) as fake:
            began = time.monotonic()
            outcome = only(fake, patience=replace(QUICK, first_backoff_seconds=0.1, longest_backoff_seconds=1.0))
        assert (outcome.kind, outcome.tries) == (ACCEPTED, 3)
        assert time.monotonic() - began >= 0.05 + 0.1

    def test_that_lasts_ends_refused_because_nothing_was_processed(self):
        limit = error(429, "slow down", headers={"Retry-After": "0.1", "Stripe-Rate-Limited-Reason": "global-rate"})
        with stripe_that(answers(limit)) as fake:
            first, *rest = sent(fake, events(40, customers=1))
        assert first.kind == REFUSED
        assert "global-rate" in first.reason
        assert {(o.kind, o.tries) for o in rest} == {(REFUSED, 0)}

    def test_that_asks_for_an_hour_is_not_waited_for(self):
        with stripe_that(answers(error(429, headers={"Retry-After": "3600"}))) as fake:
            outcome = only(fake, patience=RetryLimits())
        assert (outcome.kind, outcome.tries) == (REFUSED, 1)

    @pytest.mark.parametrize("reason", ["endpoint-concurrency", "resource-specific", None])
    def test_of_one_customer_does_not_stop_the_others(self, reason):
        headers = {"Retry-After": "0.2"} | ({} if reason is None else {"Stripe-Rate-Limited-Reason": reason})
        given_up = threading.Event()

        def answer(asked):
            if asked.body["payload"]["stripe_customer_id"] == "cus_0":
                return error(429, "lock", headers=headers)
            given_up.wait(5)
            return receipt(asked)

        with stripe_that(answer) as fake:
            outcomes = {}
            for outcome in fake.provider(QUICK).sink().send(events(8, customers=4)):
                outcomes[outcome.identifier] = outcome.kind
                given_up.set()
        assert [name for name, kind in outcomes.items() if kind == REFUSED] == ["evt-0", "evt-4"]
        assert list(outcomes.values()).count(ACCEPTED) == 6

    @pytest.mark.parametrize("reason", ["global-rate", "global-concurrency", "endpoint-rate", "something new"])
    def test_of_the_account_pauses_everyone(self, reason):
        limit = error(429, headers={"Retry-After": "0.4", "Stripe-Rate-Limited-Reason": reason})
        replies, paused, asked_at = iter([limit]), threading.Event(), {}

        def answer(asked):
            name = asked.body["identifier"]
            asked_at[name] = time.monotonic()
            if name == "evt-1":
                paused.wait(5)
            return next(replies, None) or receipt(asked) if name == "evt-0" else receipt(asked)

        with stripe_that(answer) as fake:
            sink = fake.provider(QUICK).sink()
            pause, began = sink._pace.pause, []
            sink._pace.pause = lambda seconds: (pause(seconds), began.append(time.monotonic()), paused.set())
            outcomes = list(sink.send(events(4, customers=2)))
        assert {o.kind for o in outcomes} == {ACCEPTED}
        assert asked_at["evt-3"] >= began[0] + 0.39

    def test_after_a_doubtful_try_stays_unknown(self):
        limit = error(429, headers={"Retry-After": "9"})
        with stripe_that(answers(error(500), limit)) as fake:
            assert only(fake).kind == UNKNOWN


@pytest.mark.parametrize("status", [401, 403])
class TestARefusedKey:
    def test_stops_everything_and_nothing_else_is_tried(self, status):
        with stripe_that(answers(error(status, f"The key {KEY} lacks rak_meter_event_write"))) as fake:
            first, *rest = sent(fake, events(50))
        assert len(fake.asked) == 1
        assert (first.kind, first.tries) == (REFUSED, 1)
        assert "lacks rak_meter_event_write" in first.reason
        assert {(o.kind, o.tries) for o in rest} == {(REFUSED, 0)}
        assert all("not tried: Stripe refuses the key" in o.reason for o in rest)
        assert KEY not in "".join(o.reason for o in [first, *rest])

    def test_leaves_a_doubtful_try_unknown(self, status):
        with stripe_that(answers(error(500), error(status))) as fake:
            assert only(fake).kind == UNKNOWN


class TestASilentStripe:
    def test_is_left_alone_after_eight_events_in_a_row(self):
        with stripe_that(answers(error(500))) as fake:
            outcomes = sent(fake, events(100, customers=1))
        assert [o.kind for o in outcomes] == [UNKNOWN] * 8 + [REFUSED] * 92
        assert len(fake.asked) == 32
        assert outcomes[-1].reason.startswith("not tried: Stripe is not answering")

    def test_is_not_given_up_while_some_events_get_through(self):
        def answer(asked):
            number = int(asked.body["identifier"].removeprefix("evt-"))
            return receipt(asked) if number % 8 == 7 else error(500)

        with stripe_that(answer) as fake:
            outcomes = sent(fake, events(24, customers=1))
        assert [o.kind for o in outcomes] == ([UNKNOWN] * 7 + [ACCEPTED]) * 3

    def test_that_cannot_be_reached_at_all_has_surely_processed_nothing(self):
        with nobody_listening() as base:
            outcomes = list(FakeStripe(receipt, base).provider().sink().send(events(12)))
        assert {o.kind for o in outcomes} == {REFUSED}
        assert "could not be reached" in outcomes[0].reason
        assert [o.tries for o in outcomes] == [4] * 8 + [0] * 4


class TestManyCustomers:
    def test_one_call_is_in_flight_per_customer_and_their_order_is_kept(self):
        inside, most, order = defaultdict(int), defaultdict(int), defaultdict(list)
        lock, met = threading.Lock(), threading.Barrier(4)

        def answer(asked):
            customer = asked.body["payload"]["stripe_customer_id"]
            with lock:
                inside[customer] += 1
                most[customer] = max(most[customer], inside[customer])
                order[customer].append(asked.body["identifier"])
            if len(order[customer]) == 1:
                met.wait(5)  # only passes if the four customers really are served at once
            with lock:
                inside[customer] -= 1
            return receipt(asked)

        with stripe_that(answer) as fake:
            outcomes = sent(fake, events(40, customers=4), RetryLimits())
        assert {o.kind for o in outcomes} == {ACCEPTED}
        assert set(most.values()) == {1}
        assert order["cus_1"] == [f"evt-{n}" for n in range(1, 40, 4)]

    def test_every_event_has_exactly_one_outcome_and_one_bad_row_blocks_nobody(self):
        given = [*events(30, customers=3), event("bad", "cus_0", 0), event("wrong", "cus_1")]

        def answer(asked):
            return error(400, "No such customer") if asked.body["identifier"] == "wrong" else receipt(asked)

        with stripe_that(answer) as fake:
            outcomes = sent(fake, given)
        assert sorted(o.identifier for o in outcomes) == sorted(e.identifier for e in given)
        assert {o.identifier for o in outcomes if o.kind == REJECTED} == {"bad", "wrong"}


class TestStoppingEarly:
    def test_no_call_begins_after_the_consumer_is_gone(self):
        with stripe_that(receipt) as fake:
            outcomes = fake.provider().sink().send(events(500, customers=50))
            next(outcomes)
            outcomes.close()
            made = len(fake.asked)
            assert not [t for t in threading.enumerate() if t.name == "stripe-send"]
            assert made < 500
            assert len(fake.asked) == made

    def test_a_wait_for_a_rate_limit_is_cut_short(self):
        limited = threading.Event()

        def answer(asked):
            if asked.body["identifier"] == "evt-0":
                return receipt(asked)
            limited.set()
            return error(429, headers={"Retry-After": "60"})

        with stripe_that(answer) as fake:
            outcomes = fake.provider(RetryLimits()).sink().send(events(2))
            assert next(outcomes).kind == ACCEPTED
            assert limited.wait(5)
            began = time.monotonic()
            outcomes.close()
        assert time.monotonic() - began < 5

    def test_nothing_happens_before_the_first_outcome_is_asked_for(self):
        with stripe_that(receipt) as fake:
            fake.provider().sink().send(events(5)).close()
        assert fake.asked == []

    def test_a_closed_sink_gives_the_rest_back_untried(self):
        with stripe_that(receipt) as fake:
            sink = fake.provider().sink()
            outcomes = sink.send(events(50))
            first = next(outcomes)
            sink.close()
            rest = list(outcomes)
        assert first.kind == ACCEPTED
        assert len(rest) == 49
        assert (rest[-1].kind, rest[-1].tries) == (REFUSED, 0)
        assert "closed" in rest[-1].reason


def test_an_outcome_says_when_it_was_known():
    before = clock.now()
    with stripe_that(receipt) as fake:
        outcome = only(fake)
    assert before <= outcome.answered_at <= clock.now()


def test_a_fault_of_ours_is_raised_instead_of_hanging(monkeypatch):
    with stripe_that(receipt) as fake:
        provider = fake.provider()
        monkeypatch.setattr(provider._connection, "call", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(provider.sink().send(events(5)))
