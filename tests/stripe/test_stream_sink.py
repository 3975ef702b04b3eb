"""What becomes of meter events sent in batches through the v2 stream."""

import itertools
import threading
from datetime import UTC, datetime, timedelta

import pytest

from billing_core.stripe.model import OutcomeKind
from billing_core.stripe.stream_sink import StreamSink
from tests.stripe.events import event, events
from tests.stripe.fake import KEY, QUICK, Reply, error, html, patience_with, stripe_that

ACCEPTED, DUPLICATE, REJECTED, REFUSED, UNKNOWN = (
    OutcomeKind.ACCEPTED,
    OutcomeKind.DUPLICATE,
    OutcomeKind.REJECTED,
    OutcomeKind.REFUSED,
    OutcomeKind.UNKNOWN,
)
SESSION, STREAM = "/v2/billing/meter_event_session", "/v2/billing/meter_event_stream"
TAKEN = Reply(body={})
EXPIRED = error(401, "The session expired", type="temporary_session_expired")


class StreamingStripe:
    """Opens numbered sessions; `batches` are asked in turn, the last one for ever."""

    def __init__(self, *batches, session=None):
        self._turns = itertools.chain(batches, itertools.repeat(batches[-1] if batches else TAKEN))
        self._session = session
        self._lock = threading.Lock()
        self._opened = 0

    def __call__(self, asked):
        if asked.path == SESSION:
            return self._session or self._open()
        with self._lock:
            reply = next(self._turns)
        return reply(asked) if callable(reply) else reply

    def _open(self):
        with self._lock:
            self._opened += 1
            token = f"token-{self._opened}"
        now = datetime(2020, 1, 1, tzinfo=UTC)  # Stripe's clock is not ours
        times = {"created": now.isoformat(), "expires_at": (now + timedelta(minutes=15)).isoformat()}
        return Reply(body={"object": "v2.billing.meter_event_session", "authentication_token": token, **times})


def streams(fake):
    return [asked for asked in fake.asked if asked.path == STREAM]


def sessions(fake):
    return [asked for asked in fake.asked if asked.path == SESSION]


def names(asked):
    return [found["identifier"] for found in asked.body["events"]]


def sent(fake, given, patience=QUICK):
    return list(fake.provider(patience).sink("v2_stream").send(given))


def test_a_batch_is_sent_as_exact_json_under_the_session_token():
    with stripe_that(StreamingStripe()) as fake:
        (outcome,) = sent(fake, [event(value=-12)])
    session, stream = fake.asked
    assert (outcome.kind, outcome.identifier, outcome.tries) == (ACCEPTED, "evt-1", 1)
    assert (session.method, session.headers["authorization"]) == ("POST", f"Bearer {KEY}")
    assert (stream.method, stream.path, stream.headers["authorization"]) == ("POST", STREAM, "Bearer token-1")
    assert stream.body == {
        "events": [
            {
                "event_name": "credits",
                "identifier": "evt-1",
                "timestamp": "2026-11-20T12:00:00.000Z",
                "payload": {"stripe_customer_id": "cus_1", "value": "-12"},
            }
        ]
    }


def test_the_request_shown_is_the_request_sent():
    with stripe_that(StreamingStripe()) as fake:
        sink = fake.provider().sink("v2_stream")
        shown = sink.request_of(event())
        list(sink.send([event()]))
    (stream,) = streams(fake)
    assert (shown["method"], shown["path"], shown["idempotency_key"]) == ("POST", STREAM, stream.key)
    assert shown["body"] == stream.body


def test_batches_hold_a_hundred_and_every_event_has_one_outcome():
    with stripe_that(StreamingStripe()) as fake:
        outcomes = sent(fake, events(950, customers=3))
    assert sorted(len(names(asked)) for asked in streams(fake)) == [50] + [100] * 9
    assert sorted(o.identifier for o in outcomes) == sorted(e.identifier for e in events(950))
    assert {o.kind for o in outcomes} == {ACCEPTED}
    assert len(sessions(fake)) == 1


def test_several_batches_are_in_flight():
    met = threading.Barrier(8)

    def wait(asked):
        met.wait(5)
        return TAKEN

    with stripe_that(StreamingStripe(wait)) as fake:
        assert {o.kind for o in sent(fake, events(800))} == {ACCEPTED}


def test_what_stripe_would_misread_is_rejected_before_it_is_sent():
    with stripe_that(StreamingStripe()) as fake:
        outcomes = {o.identifier: o.kind for o in sent(fake, [event("zero", value=0), event("good")])}
    assert outcomes == {"zero": REJECTED, "good": ACCEPTED}
    assert names(streams(fake)[0]) == ["good"]


def test_one_bad_event_is_found_by_halving_and_the_rest_gets_through():
    def answer(asked):
        return error(400, "bad value", code="invalid") if "evt-37" in names(asked) else TAKEN

    with stripe_that(StreamingStripe(answer)) as fake:
        outcomes = {o.identifier: o for o in sent(fake, events(100))}
    assert [name for name, o in outcomes.items() if o.kind != ACCEPTED] == ["evt-37"]
    assert (outcomes["evt-37"].kind, outcomes["evt-37"].code) == (REJECTED, "invalid")
    assert len(streams(fake)) <= 2 * 7 + 1


def test_a_batch_refused_for_one_duplicate_counts_only_that_one_as_a_duplicate():
    def answer(asked):
        return error(400, "twice", code="duplicate_meter_event") if "evt-1" in names(asked) else TAKEN

    with stripe_that(StreamingStripe(answer)) as fake:
        outcomes = {o.identifier: o.kind for o in sent(fake, events(4))}
    assert outcomes == {"evt-0": ACCEPTED, "evt-1": DUPLICATE, "evt-2": ACCEPTED, "evt-3": ACCEPTED}


@pytest.mark.parametrize(
    "fault",
    [Reply(hang=True), Reply(reset=True), html(), html(502), error(500), Reply(body=b"{"), error(409)],
    ids=["timeout", "reset", "HTML", "HTML 502", "500", "broken JSON", "409"],
)
class TestADoubtfulBatch:
    def test_is_repeated_with_the_same_bytes_under_the_same_key(self, fault):
        with stripe_that(StreamingStripe(fault, TAKEN)) as fake:
            outcomes = sent(fake, events(3), patience_with(fault))
        first, second = streams(fake)
        assert [(o.kind, o.tries) for o in outcomes] == [(ACCEPTED, 2)] * 3
        assert (first.raw, first.key) == (second.raw, second.key)

    def test_that_never_clears_up_leaves_each_event_unknown(self, fault):
        with stripe_that(StreamingStripe(fault)) as fake:
            outcomes = sent(fake, events(3), patience_with(fault))
        assert [(o.kind, o.tries) for o in outcomes] == [(UNKNOWN, 4)] * 3


def test_an_answer_without_a_body_is_a_receipt():
    with stripe_that(StreamingStripe(Reply(200, b""))) as fake:
        assert sent(fake, [event()])[0].kind == ACCEPTED


def test_a_rate_limit_is_obeyed():
    limit = error(429, headers={"Retry-After": "0.05", "Stripe-Rate-Limited-Reason": "global-rate"})
    with stripe_that(StreamingStripe(limit, TAKEN)) as fake:
        assert [(o.kind, o.tries) for o in sent(fake, events(2))] == [(ACCEPTED, 2)] * 2


class TestTheSession:
    def test_that_expired_is_replaced_and_the_same_batch_sent_again(self):
        with stripe_that(StreamingStripe(EXPIRED, TAKEN)) as fake:
            outcomes = sent(fake, events(3))
        first, second = streams(fake)
        assert {o.kind for o in outcomes} == {ACCEPTED}
        assert (first.raw, first.key) == (second.raw, second.key)
        assert [asked.headers["authorization"] for asked in (first, second)] == ["Bearer token-1", "Bearer token-2"]

    def test_that_is_always_expired_ends_refused(self):
        with stripe_that(StreamingStripe(EXPIRED)) as fake:
            first, *rest = sent(fake, events(300))
        assert (first.kind, "expired" in first.reason) == (REFUSED, True)
        assert {o.kind for o in rest} == {REFUSED}

    def test_is_renewed_three_minutes_before_it_ends_and_not_earlier(self):
        monotonic = [0.0]
        with stripe_that(StreamingStripe()) as fake:
            sink = StreamSink(fake.provider()._connection, None, patience=QUICK, clock=lambda: monotonic[0])
            for minutes in (0, 11.9, 12, 23.9, 24):
                monotonic[0] = minutes * 60
                list(sink.send([event()]))
        used = [asked.headers["authorization"].removeprefix("Bearer ") for asked in streams(fake)]
        assert used == ["token-1", "token-1", "token-2", "token-2", "token-3"]

    @pytest.mark.parametrize("reply", [error(401, "Invalid key"), error(403, "needs rak"), error(400, "test keys")])
    def test_that_may_not_be_opened_stops_everything_and_nothing_was_sent(self, reply):
        with stripe_that(StreamingStripe(session=reply)) as fake:
            outcomes = sent(fake, events(1500))
        assert {o.kind for o in outcomes} == {REFUSED}
        assert "no stream session" in outcomes[0].reason
        assert streams(fake) == []

    @pytest.mark.parametrize("reply", [error(500), html(), Reply(reset=True), Reply(body={"object": "x"})])
    def test_that_cannot_be_opened_now_leaves_nothing_in_doubt(self, reply):
        with stripe_that(StreamingStripe(session=reply)) as fake:
            (outcome,) = sent(fake, [event()])
        assert (outcome.kind, outcome.tries) == (REFUSED, 4)

    def test_without_readable_times_lasts_fifteen_minutes(self):
        monotonic = [0.0]
        session = Reply(body={"authentication_token": "t", "expires_at": "later"})
        with stripe_that(StreamingStripe(session=session)) as fake:
            sink = StreamSink(fake.provider()._connection, None, patience=QUICK, clock=lambda: monotonic[0])
            for minutes in (0, 11.9, 12.1):
                monotonic[0] = minutes * 60
                list(sink.send([event()]))
        assert len(sessions(fake)) == 2


def test_an_account_without_the_stream_is_told_so_once():
    with stripe_that(StreamingStripe(error(404, "Unrecognized request URL"))) as fake:
        outcomes = sent(fake, events(50))
    assert {o.kind for o in outcomes} == {REFUSED}
    assert "does not offer the stream" in outcomes[0].reason
    assert len(streams(fake)) == 1


def test_no_batch_is_sent_after_the_consumer_is_gone():
    with stripe_that(StreamingStripe()) as fake:
        outcomes = fake.provider().sink("v2_stream").send(events(10_000))
        next(outcomes)
        outcomes.close()
        made = len(fake.asked)
        assert not [t for t in threading.enumerate() if t.name == "stripe-send"]
    assert len(fake.asked) == made < 100
