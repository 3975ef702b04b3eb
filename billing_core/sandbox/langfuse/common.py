"""Routes every Langfuse has: health, project and scores (reference, sections 0, 6 and 7)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from billing_core.sandbox.data.catalog import PROJECT_ID
from billing_core.sandbox.http import (
    VERSIONS,
    HttpError,
    Sandbox,
    bad_request,
    check_key,
    in_text,
    json_response,
    time_window,
    whole_number,
)
from billing_core.sandbox.langfuse.wire import iso, milliseconds

SCORE_TYPES = ("NUMERIC", "BOOLEAN", "CATEGORICAL", "TEXT", "CORRECTION")
SCORE_PARAMETERS = frozenset(
    {"limit", "cursor", "fields", "id", "name", "dataType", "environment", "traceId", "fromTimestamp", "toTimestamp"}
)
CORE_OF_SCORE = (
    "id",
    "projectId",
    "name",
    "value",
    "dataType",
    "source",
    "timestamp",
    "environment",
    "createdAt",
    "updatedAt",
)
GROUPS_OF_SCORE = {
    "details": ("comment", "configId", "metadata"),
    "subject": ("subject",),
    "annotation": ("authorUserId", "queueId"),
}


async def health(request: Request) -> Response:
    """No key needed."""
    return json_response({"status": "OK", "version": VERSIONS[Sandbox.of(request).mode]})


async def projects(request: Request) -> Response:
    """The one project the key belongs to."""
    check_key(request)
    organization = {"id": "sandbox-organization", "name": "Sandbox"}
    project = {"id": PROJECT_ID, "name": "Billing sandbox", "organization": organization, "metadata": {}}
    return json_response({"data": [project]})


async def trace_page(request: Request) -> Response:
    """Where links to a trace lead: the real server draws it, this one shows its rows as text."""
    box = Sandbox.of(request)
    store = await box.store()
    found = store.rows_of_trace(request.path_params["trace_id"], box.clock())
    rows = [msgspec.json.format(msgspec.json.encode(row.shown), indent=2).decode() for row in found]
    heading = "This is the built-in sandbox; a real Langfuse shows the trace here.\n\n"
    return PlainTextResponse(heading + ("\n".join(rows) or "There is no such trace."), 200 if rows else 404)


async def create_scores(request: Request) -> Response:
    """One score as an object (200 with its id), or several as a list (202; 207 if some are refused)."""
    check_key(request)
    try:
        body = msgspec.json.decode(await request.body())
    except msgspec.MsgspecError:
        raise bad_request("body", "Invalid JSON") from None
    sandbox = Sandbox.of(request)
    if not isinstance(body, list):
        return json_response({"id": _store_score(sandbox, body)})
    errors = []
    for given in body:
        try:
            _store_score(sandbox, given)
        except HttpError as refusal:
            errors.append({"message": refusal.body["error"][0]["message"]})
    if not errors:
        return json_response({"message": "Accepted"}, 202)
    return json_response({"accepted": len(body) - len(errors), "rejected": len(errors), "errors": errors}, 207)


def _store_score(sandbox: Sandbox, given: object) -> str:
    if not isinstance(given, dict) or not isinstance(given.get("name"), str) or "value" not in given:
        raise bad_request("body", "A score needs a name and a value")
    value = given["value"]
    kind = given.get("dataType") or ("CATEGORICAL" if isinstance(value, str) else "NUMERIC")
    if kind not in SCORE_TYPES or isinstance(value, str) == (kind in {"NUMERIC", "BOOLEAN"}):
        raise bad_request("value", f"The value does not fit the data type {kind}")
    if not any(given.get(key) for key in ("traceId", "sessionId", "datasetRunId")):
        raise bad_request("traceId", "A score needs a traceId, sessionId or datasetRunId")
    now = iso(sandbox.clock())
    try:
        timestamp = iso(milliseconds(given["timestamp"])) if given.get("timestamp") else now
    except (TypeError, ValueError):
        raise bad_request("timestamp", "Invalid ISO datetime; expected an offset such as Z") from None
    made_up = hashlib.sha256(f"{now}{len(sandbox.scores)}".encode()).hexdigest()[:32]
    id_ = str(given.get("id") or made_up)
    key = (id_, given["name"], timestamp[:10])
    earlier = sandbox.scores.get(key)
    sandbox.scores[key] = {
        "id": id_,
        "projectId": PROJECT_ID,
        "name": given["name"],
        "value": bool(value) if kind == "BOOLEAN" else value,
        "dataType": kind,
        "source": "API",
        "timestamp": timestamp,
        "environment": given.get("environment") or "default",
        "createdAt": now if earlier is None else earlier["createdAt"],
        "updatedAt": now,
        "comment": given.get("comment"),
        "configId": given.get("configId"),
        "metadata": given.get("metadata") or {},
        "authorUserId": None,
        "queueId": given.get("queueId"),
        "subject": _subject(given),
    }
    return id_


def _subject(given: dict[str, Any]) -> dict[str, Any]:
    if given.get("observationId"):
        return {"kind": "observation", "id": given["observationId"], "traceId": given.get("traceId")}
    for key, kind in (("traceId", "trace"), ("sessionId", "session")):
        if given.get(key):
            return {"kind": kind, "id": given[key]}
    return {"kind": "experiment", "id": given["datasetRunId"]}


async def read_scores(request: Request) -> Response:
    """A page of scores, newest first."""
    check_key(request)
    if unknown := sorted(set(request.query_params) - SCORE_PARAMETERS):
        raise bad_request(unknown[0], "Unrecognized parameter")
    groups = [part.strip() for part in (in_text(request, "fields") or "").split(",") if part.strip()]
    if unknown := [group for group in groups if group not in GROUPS_OF_SCORE]:
        raise bad_request("fields", f"Unknown field group {unknown[0]}")
    limit = whole_number(request, "limit", default=50, maximum=100)
    low, high = time_window(request, "fromTimestamp", "toTimestamp")
    found = sorted(
        (score for score in Sandbox.of(request).scores.values() if low <= milliseconds(score["timestamp"]) < high),
        key=lambda score: (score["timestamp"], score["id"], score["name"]),
        reverse=True,
    )
    for name, read in (("id", _plain("id")), ("name", _plain("name")), ("environment", _plain("environment"))):
        if (listed := in_text(request, name)) is not None:
            found = [score for score in found if read(score) in listed.split(",")]
    if (listed := in_text(request, "dataType")) is not None:
        found = [score for score in found if score["dataType"] in listed.upper().split(",")]
    if (listed := in_text(request, "traceId")) is not None:
        found = [score for score in found if _trace_of(score["subject"]) in listed.split(",")]
    first = _offset(in_text(request, "cursor"))
    keys = [*CORE_OF_SCORE, *(key for group in groups for key in GROUPS_OF_SCORE[group])]
    data = [{key: score[key] for key in keys} for score in found[first : first + limit]]
    meta: dict[str, Any] = {"limit": limit}
    if first + limit < len(found):
        meta["cursor"] = base64.urlsafe_b64encode(str(first + limit).encode()).decode()
    return json_response({"data": data, "meta": meta})


def _plain(key: str) -> Any:
    return lambda score: score[key]


def _trace_of(subject: dict[str, Any]) -> str | None:
    trace: str | None = subject["id"] if subject["kind"] == "trace" else subject.get("traceId")
    return trace


def _offset(cursor: str | None) -> int:
    try:
        return 0 if cursor is None else int(base64.urlsafe_b64decode(cursor))
    except (binascii.Error, ValueError):
        raise bad_request("cursor", "Invalid cursor format") from None


def routes() -> list[Route]:
    """The routes of this face."""
    return [
        Route("/api/public/health", health),
        Route("/api/public/projects", projects),
        Route("/api/public/scores", create_scores, methods=["POST"]),
        Route("/api/public/v3/scores", read_scores),
        Route(f"/project/{PROJECT_ID}/traces/{{trace_id:path}}", trace_page),
    ]
