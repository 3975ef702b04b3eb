"""Detects which generation of the API a Langfuse server offers (section 0 of the Langfuse notes)."""

from __future__ import annotations

import json
import threading
from datetime import datetime, timedelta
from typing import Any, Literal

from billing_core.errors import UpstreamError
from billing_core.langfuse.client import BrokenBody, LangfuseClient, NotOffered, QuestionTooLarge, Unanswered
from billing_core.langfuse.spans import api_time, milliseconds

Api = Literal["v2", "legacy"]

PROBE_DAYS = 30


def detect_api(client: LangfuseClient, stop: threading.Event | None = None) -> Api:
    """The API generation a server offers, found by asking for one row of the observations API.

    404, 410 and 501 mean "not offered", and so does a 500 from a server of major version 3. Everything else,
    401, 403, 422 and 429 above all, says nothing about the API and is never a reason to fall back.

    Raises UpstreamError: if the server cannot be read, or offers neither API.
    """
    now = client.clock()
    bounds = {
        "limit": "1",
        "fromStartTime": api_time(milliseconds(now - timedelta(days=PROBE_DAYS))),
        "toStartTime": api_time(milliseconds(now + timedelta(days=1))),
    }
    try:
        rows = client.get("v2/observations", {"fields": "core", **bounds}, _rows, stop=stop)
    except NotOffered as absent:
        if _has_traces(client, now, stop) is None:
            raise UpstreamError(
                f"{absent}, and /api/public/traces is not offered either; check that LANGFUSE_HOST is a Langfuse "
                "server of version 3 or newer and includes its base path"
            ) from None
        return "legacy"
    except QuestionTooLarge:
        return "v2"  # it knows the route; the reader will ask for less
    except Unanswered as error:
        if error.status == 500 and _major(client, stop) == 3:
            return "legacy"
        raise
    if not rows and _has_traces(client, now, stop):
        # A v4 server in legacy write mode answers v2 with nothing at all.
        return "legacy"
    return "v2"


def _has_traces(client: LangfuseClient, now: datetime, stop: threading.Event | None) -> bool | None:
    """Whether the legacy list holds anything; `None` if it is not offered."""
    bounds = {"limit": "1", "fields": "core", "fromTimestamp": api_time(milliseconds(now - timedelta(days=PROBE_DAYS)))}
    try:
        return client.get("traces", bounds, _rows, stop=stop) > 0
    except NotOffered:
        return None
    except (QuestionTooLarge, UpstreamError):
        return False


def _major(client: LangfuseClient, stop: threading.Event | None) -> int | None:
    """The server's major version. An unhealthy server (503) still carries it but is not worth guessing from."""
    try:
        version = client.get("health", {}, _json, stop=stop, authenticated=False, tries=2).get("version")
    except (NotOffered, QuestionTooLarge, UpstreamError):
        return None
    major = str(version).lstrip("v").partition(".")[0]
    return int(major) if major.isdigit() else None


def _rows(body: bytes) -> int:
    data = _json(body).get("data")
    if not isinstance(data, list):
        raise BrokenBody("a page without a data list")
    return len(data)


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError as error:
        raise BrokenBody(str(error)[:80]) from None
    if not isinstance(value, dict):
        raise BrokenBody("not an object")
    return value
