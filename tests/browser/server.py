"""A dashboard in a process of its own, started as people start it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "app.py"
PROBE = ROOT / "tests" / "browser" / "probe" / "app_under_test.py"

STOP_TIMEOUT_SECONDS = 20


@dataclass
class Server:
    """A running dashboard: its address and what it has written so far."""

    url: str
    lines: list[str] = field(default_factory=list)

    @property
    def log(self) -> str:
        return "".join(self.lines)


@contextmanager
def serving(script: Path, environment: Mapping[str, str], *options: str) -> Iterator[Server]:
    """`streamlit run SCRIPT` on a free port until the block ends.

    Settings come from `environment` alone; without a warehouse in it, one is made and thrown away. A demo is small:
    reading two months as people see them takes a minute of both processors.
    """
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        usual = {"BILLING_WAREHOUSE_URL": f"duckdb:///{folder}/billing.duckdb", "BILLING_DEMO_EVENTS": "20"}
        with _running(script, {**usual, **environment}, options) as server:
            yield server


@contextmanager
def _running(script: Path, environment: Mapping[str, str], options: Sequence[str]) -> Iterator[Server]:
    inherited = {
        key: value for key, value in os.environ.items() if not key.startswith(("BILLING_", "LANGFUSE_", "STRIPE_"))
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", str(script), "--server.port", "0", *options],
        cwd=ROOT,
        env={**inherited, "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    server = Server("")
    try:
        for line in process.stdout:
            server.lines.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+[^\s]*", line):
                server.url = found[0].rstrip("/")
                break
        assert server.url, f"the dashboard did not start:\n{server.log}"
        reader = threading.Thread(target=lambda: server.lines.extend(process.stdout), daemon=True)
        reader.start()
        yield server
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT_SECONDS)
        if server.url:
            reader.join(STOP_TIMEOUT_SECONDS)
        process.stdout.close()
