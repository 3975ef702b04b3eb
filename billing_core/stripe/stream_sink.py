"""Sends meter events in batches through the v2 stream: for volume. Stripe validates them later (notes, section 2)."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from billing_core.stripe.answer import StripeResponse
from billing_core.stripe.bodies import v2_body
from billing_core.stripe.delivery import AccountRefused, key_of_try, try_until_known
from billing_core.stripe.limits import RetryLimits
from billing_core.stripe.model import MeterEvent, OutcomeKind, SendOutcome
from billing_core.stripe.run import SendRun
from billing_core.stripe.threaded_sink import ThreadedSink
from billing_core.stripe.wire import Connection, NoResponse

PATH = "/v2/billing/meter_event_stream"
SESSION_PATH = "/v2/billing/meter_event_session"
MOST_EVENTS = 100
BATCHES_IN_FLIGHT = 8

LIFETIME = timedelta(minutes=15)
"""Of a session, where its answer does not say."""

RENEWED_BEFORE_END = timedelta(minutes=3)

EXPIRED = "temporary_session_expired"

Batch = tuple[MeterEvent, ...]


class StreamSink(ThreadedSink[Batch]):
    """Sends several batches of meter events at a time, each under a short-lived token instead of the key.

    Stripe answers for a batch as a whole: a refused one is halved until the bad event is alone. Rejections of
    single events arrive later, as error reports; duplicates are dropped silently.

    clock: Monotonic seconds; the token's age is measured with it, so a wrong wall clock does no harm.
    """

    def __init__(
        self,
        connection: Connection,
        per_second: float | None,
        *,
        patience: RetryLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(connection, per_second, patience, BATCHES_IN_FLIGHT)
        self._sessions = _Sessions(connection, clock)

    def request_of(self, event: MeterEvent) -> dict[str, Any]:
        """The exact request for a batch of one meter event."""
        return _request_of((event,))

    def _lanes(self, events: Sequence[MeterEvent]) -> Sequence[deque[Batch]]:
        batches = (tuple(events[first : first + MOST_EVENTS]) for first in range(0, len(events), MOST_EVENTS))
        return [deque([batch]) for batch in batches]

    def _deliver(self, run: SendRun, parcel: Batch) -> Sequence[SendOutcome]:
        request = _request_of(parcel)

        def post(generation: int, token: str) -> StripeResponse:
            key = key_of_try(request["idempotency_key"], generation)
            return self._connection.call(
                "post", request["path"], request["body"], host="meter_events", idempotency_key=key, token=token
            )

        def call(generation: int) -> StripeResponse:
            token = self._sessions.token()
            answer = post(generation, token)
            if answer.of_error("type") == EXPIRED:
                answer = post(generation, self._sessions.token(instead_of=token))
                if answer.of_error("type") == EXPIRED:
                    raise AccountRefused(f"Stripe calls a new stream session expired: {answer.message}")
            if answer.status == 404 and answer.error:
                raise AccountRefused(f"Stripe does not offer the stream to this account: {answer.message} (HTTP 404)")
            return answer

        ending = try_until_known(call, _is_receipt, run=run, pace=self._pace, patience=self._patience)
        if len(parcel) > 1 and ending.kind in {OutcomeKind.REJECTED, OutcomeKind.DUPLICATE}:
            middle = len(parcel) // 2
            return [*self._deliver(run, parcel[:middle]), *self._deliver(run, parcel[middle:])]
        return [self._outcome(event, ending) for event in parcel]


class _Sessions:
    """The current token, renewed before it expires."""

    def __init__(self, connection: Connection, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._clock = clock
        self._lock = threading.Lock()
        self._current: _Session | None = None

    def token(self, instead_of: str | None = None) -> str:
        """A token that lasts; a new one if the current one is old or is the one Stripe no longer takes.

        Raises NoResponse: no session could be had now; no meter event was sent. AccountRefused: this key may
        not open one.
        """
        with self._lock:
            current = self._current
            if current is None or self._clock() >= current.renew_at or current.token == instead_of:
                asked_at = self._clock()
                current = self._current = self._open(asked_at)
            return current.token

    def _open(self, asked_at: float) -> _Session:
        try:
            answer = self._connection.call("post", SESSION_PATH, {})
        except NoResponse as silence:
            raise NoResponse(f"no stream session: {silence}", was_sent=False) from None
        if not answer.is_success:
            text = f"no stream session: {answer.message} (HTTP {answer.status})"
            if answer.error and 400 <= answer.status < 500 and answer.status != 409 and not answer.is_rate_limit:
                raise AccountRefused(text)
            raise NoResponse(text, was_sent=False)
        found = answer.document or {}
        token = found.get("authentication_token")
        if not isinstance(token, str) or not token:
            raise NoResponse(f"no stream session: {answer.message}", was_sent=False)
        lasts = _lifetime(found.get("created"), found.get("expires_at"))
        return _Session(token, asked_at + (lasts - RENEWED_BEFORE_END).total_seconds())


@dataclass(frozen=True, slots=True)
class _Session:
    token: str
    renew_at: float


def _lifetime(created: object, expires_at: object) -> timedelta:
    """From Stripe's own two times, so that no clock of ours takes part."""
    try:
        found = datetime.fromisoformat(str(expires_at)) - datetime.fromisoformat(str(created))
    except (ValueError, TypeError):
        return LIFETIME
    return found if RENEWED_BEFORE_END < found <= LIFETIME else LIFETIME


def _request_of(batch: Batch) -> dict[str, Any]:
    names = "\n".join(event.identifier for event in batch)
    return {
        "method": "POST",
        "path": PATH,
        "idempotency_key": hashlib.sha256(names.encode()).hexdigest(),
        "body": {"events": [v2_body(event) for event in batch]},
    }


def _is_receipt(answer: StripeResponse) -> bool:
    """The stream answers with nothing or an empty object."""
    return not answer.body.strip() or (answer.document is not None and "error" not in answer.document)
