"""Turns signals (Ctrl-C, `kill`, a closed terminal) into one line and an exit code.

Nothing but the standard library is needed here: it holds while the rest is loaded as well. The first signal stops the
work, which may be cut off anywhere; a second one ends the process at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAYS = "stopped; the ledger is consistent, run the command again to go on"

BASE = 128
"""What a shell adds to the number of the signal: 130 for Ctrl-C, 143 for `kill`."""


class Stopped(KeyboardInterrupt):
    """A signal asked this process to stop; `exit_code` is what it ends with."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = BASE + number


class ReceivedSignal:
    """The signal that came, if any. A library may make something else of the exception, so it is kept here."""

    def __init__(self) -> None:
        self.number: int | None = None

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """The signal handler: stores the signal and raises `Stopped`."""
        if self.number is None:
            self.number = number
            signal.signal(number, signal.SIG_DFL)
            raise Stopped(number)


@contextmanager
def stopping() -> Iterator[ReceivedSignal]:
    """A context in which signals that end a process raise `Stopped`; those that were ignored stay so."""
    received = ReceivedSignal()
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if (handler := signal.getsignal(number)) not in {signal.SIG_IGN, None}:
            before[number] = handler
            signal.signal(number, received.handle)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
