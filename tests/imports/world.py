"""Files as people bring them, and a service that imports them: literal in, literal out."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from billing_core.imports.model import ImportPlan, ImportResult
from billing_core.service import BillingService
from billing_core.settings import load_settings
from billing_core.types import FLAT_FIELDS, GetUsageEventsParams
from tests.factories import EVERYONE, NOON, ledger_at, usage_row

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)

EXPORTED = {
    "id": "trace-1",
    "timestamp": "2026-11-01T12:00:00.000Z",
    "ended_at": "2026-11-01T12:01:00.000Z",
    "organization_id": "org_a",
    "customer_id": "cus_a",
    "user_id": "user-1",
    "session_id": "session-1",
    "chatflow_id": "flow-1",
    "chatflow_name": "Support",
    "environment": "production",
    "models": '["gpt-5"]',
    "tokens_in": "600",
    "tokens_out": "400",
    "tokens_total": "1000",
    "latency_seconds": "60",
    "storage_gb": "",
    "cost_usd": "0.01",
    "ai_credentials_ownership": "",
    "credits_ai_tokens": "100",
    "credits_compute": "50",
    "credits_storage": "0",
    "credits_total": "150",
    "amount_usd": "0.006",
    "rate_card_version": "builtin-1",
    "sync_status": "pending",
    "sync_error": "",
    "meter_event_identifier": "",
    "synced_at": "",
    "trace_url": "http://langfuse.test/project/project/traces/trace-1",
    "flags": "[]",
}
"""What an export writes of `usage_row()`: 100 AI and 50 compute credits, 0.006 USD."""


def line(event_id: str = "trace-1", **facts: str) -> dict[str, str]:
    """An exported event; `facts` override its cells."""
    return {**EXPORTED, "id": event_id, "trace_url": f"http://langfuse.test/project/project/traces/{event_id}", **facts}


def free(event_id: str = "trace-1", **facts: str) -> dict[str, str]:
    """One that costs nothing."""
    parts = dict.fromkeys(("credits_ai_tokens", "credits_compute", "credits_total", "amount_usd"), "0")
    return line(event_id, **{**parts, "sync_status": "excluded", "flags": '["no_usage"]', **facts})


def as_csv(
    path: Path,
    rows: Iterable[dict[str, str]],
    *,
    header: Sequence[str] = FLAT_FIELDS,
    separator: str = ",",
    encoding: str = "utf-8",
) -> Path:
    """Rows as a CSV file."""
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.writer(file, delimiter=separator, lineterminator="\r\n")
        writer.writerow(header)
        writer.writerows([row.get(name, "") for name in header] for row in rows)
    return path


def as_json(path: Path, rows: Iterable[Any], meta: dict[str, Any] | None = None) -> Path:
    """Rows as a JSON file, empty cells null."""
    known = [{n: text or None for n, text in row.items()} if isinstance(row, dict) else row for row in rows]
    path.write_text(json.dumps({"meta": {"dataset": "usage-events"} if meta is None else meta, "rows": known}))
    return path


def as_parquet(path: Path, rows: Sequence[dict[str, str]], header: Sequence[str] = FLAT_FIELDS) -> Path:
    """Rows as a Parquet file of text columns, empty cells null."""
    columns = {name: pa.array([row.get(name) or None for row in rows], pa.string()) for name in header}
    pq.write_table(pa.table(columns), path)
    return path


class ImportWorld:
    """A service over a ledger with `rows` booked; its clock stands at `NOW` unless a test moves it."""

    def __init__(self, folder: Path, rows: Sequence[dict[str, Any]] = (), name: str = "a", **environment: str) -> None:
        self.folder = folder
        self.now = NOW
        self.path = folder / f"{name}.duckdb"
        ledger_at(self.path, rows).engine.close()
        self._open(**environment)

    def _open(self, **environment: str) -> None:
        variables = {"BILLING_WAREHOUSE_URL": f"duckdb:///{self.path}", "BILLING_MODE": "live", **environment}
        self.service = BillingService(load_settings(variables, env_file=None), clock=lambda: self.now)
        self.desk = self.service.imports
        self.ledger = self.service._ledger

    @classmethod
    def over(cls, world: ImportWorld) -> ImportWorld:
        """Another process over the same ledger, as it were."""
        again = cls.__new__(cls)
        again.folder, again.now, again.path = world.folder, world.now, world.path
        again._open()
        return again

    def imports(self) -> list[Any]:
        return self.desk.imports(EVERYONE)

    def plan(self, path: Path, **options: Any) -> ImportPlan:
        return self.desk.plan(path, EVERYONE, **options)

    def bring(self, path: Path, **options: Any) -> ImportResult:
        """Preview and apply."""
        return self.desk.apply(self.plan(path, **options), EVERYONE)

    def bring_lines(self, *rows: dict[str, str]) -> ImportResult:
        return self.bring(as_csv(self.folder / "lines.csv", rows))

    def plan_lines(self, *rows: dict[str, str], **options: Any) -> ImportPlan:
        return self.plan(as_csv(self.folder / "lines.csv", rows), **options)

    def undo(self, result: ImportResult) -> Any:
        return self.desk.undo(result.import_ids[0], EVERYONE)

    def export(self, **asked: Any) -> Path:
        """Every event as the download of the page writes it."""
        path = self.folder / f"{self.path.stem}-export.csv"
        path.write_bytes(b"".join(self.service.csv(GetUsageEventsParams.parse(asked), EVERYONE)))
        return path

    def published(self, **asked: Any) -> dict[str, Any]:
        """Events and totals as `events --json` has them."""
        params = GetUsageEventsParams.parse({"sort": "id", "order": "asc", "limit": 1000, **asked})
        found = self.service.get_usage_events(params, EVERYONE).to_json()
        return {"events": found["events"], "totals": found["totals"]}

    def event(self, event_id: str = "trace-1") -> Any:
        params = GetUsageEventsParams(limit=1000)
        return next(e for e in self.service.get_usage_events(params, EVERYONE).events if e.id == event_id)

    def statuses(self) -> dict[str, str]:
        return {one["id"]: one["sync_status"] for one in self.published()["events"]}

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self.ledger.engine.rows(query)
        return found

    def content(self, *without: str) -> dict[str, list[str]]:
        """Every table of the ledger, whole."""
        tables = [row[0] for row in self.rows("SELECT table_name FROM duckdb_tables() ORDER BY table_name")]
        return {t: sorted(map(str, self.rows(f"SELECT * FROM {t}"))) for t in tables if t not in without}


def reasons(plan: ImportPlan) -> list[tuple[int, str]]:
    """Row and field of what is rejected."""
    return [(one.row, one.field) for one in plan.rejected]


def booked(event_id: str = "trace-1", **facts: Any) -> dict[str, Any]:
    """The usage that `line()` is the export of."""
    return usage_row(id=event_id, timestamp=facts.pop("timestamp", NOON), **facts)
