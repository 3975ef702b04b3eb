"""Explore by user and day, every group of them, beside the same sums asked of the engine by hand.

python -m benchmarks.explore [EVENTS] [DAYS]
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.fill import fill
from billing_core.access import system_principal
from billing_core.service import BillingService
from billing_core.settings import load_settings
from billing_core.types import GetUsageEventsParams
from billing_core.usage_events.explore_model import ExploreQuestion

EVENTS, DAYS = 500_000, 90
WHO = system_principal("bench")

BY_HAND = """
SELECT nullif(user_id, '') AS "user", quarter_hour // 96 AS day, sum(credits_total) AS credits
FROM events GROUP BY ALL ORDER BY credits DESC, "user", day
"""
"""In UTC, which needs no change of clocks; the service is asked in UTC too."""


def measure(events: int, days: int) -> dict[str, Any]:
    """Seconds of wall clock of each, with the rows they give."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder).resolve() / "billing.duckdb"
        fill(path, events, days=days)
        settings = load_settings({"BILLING_WAREHOUSE_URL": f"duckdb:///{path}", "BILLING_MODE": "demo"}, env_file=None)
        service = BillingService.from_settings(settings)

        def asked(**more: str) -> Callable[[], int]:
            question = ExploreQuestion.parse({"by": "user", "grain": "day", **more})
            return lambda: len(service.explore(GetUsageEventsParams(), question, WHO).rows)

        def by_hand() -> int:
            return len(service._ledger.engine.rows(BY_HAND))  # noqa: SLF001  (the same file is open here)

        figures = {
            "by hand": _spent(by_hand),
            "explore --by user --grain day": _spent(asked()),
            "explore --by user --grain day --top 8": _spent(asked(top="8")),
            "explore --by user --grain day --metric margin_usd": _spent(asked(metric="margin_usd")),
        }
        service.close()
    return {"events": events, "days": days, **figures}


def _spent(ask: Callable[[], int]) -> dict[str, float]:
    begun = time.perf_counter()
    rows = ask()
    return {"seconds": round(time.perf_counter() - begun, 2), "rows": rows}


if __name__ == "__main__":
    given = [int(one) for one in sys.argv[1:]]
    print(json.dumps(measure(*(given + [EVENTS, DAYS][len(given) :])), indent=2))
