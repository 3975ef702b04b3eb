"""A ledger with two months, a clock the test holds, and a reconciliation the test writes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from billing_core.access import Principal, Role
from billing_core.ledger.journal import Ledger
from billing_core.ledger.reconciliations import keep_reconciliation
from billing_core.reconcile.report import CustomerDay, Reconciliation
from billing_core.service import BillingService
from billing_core.settings import load_settings
from billing_core.types import GetUsageEventsParams
from billing_core.values.usage_frame import Window
from tests.factories import EVERYONE, events_table, ledger_at, usage_row

FINANCE = Principal("fay", Role.FINANCE)
OCTOBER, NOVEMBER = {"from": "2026-10-01", "to": "2026-11-01"}, {"from": "2026-11-01", "to": "2026-12-01"}


def october(day: int, hour: int = 12) -> datetime:
    return datetime(2026, 10, day, hour, tzinfo=UTC)


def trace(trace_id: str, day: int = 5, **facts: Any) -> dict[str, Any]:
    """Usage of October: 100 AI and 50 compute credits unless `facts` say otherwise."""
    return usage_row(id=trace_id, timestamp=facts.pop("timestamp", october(day)), **facts)


@dataclass
class Books:
    """What stands in for Stripe's desk: three books that agree, or what the test puts in their place."""

    ledger: Ledger
    rows: tuple[CustomerDay, ...] = ()
    problems: tuple[str, ...] = ()
    is_connected: bool = True
    asked: list[Window] = field(default_factory=list)
    meanwhile: Any = None
    made_at: datetime = datetime(2026, 11, 3, tzinfo=UTC)

    def reconcile(self, who: Principal, start: datetime, end: datetime, *, progress: Any = None) -> Reconciliation:
        window, made_at = Window(start, end), self.made_at
        self.asked.append(window)
        found = Reconciliation(window, made_at, self.rows, problems=self.problems)
        document = json.dumps(found.to_json())
        keep_reconciliation(self.ledger.engine, actor=who.name, now=made_at, start=start, end=end, result=document)
        if self.meanwhile is not None:
            act, self.meanwhile = self.meanwhile, None
            act()
        return found


class MonthWorld:
    """A service whose months can be closed."""

    def __init__(self, path: Path, rows: list[dict[str, Any]], **environment: str) -> None:
        self.now = datetime(2026, 11, 3, 9, tzinfo=UTC)
        self.path = path
        ledger_at(path, rows).engine.close()
        variables = {"BILLING_WAREHOUSE_URL": f"duckdb:///{path}", "BILLING_MODE": "live", **environment}
        self.service = BillingService(load_settings(variables, env_file=None), clock=lambda: self.now)
        self.ledger = self.service._ledger
        self.books = Books(self.ledger)
        self.months = self.service.months
        self.months._stripe = self.books
        self.send()

    def send(self, status: str = "processed", *ids: str) -> None:
        """Every event, or those named, gets a status as a push would give it."""
        with self.ledger.engine.transaction() as writer:
            chosen = "credits_total <> 0" if not ids else f"id IN ({', '.join(repr(one) for one in ids)})"
            writer.rows(f"UPDATE events SET sync_status = '{status}' WHERE {chosen}")
            writer.advance("test")

    def book(self, *rows: dict[str, Any]) -> None:
        self.ledger.book(events_table(rows), run_id="test")

    def close(self, period: str = "2026-10", **more: Any) -> Any:
        return self.months.close(period, FINANCE, **more)

    def verify(self, period: str = "2026-10") -> list[str]:
        return [one.says for one in self.months.verify(period, FINANCE).differences]

    def shown(self, window: dict[str, str], who: Principal = EVERYONE) -> list[tuple[str, str, str, bool]]:
        """Id, credits, status and whether it is late, of what counts in a window, oldest booking first."""
        asked = GetUsageEventsParams.parse({**window, "sort": "timestamp", "order": "asc", "limit": 1000})
        return [
            (e.id, f"{e.credits.total.normalize():f}", e.sync_status.value, "late_after_close" in e.flags)
            for e in self.service.get_usage_events(asked, who).events
        ]

    def csv(self, window: dict[str, str]) -> str:
        pieces = self.service.csv(GetUsageEventsParams.parse(window), EVERYONE)
        return hashlib.sha256(b"".join(pieces)).hexdigest()
