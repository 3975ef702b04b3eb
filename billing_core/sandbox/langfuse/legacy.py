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
from billing_core.sandbox.langfuse.filters import equals
from billing_core.sandbox.langfuse.store import Query, RowStore
from billing_core.sandbox.langfuse.wire import OTEL_METADATA, Observation, mapping, milliseconds

MAXIMUM_LIMIT = 100
TRACE_GROUPS = frozenset({"core", "io", "scores", "observations", "metrics"})
NOT_ASKED = -1
"""What `totalCost` and `latency` say when the group `metrics` was not asked for."""

SIMPLE_TRACE_FILTERS = ("userId", "name", "sessionId", "version", "release")
SIMPLE_OBSERVATION_FILTERS = ("type", "name", "level", "parentObservationId", "version")


def _check_offered(request: Request) -> None:
    """The rejection comes before authentication and has no class name: it says nothing about the key."""
    if Sandbox.of(request).mode is ApiGeneration.V4:
        raise not_found("This endpoint is not available in the current write mode", error=None)
    check_key(request)


def _is_synthetic(row: Observation) -> bool:
    return row.id == f"t-{row.trace_id}"


def _newest(rows: Iterable[Observation]) -> list[Observation]:
    """One version per id, the latest: this API deduplicates."""
    best: dict[str, Observation] = {}
    for row in rows:
        known = best.get(row.id)
        if known is None or row.updated_at > known.updated_at:
            best[row.id] = row
    return list(best.values())


def _end(row: Observation) -> str:
    return max(row.end_time or row.start_time, row.start_time)


def _trace_record(rows: list[Observation], groups: frozenset[str]) -> dict[str, Any]:
    """The trace as v3 keeps it: a record of its own. Here it is put together from the rows' attributes, root first."""
    rows = sorted(_newest(rows), key=lambda row: (not row.is_root_observation, row.start_time, row.id))
    first = rows[0]
    observed = [row for row in rows if not _is_synthetic(row)]
    metadata: dict[str, Any] = {}
    for row in reversed(rows):
        metadata |= {key: value for key, value in mapping(row.metadata).items() if key not in OTEL_METADATA}

    def attribute(name: str) -> Any:
        return next((value for row in rows if (value := getattr(row, name))), None)

    start = min(row.start_time for row in rows)
    record = {
        "id": first.trace_id,
        "projectId": PROJECT_ID,
        "timestamp": start,
        "name": attribute("trace_name") or attribute("name"),
        "userId": attribute("user_id"),
        "sessionId": attribute("session_id"),
        "environment": first.environment,
        "release": attribute("release"),
        "version": attribute("version"),
        "tags": attribute("tags") or [],
        "public": False,
        "bookmarked": False,
        "metadata": metadata if "io" in groups else {},
        "input": f"question of {first.trace_id}" if "io" in groups else None,
        "output": f"answer of {first.trace_id}" if "io" in groups else None,
        "createdAt": min(row.created_at for row in rows),
        "updatedAt": max(row.updated_at for row in rows),
        "externalId": None,
        "observations": [row.id for row in observed] if "observations" in groups else [],
        "scores": [],
        "totalCost": NOT_ASKED,
        "latency": NOT_ASKED,
        "htmlPath": f"/project/{PROJECT_ID}/traces/{first.trace_id}",
    }
    if "metrics" in groups:
        ends = max((_end(row) for row in observed), default=start)
        starts = min((row.start_time for row in observed), default=start)
        record["totalCost"] = sum(mapping(row.cost_details).get("total") or 0 for row in observed)
        record["latency"] = (milliseconds(ends) - milliseconds(starts)) / 1000
    return record


def _observation(row: Observation) -> dict[str, Any]:
    """A row as v1 words it: other keys, null instead of empty text, no attributes of the trace."""
    usage, cost = mapping(row.usage_details), mapping(row.cost_details)
    received, written, total = (usage.get(key, 0) for key in ("input", "output", "total"))
    parent = row.parent_observation_id
    return {
        "id": row.id,
        "traceId": row.trace_id,
        "projectId": row.project_id,
        "type": row.type,
        "name": row.name or None,
        "startTime": row.start_time,
        "endTime": row.end_time,
        "completionStartTime": row.completion_start_time,
        "createdAt": row.created_at,
        "updatedAt": row.updated_at,
        "model": row.model or None,
        "modelParameters": row.model_parameters,
        "modelId": row.model_id,
        "input": f"question of {row.id}",
        "output": f"answer of {row.id}",
        "metadata": mapping(row.metadata),
        "version": row.version or None,
        "level": row.level,
        "statusMessage": row.status_message or None,
        "environment": row.environment,
        # v3 has no synthetic roots: what hangs under one is a root here
        "parentObservationId": None if parent == f"t-{row.trace_id}" else parent,
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
        "inputPrice": None if row.input_price is None else float(row.input_price),
        "outputPrice": None if row.output_price is None else float(row.output_price),
        "totalPrice": None,
        "latency": row.latency,
        "timeToFirstToken": row.time_to_first_token,
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


def _rows(store: RowStore, trace: str, now: int) -> list[Observation]:
    return [row.whole for row in store.rows_of_trace(trace, now)]


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
        records = [(name, _trace_record(_rows(store, name, now), groups)) for name in names]
        names = [
            name
            for name, record in records
            if all(record[key] == value for key, value in wanted.items())
            and (not environments or record["environment"] in environments)
        ]
    shown = names[(page - 1) * limit : page * limit]
    data = [_trace_record(_rows(store, name, now), groups) for name in shown]
    return json_response({"data": data, "meta": _meta(page, limit, len(names))})


async def trace(request: Request) -> Response:
    """One trace with its observations in full; 404 if it is unknown."""
    _check_offered(request)
    sandbox = Sandbox.of(request)
    trace_id = request.path_params["trace_id"]
    rows = _rows(await sandbox.store(), trace_id, sandbox.clock())
    if not rows:
        raise not_found(f"Trace {trace_id} not found within authorized project")
    groups = _groups(request)
    record = _trace_record(rows, groups)
    observed = sorted((row for row in _newest(rows) if not _is_synthetic(row)), key=lambda row: row.start_time)
    record["observations"] = [_observation(row) for row in observed] if "observations" in groups else []
    return json_response(record)


async def observations(request: Request) -> Response:
    """One page of observations of a window, newest first; `totalItems` counts versions that are not shown."""
    _check_offered(request)
    page, limit = _page(request)
    sandbox = Sandbox.of(request)
    store, now = await sandbox.store(), sandbox.clock()
    query = Query(start=time_window(request, "fromStartTime", "toStartTime"), limit=len(store.rows))
    if (trace_id := in_text(request, "traceId")) is not None:
        query = replace(query, traces=frozenset((trace_id,)))
    wanted = [equals(name, value) for name in SIMPLE_OBSERVATION_FILTERS if (value := in_text(request, name))]
    if environments := frozenset(request.query_params.getlist("environment")):
        wanted.append(lambda row: row.environment in environments)
    query = replace(query, checks=(lambda row: not _is_synthetic(row), *wanted))

    found = store.page(query, now).rows
    data = [
        _observation(row.whole)
        for row in found[(page - 1) * limit : page * limit]
        if row.whole in _newest(_rows(store, row.whole.trace_id, now))
    ]
    return json_response({"data": data, "meta": _meta(page, limit, len(found))})


def routes() -> list[Route]:
    """The routes of this face."""
    return [
        Route("/api/public/traces", traces),
        Route("/api/public/traces/{trace_id}", trace),
        Route("/api/public/observations", observations),
    ]
