"""Idempotency keys: the first answer to a v1 POST is kept and given again, a stored 500 included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from billing_core.sandbox.stripe.wire import invalid

KEPT_MILLISECONDS = 24 * 3600 * 1000
LONGEST_KEY = 255


@dataclass(frozen=True, slots=True)
class SentResponse:
    """What went out."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Asked:
    path: str
    body: bytes
    at: int
    answer: SentResponse | None = None


class IdempotentResponses:
    """Answers by Idempotency-Key, for 24 hours."""

    def __init__(self) -> None:
        self._asked: dict[str, _Asked] = {}

    def begin(self, key: str, path: str, body: bytes, now: int) -> SentResponse | None:
        """The kept answer, or `None`: then the caller works, and ends with `keep` or `forget`.

        Raises Refusal: 400 if the key was used for something else, 409 while the first request is still worked on.
        """
        if len(key) > LONGEST_KEY:
            raise invalid(f"Idempotency keys may have at most {LONGEST_KEY} characters.", kind="idempotency_error")
        self._prune(now)
        known = self._asked.get(key)
        if known is None:
            self._asked[key] = _Asked(path, body, now)
            return None
        if known.path != path or not _same(known.body, body):
            raise invalid(
                "Keys for idempotent requests can only be used with the same parameters they were first used with. "
                f"Try using a key other than '{key}' if you meant to execute a different request.",
                kind="idempotency_error",
            )
        if known.answer is None:
            message = f"There is currently another in-progress request using the Idempotency Key '{key}'."
            raise invalid(message, code="idempotency_key_in_use", status=409, kind="idempotency_error")
        return known.answer

    def keep(self, key: str, answer: SentResponse) -> None:
        """End with an answer that is given again."""
        self._asked[key].answer = answer

    def forget(self, key: str) -> None:
        """End without one: refusals and conflicts may be tried again."""
        self._asked.pop(key, None)

    def clear(self) -> None:
        """Forget all."""
        self._asked.clear()

    def _prune(self, now: int) -> None:
        while self._asked:
            oldest = next(iter(self._asked))
            if now - self._asked[oldest].at < KEPT_MILLISECONDS:
                return
            del self._asked[oldest]


def _same(one: bytes, other: bytes) -> bool:
    """Whether two bodies say the same; form fields may come in another order."""
    if one == other or b"{" in (one[:1], other[:1]):
        return one == other
    return sorted(parse_qsl(one.decode())) == sorted(parse_qsl(other.decode()))
