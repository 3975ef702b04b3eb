"""Folders of imports: nobody else can read them, and none is left for ever, whatever becomes of its process."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from billing_core.imports import temp_folder
from billing_core.imports.temp_folder import FORGOTTEN_SECONDS, LOCK, PREFIX, Scratch, sweep

ROOT = Path(__file__).parents[2]
HOLDS = """
import sys, time
from billing_core.imports.temp_folder import Scratch
held = Scratch()
(held.path / "events.parquet").write_text("usage of a customer")
sys.stdout.write(str(held.path))
sys.stdout.flush()
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A temporary directory of this test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def other(folder):
    """Another process with a folder: the process, and the path."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS], cwd=ROOT, env={**os.environ, "TMPDIR": str(folder)}, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    path = Path(os.read(process.stdout.fileno(), 1000).decode())
    yield process, path
    process.kill()
    process.wait()
    process.stdout.close()


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_only_its_owner_can_read_it_and_it_goes_with_it(folder):
    made = Scratch()
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o700
    (made.path / "rows").write_text("usage")
    made.close()
    made.close()
    assert left(folder) == []
    with Scratch() as path:
        assert path.is_dir()
    assert left(folder) == []


def test_what_a_killed_process_left_goes_with_the_next_import(other, folder):
    process, path = other
    assert (path / "events.parquet").exists()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert path.exists()
    kept = Scratch()
    assert left(folder) == [kept.path.name]


def test_what_a_process_that_lives_works_with_stays(other):
    mine = Scratch()
    sweep()
    assert (other[1] / "events.parquet").exists()
    assert mine.path.exists()


def test_folders_of_others_and_links_are_left_alone(folder, monkeypatch):
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / LOCK).touch()
    (folder / f"{PREFIX}link").symlink_to(elsewhere)
    linked = folder / f"{PREFIX}lock"
    linked.mkdir()
    (linked / LOCK).symlink_to(elsewhere / LOCK)
    (folder / f"{PREFIX}file").touch()
    sweep()
    assert left(folder) == [f"{PREFIX}file", f"{PREFIX}link", f"{PREFIX}lock", "elsewhere"]
    theirs = folder / f"{PREFIX}theirs"
    theirs.mkdir()
    (theirs / LOCK).touch()
    monkeypatch.setattr(os, "getuid", lambda: 12_345_678)
    sweep()
    assert theirs.exists()


def test_a_folder_without_a_lock_may_be_one_that_is_being_made_unless_it_is_old(folder):
    young, old = folder / f"{PREFIX}young", folder / f"{PREFIX}old"
    for path in (young, old):
        path.mkdir()
    os.utime(old, (young.stat().st_mtime - FORGOTTEN_SECONDS - 60,) * 2)
    sweep()
    assert left(folder) == [young.name]


def test_a_folder_that_is_swept_while_it_is_made_is_made_again(folder, monkeypatch):
    take, taken = temp_folder.try_lock, []

    def late(handle, kind):
        if not taken:
            taken.append(handle)
            [half_made] = folder.iterdir()
            temp_folder.shutil.rmtree(half_made)
        return take(handle, kind)

    monkeypatch.setattr(temp_folder, "try_lock", late)
    made = Scratch()
    assert left(folder) == [made.path.name]


def test_many_at_once_never_remove_each_other(folder):
    failed = []

    def work():
        for _ in range(20):
            with Scratch() as path:
                (path / "rows").write_text("usage")
                time.sleep(0.001)
                if not (path / "rows").exists():
                    failed.append(path)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert left(folder) == []
