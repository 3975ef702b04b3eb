"""Organization statistics of a large ledger: the roll-up of a year beside the same SQL by hand, and a month.

python -m benchmarks.organizations PATH      (a ledger made by benchmarks.fill)
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.measure import percentile, timed
from billing_core.access import system_principal
from billing_core.runtime import clock
from billing_core.service import BillingService
from billing_core.settings import Settings, load_settings
from billing_core.types import GetUsageEventsParams

ROUNDS = 5
SHOWN = 25
"""Rows of a page: so many forecasts are made at once."""
MONTH = timedelta(days=30)
WHO = system_principal("bench")

BY_HAND = """
SELECT organization_id, count(*), sum(credits_ai_tokens), sum(credits_compute), sum(credits_storage),
       sum(credits_total * credit_price_usd), sum(cost_usd), sum(tokens_in), sum(tokens_out), sum(tokens_total),
       sum(credits_total) FILTER (WHERE sync_status IN ('pending', 'sending', 'error')),
       sum(credits_total) FILTER (WHERE sync_status = 'error'),
       count(DISTINCT session_id), count(DISTINCT user_id), count(DISTINCT coalesce(chatflow_id, chatflow_name)),
       count(*) FILTER (WHERE tokens_out > 0), count(*) FILTER (WHERE has_error), count(has_error),
       avg(latency_seconds), quantile_cont(latency_seconds::DOUBLE, 0.95), list(DISTINCT models),
       list(DISTINCT customer_id)
FROM events WHERE "timestamp" >= ? AND "timestamp" < ? GROUP BY organization_id
"""
CLASSES_BY_HAND = """
SELECT organization_id, sum(part.input), sum(part.output), sum(part.cache_read), sum(part.cache_write),
       sum(part.reasoning), sum(part.other)
FROM (SELECT organization_id, unnest(usage) AS part FROM events WHERE "timestamp" >= ? AND "timestamp" < ?)
GROUP BY organization_id
"""
DAYS_BY_HAND = """
SELECT organization_id, CAST("timestamp" AS DATE), sum(credits_total), count(*)
FROM events WHERE "timestamp" >= ? AND "timestamp" < ? GROUP BY 1, 2
"""


def measure(path: Path) -> dict[str, Any]:
    """Milliseconds. Every round asks something new, so that no answer comes from memory."""
    settings = load_settings({"BILLING_WAREHOUSE_URL": f"duckdb:///{path}", "BILLING_MODE": "demo"}, env_file=None)
    service = BillingService.from_settings(settings)
    end = clock.now()
    own, hand, month, unusual, forecasts = [], [], [], [], []
    for number in range(ROUNDS):  # taken in turns, so that noise hits both
        start = end - timedelta(days=366, seconds=number)
        hand += timed([lambda begin=start: _by_hand(service, begin, end)])  # type: ignore[misc]
        own += timed([lambda begin=start: _by_service(service, begin, end, before=False)])  # type: ignore[misc]
        recent = end - MONTH - timedelta(seconds=number)
        month += timed([lambda begin=recent: _by_service(service, begin, end, before=True)])  # type: ignore[misc]
        unusual += timed([lambda: _anomalies_anew(settings, end)])
        some = {f"org_{organization}" for organization in range(number * SHOWN, (number + 1) * SHOWN)}
        forecasts += timed([lambda ids=some: service.organizations.forecasting.forecasts(WHO, ids)])  # type: ignore[misc]
    figures = {
        "events": service.get_usage_events(GetUsageEventsParams(limit=1), WHO).pagination.total_items,
        "year_ms": round(percentile(own, 0.5)),
        "year_by_hand_ms": round(percentile(hand, 0.5)),
        "year_ratio": round(percentile(own, 0.5) / percentile(hand, 0.5), 2),
        "month_and_the_one_before_ms": round(percentile(month, 0.5)),
        "anomalies_of_a_month_ms": round(percentile(unusual, 0.5)),
        "forecasts_of_25_organizations_ms": round(percentile(forecasts, 0.5)),
    }
    service.close()
    return figures


def _anomalies_anew(settings: Settings, end: datetime) -> None:
    """Of a service that remembers nothing; opening the ledger is part of it."""
    with closing(BillingService.from_settings(settings)) as service:
        service.organizations.forecasting.anomalies(WHO, end - MONTH, end)


def _by_hand(service: BillingService, start: datetime, end: datetime) -> None:
    engine = service._ledger.engine  # noqa: SLF001  (the same connection, so that only the road differs)
    for query in (BY_HAND, CLASSES_BY_HAND, DAYS_BY_HAND):
        engine.rows(query, [start, end])


def _by_service(service: BillingService, start: datetime, end: datetime, *, before: bool) -> None:
    """The year alone, as the statement by hand; the month with the one before, as the page asks."""
    params = GetUsageEventsParams.parse({"from": start, "to": end})
    if before:
        service.organizations.statistics(params, WHO)
    else:
        service.organizations._read_statistics(service.events._select(params, WHO), None)  # noqa: SLF001


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]).resolve())))
