"""Delivers notices to a webhook, signed by the Standard Webhooks scheme (standardwebhooks.com).

At least once: a process that dies between sending and writing down sends again, under the same `webhook-id`.
Nothing of an answer but its status is read.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from billing_core.ledger.notices import DeliveryOutcome, DeliveryTry, Notice, NoticeStore
from billing_core.organizations.notices import GIVE_UP_AFTER, TRIES_PER_GO, due_at, facts_of
from billing_core.runtime.clock import Clock
from billing_core.settings import Settings, signing_key
from billing_core.types import utc_text

if TYPE_CHECKING:
    import httpx

_log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 5.0
"""To connect, to send and to answer, each."""

PAUSES_SECONDS = (0.5, 2.0)
"""Between the tries of one go."""

GONE = 410
"""The receiver wants no more of this: trying again is no use."""

TOO_MANY = 429
SERVER_FAULT = 500


def signature_of(key: bytes, notice_id: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` header of a message: version 1, HMAC-SHA256 over id, Unix time and body."""
    content = f"{notice_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def body_of(notice: Notice, organization_name: str | None) -> bytes:
    """The JSON document of a notice that is sent to the webhook; exact numbers as text."""
    document = {
        "type": "limit.reached",
        "timestamp": utc_text(notice.raised_at),
        "data": facts_of(notice, organization_name),
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class WebhookResponse:
    """The webhook's response to one message: its HTTP status, or why there was none."""

    status: int | None
    error: str | None = None

    @property
    def is_delivered(self) -> bool:
        """Whether the webhook took the message: status 2xx, and nothing else."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def is_unavailable(self) -> bool:
        """Whether trying the next notice now is useless: no response, a broken server, or too many calls."""
        return self.status is None or self.status == TOO_MANY or self.status >= SERVER_FAULT

    @property
    def text(self) -> str:
        """The response in words; never the address, whose path may be a secret."""
        if self.status is None:
            return self.error or "no answer"
        if 300 <= self.status < 400:
            return f"the receiver answered {self.status}; redirects are not followed"
        return f"the receiver answered {self.status}"


class Webhook:
    """The webhook that notices are sent to; a signed message follows no redirect."""

    def __init__(self, url: str, key: bytes, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._url = url
        self._key = key
        self._timeout = timeout_seconds

    @classmethod
    def from_settings(cls, settings: Settings) -> Webhook | None:
        """The webhook of the settings; `None` without one."""
        if settings.webhook_url is None or settings.webhook_secret is None:
            return None
        return cls(settings.webhook_url.get_secret_value(), signing_key(settings.webhook_secret.get_secret_value()))

    def post(self, notice_id: str, body: bytes, at: datetime) -> WebhookResponse:
        """Send one message to the webhook, without a retry."""
        import httpx  # here: only this needs it

        timestamp = int(at.timestamp())
        headers = {
            "content-type": "application/json",
            "user-agent": "billing-dashboard",
            "webhook-id": notice_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature_of(self._key, notice_id, timestamp, body),
        }
        try:
            with (
                httpx.Client(timeout=self._timeout, follow_redirects=False) as http,
                http.stream("POST", self._url, content=body, headers=headers) as response,
            ):
                return WebhookResponse(response.status_code)
        except httpx.HTTPError as error:
            return WebhookResponse(None, self._why(error))

    def _why(self, error: httpx.HTTPError) -> str:
        """In our own words: the library's may name the address."""
        import httpx

        if isinstance(error, httpx.TimeoutException):
            return f"no answer within {self._timeout:g} seconds"
        if isinstance(error, httpx.ConnectError):
            return "its certificate is not trusted" if "CERTIFICATE" in str(error) else "it could not be reached"
        return "the connection broke before there was an answer"


@dataclass(frozen=True, slots=True)
class Delivered:
    """The result of a round of deliveries: notices that arrived; those that did not, with why; which for good."""

    delivered: int = 0
    failed: tuple[str, ...] = ()
    given_up: int = 0


def deliver(
    log: NoticeStore,
    webhook: Webhook,
    names: Mapping[str, str],
    clock: Clock,
    *,
    pause: Callable[[float], None] = time.sleep,
) -> Delivered:
    """Deliver the notices that are due: up to three tries each in this round, untried ones first.

    Ends early when nobody seems to be there; the others wait for the next go. What is older than 24 hours is given up.
    """
    waiting = log.undelivered()
    tries = log.tries([notice.id for notice in waiting])
    delivered, given_up, failed = 0, 0, list[str]()
    for notice in sorted(waiting, key=lambda one: (len(tries.get(one.id, ())), one.raised_at, one.id)):
        made = tries.get(notice.id, [])
        if clock() - notice.raised_at >= GIVE_UP_AFTER:
            why = "not delivered within 24 hours"
            log.record(DeliveryTry(notice.id, 0, clock(), DeliveryOutcome.GIVEN_UP, error=why))
            given_up += 1
            failed.append(f"{_named(notice)}: {why}, given up")
            continue
        due = due_at(notice.raised_at, made)
        if due is None or due > clock():
            continue
        body = body_of(notice, names.get(notice.organization_id or ""))
        answer = _go(log, webhook, notice.id, body, len(made), clock, pause)
        if answer.is_delivered:
            delivered += 1
            continue
        if answer.status == GONE:
            given_up += 1
        failed.append(f"{_named(notice)}: {answer.text}{', given up' if answer.status == GONE else ''}")
        _log.warning("webhook: the notice %s was not delivered: %s", notice.id, answer.text)
        if answer.is_unavailable:
            break
    return Delivered(delivered, tuple(failed), given_up)


def _named(notice: Notice) -> str:
    return f"{notice.customer_id}, {notice.threshold} % ({notice.id})"


def _go(
    log: NoticeStore,
    webhook: Webhook,
    notice_id: str,
    body: bytes,
    made: int,
    clock: Clock,
    pause: Callable[[float], None],
) -> WebhookResponse:
    """The tries of one notice in one go; each is written down as soon as it is over."""
    answer = WebhookResponse(None)
    for number in range(1, TRIES_PER_GO + 1):
        if number > 1:
            pause(PAUSES_SECONDS[number - 2])
        at = clock()
        answer = webhook.post(notice_id, body, at)
        outcome = DeliveryOutcome.FAILED
        if answer.is_delivered:
            outcome = DeliveryOutcome.DELIVERED
        elif answer.status == GONE:
            outcome = DeliveryOutcome.GIVEN_UP
        error = None if answer.is_delivered else answer.text
        log.record(DeliveryTry(notice_id, made + number, at, outcome, answer.status, error))
        if outcome is not DeliveryOutcome.FAILED:
            break
    return answer
