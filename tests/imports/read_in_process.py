"""Reading a file in a process of its own: what is wrong with it, and how much memory the process had at most."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from billing_core.imports.detection import detect_file
from billing_core.imports.events import stage
from billing_core.rating.card import builtin_cards

ROOT = Path(__file__).parents[2]


def read_apart(path: Path) -> tuple[str, float]:
    """The first reason why it cannot be used, and megabytes."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.imports.read_in_process", str(path)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(path.parent)},
        timeout=300,
        check=False,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    reason, megabytes = json.loads(done.stdout)
    return reason, megabytes


def _peak() -> float:
    """Megabytes of this process, or of the one that read a Parquet file for it."""
    return max(_own_peak(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)


def _own_peak() -> float:
    """`getrusage` would count what the process had that started this one."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))


def main(path: str) -> None:
    file, fault = detect_file(Path(path))
    if fault is None:
        card = builtin_cards().cards[0]
        staged = stage(file, {card.id: card}, ZoneInfo("UTC"), datetime(2026, 11, 20, tzinfo=UTC))
        fault = "; ".join(f"row {one.row}, {one.field}: {one.reason}" for one in staged.rejected[:1])
    sys.stdout.write(json.dumps([fault, _peak()]))


if __name__ == "__main__":
    main(sys.argv[1])
