"""HTTP to Langfuse: authentication, the shared rate limit, retries, and what each status code means.

Bulk reading uses plain httpx because the SDK's models are 30 to 50 times slower and one odd row kills a page.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from billing_core.errors import UpstreamError
from billing_core.langfuse.limiter import ReadStopped, shared_pace
from billing_core.langfuse.pieces import shown
from billing_core.runtime.bounded_http import (
    ANSWER_BYTES,
    ANSWER_SECONDS,
    AnswerTooLarge,
    AnswerTooSlow,
    bounded_client,
)
from billing_core.runtime.clock import Clock, now

Decoded = TypeVar("Decoded")

TRIES = 5
"""How often one request is tried before a passing fault counts as an outage."""

SLOW_TRIES = 2
"""How often a question is tried whose answer did not end in time: each try takes that whole time."""

LARGE_BYTES = 4 * 1024 * 1024
"""Who received more than this when the time was over should ask for less; with less, the server only drips."""

FIRST_BACKOFF_SECONDS = 0.4
LONGEST_BACKOFF_SECONDS = 30.0

LONGEST_PAUSE_SECONDS = 3600
"""A rate limit that asks for more is a daily quota: a person should decide when to come back."""

FARTHEST_SECONDS = 10 * 365 * 24 * 3600.0
"""The end of what is said about when to come back."""

MOST_PAUSES = 60
"""A request that is still refused after so many obeyed pauses will not get through."""

RATE_LIMIT_DEFAULT_SECONDS = 30.0
"""Pause for a 429 that names no time; Langfuse's fixed windows are a minute long."""

HEAVY = frozenset({413, 414, 422, 431, 504, 524})
NOT_OFFERED = frozenset({404, 410, 501})
PASSING = frozenset({408, 409, 425, 500, 502, 503, 520, 521, 522, 523, 529})


UNREADABLE = (ValueError, ArithmeticError, RecursionError, TypeError, LookupError, MemoryError)
"""What decoders raise for bytes nobody thought of; `BrokenBody` is what they raise for those somebody did."""


class QuestionTooLarge(Exception):
    """A request to Langfuse asked for more than the server could answer in time; ask for less."""


class NotOffered(Exception):
    """The Langfuse server does not have this route, or not this thing (404, 410, 501)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Unanswered(UpstreamError):
    """A temporary fault of Langfuse outlasted the tries allowed.

    status: The last answer's, `None` if there was none.
    """

    def __init__(self, status: int | None, text: str) -> None:
        super().__init__(text)
        self.status = status


class BrokenBody(Exception):
    """A response of Langfuse is not the JSON it should be; a cut connection looks the same."""


class _Fault(NamedTuple):
    """Why a question is asked again: at once after the pause that was asked for, else as a failed try."""

    text: str
    status: int | None
    wait: float = 0.0
    pause: float | None = None
    is_slow: bool = False


class LangfuseClient:
    """A connection to one project's public API, safe to share between threads.

    host: Base URL without credentials, a path is possible.
    timeout_seconds: For connecting and for each wait on the answer.
    first_backoff_seconds: The pause before the second try; it doubles from there, with jitter.
    answer_seconds, answer_bytes: What a whole answer may take.
    clock: Aware now, for a `Retry-After` that names a time.
    """

    def __init__(
        self,
        host: str,
        public_key: str,
        secret_key: SecretStr,
        *,
        timeout_seconds: float = 60.0,
        connections: int = 8,
        first_backoff_seconds: float = FIRST_BACKOFF_SECONDS,
        clock: Clock = now,
        answer_seconds: float = ANSWER_SECONDS,
        answer_bytes: int = ANSWER_BYTES,
    ) -> None:
        self.clock = clock
        self.host = host.rstrip("/")
        self.name = urlsplit(self.host).netloc.rpartition("@")[2]
        self.limiter = shared_pace(self.name, public_key)
        self._secret_key = secret_key
        self._first_backoff_seconds = first_backoff_seconds
        self._auth = httpx.BasicAuth(public_key, secret_key.get_secret_value())
        self._http = bounded_client(
            answer_seconds=answer_seconds,
            answer_bytes=answer_bytes,
            base_url=self.host + "/api/public/",
            timeout=timeout_seconds,
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            headers={"Accept": "application/json", "User-Agent": "billing-dashboard"},
        )

    def close(self) -> None:
        """Close the connections; a later call fails."""
        self._http.close()

    def get(
        self,
        path: str,
        params: Mapping[str, str],
        decode: Callable[[bytes], Decoded],
        *,
        stop: threading.Event | None = None,
        authenticated: bool = True,
        tries: int = TRIES,
    ) -> Decoded:
        """The decoded response to a GET, repeated until there is one or a reason to give up; `decode` reads the body of
        a 200.

        Raises QuestionTooLarge: ask for less (413, 414, 422, 500 "Timeout error", 504, 524). NotOffered: 404, 410 or
        501. ReadStopped: `stop` was set while waiting. UpstreamError: everything else, in a line that says what to do.
        """
        stop = stop or threading.Event()
        failures = pauses = slow = 0
        while True:
            if not self.limiter.wait(stop):
                raise ReadStopped
            fault = self._ask(path, params, decode, authenticated)
            if not isinstance(fault, _Fault):
                return fault
            if fault.pause is not None:
                pauses += 1
                if pauses > MOST_PAUSES:
                    raise UpstreamError(
                        f"{self._where(path)} still refuses after {pauses} pauses for its rate limit; "
                        "try again later or with fewer parallel readers"
                    )
                self.limiter.pause(fault.pause)
                continue
            failures += 1
            slow += fault.is_slow
            if failures >= tries or slow >= SLOW_TRIES:
                raise Unanswered(
                    fault.status,
                    f"{self._where(path)} {fault.text}, tried {failures} times; check LANGFUSE_HOST, the network and "
                    "the server's health, then run this again: it continues where it stopped",
                )
            if stop.wait(max(self._backoff_seconds(failures), fault.wait)):
                raise ReadStopped

    def _ask(
        self, path: str, params: Mapping[str, str], decode: Callable[[bytes], Decoded], authenticated: bool
    ) -> Decoded | _Fault:
        """Ask once."""
        status: int | None = None
        try:
            response = self._http.get(path, params=params, auth=self._auth if authenticated else None)
            status = response.status_code
            return decode(response.content) if status == 200 else self._judge(path, response)
        except AnswerTooLarge as error:
            raise QuestionTooLarge(f"{self._where(path)} answered with {error}") from None
        except AnswerTooSlow as error:
            if error.received > LARGE_BYTES:
                raise QuestionTooLarge(f"{self._where(path)}: {error}") from None
            return _Fault(f"did not finish its answer ({error})", status, is_slow=True)
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            return _Fault(_describe(error), status)
        except BrokenBody as error:
            return _Fault(f"answered something that is not the expected JSON ({shown(error)})", status)
        except UNREADABLE as error:
            return _Fault(f"answered something that cannot be read ({type(error).__name__})", status)

    def _backoff_seconds(self, failures: int) -> float:
        longest: float = min(self._first_backoff_seconds * 2 ** (failures - 1), LONGEST_BACKOFF_SECONDS)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311  -- jitter, not a secret

    def _judge(self, path: str, response: httpx.Response) -> _Fault:
        """What to do with an answer other than 200: raise, ask again, or pause."""
        status = response.status_code
        message = self._message(response)
        if status == 429:
            return _Fault("", status, pause=self._pause_seconds(path, response))
        if status in HEAVY or (status == 500 and _is_timeout(message)):
            raise QuestionTooLarge(f"{self._where(path)} answered {status} ({message})")
        if status in NOT_OFFERED:
            raise NotOffered(status, f"{self._where(path)} answered {status} ({message})")
        if status in PASSING:
            wait = min(self._retry_after(response) or 0.0, LONGEST_BACKOFF_SECONDS)
            return _Fault(f"answered {status} ({message})", status, wait=wait)
        raise UpstreamError(f"{self._where(path)} answered {status} ({message}); {_advice(status, response)}")

    def _pause_seconds(self, path: str, response: httpx.Response) -> float:
        """How long a 429 asks everyone to wait. `Retry-After` is authoritative."""
        seconds = self._retry_after(response)
        if seconds is None:
            seconds = _number(_body(response).get("retryAfterSeconds"))
        if seconds is None:
            details = _body(response).get("details")
            seconds = _number(details.get("retryAfterSeconds")) if isinstance(details, dict) else None
        if seconds is None:
            seconds = RATE_LIMIT_DEFAULT_SECONDS
        if seconds > LONGEST_PAUSE_SECONDS:
            again = self.clock() + timedelta(seconds=min(seconds, FARTHEST_SECONDS))
            raise UpstreamError(
                f"{self._where(path)} answered 429: the quota of this organization is used up; "
                f"come back after {again:%Y-%m-%d %H:%M} UTC"
            )
        return max(seconds, 0.05)

    def _retry_after(self, response: httpx.Response) -> float | None:
        """Seconds, or the time until a date by the server's own clock where it tells it; `None` if neither is named."""
        text = response.headers.get("Retry-After", "")
        seconds = _number(text)
        if seconds is not None:
            return seconds
        until = _date(text)
        if until is None:
            return None
        answered = _date(response.headers.get("Date", "")) or self.clock()
        return max((until - answered).total_seconds(), 0.0)

    def _where(self, path: str) -> str:
        return f"Langfuse at {self.name}: GET {urlsplit(self.host).path}/api/public/{path}"

    def _message(self, response: httpx.Response) -> str:
        """The server's own words on one line; never the secret key, should they echo it."""
        body = _body(response)
        parts = [str(body[key]) for key in ("message", "error") if isinstance(body.get(key), str)]
        text = " ".join(" ".join(parts).split()) or response.reason_phrase or "no reason given"
        return shown(text.replace(self._secret_key.get_secret_value(), "***"), 300)


def _body(response: httpx.Response) -> dict[str, object]:
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _date(text: str) -> datetime | None:
    """An HTTP date; they are in GMT, whether they say so or not."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _is_timeout(message: str) -> bool:
    """ClickHouse timeouts of servers that do not know 422 yet."""
    return "timeout" in message.lower() or "timed out" in message.lower()


def _describe(error: Exception) -> str:
    if isinstance(error, httpx.DecodingError):
        return f"answered something that cannot be unpacked ({shown(error)})"
    if isinstance(error, httpx.ConnectError):
        return "could not be reached (connection failed)"
    if isinstance(error, httpx.TimeoutException):
        return "did not answer in time"
    return f"broke the connection ({type(error).__name__})"


def _advice(status: int, response: httpx.Response) -> str:
    if status == 401:
        return (
            "check LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY, and that LANGFUSE_HOST is the project's own region "
            "(cloud., us.cloud., jp.cloud. or hipaa.cloud.langfuse.com, or your server)"
        )
    if status == 403:
        return "a project's key is needed (an organization's key is not accepted); create one in the project settings"
    if 300 <= status < 400:
        target = urlsplit(response.headers.get("Location", "")).netloc or "another place"
        return f"it redirects to {target}; set LANGFUSE_HOST to the final address"
    return "this should not happen; please report it with this line"
