"""What both Langfuse faces share: the sandbox behind them, keys, refusals, parameters."""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from billing_core.runtime.clock import now
from billing_core.sandbox.data.catalog import LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY
from billing_core.sandbox.data.dataset import SandboxDataset
from billing_core.sandbox.langfuse.store import RowStore
from billing_core.sandbox.langfuse.wire import milliseconds


class ApiGeneration(StrEnum):
    """Which generation of Langfuse the sandbox plays."""

    V4 = "v4"  # v2 observations only: Cloud, and self-hosted v4 as installed
    V3 = "v3"  # the legacy routes only
    DUAL = "dual"  # v4 in dual write mode


VERSIONS = {ApiGeneration.V4: "4.16.0", ApiGeneration.V3: "3.225.4", ApiGeneration.DUAL: "4.16.0"}


def wall_clock() -> int:
    """Milliseconds since 1970."""
    return int(now().timestamp() * 1000)


class Sandbox:
    """What the routes serve from. `clock` (milliseconds since 1970) decides which rows have arrived."""

    def __init__(self, dataset: SandboxDataset, mode: ApiGeneration, clock: Callable[[], int] = wall_clock) -> None:
        self.dataset = dataset
        self.mode = mode
        self.clock = clock
        self.scores: dict[tuple[str, str, str], dict[str, Any]] = {}
        """By what makes Langfuse overwrite one: id, name and UTC date."""
        self._store: RowStore | None = None

    async def store(self) -> RowStore:
        """The rows; the first caller waits until they are generated, the event loop does not."""
        if self._store is None:
            self._store = await asyncio.to_thread(self.dataset.store)
        return self._store

    @staticmethod
    def of(request: Request) -> Sandbox:
        """The sandbox of the application that serves `request`."""
        sandbox: Sandbox = request.app.state.sandbox
        return sandbox


class HttpError(Exception):
    """An answer other than 200, raised from anywhere below a route."""

    def __init__(self, status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, body)
        self.status = status
        self.body = body
        self.headers = headers


async def refuse(_: Request, refusal: Exception) -> Response:
    """Starlette's handler for `HttpError`."""
    assert isinstance(refusal, HttpError)  # noqa: S101 - registered for this class only
    return json_response(refusal.body, refusal.status, refusal.headers)


def json_response(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`content` as JSON; ready-made bytes pass as they are."""
    body = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return Response(body, status, headers, "application/json")


def bad_request(parameter: str, message: str) -> HttpError:
    """400 as Langfuse words schema errors."""
    issue = {"code": "custom", "path": [parameter], "message": message}
    return HttpError(400, {"message": "Invalid request data", "error": [issue]})


def not_found(message: str, error: str | None = "LangfuseNotFoundError") -> HttpError:
    """404 with or without the class name, which tells a missing thing from a switched-off route."""
    return HttpError(404, {"message": message} if error is None else {"message": message, "error": error})


def check_key(request: Request) -> None:
    """Basic authentication with the sandbox's fixed keys.

    Raises Refusal: 401, with only a message, as Langfuse does.
    """
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    try:
        given = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        given = b""
    expected = f"{LANGFUSE_PUBLIC_KEY}:{LANGFUSE_SECRET_KEY}".encode()
    if scheme.lower() != "basic" or not secrets.compare_digest(given, expected):
        raise HttpError(401, {"message": "Invalid credentials. Confirm that you've configured the correct host."})


def in_text(request: Request, name: str) -> str | None:
    """A text parameter; an empty one counts as absent."""
    return request.query_params.get(name) or None


def whole_number(request: Request, name: str, *, default: int, maximum: int | None) -> int:
    """A number of at least 1 and at most `maximum`.

    Raises Refusal: 400 naming the parameter.
    """
    text = in_text(request, name)
    if text is None:
        return default
    if not text.isdecimal() or int(text) < 1:
        raise bad_request(name, "Number must be a positive integer")
    if maximum is not None and int(text) > maximum:
        raise bad_request(name, f"Number must be less than or equal to {maximum}")
    return int(text)


def time_window(request: Request, start: str, end: str) -> tuple[int, int]:
    """Half-open window in milliseconds since 1970, open where a parameter is absent.

    Raises Refusal: 400 for anything but ISO 8601 with an offset.
    """
    bounds = [-(2**62), 2**62]
    for index, name in enumerate((start, end)):
        text = in_text(request, name)
        if text is not None:
            try:
                bounds[index] = milliseconds(text)
            except ValueError:
                raise bad_request(name, "Invalid ISO datetime; expected an offset such as Z") from None
    return bounds[0], bounds[1]
