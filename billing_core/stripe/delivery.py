"""Repeats a call that may cost money twice until its outcome is known.

The rules stand in the Stripe notes, sections 1.3 to 1.5 and 9. A doubtful try (timeout, 5xx, broken answer,
conflict) is repeated with the same bytes under the same idempotency key; what stays in doubt ends `UNKNOWN`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto

from billing_core.runtime.pacing import Pace
from billing_core.stripe.answer import StripeResponse
from billing_core.stripe.limits import RetryLimits
from billing_core.stripe.model import OutcomeKind
from billing_core.stripe.run import SendRun
from billing_core.stripe.wire import NoResponse

DUPLICATE_CODE = "duplicate_meter_event"
DUPLICATE_WORDS = "already exists with identifier"
"""v1 names no code for a duplicate; langfuse met this message in production (notes, section 1.5)."""

LOCAL_LIMITS = frozenset({"endpoint-concurrency", "resource-specific", None})
"""Rate limits that concern one customer or object; every other one concerns all threads."""

METER_GONE = "archived_meter"
"""Code of an outcome, and of an error report: Stripe has no active meter of the event's name at present."""

METER_GONE_SAYS = "Stripe has no active meter of the event name"

METER_GONE_CODES = frozenset({METER_GONE, "no_meter"})
METER_GONE_WORDS = re.compile(
    r"no (active )?meter|meter[^.]*(archived|inactive|deactivated|not active)"
    r"|(archived|inactive|deactivated)[^.]*meter",
    re.IGNORECASE,
)
"""How Stripe words it at once is not documented (notes, section 1.5)."""

UNDECIDED = frozenset({408, 409, 424, 425})
"""Client errors that say nothing final. The notes call a conflict "not processed"; it can be the first try at work."""

IDEMPOTENCY_ERROR = "idempotency_error"
"""Stripe knows the key with another content: whatever arrived, it was not this."""


class AccountRefused(Exception):
    """Stripe does not allow the account this call at all; the text says why."""


class Verdict(Enum):
    """What one response of Stripe means for what was sent."""

    TAKEN = auto()
    DUPLICATE = auto()
    REJECTED = auto()
    LIMITED = auto()
    BARRED = auto()
    METER_GONE = auto()
    DOUBTFUL = auto()


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """The outcome of all tries of one call. `status` is that of the last answer, `None` if there was none."""

    kind: OutcomeKind
    tries: int
    reason: str | None = None
    code: str | None = None
    request_id: str | None = None
    status: int | None = None
    after_doubt: bool = False
    """Whether an earlier try of this call may have arrived."""


def key_of_try(key: str, generation: int) -> str:
    """The idempotency key after `generation - 1` stored failures: `abc`, `abc#2`, `abc#3`."""
    return key if generation == 1 else f"{key}#{generation}"


def verdict_of(answer: StripeResponse, is_receipt: Callable[[StripeResponse], bool]) -> Verdict:
    """What a response means for what was sent; `is_receipt` tells whether a 2xx really is about it."""
    if answer.is_success:
        return Verdict.TAKEN if is_receipt(answer) else Verdict.DOUBTFUL
    if answer.is_rate_limit:
        return Verdict.LIMITED
    if not answer.error or not 400 <= answer.status < 500:
        return Verdict.DOUBTFUL
    if answer.status in {401, 403}:
        return Verdict.BARRED
    if answer.of_error("code") == DUPLICATE_CODE or DUPLICATE_WORDS in answer.message.lower():
        return Verdict.DUPLICATE
    if answer.status in UNDECIDED:
        return Verdict.DOUBTFUL
    is_gone = answer.of_error("code") in METER_GONE_CODES or METER_GONE_WORDS.search(answer.message)
    return Verdict.METER_GONE if is_gone else Verdict.REJECTED


def try_until_known(
    call: Callable[[int], StripeResponse],
    is_receipt: Callable[[StripeResponse], bool],
    *,
    run: SendRun,
    pace: Pace,
    patience: RetryLimits,
) -> CallOutcome:
    """Call Stripe until the outcome is known or the limits are reached; `call` gets its key's generation."""
    return _Tries(call, is_receipt, run, pace, patience).end()


class _Tries:
    """The tries of one call and what is known after each."""

    def __init__(
        self,
        call: Callable[[int], StripeResponse],
        is_receipt: Callable[[StripeResponse], bool],
        run: SendRun,
        pace: Pace,
        patience: RetryLimits,
    ) -> None:
        self._call, self._is_receipt = call, is_receipt
        self._run, self._pace, self._patience = run, pace, patience
        self._tries = self._failures = self._limits = 0
        self._limited_seconds = 0.0
        self._generation = 1
        self._is_in_doubt = False

    def end(self) -> CallOutcome:
        while True:
            if not self._pace.wait(self._run.over):
                return self._open_end(f"{'given up' if self._tries else 'not tried'}: {self._run.reason}")
            self._tries += 1
            try:
                answer = self._call(self._generation)
            except NoResponse as silence:
                ending = self._after_silence(silence)
            except AccountRefused as barred:
                ending = self._barred(str(barred))
            else:
                ending = self._after(answer)
            if ending is not None:
                return ending

    def _after(self, answer: StripeResponse) -> CallOutcome | None:
        """The end, or `None` to try again."""
        verdict = verdict_of(answer, self._is_receipt)
        if verdict is Verdict.LIMITED:
            return self._limited(answer)
        if verdict is Verdict.DOUBTFUL:
            self._is_in_doubt = True
            if answer.is_replay and answer.status >= 500:
                # This key will answer with its stored failure for ever; the identifier still guards the money.
                self._generation += 1
            return self._failed(f"{answer.message} (HTTP {answer.status})", answer)
        if verdict is Verdict.BARRED:
            return self._barred(f"Stripe refuses the key: {answer.message} (HTTP {answer.status})", answer)
        if verdict is Verdict.METER_GONE:
            reason = f"{METER_GONE_SAYS}: {answer.message} (HTTP {answer.status})"
            self._run.halt(reason)
            return replace(self._open_end(reason, answer), code=METER_GONE)
        self._run.answered()
        if verdict is Verdict.TAKEN:
            return self._ending(OutcomeKind.ACCEPTED, None, answer)
        if verdict is Verdict.DUPLICATE:
            return self._ending(OutcomeKind.DUPLICATE, "Stripe has it already", answer)
        if self._is_in_doubt and answer.of_error("type") != IDEMPOTENCY_ERROR:
            # Refused now, whatever the reason: that says nothing about the try before.
            reason = f"{_rejection(answer)}; an earlier try got no clear answer and may have arrived"
            return self._ending(OutcomeKind.UNKNOWN, reason, answer)
        return self._ending(OutcomeKind.REJECTED, _rejection(answer), answer)

    def _after_silence(self, silence: NoResponse) -> CallOutcome | None:
        self._is_in_doubt = self._is_in_doubt or silence.was_sent
        return self._failed(str(silence), None)

    def _failed(self, reason: str, answer: StripeResponse | None) -> CallOutcome | None:
        self._failures += 1
        if self._failures >= self._patience.send_tries:
            self._run.unanswered(reason)
            return self._open_end(f"Stripe: {reason}", answer)
        asked = (answer.retry_after_seconds if answer else None) or 0.0
        wait = max(min(asked, self._patience.longest_backoff_seconds), self._patience.backoff_seconds(self._failures))
        self._run.over.wait(wait)
        return None

    def _limited(self, answer: StripeResponse) -> CallOutcome | None:
        self._limits += 1
        # A Retry-After of 0 would be tried again without end.
        wait = answer.retry_after_seconds or self._patience.backoff_seconds(self._limits)
        self._limited_seconds += wait
        is_local = answer.limit_reason in LOCAL_LIMITS
        if self._limited_seconds > self._patience.limited_send_seconds:
            reason = f"Stripe limits the rate ({answer.limit_reason or 'no reason given'}): {answer.message}"
            if is_local:
                self._run.unanswered(reason)
            else:
                self._run.halt(reason)
            return self._open_end(reason, answer)
        if is_local:
            self._run.over.wait(wait)
        else:
            self._pace.pause(wait)
        return None

    def _barred(self, reason: str, answer: StripeResponse | None = None) -> CallOutcome:
        self._run.halt(reason)
        return self._open_end(reason, answer)

    def _open_end(self, reason: str, answer: StripeResponse | None = None) -> CallOutcome:
        """Nothing definite: `REFUSED` only if no try can have been processed."""
        kind = OutcomeKind.UNKNOWN if self._is_in_doubt else OutcomeKind.REFUSED
        return self._ending(kind, reason, answer)

    def _ending(self, kind: OutcomeKind, reason: str | None, answer: StripeResponse | None) -> CallOutcome:
        if answer is None:
            return CallOutcome(kind, self._tries, reason, after_doubt=self._is_in_doubt)
        is_drift = answer.of_error("type") == IDEMPOTENCY_ERROR
        code = IDEMPOTENCY_ERROR if is_drift else answer.of_error("code")
        return CallOutcome(kind, self._tries, reason, code, answer.request_id, answer.status, self._is_in_doubt)


def _rejection(answer: StripeResponse) -> str:
    if answer.of_error("type") == IDEMPOTENCY_ERROR:
        return (
            "ALARM: other bytes were sent before under this idempotency key, so the stored meter event is not the one "
            f"that was frozen; do not resend, compare both ({answer.message})"
        )
    details = [f"HTTP {answer.status}", answer.of_error("code"), answer.of_error("param")]
    return f"{answer.message} ({', '.join(detail for detail in details if detail)})"
