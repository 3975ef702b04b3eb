"""Every benchmark in one run: `python -m billing_core bench [--events N]`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.fill import fill

PULL_TRACES = 170_000
"""About a million observations: the most a pull is measured with."""

MONTH = 1_000_000
"""Events of a month: the most that pushing and reconciling are measured with."""


def run_all(*, events: int) -> dict[str, Any]:
    """Measure everything against a ledger of `events` events.

    Each part runs in a process of its own: peak memory and warm caches are its own as well.
    """
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder).resolve() / "bench.duckdb"
        fill(ledger, events)
        small = min(events, PULL_TRACES)
        return {
            "machine": {"cores": os.cpu_count(), "python": sys.version.split()[0]},
            "pull": _part("benchmarks.pull", small),
            "pull_quarter": _part("benchmarks.pull", max(small // 4, 1000)),
            "ledger": _part("benchmarks.ledger", ledger),
            "organizations": _part("benchmarks.organizations", ledger),
            "exports": _part("benchmarks.export", ledger),
            "what_if": _part("benchmarks.rerate", ledger),
            "push": _part("benchmarks.push", min(events, MONTH)),
            "reconcile": _part("benchmarks.reconcile", min(events, MONTH)),
            "browser": _part("benchmarks.browser", ledger),
        }


def _part(module: str, argument: object) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", module, str(argument)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parent.parent,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def as_text(figures: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = ["| Part | Figure | Value |", "| --- | --- | --- |"]
    for part, values in figures.items():
        lines += [f"| {part} | {name} | {_shown(value)} |" for name, value in _flat(values)]
    return "\n".join(lines)


def _flat(values: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield before + name, value


def _shown(value: Any) -> str:
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)
