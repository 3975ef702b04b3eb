"""The face of Langfuse v3: `/traces`, `/traces/{id}` and `/observations`, page by page (reference, section 3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from billing_core.sandbox.data.catalog import PROJECT_ID
from billing_core.sandbox.http import (
    ApiGeneration,
    Sandbox,
    bad_request,
    check_key,
    in_text,
    json_response,
    not_found,
    time_window,
    whole_number,
)
from billing_core.sandbox.langfuse.store import Query, RowStore
from billing_core.sandbox.langfuse.wire import milliseconds

MAXIMUM_LIMIT = 100
TRACE_GROUPS = frozenset({"core", "io", "scores", "observations", "metrics"})
NOT_ASKED = -1
"""What `totalCost` and `latency` say when the group `metrics` was not asked for."""

SIMPLE_TRACE_FILTERS = ("userId", "name", "sessionId", "version", "release")
SIMPLE_OBSERVATION_FILTERS = ("name", "level", "parentObservationId", "version")


def _check_offered(request: Request) -> None:
    """The rejection comes before authentication and has no class name: it says nothing about the key."""
    if Sandbox.of(request).mode is ApiGeneration.V4:
        raise not_found("This endpoint is not available in the current write mode", error=None)
    check_key(request)


def _is_synthetic(row: dict[str, Any]) -> bool:
    return str(row["id"]) == f"t-{row['traceId']}"


def _newest(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One version per id, the latest: this API deduplicates."""
    best: dict[str, dict[str, Any]] = {}
    for row in rows:
        known = best.get(row["id"])
        if known is None or row["updatedAt"] > known["updatedAt"]:
            best[row["id"]] = row
    return list(best.values())


def _end(row: dict[str, Any]) -> str:
    start: str = row["startTime"]
    return max(row["endTime"] or start, start)


def _trace_record(rows: list[dict[str, Any]], groups: frozenset[str]) -> dict[str, Any]:
    """The trace as v3 keeps it: a record of its own. Here it is put together from the rows' attributes, root first."""
    rows = sorted(_newest(rows), key=lambda row: (not row["isRootObservation"], row["startTime"], row["id"]))
    first = rows[0]
    observed = [row for row in rows if not _is_synthetic(row)]
    metadata: dict[str, Any] = {}
    for row in reversed(rows):
        metadata |= {k: v for k, v in row["metadata"].items() if not k.startswith(("scope.", "resourceAttributes."))}

    def attribute(key: str) -> Any:
        return next((row[key] for row in rows if row[key]), None)

    start = min(row["startTime"] for row in rows)
    record = {
        "id": first["traceId"],
        "projectId": PROJECT_ID,
        "timestamp": start,
        "name": attribute("traceName") or attribute("name"),
        "userId": attribute("userId"),
        "sessionId": attribute("sessionId"),
        "environment": first["environment"],
        "release": attribute("release"),
        "version": attribute("version"),
        "tags": attribute("tags") or [],
        "public": False,
        "bookmarked": False,
        "metadata": metadata if "io" in groups else {},
        "input": f"question of {first['traceId']}" if "io" in groups else None,
        "output": f"answer of {first['traceId']}" if "io" in groups else None,
        "createdAt": min(row["createdAt"] for row in rows),
        "updatedAt": max(row["updatedAt"] for row in rows),
        "externalId": None,
        "observations": [row["id"] for row in observed] if "observations" in groups else [],
        "scores": [],
        "totalCost": NOT_ASKED,
        "latency": NOT_ASKED,
        "htmlPath": f"/project/{PROJECT_ID}/traces/{first['traceId']}",
    }
    if "metrics" in groups:
        ends = max((_end(row) for row in observed), default=start)
        starts = min((row["startTime"] for row in observed), default=start)
        record["totalCost"] = sum(row["costDetails"].get("total") or 0 for row in observed)
        record["latency"] = (milliseconds(ends) - milliseconds(starts)) / 1000
    return record


def _observation(row: dict[str, Any]) -> dict[str, Any]:
    """A row as v1 words it: other keys, null instead of empty text, no attributes of the trace."""
    usage, cost = row["usageDetails"], row["costDetails"]
    received, written, total = (usage.get(key, 0) for key in ("input", "output", "total"))
    parent = row["parentObservationId"]
    return {
        "id": row["id"],
        "traceId": row["traceId"],
        "projectId": row["projectId"],
        "type": row["type"],
        "name": row["name"] or None,
        "startTime": row["startTime"],
        "endTime": row["endTime"],
        "completionStartTime": row["completionStartTime"],
        "createdAt": row["createdAt"],
        "updatedAt": row["updatedAt"],
        "model": row["model"] or None,
        "modelParameters": row["modelParameters"],
        "modelId": row["modelId"],
        "input": f"question of {row['id']}",
        "output": f"answer of {row['id']}",
        "metadata": row["metadata"],
        "version": row["version"] or None,
        "level": row["level"],
        "statusMessage": row["statusMessage"] or None,
        "environment": row["environment"],
        # v3 has no synthetic roots: what hangs under one is a root here
        "parentObservationId": None if parent == f"t-{row['traceId']}" else parent,
        "promptId": None,
        "promptName": None,
        "promptVersion": None,
        "usage": {"unit": "TOKENS", "input": received, "output": written, "total": total},
        "promptTokens": received,
        "completionTokens": written,
        "totalTokens": total,
        "usageDetails": usage,
        "costDetails": cost,
        "calculatedInputCost": cost.get("input"),
        "calculatedOutputCost": cost.get("output"),
        "calculatedTotalCost": cost.get("total", 0),
        "inputPrice": None if row["inputPrice"] is None else float(row["inputPrice"]),
        "outputPrice": None if row["outputPrice"] is None else float(row["outputPrice"]),
        "totalPrice": None,
        "latency": row["latency"],
        "timeToFirstToken": row["timeToFirstToken"],
    }


def _groups(request: Request) -> frozenset[str]:
    text = in_text(request, "fields")
    if text is None:
        return TRACE_GROUPS
    return (frozenset(part.strip() for part in text.split(",")) & TRACE_GROUPS) | {"core"}


def _page(request: Request) -> tuple[int, int]:
    page = whole_number(request, "page", default=1, maximum=None)
    return page, whole_number(request, "limit", default=50, maximum=MAXIMUM_LIMIT)


def _meta(page: int, limit: int, items: int) -> dict[str, int]:
    return {"page": page, "limit": limit, "totalItems": items, "totalPages": -(-items // limit)}


def _visible_rows(store: RowStore, trace: str, now: int) -> list[dict[str, Any]]:
    return [store.row(p) for p in store.visible(store.rows_of_trace(trace), now).tolist()]


async def traces(request: Request) -> Response:
    """One page of traces of a window over their own time."""
    _check_offered(request)
    groups = _groups(request)
    page, limit = _page(request)
    window = time_window(request, "fromTimestamp", "toTimestamp")
    order = in_text(request, "orderBy") or "timestamp.desc"
    if order not in {"timestamp.asc", "timestamp.desc"}:
        raise bad_request("orderBy", "The sandbox knows timestamp.asc and timestamp.desc")
    sandbox = Sandbox.of(request)
    store, now = await sandbox.store(), sandbox.clock()

    names = store.traces_started(window, now)
    if order.endswith("desc"):
        names.reverse()
    wanted = {name: value for name in SIMPLE_TRACE_FILTERS if (value := in_text(request, name)) is not None}
    environments = request.query_params.getlist("environment")
    if wanted or environments:
        # v3 filters on the trace's record, which exists only when it is put together
        records = [(name, _trace_record(_visible_rows(store, name, now), groups)) for name in names]
        names = [
            name
            for name, record in records
            if all(record[key] == value for key, value in wanted.items())
            and (not environments or record["environment"] in environments)
        ]
    shown = names[(page - 1) * limit : page * limit]
    data = [_trace_record(_visible_rows(store, name, now), groups) for name in shown]
    return json_response({"data": data, "meta": _meta(page, limit, len(names))})


async def trace(request: Request) -> Response:
    """One trace with its observations in full; 404 if it is unknown."""
    _check_offered(request)
    sandbox = Sandbox.of(request)
    trace_id = request.path_params["trace_id"]
    rows = _visible_rows(await sandbox.store(), trace_id, sandbox.clock())
    if not rows:
        raise not_found(f"Trace {trace_id} not found within authorized project")
    groups = _groups(request)
    record = _trace_record(rows, groups)
    observed = sorted((row for row in _newest(rows) if not _is_synthetic(row)), key=lambda row: row["startTime"])
    record["observations"] = [_observation(row) for row in observed] if "observations" in groups else []
    return json_response(record)


async def observations(request: Request) -> Response:
    """One page of observations of a window, newest first; `totalItems` counts versions that are not shown."""
    _check_offered(request)
    page, limit = _page(request)
    sandbox = Sandbox.of(request)
    store, now = await sandbox.store(), sandbox.clock()
    query = Query(start=time_window(request, "fromStartTime", "toStartTime"), limit=len(store))
    if (trace_id := in_text(request, "traceId")) is not None:
        query = replace(query, traces=frozenset((trace_id,)))
    if (kind := in_text(request, "type")) is not None:
        query = replace(query, types=frozenset((kind,)))
    if environments := request.query_params.getlist("environment"):
        query = replace(query, environments=frozenset(environments))
    wanted = {name: value for name in SIMPLE_OBSERVATION_FILTERS if (value := in_text(request, name)) is not None}
    query = replace(query, checks=tuple(_has(name, value) for name, value in wanted.items()))

    positions = store.page(query, now).positions
    positions = positions[store.columns["synthetic"][positions] == 0]
    shown = positions[(page - 1) * limit : page * limit].tolist()
    data = []
    for position in shown:
        row = store.row(position)
        if store.has_versions(position):
            versions = [other for other in _visible_rows(store, row["traceId"], now) if other["id"] == row["id"]]
            if _newest(versions)[0] != row:
                continue
        data.append(_observation(row))
    return json_response({"data": data, "meta": _meta(page, limit, len(positions))})


def _has(key: str, value: str) -> Any:
    return lambda row: row[key] == value


def routes() -> list[Route]:
    """The routes of this face."""
    return [
        Route("/api/public/traces", traces),
        Route("/api/public/traces/{trace_id}", trace),
        Route("/api/public/observations", observations),
    ]
