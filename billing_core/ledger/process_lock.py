"""A lock by which processes take turns with the same ledger file.

DuckDB lets one process open a file for writing and refuses every other at once. Here a process holds the
file open for as long as nobody else asks, and hands it over between two statements when somebody does:

* `<ledger>.lock` is locked (flock) by whoever has the file open;
* `<ledger>.waiting` is locked shared by everyone who waits for it.

The operating system drops both locks when a process dies, however it dies, so there is nothing to clean up.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from billing_core.errors import WarehouseError
from billing_core.runtime.locks import holder, note_holder, try_lock

PATIENCE_SECONDS = 120.0
"""How long a statement waits for its turn before it says so. Holders hand over within one statement."""

POLL_SECONDS = 0.01
WATCH_SECONDS = 0.03
"""How often an idle holder looks whether somebody waits."""


class Lease:
    """This process's right to have the ledger file open. Thread-safe; one per ledger file and process.

    `on_release` closes the ledger; it runs while no statement of this process is under way.
    """

    def __init__(
        self, ledger: Path, on_release: Callable[[], None], patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        self._ledger = ledger
        self._on_release = on_release
        self._patience = patience_seconds
        self._state = threading.Condition()
        self._held: int | None = None
        self._acquiring = False
        self._users = 0
        self._watching = False
        self._mine = threading.local()

    @contextmanager
    def using(self) -> Iterator[None]:
        """Hold the ledger file for one statement or transaction; a thread that holds it already may nest.

        Raises WarehouseError: when no turn came within the patience: another program keeps the file open.
        """
        depth = getattr(self._mine, "depth", 0)
        if depth == 0:
            self._enter()
        self._mine.depth = depth + 1
        try:
            yield
        finally:
            self._mine.depth = depth
            if depth == 0:
                with self._state:
                    self._users -= 1
                    self._state.notify_all()

    def release(self) -> None:
        """Close the ledger and let other processes have it, once this process's statements are done."""
        with self._state:
            self._state.wait_for(lambda: self._users == 0 and not self._acquiring)
            self._hand_over()

    def _enter(self) -> None:
        deadline = time.monotonic() + self._patience
        with self._state:
            while self._acquiring or self._held is not None:
                if self._acquiring:
                    self._wait(deadline)
                elif not self._someone_waits():
                    self._users += 1
                    return
                elif self._users:
                    # Overlapping statements of this process would keep the file for ever: queue behind the hand-over.
                    self._wait(deadline)
                else:
                    self._hand_over()
            self._acquiring = True
        handle: int | None = None
        try:
            handle = self._take_turn(deadline)
        finally:
            with self._state:
                self._acquiring = False
                self._held = handle
                if handle is not None:
                    self._users += 1
                    self._start_watching()
                self._state.notify_all()

    def _wait(self, deadline: float) -> None:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise self._out_of_patience()
        self._state.wait(min(remaining, 0.05))

    def _take_turn(self, deadline: float) -> int:
        self._ledger.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._path("lock"), os.O_RDWR | os.O_CREAT, 0o600)
        waiting = os.open(self._path("waiting"), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if try_lock(handle, fcntl.LOCK_EX):
                note_holder(handle)
                return handle
            fcntl.flock(waiting, fcntl.LOCK_SH)
            while not try_lock(handle, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise self._out_of_patience()
                time.sleep(POLL_SECONDS)
            note_holder(handle)
        except BaseException:
            os.close(handle)
            raise
        finally:
            os.close(waiting)
        return handle

    def _hand_over(self) -> None:
        """Close and unlock; the caller holds the condition and nothing is in use."""
        if self._held is None:
            return
        try:
            self._on_release()
        finally:
            handed, self._held = self._held, None
            someone = self._someone_waits()
            os.close(handed)
            self._state.notify_all()
        if someone:
            time.sleep(2 * POLL_SECONDS)  # those who wait look every POLL_SECONDS: let them find it free

    def _someone_waits(self) -> bool:
        try:
            handle = os.open(self._path("waiting"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:  # the folder is gone, the disk is full or no file can be opened any more: nobody can wait
            return False
        try:
            return not try_lock(handle, fcntl.LOCK_EX)
        finally:
            os.close(handle)

    def _start_watching(self) -> None:
        if not self._watching:
            self._watching = True
            threading.Thread(target=self._watch, name="ledger-lease", daemon=True).start()

    def _watch(self) -> None:
        """Hand the file over when this process is idle and another waits."""
        while True:
            time.sleep(WATCH_SECONDS)
            with self._state:
                if self._held is None:
                    self._watching = False
                    return
                if self._users == 0 and self._someone_waits():
                    with suppress(Exception):
                        self._hand_over()

    def _path(self, suffix: str) -> str:
        return f"{self._ledger}.{suffix}"

    def _out_of_patience(self) -> WarehouseError:
        return WarehouseError(
            f"the ledger {self._ledger} has been in use for {self._patience:.0f} s by {holder(self._path('lock'))}; "
            "try again when it is done, or end that process"
        )
