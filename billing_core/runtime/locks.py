"""File locks with one holder across processes; the operating system releases them when a process dies.

A holder writes into the file who it is, so that whoever waits in vain can say so.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from billing_core.errors import WarehouseError

POLL_SECONDS = 0.05

PATIENCE_SECONDS = 120.0
"""How long anybody waits for a lock before saying who holds it. What works longer is waited for by running again."""

NOTE_BYTES = 400


class LockHeld(WarehouseError):
    """Another process holds a lock for longer than this one waits."""


def try_lock(handle: int, kind: int) -> bool:
    """Try to take an flock of `kind` on an open file without waiting; `False` if somebody else has it."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def exclusive(
    path: Path, *, on_wait: Callable[[], None] | None = None, patience_seconds: float | None = None
) -> Iterator[None]:
    """A context that holds the lock at `path`; waits for another holder, after calling `on_wait` once.

    Raises LockHeld: naming the holder, when it did not let go within the patience (`PATIENCE_SECONDS`).
    """
    patience = PATIENCE_SECONDS if patience_seconds is None else patience_seconds
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not try_lock(handle, fcntl.LOCK_EX):
            if on_wait is not None:
                on_wait()
            deadline = time.monotonic() + patience
            while not try_lock(handle, fcntl.LOCK_EX):
                if time.monotonic() >= deadline:
                    raise LockHeld(
                        f"{path.name}: held for more than {patience:.0f} s by {holder(path)}; wait until it is done, "
                        "or end that process, then run this again"
                    )
                time.sleep(POLL_SECONDS)
        note_holder(handle)
        yield
    finally:
        os.close(handle)


def is_held(path: Path) -> bool:
    """Whether some process, this one included, holds the lock at `path` right now."""
    if not path.exists():
        return False
    handle = os.open(path, os.O_RDWR)
    try:
        return not try_lock(handle, fcntl.LOCK_EX)
    finally:
        os.close(handle)


def note_holder(handle: int) -> None:
    """Write into a held lock file who holds it; a full disk keeps nobody from holding it."""
    with suppress(OSError):
        note = f"process {os.getpid()} ({_command()})"
        os.pwrite(handle, note.encode("utf-8", "replace")[:NOTE_BYTES].ljust(NOTE_BYTES), 0)


def holder(path: Path | str) -> str:
    """The holder of a lock by its own note: process, command and since when."""
    try:
        with Path(path).open("rb") as file:
            note = file.read(NOTE_BYTES).decode("utf-8", "replace").strip()
            noted_at = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)  # the file system's own clock
    except OSError:
        note = ""
    shown = "".join(letter if letter.isprintable() else "?" for letter in note)
    if not shown:
        return "a process that left no name (`lsof` or `fuser` find it)"
    return f"{shown} since {noted_at:%Y-%m-%d %H:%M:%S} UTC"


def _command() -> str:
    """What runs, without arguments that somebody may not want to see written down."""
    program = Path(sys.argv[0] if sys.argv else "python")
    name = program.parent.name if program.name == "__main__.py" else program.name
    return " ".join([name, *(word for word in sys.argv[1:2] if word.isidentifier())])
