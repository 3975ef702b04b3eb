"""One HTTP exchange with Stripe through its SDK, never repeated."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from http.cookiejar import DefaultCookiePolicy
from socket import socket
from typing import TYPE_CHECKING, Any, Literal

import httpx
import requests
import stripe
import urllib3
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from billing_core.runtime.bounded_http import AnswerTooLarge, DeadlineCutter, Unpacking
from billing_core.runtime.clock import Clock, now
from billing_core.stripe.answer import StripeResponse

if TYPE_CHECKING:
    from stripe._base_address import BaseAddresses

Host = Literal["api", "meter_events"]

ANSWER_SECONDS = 90.0
"""For a whole answer of Stripe's, from the question on."""

ANSWER_BYTES = 32 * 1024 * 1024
"""A page of a hundred objects has about a hundredth of it."""

PIECE_BYTES = 64 * 1024


class NoResponse(Exception):
    """No response came from Stripe.

    was_sent: Whether Stripe may have received the request all the same.
    """

    def __init__(self, text: str, *, was_sent: bool) -> None:
        super().__init__(text)
        self.was_sent = was_sent


class Connection:
    """A Stripe account through its SDK, safe to share between threads; the key never leaves it.

    base: Sends every call here, streams of meter events included; `None` is Stripe.
    timeout_seconds: For connecting, and for each wait on the answer.
    answer_seconds, answer_bytes: What a whole answer may take.
    """

    def __init__(
        self,
        key: str,
        base: str | None,
        timeout_seconds: tuple[float, float],
        connections: int = 64,
        *,
        clock: Clock = now,
        answer_seconds: float = ANSWER_SECONDS,
        answer_bytes: int = ANSWER_BYTES,
    ) -> None:
        self.clock = clock
        # Telemetry writes a random id into the user's configuration folder and adds platform details.
        stripe.enable_telemetry = False
        self._key = key
        self._session = _Session(connections, answer_seconds, answer_bytes)
        self._wire = _Wire(timeout_seconds, self._session, clock)
        # Setting only the main host would leave meter-event streams at the real Stripe.
        everywhere: BaseAddresses = {}
        if base is not None:
            everywhere = {"api": base, "meter_events": base, "files": base, "connect": base}
        self._client = stripe.StripeClient(
            key,
            base_addresses=everywhere,
            max_network_retries=0,  # who may repeat what is decided by the callers
            http_client=self._wire,
        )

    @property
    def gets(self) -> int:
        """GET requests made so far, repeated ones included: Stripe rations them per month."""
        return self._wire.gets

    def call(
        self,
        method: Literal["get", "post", "delete"],
        path: str,
        params: Mapping[str, Any],
        *,
        host: Host = "api",
        idempotency_key: str | None = None,
        token: str | None = None,
    ) -> StripeResponse:
        """One exchange with Stripe, never repeated. `token` replaces the key for this call.

        Raises NoResponse: nothing came back.
        """
        options = {"idempotency_key": idempotency_key, "api_key": token}
        given = {key: value for key, value in options.items() if value is not None}
        with self._wire.listening() as received:
            try:
                self._client.raw_request(method, path, base=host, **params, **given)
            except stripe.APIConnectionError as error:
                raise _silence(error) from None
            except (stripe.StripeError, AttributeError, TypeError):
                # Judged from the answer itself; the SDK stumbles over error objects of unknown shape.
                if not received:
                    raise
        return received[-1]

    def without_key(self, text: str) -> str:
        """A text with the secret key removed, should a server have echoed it."""
        return text.replace(self._key, "***")

    def close(self) -> None:
        """Close every thread's connections."""
        self._session.close()


class _Session(requests.Session):
    """One pool for all threads; its answers have a deadline and a size, packed and unpacked."""

    def __init__(self, connections: int, answer_seconds: float, answer_bytes: int) -> None:
        super().__init__()
        self._seconds = answer_seconds
        self._bytes = answer_bytes
        adapter = _Adapter(pool_connections=4, pool_maxsize=connections)
        self.mount("https://", adapter)
        self.mount("http://", adapter)
        self.headers["Accept-Encoding"] = "gzip"
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # Without this, requests would let a .netrc entry of the user replace the key.
        self.auth = _as_it_is

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Exchange once and read the whole body within the bounds."""
        deadline = _ASKED.deadline = time.monotonic() + self._seconds
        response = super().send(request, **{**options, "stream": True})
        try:
            with _CUTTER.watching(_ASKED.connection, deadline):
                body = self._body(response, deadline)
        except TimeoutError:
            raise requests.exceptions.ReadTimeout("the answer did not end in time", request=request) from None
        except (AnswerTooLarge, httpx.DecodingError) as error:
            raise requests.exceptions.ContentDecodingError(str(error), request=request) from None
        finally:
            response.close()
        response._content = body  # noqa: SLF001  -- what `Response.content` keeps it under
        return response

    def _body(self, response: requests.Response, deadline: float) -> bytes:
        unpacking = Unpacking(response.headers.get("Content-Encoding", ""), self._bytes)
        pieces = []
        try:
            for piece in response.raw.stream(PIECE_BYTES, decode_content=False):
                if time.monotonic() >= deadline:
                    raise TimeoutError
                pieces.append(unpacking.feed(piece))
        except urllib3.exceptions.ReadTimeoutError:
            raise TimeoutError from None
        except urllib3.exceptions.HTTPError as error:
            raise requests.exceptions.ChunkedEncodingError(error) from None
        if pieces:
            unpacking.end()
        return b"".join(pieces)

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # noqa: ARG002  -- the base class's name
        """Nowhere: a redirected POST would silently become a GET."""
        return None


class _Asked(threading.local):
    """Until when the answer a thread waits for must have come, and over which connection it comes."""

    deadline = float("inf")
    connection: socket | None = None


_ASKED = _Asked()
_CUTTER = DeadlineCutter()


class _Adapter(HTTPAdapter):
    """Connections whose status line and headers have to come in time as well."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


class _Connection(urllib3.connection.HTTPConnection):
    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        _ASKED.connection = self.sock
        with _CUTTER.watching(self.sock, _ASKED.deadline):
            return super().getresponse()


class _TlsConnection(urllib3.connection.HTTPSConnection):
    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]
        _ASKED.connection = self.sock
        with _CUTTER.watching(self.sock, _ASKED.deadline):
            return super().getresponse()


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Wire(stripe.RequestsClient):
    """The SDK's transport, which counts and remembers per thread what came back."""

    def __init__(self, timeout: tuple[float, float], session: requests.Session, clock: Clock) -> None:
        super().__init__(timeout=timeout, session=session)
        self._clock = clock
        self._lock = threading.Lock()
        self._thread = threading.local()
        self.gets = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[list[StripeResponse]]:
        """The answers this thread receives meanwhile."""
        received: list[StripeResponse] = []
        self._thread.received = received
        try:
            yield received
        finally:
            self._thread.received = []

    def request(  # type: ignore[override]  # the SDK's own subclass returns bytes as well
        self, method: str, url: str, headers: Mapping[str, str] | None, post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        if method == "get":
            with self._lock:
                self.gets += 1
        body, status, answered = super().request(method, url, headers, post_data)
        self._thread.received.append(StripeResponse(status, answered, body, self._clock()))
        return body, status, answered


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


NOT_SENT: tuple[type[BaseException], ...] = (
    requests.exceptions.ConnectTimeout,
    requests.exceptions.ProxyError,
    requests.exceptions.InvalidHeader,
    requests.exceptions.InvalidURL,
    urllib3.exceptions.NewConnectionError,
    urllib3.exceptions.ConnectTimeoutError,
    ssl.SSLCertVerificationError,
)
"""Faults before the first byte of a request."""


def _silence(error: stripe.APIConnectionError) -> NoResponse:
    """Why nothing came back, without addresses or headers."""
    faults = list(_causes(error))

    def any_is(*kinds: type[BaseException]) -> bool:
        return any(isinstance(fault, kinds) for fault in faults)

    was_sent = not any_is(*NOT_SENT)
    if any_is(requests.exceptions.SSLError, ssl.SSLError):
        return NoResponse("its certificate could not be verified or TLS failed", was_sent=was_sent)
    if not was_sent:
        return NoResponse("it could not be reached (no connection)", was_sent=False)
    if any_is(requests.exceptions.Timeout):
        return NoResponse("it did not answer in time", was_sent=True)
    return NoResponse("it broke the connection", was_sent=True)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The chain behind an error of the SDK: causes, and what requests and urllib3 wrap as arguments."""
    pending, seen = [error], set()
    while pending:
        fault = pending.pop()
        if not isinstance(fault, BaseException) or id(fault) in seen:
            continue
        seen.add(id(fault))
        yield fault
        pending += [fault.__cause__, getattr(fault, "reason", None), *(a for a in fault.args if a is not fault)]
