"""One holder at a time, across processes; the operating system lets go when a process dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["exclusive", "is_held", "try_lock"]

POLL_SECONDS = 0.05


def try_lock(handle: int, kind: int) -> bool:
    """Take an flock of `kind` on an open file, or say at once that somebody else has it."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def exclusive(path: Path, *, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold `path` exclusively; waits for another holder, after calling `on_wait` once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not try_lock(handle, fcntl.LOCK_EX):
            if on_wait is not None:
                on_wait()
            while not try_lock(handle, fcntl.LOCK_EX):
                time.sleep(POLL_SECONDS)
        yield
    finally:
        os.close(handle)


def is_held(path: Path) -> bool:
    """Whether some process, this one included, holds `path` right now."""
    if not path.exists():
        return False
    handle = os.open(path, os.O_RDWR)
    try:
        return not try_lock(handle, fcntl.LOCK_EX)
    finally:
        os.close(handle)
