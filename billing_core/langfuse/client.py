"""HTTP to Langfuse: authentication, the shared rate limit, retries, and what each status code means.

Bulk reading uses plain httpx because the SDK's models are 30 to 50 times slower and one odd row kills a page.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from billing_core.clock import Clock, now
from billing_core.errors import UpstreamError
from billing_core.langfuse.limiter import RateLimiter, Stopped

__all__ = ["BrokenBody", "LangfuseClient", "NotOffered", "TooHeavy", "Unanswered"]

Decoded = TypeVar("Decoded")

TRIES = 5
"""How often one request is tried before a passing fault counts as an outage."""

FIRST_BACKOFF_SECONDS = 0.4
LONGEST_BACKOFF_SECONDS = 30.0

LONGEST_PAUSE_SECONDS = 3600
"""A rate limit that asks for more is a daily quota: a person should decide when to come back."""

MOST_PAUSES = 60
"""A request that is still refused after so many obeyed pauses will not get through."""

RATE_LIMIT_DEFAULT_SECONDS = 30.0
"""Pause for a 429 that names no time; Langfuse's fixed windows are a minute long."""

HEAVY = frozenset({413, 414, 422, 431, 504, 524})
NOT_OFFERED = frozenset({404, 410, 501})
PASSING = frozenset({408, 409, 425, 500, 502, 503, 520, 521, 522, 523, 529})


class TooHeavy(Exception):
    """The server could not answer a question of this size in time."""


class NotOffered(Exception):
    """The server does not have this route, or not this thing (404, 410, 501)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Unanswered(UpstreamError):
    """A fault that should have passed did not within the tries allowed.

    Attributes
    ----------
    status:
        The last answer's, `None` if there was none.
    """

    def __init__(self, status: int | None, text: str) -> None:
        super().__init__(text)
        self.status = status


class BrokenBody(Exception):
    """The answer is not the JSON it should be; a cut connection looks the same."""


class LangfuseClient:
    """A connection to one project's public API, safe to share between threads.

    Parameters
    ----------
    host:
        Base URL without credentials, a path is possible.
    timeout_seconds:
        For connecting and for each wait on the answer.
    first_backoff_seconds:
        The pause before the second try; it doubles from there, with jitter.
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
    ) -> None:
        self.clock = clock
        self.host = host.rstrip("/")
        self.name = urlsplit(self.host).netloc.rpartition("@")[2]
        self.limiter = RateLimiter.shared(self.name, public_key)
        self._secret_key = secret_key
        self._first_backoff_seconds = first_backoff_seconds
        self._auth = httpx.BasicAuth(public_key, secret_key.get_secret_value())
        self._http = httpx.Client(
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
        """Ask until there is an answer or a reason to give up; `decode` reads the body of a 200.

        Raises
        ------
        TooHeavy
            Ask for less (413, 414, 422, 500 "Timeout error", 504, 524).
        NotOffered
            404, 410 or 501.
        Stopped
            `stop` was set while waiting.
        UpstreamError
            Everything else, in one line that says what to do.
        """
        stop = stop or threading.Event()
        failures = pauses = 0
        while True:
            self.limiter.acquire(stop)
            status: int | None = None
            try:
                response = self._http.get(path, params=params, auth=self._auth if authenticated else None)
                status = response.status_code
                if status == 200:
                    return decode(response.content)
                fault = self._judge(path, response)
            except httpx.TransportError as error:
                fault = _describe(error)
            except BrokenBody as error:
                fault = f"answered something that is not the expected JSON ({error})"
            if isinstance(fault, float):
                pauses += 1
                if pauses > MOST_PAUSES:
                    raise UpstreamError(
                        f"{self._where(path)} still refuses after {pauses} pauses for its rate limit; "
                        "try again later or with fewer parallel readers"
                    )
                self.limiter.pause(fault)
                continue
            failures += 1
            if failures >= tries:
                raise Unanswered(
                    status,
                    f"{self._where(path)} {fault}, tried {failures} times; check LANGFUSE_HOST, the network and the "
                    "server's health, then run this again: it continues where it stopped",
                )
            if stop.wait(self._backoff_seconds(failures)):
                raise Stopped

    def _backoff_seconds(self, failures: int) -> float:
        longest: float = min(self._first_backoff_seconds * 2 ** (failures - 1), LONGEST_BACKOFF_SECONDS)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311  -- jitter, not a secret

    def _judge(self, path: str, response: httpx.Response) -> str | float:
        """What to do with an answer other than 200: raise, a text to retry on, or seconds to pause."""
        status = response.status_code
        message = self._message(response)
        if status == 429:
            return self._pause_seconds(path, response)
        if status in HEAVY or (status == 500 and _is_timeout(message)):
            raise TooHeavy(f"{self._where(path)} answered {status} ({message})")
        if status in NOT_OFFERED:
            raise NotOffered(status, f"{self._where(path)} answered {status} ({message})")
        if status in PASSING:
            return f"answered {status} ({message})"
        raise UpstreamError(f"{self._where(path)} answered {status} ({message}); {_advice(status, response)}")

    def _pause_seconds(self, path: str, response: httpx.Response) -> float:
        """How long a 429 asks everyone to wait. `Retry-After` is whole seconds and authoritative."""
        seconds = _number(response.headers.get("Retry-After"))
        if seconds is None:
            seconds = _number(_body(response).get("retryAfterSeconds"))
        if seconds is None:
            details = _body(response).get("details")
            seconds = _number(details.get("retryAfterSeconds")) if isinstance(details, dict) else None
        if seconds is None:
            seconds = RATE_LIMIT_DEFAULT_SECONDS
        if seconds > LONGEST_PAUSE_SECONDS:
            again = self.clock() + timedelta(seconds=seconds)
            raise UpstreamError(
                f"{self._where(path)} answered 429: the quota of this organization is used up; "
                f"come back after {again:%Y-%m-%d %H:%M} UTC"
            )
        return max(seconds, 0.05)

    def _where(self, path: str) -> str:
        return f"Langfuse at {self.name}: GET {urlsplit(self.host).path}/api/public/{path}"

    def _message(self, response: httpx.Response) -> str:
        """The server's own words on one line; never the secret key, should they echo it."""
        body = _body(response)
        parts = [str(body[key]) for key in ("message", "error") if isinstance(body.get(key), str)]
        text = " ".join(" ".join(parts).split())[:300] or response.reason_phrase or "no reason given"
        return text.replace(self._secret_key.get_secret_value(), "***")


def _body(response: httpx.Response) -> dict[str, object]:
    try:
        body = json.loads(response.content)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _number(value: object) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _is_timeout(message: str) -> bool:
    """ClickHouse timeouts of servers that do not know 422 yet."""
    return "timeout" in message.lower() or "timed out" in message.lower()


def _describe(error: httpx.TransportError) -> str:
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
