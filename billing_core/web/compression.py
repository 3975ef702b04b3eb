"""Middleware that sends Streamlit's scripts and styles compressed, each compressed once per process."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from http import HTTPStatus

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COMPRESSIBLE = frozenset(
    {"text/javascript", "application/javascript", "text/css", "text/html", "application/json", "image/svg+xml"}
)
"""Media types that shrink; fonts and pictures are compressed already."""

SMALLEST_BYTES = 1_000
"""Smaller answers than this gain less than the headers cost."""


def accepts_gzip(header: str) -> bool:
    """Whether an `Accept-Encoding` header takes gzip; `gzip;q=0` and `*;q=0` refuse it (RFC 9110, 12.5.3)."""
    weights: dict[str, float] = {}
    for part in header.lower().split(","):
        coding, _, parameters = part.partition(";")
        name, _, value = parameters.strip().partition("=")
        try:
            weights[coding.strip()] = float(value) if name.strip() == "q" else 1.0
        except ValueError:
            weights[coding.strip()] = 0.0
    return weights.get("gzip", weights.get("*", 0.0)) > 0


@dataclass(frozen=True, slots=True)
class _Compressed:
    """A complete answer as it is sent."""

    start: Message
    body: bytes


class CompressedStaticFiles:
    """ASGI middleware for the addresses under `prefix`: answers GET by gzip where the browser takes it.

    Their names hold a hash of their content, so an answer compressed once is kept for the life of the process: some
    4 MB if every file of Streamlit is asked for. Ranges and revalidations pass through.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix
        self._kept: dict[str, _Compressed] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._is_for_us(scope):
            await self._app(scope, receive, send)
            return
        kept = self._kept.get(scope["path"])
        if kept is None:
            kept = await self._compressed(scope, receive, send)
        if kept is not None:
            await send(dict(kept.start))
            await send({"type": "http.response.body", "body": kept.body})

    def _is_for_us(self, scope: Scope) -> bool:
        if scope["type"] != "http" or scope["method"] != "GET" or not scope["path"].startswith(self._prefix):
            return False
        headers = Headers(scope=scope)
        if "range" in headers or "if-none-match" in headers or "if-modified-since" in headers:
            return False
        return accepts_gzip(headers.get("accept-encoding", ""))

    async def _compressed(self, scope: Scope, receive: Receive, send: Send) -> _Compressed | None:
        """The compressed answer, kept from now on; `None` if the answer was sent as it is."""
        start: Message = {}
        chunks: list[bytes] = []
        complete = False

        async def collect(message: Message) -> None:
            nonlocal start, complete
            if message["type"] == "http.response.start":
                start = message
                if not _shrinks(message):
                    await send(message)
            elif not _shrinks(start):
                await send(message)
            else:
                chunks.append(message.get("body", b""))
                complete = not message.get("more_body", False)

        await self._app(scope, receive, collect)
        if not complete:  # sent as it is, or broken off because the browser left
            return None
        body = await run_in_threadpool(gzip.compress, b"".join(chunks), mtime=0)
        headers = MutableHeaders(raw=list(start["headers"]))
        headers["Content-Encoding"] = "gzip"
        headers["Content-Length"] = str(len(body))
        headers.add_vary_header("Accept-Encoding")
        if (etag := headers.get("etag")) is not None and not etag.startswith("W/"):
            headers["ETag"] = f"W/{etag}"  # the same content in other bytes
        kept = _Compressed({**start, "headers": headers.raw}, body)
        self._kept[scope["path"]] = kept
        return kept


def _shrinks(start: Message) -> bool:
    headers = Headers(raw=start["headers"])
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    long_enough = int(headers.get("content-length", SMALLEST_BYTES)) >= SMALLEST_BYTES
    return (
        start["status"] == HTTPStatus.OK
        and media_type in COMPRESSIBLE
        and long_enough
        and "content-encoding" not in headers
    )
