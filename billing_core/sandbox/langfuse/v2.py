"""The face of Langfuse v4 and Cloud: `GET /v2/observations` and `GET /v2/metrics` (reference, sections 1 and 5)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

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
from billing_core.sandbox.langfuse.wire import GROUPS, STORED_GROUPS, iso, mapping, milliseconds, select_groups

MAXIMUM_LIMIT = 1000
DEFAULT_GROUPS = frozenset({"core", "basic"})
DAY = 86_400_000
METRICS_ROWS = (100, 1000)
"""Default and maximum of `row_limit`."""

DIMENSIONS = {"environment": "environment", "type": "type", "providedModelName": "model"}
METRICS: dict[tuple[str, str], Callable[[list[int]], object]] = {
    ("count", "count"): lambda sums: str(sums[0]),  # 64-bit integers leave as texts
    ("totalCost", "sum"): lambda sums: sums[1] / 10**12,
    ("totalTokens", "sum"): lambda sums: str(sums[2]),
}
"""Each from rows, USD × 10⁻¹² and tokens."""

SIMPLE_FILTERS = ("traceId", "type", "userId", "sessionId", "name", "level", "version", "parentObservationId")


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
    rows = [row.whole if whole else row.shown for row in page.rows]
    data = rows if groups == STORED_GROUPS else [select_groups(row, groups) for row in rows]
    return json_response({"data": data, "meta": {} if page.cursor is None else {"cursor": page.cursor}})


def _parse(request: Request) -> tuple[Query, frozenset[str], bool]:
    """The query, the field groups, and whether metadata leaves uncut."""
    named = request.query_params.get("fields")
    # an unknown group is dropped without a word, exactly as the real server does
    asked = DEFAULT_GROUPS if not named else frozenset(part.strip() for part in named.split(",")) & GROUPS
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
    # a simple parameter steps back where the filter speaks about the same column
    asked_for = {name: value for name in SIMPLE_FILTERS if name not in filtered and (value := in_text(request, name))}
    if (trace := asked_for.pop("traceId", None)) is not None:
        query = replace(query, traces=frozenset((trace,)))
    checks = [equals(name, value) for name, value in asked_for.items()]
    environments = frozenset(request.query_params.getlist("environment"))
    if environments and "environment" not in filtered:
        checks.append(lambda row: row.environment in environments)
    root = in_text(request, "isRootObservation")
    if root is not None and "isRootObservation" not in filtered:
        if root not in {"true", "false"}:
            raise bad_request("isRootObservation", "Expected true or false")
        checks.append(lambda row: row.is_root_observation == (root == "true"))
    query = apply_conditions(replace(query, checks=tuple(checks)), conditions)
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
    fields = [dimension.field for dimension in asked.dimensions]
    if unknown := [field for field in fields if field not in DIMENSIONS]:
        raise bad_request("query", f"Unknown dimension {unknown[0]}; the sandbox knows {', '.join(DIMENSIONS)}")
    if unknown := [
        f"{m.aggregation} of {m.measure}" for m in asked.metrics if (m.measure, m.aggregation) not in METRICS
    ]:
        known = "count of count, sum of totalCost and of totalTokens"
        raise bad_request("query", f"Unknown metric {unknown[0]}; the sandbox knows {known}")

    by_day = asked.time_dimension is not None
    sums: defaultdict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0, 0])
    if not by_day and not fields:
        sums[()] = [0, 0, 0]
    elif not fields:  # days without rows are filled with zeros
        for number in range(window[0] // DAY, (window[1] - 1) // DAY + 1):
            sums[(iso(number * DAY)[:10],)] = [0, 0, 0]
    for stored in store.started(window, now):
        row = stored.whole
        day = (row.start_time[:10],) if by_day else ()
        total = sums[(*day, *(str(getattr(row, DIMENSIONS[field])) for field in fields))]
        total[0] += 1
        total[1] += _units(mapping(row.cost_details).get("total"), 10**12)
        total[2] += _units(mapping(row.usage_details).get("total"), 1)

    names = [*(("time_dimension",) if by_day else ()), *fields]
    return [
        {f"{m.aggregation}_{m.measure}": METRICS[m.measure, m.aggregation](sums[key]) for m in asked.metrics}
        | dict(zip(names, key, strict=True))
        for key in sorted(sums)
    ]


def _units(value: object, factor: int) -> int:
    """What can be added up exactly; odd values of test rows count nothing."""
    return round(value * factor) if isinstance(value, (int, float)) and abs(value) * factor < 2**60 else 0


def routes() -> list[Route]:
    """The routes of this face."""
    return [Route("/api/public/v2/observations", observations), Route("/api/public/v2/metrics", metrics)]
