"""Compares what was read with Langfuse's own daily sums (`/v2/metrics`), through the official SDK.

Langfuse adds up unmerged duplicates and counts a missing total as 0, so differences are explained, never "fixed".
Source: section 5 of the Langfuse notes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

import httpx
from pydantic import SecretStr

from billing_core.errors import UpstreamError
from billing_core.langfuse.rollup import DailyTotal
from billing_core.langfuse.spans import api_time, milliseconds
from billing_core.runtime.bounded_http import bounded_client
from billing_core.values.usage_frame import Window

COST_TOLERANCE_USD = Decimal("0.000001")
MOST_DAYS = 1000
"""`row_limit` is silently truncating; 1000 is its maximum."""


@dataclass(frozen=True, slots=True)
class DailyDifference:
    """The difference between Langfuse's own sums and those of the rows read, on a UTC day: Langfuse minus ours."""

    day: date
    observations: int
    tokens: int
    cost_usd: Decimal


def metrics_query(window: Window) -> str:
    """The API query for the daily sums of a window. Its upper bound is inclusive, ours is not: minus 1 ms."""
    return json.dumps(
        {
            "view": "observations",
            "metrics": [
                {"measure": "totalCost", "aggregation": "sum"},
                {"measure": "totalTokens", "aggregation": "sum"},
                {"measure": "count", "aggregation": "count"},
            ],
            "dimensions": [],
            "filters": [],
            "timeDimension": {"granularity": "day"},
            "fromTimestamp": api_time(milliseconds(window.start)),
            "toTimestamp": api_time(milliseconds(window.end) - 1),
            "config": {"row_limit": MOST_DAYS},
        }
    )


def fetch_daily_totals(
    host: str, public_key: str, secret_key: SecretStr, window: Window, timeout_seconds: float
) -> list[DailyTotal] | None:
    """Langfuse's own sums per UTC day; `None` if the server does not offer them (self-hosted v3).

    Raises UpstreamError: if the server cannot be read or refuses, its daily quota of metrics calls included.
    """
    from langfuse.api import LangfuseAPI
    from langfuse.api.core.api_error import ApiError

    name = httpx.URL(host).netloc.decode().rpartition("@")[2]
    with bounded_client(timeout=timeout_seconds) as http:
        api = LangfuseAPI(
            base_url=host,
            username=public_key,
            password=secret_key.get_secret_value(),
            timeout=timeout_seconds,
            httpx_client=http,
        )
        try:
            rows = api.metrics.metrics(query=metrics_query(window)).data
        except ApiError as error:
            if error.status_code in {404, 410, 501}:
                return None
            raise UpstreamError(
                f"Langfuse at {name}: GET /api/public/v2/metrics answered {error.status_code}; "
                "the daily cross-check was not possible, pulling is not affected"
            ) from None
        except httpx.HTTPError as error:
            raise UpstreamError(
                f"Langfuse at {name}: GET /api/public/v2/metrics failed ({type(error).__name__}); "
                "check LANGFUSE_HOST and the network"
            ) from None
        except (ValueError, TypeError, LookupError, ArithmeticError, RecursionError):  # pydantic's, about the answer
            raise _unexpected(name) from None
    totals = [_total(row) for row in rows]
    if None in totals or len(totals) >= MOST_DAYS:
        raise _unexpected(name)
    return sorted(total for total in totals if total is not None)


def _unexpected(name: str) -> UpstreamError:
    """An answer that is not one sum per day, or that may be cut off."""
    return UpstreamError(
        f"Langfuse at {name}: GET /api/public/v2/metrics answered something unexpected; "
        "the daily cross-check was not possible, pulling is not affected"
    )


def compare_daily(
    own: Iterable[DailyTotal], upstream: Iterable[DailyTotal], tolerance_usd: Decimal = COST_TOLERANCE_USD
) -> list[DailyDifference]:
    """The days whose sums differ; a cost within `tolerance_usd` is equal. A day missing on one side is 0 there."""
    ours = {total.day: total for total in own}
    theirs = {total.day: total for total in upstream}
    differences: list[DailyDifference] = []
    for day in sorted(ours.keys() | theirs.keys()):
        nothing = DailyTotal(day, 0, None, None)
        mine, other = ours.get(day, nothing), theirs.get(day, nothing)
        difference = DailyDifference(
            day,
            other.observations - mine.observations,
            (other.tokens or 0) - (mine.tokens or 0),
            (other.cost_usd or Decimal(0)) - (mine.cost_usd or Decimal(0)),
        )
        if difference.observations or difference.tokens or abs(difference.cost_usd) > tolerance_usd:
            differences.append(difference)
    return differences


def _total(row: Mapping[str, Any]) -> DailyTotal | None:
    """A result row; numbers come as JSON numbers or as text."""
    try:
        day = datetime.fromisoformat(str(row["time_dimension"])).date()
    except (KeyError, ValueError, TypeError):
        return None
    tokens = _number(row.get("sum_totalTokens"))
    return DailyTotal(
        day,
        int(_number(row.get("count_count")) or 0),
        None if tokens is None else int(tokens),
        _number(row.get("sum_totalCost")),
    )


def _number(value: object) -> Decimal | None:
    if value is None or isinstance(value, bool):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
