"""HTTP clients with limits for the whole response: a deadline, and a size, packed and unpacked.

A timeout of httpx is about one wait; a server that sends a byte every two seconds never meets it, and an endless or
highly packed body fills the memory. Here every read of the connection also looks at the deadline of the whole answer,
and bodies are unpacked piece by piece up to the limit.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from socket import SHUT_RDWR, socket
from typing import Any

import httpcore
import httpx

ANSWER_SECONDS = 90.0
"""From the question to the last byte. Langfuse's slowest answers take 55 s, and proxies give up after 100 s."""

ANSWER_BYTES = 64 * 1024 * 1024
"""Fifty times a page of a thousand observations."""

ERROR_BYTES = 64 * 1024
"""How much of an error's body is read: a sentence, or a proxy's page."""


class AnswerTooLarge(httpx.TransportError):
    """The body of a response is larger than the limit."""


class AnswerTooSlow(httpx.TimeoutException):
    """A response did not end within the time for the whole of it; `received` counts its bytes so far."""

    def __init__(self, message: str, received: int = 0) -> None:
        super().__init__(message)
        self.received = received


def bounded_client(
    *, answer_seconds: float = ANSWER_SECONDS, answer_bytes: int = ANSWER_BYTES, **options: Any
) -> httpx.Client:
    """An `httpx.Client` (same options, proxies from the environment included) whose answers are bounded.

    Bodies arrive whole and unpacked. Of an error (any status but 200 to 299) at most a sentence is read, and what
    cannot be read of it is left out: its status says enough.

    Raises, when asked
    ------------------
    AnswerTooSlow, AnswerTooLarge, httpx.DecodingError
        Beside what httpx raises itself.
    """
    client = httpx.Client(**options)
    bounds = _Bounds(answer_seconds, answer_bytes)
    # httpx has no public way to keep its proxies and TLS settings and to put something around them.
    client._transport = _BoundedTransport(client._transport, bounds)  # noqa: SLF001
    mounts = client._mounts  # noqa: SLF001
    for pattern, transport in mounts.items():
        mounts[pattern] = None if transport is None else _BoundedTransport(transport, bounds)
    return client


class Unpacking:
    """Decompresses a response body piece by piece; never more than `limit` bytes."""

    def __init__(self, encoding: str, limit: int) -> None:
        names = [name for part in encoding.lower().split(",") if (name := part.strip()) not in {"", "identity"}]
        if len(names) > 1 or not set(names) <= {"gzip", "x-gzip", "deflate"}:
            raise httpx.DecodingError(f"Content-Encoding {encoding[:60]!r}, which was not asked for")
        self._packed = zlib.decompressobj(zlib.MAX_WBITS | 32) if names else None  # gzip or zlib, by its own header
        self._left = limit
        self._limit = limit

    def feed(self, piece: bytes) -> bytes:
        """The decompressed bytes of a piece of the body."""
        if self._packed is None:
            return self._counted(piece)
        try:
            unpacked = self._packed.decompress(piece, self._left + 1)
        except zlib.error as error:
            raise httpx.DecodingError(f"the body is not what its Content-Encoding says ({error})") from None
        if self._packed.unconsumed_tail:
            raise self._too_large()
        return self._counted(unpacked)

    def end(self) -> None:
        """Check that the compressed body was complete."""
        if self._packed is not None and not self._packed.eof:
            raise httpx.DecodingError("the packed body ends early")

    def _counted(self, piece: bytes) -> bytes:
        self._left -= len(piece)
        if self._left < 0:
            raise self._too_large()
        return piece

    def _too_large(self) -> AnswerTooLarge:
        return AnswerTooLarge(f"a body of more than {self._limit:,} bytes")


class _Bounds:
    """The limits of one client, and until when the answer each thread waits for must have come."""

    def __init__(self, seconds: float, size: int) -> None:
        self.seconds = seconds
        self.size = size
        self._mine = threading.local()

    def begin(self) -> None:
        self._mine.deadline = time.monotonic() + self.seconds
        self._mine.received = 0

    def remaining(self, timeout: float | None) -> float | None:
        """Seconds that the next wait may take.

        Raises AnswerTooSlow: if the time is over.
        """
        deadline = getattr(self._mine, "deadline", None)
        if deadline is None:
            return timeout
        left: float = deadline - time.monotonic()
        if left <= 0:
            raise self.too_slow()
        return left if timeout is None else min(left, timeout)

    def count(self, size: int) -> None:
        self._mine.received += size

    def too_slow(self) -> AnswerTooSlow:
        return AnswerTooSlow(f"no whole answer within {self.seconds:g} s", self._mine.received)

    @property
    def is_over(self) -> bool:
        return bool(time.monotonic() >= self._mine.deadline)


class _BoundedTransport(httpx.BaseTransport):
    """Another transport's answers, read whole within the bounds."""

    def __init__(self, inner: httpx.BaseTransport, bounds: _Bounds) -> None:
        self._inner = inner
        self._bounds = bounds
        pool = getattr(inner, "_pool", None)
        if pool is not None:
            pool._network_backend = _DeadlineBackend(pool._network_backend, bounds)  # noqa: SLF001

    def close(self) -> None:
        self._inner.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.headers["Accept-Encoding"] = "gzip"
        self._bounds.begin()
        try:
            response = self._inner.handle_request(request)
            try:
                body = self._body(response)
            finally:
                response.close()
        except httpx.TimeoutException:
            if self._bounds.is_over:
                raise self._bounds.too_slow() from None
            raise
        gone = {b"content-encoding", b"content-length", b"transfer-encoding"}
        headers = [(name, value) for name, value in response.headers.raw if name.lower() not in gone]
        return httpx.Response(response.status_code, headers=headers, content=body, extensions=response.extensions)

    def _body(self, response: httpx.Response) -> bytes:
        stream = response.iter_raw()
        encoding = response.headers.get("Content-Encoding", "")
        if not response.is_success:
            try:
                return self._unpacked(stream, encoding, ERROR_BYTES)
            except (httpx.TransportError, httpx.DecodingError):
                return b""
        return self._unpacked(stream, encoding, self._bounds.size)

    def _unpacked(self, stream: Iterable[bytes], encoding: str, limit: int) -> bytes:
        unpacking = Unpacking(encoding, limit)
        pieces: list[bytes] = []
        for piece in stream:
            self._bounds.count(len(piece))
            self._bounds.remaining(None)
            pieces.append(unpacking.feed(piece))
        unpacking.end()
        return b"".join(pieces)


class _DeadlineBackend(httpcore.NetworkBackend):
    """Connections that look at the deadline of the whole answer before each wait."""

    def __init__(self, inner: httpcore.NetworkBackend, bounds: _Bounds) -> None:
        self._inner = inner
        self._bounds = bounds

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._inner.connect_tcp(host, port, _short(self._bounds, timeout), local_address, socket_options)
        return _DeadlineStream(stream, self._bounds)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None
    ) -> httpcore.NetworkStream:
        stream = self._inner.connect_unix_socket(path, _short(self._bounds, timeout), socket_options)
        return _DeadlineStream(stream, self._bounds)

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class _DeadlineStream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, bounds: _Bounds) -> None:
        self._inner = inner
        self._bounds = bounds

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, _short(self._bounds, timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, _short(self._bounds, timeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        inner = self._inner.start_tls(ssl_context, server_hostname, _short(self._bounds, timeout))
        return _DeadlineStream(inner, self._bounds)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _short(bounds: _Bounds, timeout: float | None) -> float | None:
    """The shorter of httpx's timeout and what is left of the answer's."""
    try:
        return bounds.remaining(timeout)
    except AnswerTooSlow:
        raise httpcore.ReadTimeout("the time for the whole answer is over") from None


class DeadlineCutter:
    """Closes connections whose responses do not end in time, on one thread for all clients."""

    LOOK_SECONDS = 0.1

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: dict[int, tuple[float, socket]] = {}
        self._cut: set[int] = set()
        self._next = 0
        self._runs = False

    @contextmanager
    def watching(self, connection: socket | None, deadline: float) -> Iterator[None]:
        """A context that closes `connection` if it has not ended by `deadline` (of `time.monotonic`).

        Raises TimeoutError: if it was cut; in the place of whatever the cut caused.
        """
        if connection is None:
            yield
            return
        with self._changed:
            number = self._next = self._next + 1
            self._watched[number] = deadline, connection
            if not self._runs:
                self._runs = True
                threading.Thread(target=self._watch_deadlines, name="answers", daemon=True).start()
        try:
            yield
        except Exception:
            if self._let_go(number):
                raise TimeoutError("the answer did not end in time") from None
            raise
        if self._let_go(number):
            raise TimeoutError("the answer did not end in time")

    def _let_go(self, number: int) -> bool:
        with self._changed:
            self._watched.pop(number, None)
            was_cut = number in self._cut
            self._cut.discard(number)
        return was_cut

    def _watch_deadlines(self) -> None:
        while True:
            time.sleep(self.LOOK_SECONDS)
            with self._changed:
                if not self._watched:
                    self._runs = False
                    return
                late = [number for number, (deadline, _) in self._watched.items() if time.monotonic() >= deadline]
                for number in late:
                    _, connection = self._watched.pop(number)
                    self._cut.add(number)
                    with suppress(OSError):
                        connection.shutdown(SHUT_RDWR)
