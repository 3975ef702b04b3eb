"""Questions to a large ledger: the service beside the same SQL written by hand, in the same run and process.

python -m benchmarks.ledger PATH      (a ledger made by benchmarks.fill)
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.measure import percentile, timed
from billing_core.access import system_principal
from billing_core.ledger.queries import PAGE_COLUMNS
from billing_core.runtime import clock
from billing_core.service import BillingService
from billing_core.settings import load_settings
from billing_core.types import GetUsageEventsParams

ROUNDS = 40
WHO = system_principal("bench")


def measure(path: Path) -> dict[str, Any]:
    """p50 and p95 in milliseconds of each question, and the ratio where there is a hand-written twin."""
    settings = load_settings({"BILLING_WAREHOUSE_URL": f"duckdb:///{path}", "BILLING_MODE": "demo"}, env_file=None)
    service = BillingService.from_settings(settings)
    figures: dict[str, Any] = {"events": service.get_usage_events(GetUsageEventsParams(), WHO).pagination.total_items}
    for sort in ("timestamp", "credits_total"):
        figures[f"page_by_{sort}"] = _page(service, sort)
    figures["daily_year"] = _daily(service)
    service.close()
    return figures


def _page(service: BillingService, sort: str) -> dict[str, float]:
    """One organization, thirty days, one status: page, exact count and totals. Every round asks something new."""
    draw = random.Random(sort)
    questions = [
        (f"org_{draw.randrange(100)}", clock.now() - timedelta(days=draw.randrange(30, 360))) for _ in range(ROUNDS)
    ]

    def by_service(organization: str, start: datetime) -> Callable[[], Any]:
        params = GetUsageEventsParams.parse(
            {
                "from": start,
                "to": start + timedelta(days=30),
                "organization": organization,
                "status": "confirmed",
                "sort": sort,
                "limit": 50,
            }
        )
        return lambda: service.get_usage_events(params, WHO)

    def by_hand(organization: str, start: datetime) -> Callable[[], Any]:
        where = 'organization_id = ? AND sync_status = \'confirmed\' AND "timestamp" >= ? AND "timestamp" < ?'
        columns = ", ".join(f'"{name}"' for name in PAGE_COLUMNS)
        page = f'SELECT {columns} FROM events WHERE {where} ORDER BY "{sort}" DESC, id LIMIT 50'
        sums = (
            "SELECT count(*), sum(credits_ai_tokens), sum(credits_compute), sum(credits_storage), sum(cost_usd), "
            "sum(credits_total * credit_price_usd), sum(tokens_in), sum(tokens_out), sum(tokens_total) "
            f"FROM events WHERE {where}"
        )
        naive = start.replace(tzinfo=None)
        values = [organization, naive, naive + timedelta(days=30)]
        engine = service._ledger.engine  # noqa: SLF001  (the same connection, so that only the road differs)
        return lambda: (engine.rows(page, values), engine.rows(sums, values))

    hand, own = [], []
    for question in questions:  # taken in turns, so that noise hits both
        hand += timed([by_hand(*question)])
        own += timed([by_service(*question)])
    return _compared(own, hand)


def _daily(service: BillingService) -> dict[str, float]:
    """Credits by type per day of a year, all organizations."""
    end = clock.now()
    engine = service._ledger.engine  # noqa: SLF001
    hand_sql = (
        'SELECT CAST("timestamp" AS DATE), sum(credits_ai_tokens), sum(credits_compute), sum(credits_storage), '
        "count(*), sum(credits_total * credit_price_usd), sum(cost_usd), sum(tokens_total) FROM events GROUP BY 1"
    )
    own, hand = [], []
    for number in range(10):
        params = GetUsageEventsParams.parse({"from": end - timedelta(days=365, seconds=number), "to": end})
        selection = service.events._select(params, WHO)  # noqa: SLF001
        own += timed([lambda chosen=selection: service.events._days(chosen)])  # type: ignore[misc]  # noqa: SLF001
        hand += timed([lambda: engine.rows(hand_sql)])
    return _compared(own, hand)


def _compared(own: list[float], hand: list[float]) -> dict[str, float]:
    figures = {
        "p50_ms": percentile(own, 0.5),
        "p95_ms": percentile(own, 0.95),
        "by_hand_p50_ms": percentile(hand, 0.5),
        "by_hand_p95_ms": percentile(hand, 0.95),
    }
    return {
        **{k: round(v, 1) for k, v in figures.items()},
        "ratio_p95": round(figures["p95_ms"] / figures["by_hand_p95_ms"], 2),
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]).resolve())))
