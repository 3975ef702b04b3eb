"""Standard output and error that may be closed, full, a pipe nobody reads, or of any encoding.

What a command prints is kept and written when the command is done: a reader that leaves early changes neither what
was done nor the exit code, and a command that fails half-way leaves no half document.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from billing_core.errors import BillingError
from billing_core.runtime.faults import explained


class CommandOutput(io.StringIO):
    """A command's standard output, kept in memory until `flush`."""

    def __init__(self, out: TextIO | None) -> None:
        super().__init__()
        self._out = out
        self.is_empty = True
        """Whether nothing was printed so far."""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of standard output."""
        return getattr(self._out, "encoding", None) or "utf-8"

    def write(self, text: str, /) -> int:
        """Keep a text for `flush`."""
        self.is_empty = self.is_empty and not text
        return super().write(text)

    def flush(self) -> None:
        """Write what was kept to standard output. A reader that left is no fault.

        Raises Unwritten: if it cannot be written.
        """
        text, out = self.getvalue(), self._out
        self.seek(0)
        self.truncate()
        if out is None or not text:
            return
        try:
            out.write(text.encode(self.encoding, "backslashreplace").decode(self.encoding))
            out.flush()
        except BrokenPipeError:
            self._out = None
            _to_nowhere(out)
        except (OSError, ValueError) as error:
            self._out = None
            _to_nowhere(out)
            reason = getattr(error, "strerror", None) or error
            raise Unwritten(f"standard output: {reason}; the answer could not be written") from None


class Unwritten(BillingError):
    """A command's output could not be written; what the command did is done."""

    exit_code = 3


class _Calm:
    """Standard error; what cannot be said is not said."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except UnicodeError:
            return self._stream.write(text.encode("ascii", "backslashreplace").decode())
        except (OSError, ValueError):
            _to_nowhere(self._stream)
            return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


@contextmanager
def standard_streams() -> Iterator[CommandOutput]:
    """A context in which a command may use both streams. Faults of threads are one line as well."""
    _fill_gaps()
    before = sys.stdout, sys.stderr, threading.excepthook, sys.unraisablehook
    answer = CommandOutput(sys.stdout)
    with io.StringIO() as nowhere:
        sys.stdout, sys.stderr = answer, cast("TextIO", _Calm(sys.stderr or nowhere))
        threading.excepthook = sys.unraisablehook = _print_fault
        try:
            yield answer
        finally:
            sys.stdout, sys.stderr, threading.excepthook, sys.unraisablehook = before


def _print_fault(fault: Any) -> None:
    error = fault.exc_value or fault.exc_type()
    if not isinstance(error, (KeyboardInterrupt, SystemExit)):
        sys.stderr.write(f"warning: {explained(error)}\n")


def _fill_gaps() -> None:
    """A closed standard stream leaves its number free, and the next file opened, a ledger perhaps, would get it."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _to_nowhere(stream: TextIO) -> None:
    """What is still in the stream's buffer must not fail once more when the interpreter ends."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
