"""Notices reach the webhook at least once, signed, and every try is written down; whatever the receiver does."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest

from billing_core.ledger.deliveries import DeliveryOutcome
from billing_core.ledger.notices import Notice
from billing_core.notify.delivery import deliver
from billing_core.notify.webhook import Webhook, signature_of
from billing_core.organizations.notice_message import message_of
from billing_core.runtime import clock
from billing_core.settings import signing_key
from tests.notify.receiver import Receiver

SECRET = "a-secret-of-enough-characters"
START, END = datetime(2026, 11, 3, 8, 15, 30, tzinfo=UTC), datetime(2026, 12, 3, 8, 15, 30, tzinfo=UTC)
RAISED = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def notice(threshold=90, customer="cus_a", raised_at=RAISED):
    return Notice("org_a", customer, "Pro", threshold, START, END, 1000, Decimal("900.5"), raised_at)


@dataclass
class Log:
    """The journal, in memory."""

    notices: list
    made: list = field(default_factory=list)
    dies_when_writing: bool = False

    def undelivered(self):
        over = {one.notice_id for one in self.made if one.outcome is not DeliveryOutcome.FAILED}
        return [one for one in self.notices if one.id not in over]

    def tries(self, ids):
        return {id_: [one for one in self.made if one.notice_id == id_] for id_ in ids}

    def record(self, one):
        if self.dies_when_writing:
            raise KeyboardInterrupt
        self.made.append(one)

    def outcomes(self):
        return [(one.number, one.outcome.value, one.status) for one in self.made]


@dataclass
class Go:
    """Goes of deliveries to a receiver, on a clock the test holds."""

    url: str
    log: Log
    now: datetime = RAISED
    pauses: list = field(default_factory=list)
    timeout_seconds: float = 5.0

    def __call__(self, wait=timedelta()):
        self.now += wait
        webhook = Webhook(self.url, SECRET.encode(), timeout_seconds=self.timeout_seconds)
        waiting = [message_of(one, "Acme Größe", None) for one in self.log.undelivered()]
        return deliver(self.log, webhook, waiting, lambda: self.now, pause=self.pauses.append)


@pytest.fixture
def receiver():
    with Receiver(SECRET.encode()) as running:
        yield running


def test_the_signature_is_that_of_the_schemes_own_example():
    # The example of standardwebhooks.com, whose secret is in the base64 form.
    key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = signature_of(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_notice_arrives_once_signed_with_exact_numbers(receiver):
    log = Log([notice()])
    go = Go(receiver.url, log)
    assert (go().delivered, go().delivered) == (1, 0)
    (document,) = receiver.verified()
    assert document == {
        "type": "limit.reached",
        "timestamp": "2026-11-20T12:00:00.000Z",
        "data": {
            "organization_id": "org_a",
            "organization_name": "Acme Größe",
            "customer_id": "cus_a",
            "plan": "Pro",
            "threshold": 90,
            "percent_used": "90.05",
            "credits": {"included": "1000", "used": "900.5"},
            "period": {"start": "2026-11-03T08:15:30.000Z", "end": "2026-12-03T08:15:30.000Z"},
        },
    }
    headers = receiver.calls[0][0]
    assert headers["webhook-id"] == notice().id
    assert headers["webhook-timestamp"] == str(int(RAISED.timestamp()))
    assert headers["content-type"] == "application/json"
    assert log.outcomes() == [(1, "delivered", 204)]


def test_a_broken_receiver_is_tried_three_times_under_one_id_and_again_later(receiver):
    receiver.answers[:] = [500, 503, 500]
    go = Go(receiver.url, Log([notice()]))
    found = go()
    assert (found.delivered, len(found.failed)) == (0, 1)
    assert found.failed[0] == f"cus_a, 90 % ({notice().id}): the receiver answered 500"
    assert go.pauses == [0.5, 2.0]
    assert go(4 * MINUTE).failed == ()
    assert go(1 * MINUTE).delivered == 1
    assert set(receiver.ids()) == {notice().id}
    assert go.log.outcomes() == [(1, "failed", 500), (2, "failed", 503), (3, "failed", 500), (4, "delivered", 204)]
    assert len(receiver.verified()) == 4


def test_a_second_try_that_arrives_ends_the_go(receiver):
    receiver.answers[:] = [500]
    go = Go(receiver.url, Log([notice()]))
    assert go().delivered == 1
    assert go.log.outcomes() == [(1, "failed", 500), (2, "delivered", 204)]


def test_after_a_day_it_is_given_up_and_never_sent_again(receiver):
    receiver.answers[:] = [500] * 1000
    go = Go(receiver.url, Log([notice()]))
    goes = 0
    while go.now < RAISED + DAY:
        goes += bool(go().failed)
        go.now += 10 * MINUTE
    assert 8 <= goes <= 12
    sent = len(receiver.calls)
    assert sent == 3 * goes
    last = go()
    assert last.given_up == 1
    assert last.failed[0].endswith("not delivered within 24 hours, given up")
    assert go(DAY).given_up == 0
    assert (len(receiver.calls), go.log.outcomes()[-1]) == (sent, (0, "given_up", None))


def test_410_is_given_up_at_once(receiver):
    receiver.answers[:] = [410]
    go = Go(receiver.url, Log([notice()]))
    told = go()
    assert (len(told.failed), told.given_up) == (1, 1)
    assert go(DAY).failed == ()
    assert (len(receiver.calls), go.log.outcomes()) == (1, [(1, "given_up", 410)])


def test_a_redirect_is_not_followed_and_is_a_failure(receiver):
    receiver.answers[:] = [302, 307, 301]
    go = Go(receiver.url, Log([notice()]))
    assert go().failed[0].endswith("the receiver answered 301; redirects are not followed")
    assert {path for _, _, path in receiver.calls} == {"/hook?token=in-the-address"}


def test_who_does_not_answer_in_time_is_left_and_the_others_wait_for_the_next_go(receiver):
    receiver.answers[:] = ["hang"] * 3
    go = Go(receiver.url, Log([notice(), notice(customer="cus_b", raised_at=RAISED + MINUTE)]), timeout_seconds=0.25)
    found = go(MINUTE)
    assert found.failed == (f"cus_a, 90 % ({notice().id}): no answer within 0.25 seconds",)
    assert len(receiver.calls) == 3
    go.timeout_seconds = 5.0
    assert go(MINUTE).delivered == 1
    assert receiver.ids()[-1] == notice(customer="cus_b").id


def test_a_receiver_that_is_not_there_is_said_without_its_address(caplog):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    go = Go(f"http://127.0.0.1:{port}/hook?token=in-the-address", Log([notice()]))
    found = go()
    assert found.failed[0].endswith("it could not be reached")
    told = [*found.failed, *(one.error for one in go.log.made), caplog.text]
    assert not any("in-the-address" in text or SECRET in text for text in told)


def test_a_message_the_receiver_refuses_does_not_hold_up_the_others(receiver):
    receiver.answers[:] = [400, 400, 400]
    go = Go(receiver.url, Log([notice(), notice(customer="cus_b", raised_at=RAISED + MINUTE)]))
    found = go(MINUTE)
    assert (found.delivered, len(found.failed)) == (1, 1)


def test_a_process_that_dies_after_sending_sends_the_same_again(receiver):
    go = Go(receiver.url, Log([notice()], dies_when_writing=True))
    with pytest.raises(KeyboardInterrupt):
        go()
    go.log.dies_when_writing = False
    assert go(MINUTE).delivered == 1
    first, second = receiver.calls
    assert first[0]["webhook-id"] == second[0]["webhook-id"]
    assert first[1] == second[1]


def test_the_check_that_the_documentation_shows_receivers_accepts_ours_and_nothing_else(receiver):
    text = (Path(__file__).parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")
    shown = text.split("```python\n")[1].split("```")[0]
    names: dict = {}
    exec(compile(shown, "docs/limits.md", "exec"), names)  # noqa: S102 - our own documentation
    names["time"] = SimpleNamespace(time=clock.seconds)
    go = Go(receiver.url, Log([notice(raised_at=clock.now())]), now=clock.now())
    assert go().delivered == 1
    ((headers, body, _),) = receiver.calls
    assert names["is_ours"](SECRET, headers, body)
    assert not names["is_ours"]("another secret of enough characters", headers, body)
    assert not names["is_ours"](SECRET, headers, body.replace(b"cus_a", b"cus_b"))
    assert not names["is_ours"](SECRET, {**headers, "webhook-timestamp": "1"}, body)
