"""Both API generations, read over HTTP from the sandbox, against what its generator meant."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pydantic import SecretStr

from billing_core.langfuse.provider import LangfuseProvider
from billing_core.langfuse.reading import UpstreamRead
from billing_core.sandbox.data.dataset import SandboxDataset
from billing_core.sandbox.data.plan import ExpectedEvent
from billing_core.sandbox.server import SandboxProcess
from billing_core.settings import ApiChoice
from billing_core.values.usage_frame import Window

EVENTS, DAYS, SEED = 1500, 4, 7
NOW = datetime(2026, 6, 17, 10, 30, tzinfo=UTC)
"""Past for the server, so that even the latest rows have arrived: a planted one comes three days late."""

WINDOW = Window(NOW - timedelta(days=DAYS + 1), NOW)

SAME_NAMES = (
    "timestamp",
    "ended_at",
    "organization_id",
    "customer_id",
    "user_id",
    "session_id",
    "chatflow_id",
    "chatflow_name",
    "environment",
    "ai_credentials_ownership",
    "tokens_in",
    "tokens_out",
    "tokens_total",
    "cost_usd",
    "storage_gb",
    "observations",
    "has_error",
    "legacy_status",
    "legacy_error",
)
FLAGS = ("unpriced", "bad_usage", "conflicting_attributes", "double_count_suspect")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(seed=SEED, events=EVENTS, days=DAYS, now=NOW, mode="dual") as process:
        yield process


@pytest.fixture(scope="module")
def truth() -> dict[str, ExpectedEvent]:
    return dict(SandboxDataset(seed=SEED, events=EVENTS, days=DAYS, now=NOW).truth())


def connect(environment: dict[str, str], api: ApiChoice) -> LangfuseProvider:
    keys = environment["LANGFUSE_PUBLIC_KEY"], SecretStr(environment["LANGFUSE_SECRET_KEY"])
    return LangfuseProvider(environment["LANGFUSE_HOST"], *keys, api)


def rows(reading: UpstreamRead) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in pa.concat_tables(reading.batches()).to_pylist()}


@pytest.mark.parametrize("api", [ApiChoice.V2, ApiChoice.LEGACY])
def test_every_trace_is_read_as_it_was_meant(
    sandbox: SandboxProcess, truth: dict[str, ExpectedEvent], api: ApiChoice, tmp_path: Path
) -> None:
    provider = connect(sandbox.environment, api)
    found = rows(provider.read(WINDOW, spool=tmp_path))
    provider.close()
    assert found.keys() == truth.keys()
    # The legacy API cannot show a conflict: one record per trace, none on its observations.
    flags = FLAGS if api is ApiChoice.V2 else tuple(f for f in FLAGS if f != "conflicting_attributes")
    differences = [
        (meant.oddity, name, getattr(meant, name), found[trace_id][name])
        for trace_id, meant in truth.items()
        for name in SAME_NAMES
        if getattr(meant, name) != found[trace_id][name]
    ]
    assert differences == []
    assert [
        (meant.oddity, name)
        for trace_id, meant in truth.items()
        for name in flags
        if (name in meant.flags) != found[trace_id][name]
    ] == []
    for trace_id, meant in truth.items():
        row = found[trace_id]
        assert tuple(row["models"]) == meant.models
        credits_ = tuple(row[f"legacy_{part}"] for part in ("ai_tokens", "compute", "storage", "total"))
        assert credits_ == (meant.legacy_credits or (None,) * 4)


def test_rows_and_duplicates_are_counted_exactly(
    sandbox: SandboxProcess, truth: dict[str, ExpectedEvent], tmp_path: Path
) -> None:
    provider = connect(sandbox.environment, ApiChoice.AUTO)
    reading = provider.read(WINDOW, spool=tmp_path)
    provider.close()
    served = sum(meant.rows for meant in truth.values())
    assert (reading.api, reading.observations, reading.rejected) == ("v2", served, [])
    booked = sum(row["observations"] for row in rows(reading).values())
    synthetic = sum(meant.rows and meant.oddity in {"synthetic_root", "empty_trace"} for meant in truth.values())
    assert reading.observations - reading.duplicates == booked + synthetic


def test_a_read_killed_at_any_moment_continues_and_ends_the_same(sandbox: SandboxProcess, tmp_path: Path) -> None:
    window = Window(WINDOW.start, NOW - timedelta(days=1, hours=1))
    whole = connect(sandbox.environment, ApiChoice.V2)
    expected = rows(whole.read(window, spool=tmp_path / "whole"))
    code = (
        "import sys; from datetime import datetime; from pathlib import Path; from pydantic import SecretStr\n"
        "from billing_core.langfuse.provider import LangfuseProvider\n"
        "from billing_core.values.usage_frame import Window\n"
        "host, pk, sk, start, end, spool = sys.argv[1:]\n"
        "window = Window(datetime.fromisoformat(start), datetime.fromisoformat(end))\n"
        "def seen(step):\n"
        "    if step.observations > 500: print('read', flush=True); sys.stdin.read()\n"
        "LangfuseProvider(host, pk, SecretStr(sk), 'v2').read(window, spool=Path(spool), progress=seen)"
    )
    keys = [sandbox.environment[f"LANGFUSE_{name}"] for name in ("HOST", "PUBLIC_KEY", "SECRET_KEY")]
    bounds = [window.start.isoformat(), window.end.isoformat()]
    with subprocess.Popen(
        [sys.executable, "-c", code, *keys, *bounds, str(tmp_path / "killed")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "read\n"
        process.send_signal(signal.SIGKILL)
    kept = {(path, path.stat().st_mtime_ns) for path in (tmp_path / "killed").rglob("*.arrow")}
    reading = whole.read(window, spool=tmp_path / "killed")
    whole.close()
    assert rows(reading) == expected
    assert kept
    assert kept <= {(path, path.stat().st_mtime_ns) for path in (tmp_path / "killed").rglob("*.arrow")}


def test_one_trace_reads_the_same_alone(
    sandbox: SandboxProcess, truth: dict[str, ExpectedEvent], tmp_path: Path
) -> None:
    provider = connect(sandbox.environment, ApiChoice.V2)
    found = rows(provider.read(WINDOW, spool=tmp_path))
    for oddity in ("far_apart", "long_name", "moved_duplicate", "legacy_nested"):
        trace_id = next((t.id for t in truth.values() if t.oddity == oddity), None)
        if trace_id is not None:
            assert provider.read_trace(trace_id).to_pylist() == [found[trace_id]]
    provider.close()
