"""Processor time of what people ask most, on a small ledger: there the engine has next to nothing to do.

python -m benchmarks.questions [EVENTS]

Every round asks with other values, so no answer is remembered. Only calls that earlier versions have too: run it on
two commits, in turns, to compare them.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.fill import fill
from benchmarks.measure import percentile
from billing_core.access import Principal, Role, system_principal
from billing_core.ledger.duckdb_engine import DuckDBEngine
from billing_core.ledger.sync import Candidates, SyncStore
from billing_core.runtime import clock
from billing_core.service import BillingService
from billing_core.settings import Granularity, load_settings
from billing_core.stripe import intents as planning
from billing_core.types import GetUsageEventsParams

EVENTS, DAYS, ROUNDS = 2_000, 30, 15
WHO = system_principal("bench")


def measure(events: int) -> dict[str, Any]:
    """Milliseconds of processor time of each question: the first time, and the median of others after it."""
    figures: dict[str, Any] = {"events": events}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder).resolve() / "billing.duckdb"
        fill(path, events, days=DAYS)
        settings = load_settings({"BILLING_WAREHOUSE_URL": f"duckdb:///{path}", "BILLING_MODE": "demo"}, env_file=None)
        service = BillingService.from_settings(settings)
        for name, ask in _questions(service, random.Random(7)).items():
            spent = [_processor_ms(ask) for _ in range(ROUNDS + 1)]
            figures[name] = {"first_ms": round(spent[0], 1), "ms": round(percentile(spent[1:], 0.5), 1)}
        service.close()
        spent = _planning(path)
        figures["plan of a push"] = {"first_ms": round(spent[0], 1), "ms": round(percentile(spent[1:], 0.5), 1)}
    return figures


def _questions(service: BillingService, draw: random.Random) -> dict[str, Callable[[], Any]]:
    end = clock.now()

    def params(**more: Any) -> GetUsageEventsParams:
        start = end - timedelta(days=DAYS - 1, minutes=draw.randrange(1_000))
        return GetUsageEventsParams.parse({"from": start, "to": end, "limit": 50, **more})

    def one() -> str:
        return f"org_{draw.randrange(20)}"

    def searching() -> None:
        reader = Principal("one", Role.FINANCE, frozenset({one()}))
        service.get_usage_events(params(search=f"user_{draw.randrange(50)}"), reader)

    def usage_events_page() -> None:
        asked = params()
        service.get_usage_events(asked, WHO)
        service.summary(asked, WHO)
        for facet in ("organization", "customer", "user", "chatflow", "model", "environment"):
            service.facets(asked, WHO, facet)

    def organization_page() -> None:
        asked = params()
        service.organizations.statistics(asked, WHO)
        service.organizations.active_users(asked, WHO)
        service.summary(asked, WHO)

    return {
        "page with totals": lambda: service.get_usage_events(params(), WHO),
        "page with totals and summary": lambda: (
            service.get_usage_events(asked := params(), WHO),
            service.summary(asked, WHO),
        ),
        "page of one organization by credits": lambda: service.get_usage_events(
            params(sort="credits_total", organization=one()), WHO
        ),
        "page of a limited reader who searches": searching,
        "all that Usage Events asks": usage_events_page,
        "all that Organization Stats asks": organization_page,
        "pipeline and problems of Stripe Sync": lambda: (service.stripe.pipeline(WHO), service.stripe.problems(WHO)),
    }


def _planning(path: Path) -> list[float]:
    """Everything a push asks and plans before it sends; taken back."""
    engine = DuckDBEngine(path)
    books, now = SyncStore(engine), clock.now()
    rules = planning.PlanningRules("credits", "test", Granularity.HOUR, now)

    def plan(given: Candidates) -> planning.PushPlan:
        return planning.plan(given.events, given.covered, given.carried, {}, given.revisions, rules)

    def ask(second: int) -> None:
        settled = now - timedelta(seconds=second)
        books.anything_to_send(settled)
        books.open_intents()
        books.freeze(plan, settled_before=settled, push_id="bench", now=now, keep=False)

    spent = [_processor_ms(lambda second=second: ask(second)) for second in range(ROUNDS + 1)]  # type: ignore[misc]
    engine.close()
    return spent


def _processor_ms(call: Callable[[], Any]) -> float:
    began = time.process_time()
    call()
    return (time.process_time() - began) * 1000


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS), indent=1))
