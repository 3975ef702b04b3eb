"""The face of Langfuse v4 and Cloud: `GET /v2/observations` and `GET /v2/metrics` (reference, sections 1 and 5)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from billing_core.sandbox.data.plan import moment
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
from billing_core.sandbox.langfuse.filters import apply_conditions, equals, parse_conditions
from billing_core.sandbox.langfuse.store import ALL_TIME, BadCursor, Query, RowStore
from billing_core.sandbox.langfuse.wire import GROUPS, STORED_GROUPS, milliseconds, select_groups

MAXIMUM_LIMIT = 1000
DEFAULT_GROUPS = frozenset({"core", "basic"})
DAY = 86_400_000
METRICS_ROWS = (100, 1000)
"""Default and maximum of `row_limit`."""

SIMPLE_FILTERS = ("userId", "sessionId", "name", "level", "version", "parentObservationId")


def _check_offered(request: Request) -> None:
    """The key is looked at before the mode: a bad key is 401 even where the route is switched off."""
    check_key(request)
    if Sandbox.of(request).mode is ApiGeneration.V3:
        raise not_found("This API is not available on this Langfuse version")


async def observations(request: Request) -> Response:
    """One page of rows."""
    _check_offered(request)
    query, groups, whole = _parse(request)
    sandbox = Sandbox.of(request)
    store = await sandbox.store()
    try:
        page = store.page(query, sandbox.clock())
    except BadCursor:
        raise bad_request("cursor", "Invalid cursor format") from None
    if groups == STORED_GROUPS and not whole:
        rows = store.joined(page.positions)
    else:
        read = store.whole_text if whole else store.text
        rows = b",".join([select_groups(read(position), groups) for position in page.positions.tolist()])
    meta = b"{}" if page.cursor is None else b'{"cursor":"%s"}' % page.cursor.encode()
    return json_response(b'{"data":[%s],"meta":%s}' % (rows, meta))


def _parse(request: Request) -> tuple[Query, frozenset[str], bool]:
    """The query, the field groups, and whether metadata leaves uncut."""
    named = request.query_params.get("fields")
    # an unknown group is dropped without a word, exactly as the real server does
    asked = DEFAULT_GROUPS if not named else frozenset(part.strip() for part in named.split(",")) & frozenset(GROUPS)
    groups = asked | {"core"}
    if (request.query_params.get("parseIoAsJson") or "false") != "false":
        raise bad_request("parseIoAsJson", "parseIoAsJson is no longer supported")
    conditions = parse_conditions(in_text(request, "filter"))
    filtered = {condition.column for condition in conditions}
    start = time_window(request, "fromStartTime", "toStartTime")
    query = Query(
        start=ALL_TIME if "startTime" in filtered else start,
        cursor=in_text(request, "cursor"),
        limit=whole_number(request, "limit", default=50, maximum=MAXIMUM_LIMIT),
    )
    trace, kind, root = (in_text(request, name) for name in ("traceId", "type", "isRootObservation"))
    environments = request.query_params.getlist("environment")
    # a simple parameter steps back where the filter speaks about the same column
    if trace is not None and "traceId" not in filtered:
        query = replace(query, traces=frozenset((trace,)))
    if kind is not None and "type" not in filtered:
        query = replace(query, types=frozenset((kind,)))
    if environments and "environment" not in filtered:
        query = replace(query, environments=frozenset(environments))
    if root is not None and "isRootObservation" not in filtered:
        if root not in {"true", "false"}:
            raise bad_request("isRootObservation", "Expected true or false")
        query = replace(query, is_root=root == "true")
    checks = tuple(
        equals(name, value)
        for name in SIMPLE_FILTERS
        if name not in filtered and (value := in_text(request, name)) is not None
    )
    query = apply_conditions(replace(query, checks=checks), conditions)
    expands = any(key.strip() for key in request.query_params.get("expandMetadata", "").split(","))
    return query, groups, expands or "io" in groups


class _Metric(msgspec.Struct):
    measure: str
    aggregation: str


class _Dimension(msgspec.Struct):
    field: str


class _TimeDimension(msgspec.Struct):
    granularity: str


class _Config(msgspec.Struct):
    row_limit: int = METRICS_ROWS[0]


class _MetricsQuery(msgspec.Struct):
    view: str
    metrics: list[_Metric]
    from_: str = msgspec.field(name="fromTimestamp")
    to: str = msgspec.field(name="toTimestamp")
    dimensions: list[_Dimension] = []
    filters: list[dict[str, Any]] = []
    time_dimension: _TimeDimension | None = msgspec.field(name="timeDimension", default=None)
    config: _Config = msgspec.field(default_factory=_Config)


async def metrics(request: Request) -> Response:
    """Sums per day and dimension, over all rows served: duplicates and synthetic roots count, as on the real server."""
    _check_offered(request)
    try:
        asked = msgspec.json.decode(request.query_params.get("query", ""), type=_MetricsQuery)
        # both bounds are inclusive here, unlike anywhere else
        window = (milliseconds(asked.from_), milliseconds(asked.to) + 1)
    except (msgspec.MsgspecError, ValueError) as error:
        raise bad_request("query", f"Invalid query: {error}") from None
    sandbox = Sandbox.of(request)
    rows = _sums(await sandbox.store(), asked, window, sandbox.clock())
    limit = min(asked.config.row_limit, METRICS_ROWS[1])
    return json_response({"data": rows[:limit]})


def _sums(store: RowStore, asked: _MetricsQuery, window: tuple[int, int], now: int) -> list[dict[str, Any]]:
    if asked.view != "observations":
        raise bad_request("query", f"Unknown view {asked.view}; the sandbox knows observations")
    if asked.filters:
        raise bad_request("query", "The sandbox knows no filters in metrics; expected an empty list")
    if asked.time_dimension is not None and asked.time_dimension.granularity != "day":
        raise bad_request("query", "The sandbox knows the granularity day only")
    texts = {
        "environment": store.environments.texts,
        "type": store.types.texts,
        "providedModelName": store.models.texts,
    }
    columns = {"environment": "environment", "type": "type", "providedModelName": "model"}
    fields = [dimension.field for dimension in asked.dimensions]
    if unknown := [field for field in fields if field not in columns]:
        raise bad_request("query", f"Unknown dimension {unknown[0]}; the sandbox knows {', '.join(columns)}")

    positions = store.visible(np.arange(*store.window(window)), now)
    by_day = asked.time_dimension is not None
    keys = [store.columns["start"][positions] // DAY] if by_day else []
    keys += [store.columns[columns[field]][positions] for field in fields]
    groups: dict[tuple[int, ...], Any] = defaultdict(lambda: np.empty(0, dtype=np.int64))
    if keys:
        order = np.lexsort(keys[::-1])
        stacked = np.stack([key[order] for key in keys], axis=1)
        changes = np.flatnonzero(np.any(np.diff(stacked, axis=0) != 0, axis=1)) + 1
        for part in np.split(np.arange(len(order)), changes):
            if len(part):
                groups[tuple(stacked[part[0]].tolist())] = positions[order[part]]
    else:
        groups[()] = positions
    if by_day and not fields:  # days without rows are filled with zeros
        for day in range(window[0] // DAY, (window[1] - 1) // DAY + 1):
            groups.setdefault((day,), np.empty(0, dtype=np.int64))

    result = []
    for key in sorted(groups):
        row: dict[str, Any] = {f"{m.aggregation}_{m.measure}": _measure(store, groups[key], m) for m in asked.metrics}
        values = list(key)
        if by_day:
            row["time_dimension"] = moment(values.pop(0) * DAY).date().isoformat()
        row |= {field: texts[field][code] for field, code in zip(fields, values, strict=True)}
        result.append(row)
    return result


def _measure(store: RowStore, positions: Any, metric: _Metric) -> object:
    match metric.measure, metric.aggregation:
        case ("count", "count"):
            return str(len(positions))  # 64-bit integers leave as texts
        case ("totalCost", "sum"):
            return int(store.columns["cost"][positions].sum()) / 10**12
        case ("totalTokens", "sum"):
            return str(int(store.columns["tokens"][positions].sum()))
        case _:
            known = "count of count, sum of totalCost and of totalTokens"
            raise bad_request(
                "query", f"Unknown metric {metric.aggregation} of {metric.measure}; the sandbox knows {known}"
            )


def routes() -> list[Route]:
    """The routes of this face."""
    return [Route("/api/public/v2/observations", observations), Route("/api/public/v2/metrics", metrics)]
