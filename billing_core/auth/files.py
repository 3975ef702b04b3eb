"""Reads and replaces small files that people and commands edit while the dashboard runs: accounts and tokens."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from billing_core.errors import SettingsError
from billing_core.runtime.locks import exclusive

T = TypeVar("T")


class WatchedFile(Generic[T]):
    """A text file whose parsed content is asked for on every run and parsed only when the file changed.

    A file that does not exist reads as `absent`. Thread-safe: at worst two threads parse the same text.
    """

    def __init__(self, path: Path, parse: Callable[[str], T], absent: T) -> None:
        self.path = path
        self._parse = parse
        self._absent = absent
        self._seen: tuple[tuple[int, int, int], T] | None = None

    def content(self) -> T:
        """The parsed content of the file as it is now.

        Raises SettingsError: when the file cannot be read, or whatever `parse` finds wrong with it.
        """
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return self._absent
        except OSError as error:
            raise _unreadable(self.path, error) from None
        signature = (status.st_mtime_ns, status.st_size, status.st_ino)
        seen = self._seen
        if seen is not None and seen[0] == signature:
            return seen[1]
        text = _text_of(self.path)
        content = self._absent if text is None else self._parse(text)
        # The signature is older than the text: a write in between is noticed on the next call.
        self._seen = (signature, content)
        return content


def rewrite(path: Path, edit: Callable[[str | None], str]) -> None:
    """Replace a file by `edit(its text, None if it does not exist)`, one writer at a time, all or nothing.

    Readers see the old or the new file, never half of one. The new file is readable by its owner only.
    """
    try:
        with exclusive(path.with_name(path.name + ".lock")):
            _replace(path, edit(_text_of(path)))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written: {error.strerror}") from None


def _replace(path: Path, text: str) -> None:
    descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".")  # created with mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(draft).unlink()
        raise


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not text in UTF-8") from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> SettingsError:
    return SettingsError(f"{path}: cannot be read: {error.strerror}")
