"""The official clients read the sandbox as if it were the real thing (Stripe's: see `test_stripe`)."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from langfuse.api import LangfuseAPI


@pytest.fixture
def api(sandbox):
    return LangfuseAPI(
        base_url=sandbox.url,
        username=sandbox.environment["LANGFUSE_PUBLIC_KEY"],
        password=sandbox.environment["LANGFUSE_SECRET_KEY"],
    )


def test_the_langfuse_sdk_reads_every_row(api, dataset):
    window = {
        "from_start_time": datetime(2026, 1, 1, tzinfo=UTC),
        "to_start_time": datetime(2026, 4, 1, tzinfo=UTC),
        "fields": "core,basic,time,model,usage,metadata,trace_context",
        "limit": 1000,
    }
    rows, cursor = [], None
    while True:
        page = api.observations.get_many(**window, cursor=cursor)
        rows += page.data
        cursor = page.meta.cursor
        if cursor is None:
            break

    truth = dataset.truth()
    assert {row.trace_id for row in rows} == truth.keys()
    assert len(rows) == sum(trace.rows for trace in truth.values())


def test_the_langfuse_sdk_finds_the_project_and_asks_for_metrics(api):
    assert [project.id for project in api.projects.get().data] == ["sandbox-project"]
    query = {
        "view": "observations",
        "metrics": [{"measure": "count", "aggregation": "count"}],
        "timeDimension": {"granularity": "day"},
        "fromTimestamp": "2026-03-09T00:00:00Z",
        "toTimestamp": "2026-03-09T23:59:59.999Z",
    }
    (day,) = api.metrics.metrics(query=json.dumps(query)).data
    assert day["time_dimension"] == "2026-03-09"
    assert int(day["count_count"]) > 50
