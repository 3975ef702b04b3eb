"""An import that is killed anywhere is there whole or not at all, and doing it again does the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.imports import import_in_process
from tests.imports.world import ImportWorld, as_csv, booked, line

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("step", import_in_process.STEPS)
def test_killed_anywhere_it_is_there_whole_or_not_at_all(tmp_path, step):
    world = ImportWorld(tmp_path, [booked("a"), booked("b")])
    path = as_csv(tmp_path / "f", [line("a", sync_status="processed"), line("b", user_id="x"), line("c"), line("d")])
    before = world.published()
    world.service.close()
    ended = subprocess.run(
        [sys.executable, "-m", "tests.imports.import_in_process", str(world.path), str(path), step],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        timeout=120,
        check=False,
        capture_output=True,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    again = ImportWorld.over(world)
    if step == "after":
        assert (len(again.published()["events"]), len(again.imports())) == (4, 1)
    else:
        assert (again.published(), again.imports()) == (before, [])
    again.bring(path)
    assert again.statuses() == {"a": "processed", "b": "pending", "c": "pending", "d": "pending"}
    assert len(again.imports()) == 1
