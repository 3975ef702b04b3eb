"""Turns any error into the one line a person should read: the disk, the engine, the network, a missing package.

What the product expects is a `BillingError` already. Everything else becomes one here, for the command line and for
jobs in the background alike; what nobody foresaw stays unknown, and only the log tells more of it.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import sqlite3
import traceback
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from zoneinfo import ZoneInfoNotFoundError

from billing_core.errors import BillingError, SettingsError, UpstreamError, WarehouseError

_log = logging.getLogger(__name__)

UNEXPECTED = "Something unexpected went wrong; the log has the details."
"""What a page says of a fault that nobody foresaw: its text may hold anything."""

LONGEST = 500
"""Characters of one line."""

_WRONG_PLACE = {
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EEXIST,
}
"""Whoever named the place can name a better one: wrong usage. All else is the machine's."""

_ADVICE = {
    errno.ENOSPC: "make room there and run it again",
    errno.EDQUOT: "make room there and run it again",
    errno.EFBIG: "raise the limit of file sizes (`ulimit -f`) and run it again",
    errno.EROFS: "name a place that can be written",
    errno.EACCES: "let this account have it, or name another place",
    errno.EPERM: "let this account have it, or name another place",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.ENAMETOOLONG: "name it shorter",
    errno.EIO: "the disk answers with errors; look at the machine's log",
}

_NO_MEMORY = re.compile(r"out of memory|memory limit|failed to (allocate|pin)|could not allocate", re.IGNORECASE)
"""How DuckDB says it, whatever kind of error it makes of it: at the end of a transaction it is one of transactions."""

_UPSTREAM = ("httpx", "httpcore", "requests", "urllib3", "stripe")
"""Packages whose errors say that the other side could not be reached or refused."""


class Unexpected(BillingError):
    """An error that no part of the program foresaw."""

    exit_code = 3


class _Machine(BillingError):
    """The machine refuses: no room, no memory, a disk that fails."""

    exit_code = 3


def known(error: BaseException) -> BillingError | None:
    """The error as a `BillingError`, whose one line says what to do; `None` if it is of no kind that was foreseen."""
    if isinstance(error, BillingError):
        return error
    if isinstance(error, (ImportError, ZoneInfoNotFoundError)):
        return _missing(error)
    if isinstance(error, OSError):
        return _of_the_system(error)
    if isinstance(error, (MemoryError, RecursionError)):
        what = "out of memory" if isinstance(error, MemoryError) else "something is nested too deeply"
        return _Machine(f"{what} ({_where(error)}); give it more, or ask for less at once")
    if isinstance(error, UnicodeError):
        return _Machine(f"a text cannot be read or written as UTF-8: {_text(error)}")
    if isinstance(error, sqlite3.Error):
        return WarehouseError(f"the session store cannot be used: {_text(error)}")
    if isinstance(error, zipfile.BadZipFile):
        return SettingsError(f"a zip file is damaged: {_text(error)}")
    package = _package(error)
    if package in {"duckdb", "_duckdb"}:
        return WarehouseError(f"the database engine: {of_engine(error)}")
    if package in _UPSTREAM:
        return UpstreamError(
            f"Langfuse or Stripe could not be reached or refused: {type(error).__name__}: {_text(error)}"
        )
    return None


def explained(error: BaseException, secrets: Iterable[str] = ()) -> BillingError:
    """The error as a `BillingError` for whoever runs a command: what broke and where, without any of `secrets`."""
    found = known(error)
    if found is not None and found is error:
        return found
    if found is None:
        text = f"unexpected fault: {type(error).__name__} in {_where(error)}: {_text(error)}; please report it"
        return Unexpected(_without(text, secrets))
    text = _without(one_line(str(found)), secrets)
    return found if text == str(found) else type(found)(text)


def text_for_page(error: BaseException, what: str) -> str:
    """The text of an error for a page, without internal details; the log of `what` has the rest."""
    found = known(error)
    if found is None or found is not error:
        _log.error("%s: %s", what, "unexpected fault" if found is None else found, exc_info=error)
    return UNEXPECTED if found is None else one_line(str(found))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """A context in which errors of the operating system are said to be about `path` where they name none."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno and not isinstance(error, (ConnectionError, TimeoutError)):
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise


def of_engine(error: BaseException) -> str:
    """An error of DuckDB in one line; of a lack of memory without its advice, which is for programmers."""
    text = _text(error)
    if _NO_MEMORY.search(text) is None:
        return text
    found = re.split(r"(?:Error|commit): ", text.partition(" Possible solutions")[0])[-1]
    return f"out of memory ({found}); ask for less at once, such as a shorter time"


def one_line(text: str) -> str:
    """A text without line breaks, and not longer than a person reads."""
    flat = " ".join(text.split())
    return flat if len(flat) <= LONGEST else flat[: LONGEST - 1] + "…"


def _of_the_system(error: OSError) -> BillingError:
    number = error.errno
    what = os.strerror(number) if number else _text(error)
    if error.filename is None and isinstance(error, (ConnectionError, TimeoutError)):
        return UpstreamError(f"the connection broke: {what}")
    place = _named(error.filename) or _named(error.filename2)
    if number == errno.ENOENT and not _has_folder():
        return SettingsError("the current folder no longer exists; change to another one and run it again")
    named = place or _of_text(error) or f"a file ({_where(error)})"
    advice = f"; {_ADVICE[number]}" if number in _ADVICE else ""
    kind: type[BillingError] = SettingsError if number in _WRONG_PLACE else _Machine
    return kind(one_line(f"{named}: {what}{advice}"))


def _named(filename: object) -> str | None:
    if isinstance(filename, bytes):
        return os.fsdecode(filename)
    return filename if isinstance(filename, str) and filename else None


def _of_text(error: OSError) -> str | None:
    """The place as the text of the error has it, such as that of a library."""
    found = re.search(r"'([^']+)'", str(error))
    return found.group(1) if found else None


def _has_folder() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True


def _missing(error: Exception) -> BillingError:
    if isinstance(error, ModuleNotFoundError) and error.name and not error.name.startswith("billing_core"):
        package = error.name.partition(".")[0]
        return SettingsError(f"the package {package} is not installed; run `pip install -r requirements.txt`")
    return SettingsError(f"the installation is incomplete ({_text(error)}); run `pip install -r requirements.txt`")


def _package(error: BaseException) -> str:
    for kind in type(error).__mro__:
        package = kind.__module__.partition(".")[0]
        if package not in {"builtins", "billing_core"}:
            return package
    return ""


def _text(error: BaseException) -> str:
    return one_line(str(error)) or type(error).__name__


def _where(error: BaseException) -> str:
    """The innermost place of our own that the error went through."""
    frames = traceback.extract_tb(error.__traceback__, limit=-100) if error.__traceback__ else []
    root = str(Path(__file__).parents[1])
    ours = [frame for frame in frames if frame.filename.startswith(root)] or list(frames)
    if not ours:
        return "an unknown place"
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"


def _without(text: str, secrets: Iterable[str]) -> str:
    for secret in secrets:
        if len(secret) >= 4:
            text = text.replace(secret, "…")
    return re.sub(r"(://)[^/@\s]+@", r"\1…@", text)
