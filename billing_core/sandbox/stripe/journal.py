"""What the demonstration's Stripe remembers from one start to the next: a file of JSON lines, only ever appended to.

Several processes may share one: the dashboard and a command each run a sandbox of their own over the same ledger, and
what one of them accepts the others must know.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from billing_core.errors import SettingsError
from billing_core.sandbox.stripe.events import InvoiceItem, ReceivedEvent
from billing_core.sandbox.stripe.reports import Report


class EventReceived(msgspec.Struct, tag="accepted"):
    """An event was received."""

    event: ReceivedEvent


class EventCancelled(msgspec.Struct, tag="cancelled"):
    """An adjustment cancelled an event; `at` is milliseconds since 1970."""

    event_name: str
    identifier: str
    at: int


class EventLost(msgspec.Struct, tag="dropped"):
    """An event was lost."""

    event_name: str
    identifier: str


class Reported(msgspec.Struct, tag="reported"):
    """An error report went out."""

    report: Report


class ItemWritten(msgspec.Struct, tag="item"):
    """An invoice item was created, or deleted."""

    item: InvoiceItem


Entry = EventReceived | EventCancelled | EventLost | Reported | ItemWritten


class Journal:
    """Entries in a file. A torn last line, left by a kill, is cut off when the file is opened.

    Raises SettingsError: if the file cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(Entry)
        self._read = 0
        """Bytes read so far."""
        self._lines = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise SettingsError(f"--stripe-journal {path}: {error.strerror}; name a file that can be written") from None
        self._cut_torn_line()

    def was_cleared(self) -> bool:
        """Whether somebody emptied the file since it was read."""
        if os.fstat(self._handle).st_size >= self._read:
            return False
        self._read = self._lines = 0
        return True

    def unread(self) -> Iterator[Entry]:
        """What was written since the last call, here or elsewhere; a line that is being written waits for the next.

        Raises SettingsError: if a line is no entry.
        """
        size = os.fstat(self._handle).st_size - self._read
        if size <= 0:
            return
        for line in os.pread(self._handle, size, self._read).splitlines(keepends=True):
            if not line.endswith(b"\n"):
                return
            self._read += len(line)
            self._lines += 1
            try:
                yield self._decoder.decode(line)
            except msgspec.MsgspecError as error:
                raise SettingsError(
                    f"--stripe-journal {self._path}: line {self._lines} cannot be read ({error}); "
                    "delete the file to start anew"
                ) from None

    def write(self, entry: Entry) -> None:
        """Append one entry; it survives the end of this process, though not that of the machine."""
        os.write(self._handle, self._encoder.encode(entry) + b"\n")

    def clear(self) -> None:
        """Forget everything."""
        os.ftruncate(self._handle, 0)

    def _cut_torn_line(self) -> None:
        size = os.fstat(self._handle).st_size
        tail = os.pread(self._handle, size, 0)
        os.ftruncate(self._handle, tail.rfind(b"\n") + 1)
