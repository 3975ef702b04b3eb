"""Exports of a large ledger beside DuckDB's own `COPY` of the same stored columns, in the same run and process.

python -m benchmarks.export PATH      (a ledger made by benchmarks.fill; writes to a folder beside it, then removes it)
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.measure import PeakMemory, timed
from billing_core.access import system_principal
from billing_core.exports.model import Dataset, ExportRequest, Format
from billing_core.ledger.queries import PAGE_COLUMNS
from billing_core.service import BillingService
from billing_core.settings import load_settings
from billing_core.types import GetUsageEventsParams

ROUNDS = 3
FEW = 1_000_000
FORMS = (Format.CSV, Format.PARQUET)
WHO = system_principal("bench")


def measure(path: Path) -> dict[str, Any]:
    """Per format: how fast the first million is beside `COPY` (1 is as fast), and peak memory of a million and of all.

    Memory is taken in processes of their own: what one export leaves behind must not be counted for the next.
    """
    figures: dict[str, Any] = {}
    for form in FORMS:
        figures[form.value] = {
            "speed": _speed(path, form),
            "peak_mb": {rows: _apart(path, form, rows) for rows in ("million", "all")},
        }
    return figures


def _opened(path: Path) -> BillingService:
    settings = load_settings({"BILLING_WAREHOUSE_URL": f"duckdb:///{path}", "BILLING_MODE": "demo"}, env_file=None)
    return BillingService.from_settings(settings)


def _request(service: BillingService, form: Format, rows: str) -> ExportRequest:
    """The first million events, or all of them."""
    engine = service._ledger.engine  # noqa: SLF001
    query = 'SELECT "timestamp" FROM events ORDER BY "timestamp" LIMIT 1 OFFSET ?'
    found = engine.rows(query, [FEW]) if rows == "million" else []
    end = f"{found[0][0].isoformat()}Z" if found else None
    params = GetUsageEventsParams.parse({} if end is None else {"to": end})
    return ExportRequest(Dataset.USAGE_EVENTS, form, params)


def _speed(path: Path, form: Format) -> dict[str, float]:
    service = _opened(path)
    engine = service._ledger.engine  # noqa: SLF001
    request = _request(service, form, "million")
    columns = ", ".join(f'"{name}"' for name in PAGE_COLUMNS)
    where = "" if request.params.to is None else f"WHERE \"timestamp\" < '{request.params.to:%Y-%m-%d %H:%M:%S.%f}'"
    own: list[float] = []
    copied: list[float] = []
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        ours, theirs = Path(folder) / f"own.{form}", Path(folder) / f"copy.{form}"
        copy = f"COPY (SELECT {columns} FROM events {where}) TO '{theirs}' (FORMAT {form.value})"
        for _ in range(ROUNDS):  # taken in turns, so that noise hits both
            copied += timed([lambda: engine.rows(copy)])
            own += timed([lambda: service.exports.write(request, WHO, ours)])
    service.close()
    best, hand = min(own), min(copied)
    return {"ms": round(best), "copy_ms": round(hand), "of_copy": round(hand / best, 2)}


def _apart(path: Path, form: Format, rows: str) -> Any:
    command = [sys.executable, "-m", "benchmarks.export", str(path), form.value, rows]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peak(path: Path, form: Format, rows: str) -> dict[str, int]:
    """Peak MB of this process while one export is written: `resident`, of which the engine's cache of the ledger file
    grows with the file up to its own limit (`COPY` has it as well), and `rows`, what the export itself holds."""
    service = _opened(path)
    memory = PeakMemory()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, memory.watched():
        service.exports.write(_request(service, form, rows), WHO, Path(folder) / f"own.{form}")
    service.close()
    return {"resident": round(memory.megabytes), "rows": round(pa.default_memory_pool().max_memory() / 1e6)}


if __name__ == "__main__":
    ledger = Path(sys.argv[1]).resolve()
    if len(sys.argv) > 2:
        print(json.dumps(peak(ledger, Format(sys.argv[2]), sys.argv[3])))
    else:
        print(json.dumps(measure(ledger)))
