"""Writes a file completely or not at all, wherever the process that writes it is killed."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from billing_core.errors import BadParameter
from billing_core.runtime.locks import try_lock
from billing_core.runtime.private_files import FILE

PART = ".part"


@contextmanager
def replacing(path: Path, parameter: str = "out") -> Iterator[BinaryIO]:
    """A file to write that replaces `path` when the block ends without an error, and is deleted otherwise.

    It lies in the same folder, locked as long as somebody writes it: what processes left behind that were killed is
    removed here. `parameter` is what the caller calls the path.

    Raises BadParameter: if no file can be written there.
    """
    try:
        if path.exists() and not path.is_file():
            raise BadParameter(parameter, str(path), "the name of a file; this is a folder, a device or a pipe")
        path = path.resolve()  # a link goes on leading to the file
        _remove_left_behind(path)
        part, file = _begun(path)
    except OSError as error:
        raise _refused(parameter, path, error) from None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if path.exists():  # whoever could read the former file can read this one
                part.chmod(stat.S_IMODE(path.stat().st_mode))
            part.replace(path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        if isinstance(error, OSError) and _is_about(error, part):
            raise _refused(parameter, path, error) from error
        raise
    _make_durable(path.parent)


def _is_about(error: OSError, part: Path) -> bool:
    """Whether it came from writing the file; libraries leave the name out."""
    return error.filename in {None, str(part)} and not isinstance(error, (ConnectionError, TimeoutError))


def _refused(parameter: str, path: Path, error: OSError) -> BadParameter:
    return BadParameter(parameter, str(path), f"a place where a file can be written ({error.strerror or error})")


def _begun(path: Path) -> tuple[Path, BinaryIO]:
    """A new file of ours. Between making and locking it another process may take it for left behind: then once more."""
    while True:
        part = path.with_name(f".{path.name}.{secrets.token_hex(6)}{PART}")
        file = os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE), "wb")
        if try_lock(file.fileno(), fcntl.LOCK_EX) and part.exists():
            return part, file
        file.close()


def _remove_left_behind(path: Path) -> None:
    for part in path.parent.glob(f".{_literal(path.name)}.*{PART}"):
        handle = os.open(part, os.O_RDWR)
        try:
            if try_lock(handle, fcntl.LOCK_EX):
                part.unlink(missing_ok=True)
        finally:
            os.close(handle)


def _literal(name: str) -> str:
    """The name as a pattern that means nothing but it."""
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


def _make_durable(folder: Path) -> None:
    """The change of names survives a power cut as well."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
