"""How fast a pull is against a local server without added latency, beside the SDK's own models in the same run.

    python -m benchmarks.pull EVENTS

prints one JSON document; `table.py` runs it in a process of its own, so that peak memory is the pull's.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.measure import PeakMemory
from billing_core.access import system_principal
from billing_core.runtime import clock
from billing_core.sandbox.server import SandboxProcess
from billing_core.service import BillingService
from billing_core.settings import load_settings

DAYS = 30
SDK_PAGES = 5
"""Pages of 1,000 rows read through the SDK's models: enough to know a rate some thirty times lower."""


def measure(events: int) -> dict[str, Any]:
    """Pull `events` generated traces end to end: HTTP, decode, roll-up, rating, booking."""
    with SandboxProcess(events=events, days=DAYS) as sandbox, tempfile.TemporaryDirectory() as folder:
        environment = {
            **sandbox.environment,
            "BILLING_MODE": "live",
            "BILLING_WAREHOUSE_URL": f"duckdb:///{Path(folder).resolve() / 'billing.duckdb'}",
        }
        settings = load_settings(environment, env_file=None)
        _warm_up(settings)
        sdk_rate = _sdk_rows_per_second(settings)
        service = BillingService.from_settings(settings)
        end = clock.now()
        memory = PeakMemory()
        began = time.perf_counter()
        with memory.watched():
            result = service.pull(system_principal("bench"), start=end - timedelta(days=DAYS + 1), end=end)
        seconds = time.perf_counter() - began
        service.close()
    rate = result.observations / seconds
    return {
        "observations": result.observations,
        "events": result.counts.total,
        "seconds": round(seconds, 2),
        "observations_per_second": round(rate),
        "sdk_observations_per_second": round(sdk_rate),
        "times_the_sdk": round(rate / sdk_rate, 1),
        "peak_memory_mb": round(memory.megabytes),
    }


def _warm_up(settings: Any) -> None:
    """Let the sandbox generate its rows: the server's preparation is not the client's speed."""
    import httpx

    auth = (settings.langfuse_public_key, settings.langfuse_secret_key.get_secret_value())
    now = clock.now()
    with httpx.Client(base_url=settings.langfuse_host, auth=auth, timeout=600) as client:
        window = {"fromStartTime": (now - timedelta(days=DAYS + 2)).isoformat(), "toStartTime": now.isoformat()}
        params = {**window, "limit": "1000", "fields": "core,basic,time,model,usage,metadata,trace_context"}
        while True:
            answer = client.get("/api/public/v2/observations", params=params).raise_for_status()
            document = answer.json()
            cursor = document["meta"].get("cursor")
            if not cursor:
                break
            params["cursor"] = cursor
        by_id = [
            {
                "type": "stringOptions",
                "column": "traceId",
                "operator": "any of",
                "value": [document["data"][0]["traceId"]],
            }
        ]
        client.get("/api/public/v2/observations", params={**window, "filter": json.dumps(by_id), "expandMetadata": "x"})


def _sdk_rows_per_second(settings: Any) -> float:
    """The official client's models on pages of standard rows: one odd row would kill its page there."""
    from langfuse.api import LangfuseAPI

    client = LangfuseAPI(
        base_url=settings.langfuse_host,
        username=settings.langfuse_public_key,
        password=settings.langfuse_secret_key.get_secret_value(),
        timeout=600,
    )
    now = clock.now()
    rows, cursor = 0, None
    began = time.perf_counter()
    for _ in range(SDK_PAGES):
        page = client.observations.get_many(
            fields="core,basic,time,model,usage,metadata,trace_context",
            limit=1000,
            cursor=cursor,
            from_start_time=now - timedelta(days=DAYS + 2),
            to_start_time=now,
            environment="default",
        )
        rows += len(page.data)
        cursor = page.meta.cursor
        if not cursor:
            break
    return rows / (time.perf_counter() - began)


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
