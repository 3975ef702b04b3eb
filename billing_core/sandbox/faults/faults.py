"""Planted faults and the request log: an ASGI layer around every face.

`/_sandbox/...` is for tests and demonstrations; the faces know nothing of it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from billing_core.sandbox.faults.asgi import held_back, read_ahead, reset
from billing_core.sandbox.faults.fault_answers import Kind, refusal, server_error
from billing_core.sandbox.http import HttpError, Sandbox, json_response
from billing_core.sandbox.langfuse.wire import milliseconds
from billing_core.sandbox.planted import Planted

KEPT_REQUESTS = 10_000

WINDOWS = (("fromStartTime", "toStartTime"), ("fromTimestamp", "toTimestamp"))


class Fault(msgspec.Struct):
    """What goes wrong, for which requests, and how often.

    Applies to paths that start with `path_prefix`, `times` times (null: until deleted).

    kind: `429`, `500_timeout`, `422`, `503`, `504_html`, `401`, `403`, `404_html`, `409`, `html` (a 200): refused
        unseen. `reset`: the connection is reset, unseen. `slow`, `cut`, `broken_json`, `duplicate_cursor`: the true
        answer, late or spoilt. `after_success_500`, `after_success_timeout`, `after_success_cut`: the work is done, and
        then the answer is a 500, or comes after `seconds`, or never because the connection is reset.
    seconds: The delay of `slow` and `after_success_timeout`.
    retry_after: The header of `429`.
    min_window_seconds: Only requests whose time window is longer, or open, are hit.
    body_contains: Only requests with this text in their decoded query or body are hit.
    stored: Stripe keeps a `500_timeout` under the Idempotency-Key and gives it again. It always keeps
        `after_success_500`.
    """

    path_prefix: str
    kind: Kind
    times: int | None = 1
    retry_after: int = 1
    seconds: float = 1.0
    min_window_seconds: float | None = None
    body_contains: str | None = None
    stored: bool = False
    id: int = 0
    hits: int = 0


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
        if any(fault.body_contains is not None and path.startswith(fault.path_prefix) for fault in self.faults):
            body, receive = await read_ahead(receive)
        else:
            body = b""
        fault = self._due(path, query, body)
        if fault is None:
            await self._app(scope, receive, send)
            return
        fault.hits += 1
        answer = refusal(fault.kind, path, fault.retry_after)
        if fault.kind == "500_timeout" and fault.stored and path.startswith("/v1/") and scope["method"] == "POST":
            scope[Planted.KEY] = Planted(500, server_error(path), works=False)
            await self._app(scope, receive, send)
        elif answer is not None:
            await answer(scope, receive, send)
        elif fault.kind == "reset":
            await reset(receive)
        elif fault.kind.startswith("after_success"):
            await self._after_success(fault, scope, receive, send)
        else:
            await self._spoil(fault, scope, receive, send)

    def _due(self, path: str, query: str, body: bytes) -> Fault | None:
        fields = parse_qs(query)
        for fault in self.faults:
            if (
                path.startswith(fault.path_prefix)
                and (fault.times is None or fault.hits < fault.times)
                and (fault.min_window_seconds is None or _window_seconds(fields) > fault.min_window_seconds)
                and (fault.kind != "duplicate_cursor" or "cursor" in fields)
                and (fault.body_contains is None or _contains(fault.body_contains, query, body))
            ):
                return fault
        return None

    async def _after_success(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        """Faults after which the work is done and the client cannot know it."""
        if fault.kind == "after_success_500":
            body = server_error(scope["path"])
            scope[Planted.KEY] = Planted(500, body, works=True)
            await held_back(self._app, scope, receive)
            await json_response(body, 500)(scope, receive, send)
            return
        answer = await held_back(self._app, scope, receive)
        if fault.kind == "after_success_cut":
            await reset(receive)
            return
        await asyncio.sleep(fault.seconds)
        await send(answer.start)
        await send({"type": "http.response.body", "body": answer.body})

    async def _spoil(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        """Faults that need the true answer first."""
        if fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
            await self._app(scope, receive, send)
            return
        answer = await held_back(self._app, scope, receive)
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


def _contains(text: str, query: str, body: bytes) -> bool:
    raw = body.decode(errors="replace")
    return any(text in place for place in (unquote_plus(query), raw, unquote_plus(raw)))


def _window_seconds(query: dict[str, list[str]]) -> float:
    """Length of the asked time window; infinite if it is open."""
    for start, end in WINDOWS:
        if start in query and end in query:
            try:
                return (milliseconds(query[end][0]) - milliseconds(query[start][0])) / 1000
            except ValueError:
                break
    return float("inf")


def _layer(request: Request) -> FaultLayer:
    layer: FaultLayer = request.scope["fault_layer"]
    return layer


async def add_fault(request: Request) -> Response:
    """Plant a fault; answers it with its id."""
    layer = _layer(request)
    try:
        fault = msgspec.json.decode(await request.body(), type=Fault)
    except msgspec.MsgspecError as error:
        raise HttpError(400, {"message": f"no fault: {error}"}) from None
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
        raise HttpError(400, {"message": str(error)}) from None
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
