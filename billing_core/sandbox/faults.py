"""Planted faults and the request log: an ASGI layer around every face.

`/_sandbox/...` is for tests and demonstrations; the faces know nothing of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import MutableMapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal
from urllib.parse import parse_qs

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from billing_core.sandbox.http import Refusal, Sandbox, json_response
from billing_core.sandbox.wire import milliseconds

__all__ = ["Fault", "FaultLayer", "routes"]

KEPT_REQUESTS = 10_000

Kind = Literal["429", "500_timeout", "422", "503", "504_html", "cut", "slow", "broken_json", "duplicate_cursor"]

WINDOWS = (("fromStartTime", "toStartTime"), ("fromTimestamp", "toTimestamp"))


class Fault(msgspec.Struct):
    """What goes wrong, for which requests, and how often.

    Applies to paths that start with `path_prefix`, `times` times (null: until deleted). `seconds` is the
    delay of `slow`; `retry_after` the header of `429`; with `min_window_seconds` only requests whose time window
    is longer, or open, are hit.
    """

    path_prefix: str
    kind: Kind
    times: int | None = 1
    retry_after: int = 1
    seconds: float = 1.0
    min_window_seconds: float | None = None
    id: int = 0
    hits: int = 0


@dataclass(slots=True)
class _Answer:
    """A complete answer of the application, held back."""

    start: MutableMapping[str, Any]
    body: bytes


class FaultLayer:
    """Delays, logs and spoils what passes through."""

    def __init__(self, app: ASGIApp, latency_seconds: float = 0.0) -> None:
        self._app = app
        self.latency_seconds = latency_seconds
        self.faults: list[Fault] = []
        self.requests: deque[dict[str, str]] = deque(maxlen=KEPT_REQUESTS)
        self.ids = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["fault_layer"] = self
        path, query = scope["path"], scope["query_string"].decode()
        if path.startswith("/_sandbox"):
            await self._app(scope, receive, send)
            return
        self.requests.append({"method": scope["method"], "path": path, "query": query})
        if self.latency_seconds:
            await asyncio.sleep(self.latency_seconds)
        fault = self._due(path, parse_qs(query))
        if fault is None:
            await self._app(scope, receive, send)
            return
        fault.hits += 1
        if (refusal := _refusal(fault, path)) is not None:
            await refusal(scope, receive, send)
        else:
            await self._spoil(fault, scope, receive, send)

    def _due(self, path: str, query: dict[str, list[str]]) -> Fault | None:
        for fault in self.faults:
            if (
                path.startswith(fault.path_prefix)
                and (fault.times is None or fault.hits < fault.times)
                and (fault.min_window_seconds is None or _window_seconds(query) > fault.min_window_seconds)
                and (fault.kind != "duplicate_cursor" or "cursor" in query)
            ):
                return fault
        return None

    async def _spoil(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        """Faults that need the true answer first."""
        if fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
            await self._app(scope, receive, send)
            return
        answer = await self._held_back(scope, receive)
        if fault.kind == "cut":
            # the announced length is never reached: the server closes the connection
            await send(answer.start)
            await send({"type": "http.response.body", "body": answer.body[: len(answer.body) // 2], "more_body": True})
            return
        if fault.kind == "broken_json":
            body = answer.body[: len(answer.body) // 2]
        else:
            content = msgspec.json.decode(answer.body)
            content["meta"]["cursor"] = parse_qs(scope["query_string"].decode())["cursor"][0]
            body = msgspec.json.encode(content)
        headers = [(name, value) for name, value in answer.start["headers"] if name != b"content-length"]
        answer.start["headers"] = [*headers, (b"content-length", str(len(body)).encode())]
        await send(answer.start)
        await send({"type": "http.response.body", "body": body})

    async def _held_back(self, scope: Scope, receive: Receive) -> _Answer:
        answer = _Answer({}, b"")

        async def hold(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.start = message
            else:
                answer.body += message.get("body", b"")

        await self._app(scope, receive, hold)
        return answer


def _window_seconds(query: dict[str, list[str]]) -> float:
    """Length of the asked time window; infinite if it is open."""
    for start, end in WINDOWS:
        if start in query and end in query:
            try:
                return (milliseconds(query[end][0]) - milliseconds(query[start][0])) / 1000
            except ValueError:
                break
    return float("inf")


def _refusal(fault: Fault, path: str) -> Response | None:
    """The answer of faults that need no true one; errors of Stripe are worded as Stripe does."""
    retry = {"Retry-After": str(fault.retry_after)}
    stripe = not path.startswith("/api/")
    match fault.kind:
        case "429" if stripe:
            error = {"type": "invalid_request_error", "code": "rate_limit", "message": "Too many requests"}
            return json_response({"error": error}, 429, retry | {"Stripe-Rate-Limited-Reason": "global-rate"})
        case "429":
            details = {"retryAfterSeconds": fault.retry_after, "limit": 30, "remaining": 0}
            body = {"message": "Rate limit exceeded", "code": "rate_limited", "details": details}
            limits = {"X-RateLimit-Limit": "30", "X-RateLimit-Remaining": "0"}
            return json_response(body, 429, retry | limits)
        case "500_timeout" | "503" if stripe:
            error = {"type": "api_error", "message": "An unknown error occurred"}
            return json_response({"error": error}, int(fault.kind[:3]))
        case "500_timeout":
            return json_response({"message": "Timeout error", "error": "InternalServerError"}, 500)
        case "422":
            return json_response({"message": "Query exceeded its limits", "error": "Request timed out"}, 422)
        case "503":
            return json_response({"message": "Database unavailable"}, 503)
        case "504_html":
            return HTMLResponse("<html><head><title>504 Gateway Time-out</title></head><body></body></html>", 504)
        case _:
            return None


def _layer(request: Request) -> FaultLayer:
    layer: FaultLayer = request.scope["fault_layer"]
    return layer


async def add_fault(request: Request) -> Response:
    """Plant a fault; answers it with its id."""
    layer = _layer(request)
    try:
        fault = msgspec.json.decode(await request.body(), type=Fault)
    except msgspec.MsgspecError as error:
        raise Refusal(400, {"message": f"no fault: {error}"}) from None
    fault.id, fault.hits = next(layer.ids), 0
    layer.faults.append(fault)
    return json_response(fault)


async def list_faults(request: Request) -> Response:
    """All planted faults with their `hits`."""
    return json_response(_layer(request).faults)


async def clear_faults(request: Request) -> Response:
    """Take away every fault."""
    _layer(request).faults.clear()
    return json_response([])


async def list_requests(request: Request) -> Response:
    """The latest requests, oldest first: method, path and raw query; never headers or bodies."""
    return json_response(list(_layer(request).requests))


async def clear_requests(request: Request) -> Response:
    """Forget the logged requests."""
    _layer(request).requests.clear()
    return json_response([])


async def append_observations(request: Request) -> Response:
    """Add rows (a JSON list of v2 rows): late arrivals, changes, oddities."""
    sandbox = Sandbox.of(request)
    store = await sandbox.store()
    try:
        rows = msgspec.json.decode(await request.body(), type=list[dict[str, Any]])
        store.append(rows, sandbox.clock())
    except (msgspec.MsgspecError, ValueError) as error:
        raise Refusal(400, {"message": str(error)}) from None
    return json_response({"appended": len(rows)})


def routes() -> list[Route]:
    """The routes beside the faces."""
    return [
        Route("/_sandbox/faults", add_fault, methods=["POST"]),
        Route("/_sandbox/faults", list_faults, methods=["GET"]),
        Route("/_sandbox/faults", clear_faults, methods=["DELETE"]),
        Route("/_sandbox/requests", list_requests, methods=["GET"]),
        Route("/_sandbox/requests", clear_requests, methods=["DELETE"]),
        Route("/_sandbox/observations", append_observations, methods=["POST"]),
    ]
