"""Delivers messages (notices, alerts, summaries) to one address after the other's rules: tries, pauses, giving up.

At least once: a process that dies between sending and writing it down sends again, under the same id.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from billing_core.ledger.deliveries import DeliveryLog, DeliveryOutcome, DeliveryTry
from billing_core.notify.state import GIVE_UP_AFTER, TRIES_PER_GO, due_at
from billing_core.runtime.clock import Clock
from billing_core.runtime.notify_addresses import NotifyAddress

_log = logging.getLogger(__name__)

PAUSES_SECONDS = (0.5, 2.0)
"""Between the tries of one go."""

GONE = 410
"""The receiver wants no more of this: trying again is no use."""

TOO_MANY = 429
SERVER_FAULT = 500


@dataclass(frozen=True, slots=True)
class Message:
    """Something to tell people.

    id: The same for every try: what a receiver has handled already, it may skip.
    named: What a log calls it.
    title, text: For people; `html` says the same as `text` where it can be shown.
    document: For programs, JSON-ready: what the signed webhook sends.
    """

    id: str
    raised_at: datetime
    named: str
    title: str
    text: str
    document: Mapping[str, Any]
    html: str | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """A receiver's response to one message: whether it took it, its HTTP status if there was one, or why not."""

    status: int | None
    error: str | None = None
    is_delivered: bool = False

    @property
    def is_unavailable(self) -> bool:
        """Whether trying the next message now is useless: no response, a broken server, or too many calls."""
        return not self.is_delivered and (self.status is None or self.status == TOO_MANY or self.status >= SERVER_FAULT)

    @property
    def text(self) -> str:
        """The response in words; never the address, which may be a secret."""
        if self.error is not None or self.status is None:
            return self.error or "no answer"
        if 300 <= self.status < 400:
            return f"the receiver answered {self.status}; redirects are not followed"
        return f"the receiver answered {self.status}"


class Receiver(Protocol):
    """Where messages go: the signed webhook, or an address of Apprise."""

    @property
    def key(self) -> str | None:
        """What stands for it in the delivery log; `None`: the signed webhook."""

    @property
    def label(self) -> str | None:
        """What screens call it; `None`: the signed webhook."""

    def send(self, message: Message, at: datetime) -> Response:
        """Send a message, without a retry, within bounded time."""


@dataclass(frozen=True, slots=True)
class AppriseReceiver:
    """An address of BILLING_NOTIFY_URLS as a receiver."""

    address: NotifyAddress

    @property
    def key(self) -> str:
        """See `Receiver`."""
        return self.address.key

    @property
    def label(self) -> str:
        """See `Receiver`."""
        return self.address.label

    def send(self, message: Message, at: datetime) -> Response:
        """See `Receiver`."""
        del at
        sent = self.address.send(message.title, message.text, message.html)
        return Response(sent.status, sent.error, sent.is_delivered)


@dataclass(frozen=True, slots=True)
class Delivered:
    """The result of a round of deliveries: messages that arrived; those that did not, with why; which for good."""

    delivered: int = 0
    failed: tuple[str, ...] = ()
    given_up: int = 0

    def __add__(self, other: Delivered) -> Delivered:
        return Delivered(self.delivered + other.delivered, self.failed + other.failed, self.given_up + other.given_up)


def deliver(
    log: DeliveryLog,
    receiver: Receiver,
    waiting: Sequence[Message],
    clock: Clock,
    *,
    pause: Callable[[float], None] = time.sleep,
) -> Delivered:
    """Deliver the messages that are due to one receiver: up to three tries each in this round, untried ones first.

    Ends early when nobody seems to be there; the others wait for the next go. What is older than 24 hours is given up.
    """
    made = {
        id_: [one for one in tries if one.address == receiver.key]
        for id_, tries in log.tries([message.id for message in waiting]).items()
    }
    delivered, given_up, failed = 0, 0, list[str]()
    whom = "" if receiver.label is None else f"{receiver.label}: "
    for message in sorted(waiting, key=lambda one: (len(made.get(one.id, ())), one.raised_at, one.id)):
        tries = made.get(message.id, [])
        if clock() - message.raised_at >= GIVE_UP_AFTER:
            why = "not delivered within 24 hours"
            log.record(DeliveryTry(message.id, 0, clock(), DeliveryOutcome.GIVEN_UP, error=why, address=receiver.key))
            given_up += 1
            failed.append(f"{message.named}: {whom}{why}, given up")
            continue
        due = due_at(message.raised_at, tries)
        if due is None or due > clock():
            continue
        response = _go(log, receiver, message, len(tries), clock, pause)
        if response.is_delivered:
            delivered += 1
            continue
        if response.status == GONE:
            given_up += 1
        failed.append(f"{message.named}: {whom}{response.text}{', given up' if response.status == GONE else ''}")
        _log.warning("%s was not delivered: %s%s", message.id, whom, response.text)
        if response.is_unavailable:
            break
    return Delivered(delivered, tuple(failed), given_up)


def _go(
    log: DeliveryLog, receiver: Receiver, message: Message, made: int, clock: Clock, pause: Callable[[float], None]
) -> Response:
    """The tries of one message in one go; each is written down as soon as it is over."""
    response = Response(None)
    for number in range(1, TRIES_PER_GO + 1):
        if number > 1:
            pause(PAUSES_SECONDS[number - 2])
        at = clock()
        response = receiver.send(message, at)
        outcome = DeliveryOutcome.FAILED
        if response.is_delivered:
            outcome = DeliveryOutcome.DELIVERED
        elif response.status == GONE:
            outcome = DeliveryOutcome.GIVEN_UP
        error = None if response.is_delivered else response.text
        log.record(DeliveryTry(message.id, made + number, at, outcome, response.status, error, receiver.key))
        if outcome is not DeliveryOutcome.FAILED:
            break
    return response
