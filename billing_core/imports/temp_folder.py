"""A private temporary folder for an import; it is removed with its owner, also if that is killed. It goes with its
owner, also if that is killed.

A killed process removes nothing, and usage of customers would lie in the temporary directory for ever. So each folder
has a file that its process holds locked; whoever makes the next folder removes those that nobody holds.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from billing_core.runtime.locks import try_lock

PREFIX = "billing-import-"
LOCK = "lock"

FORGOTTEN_SECONDS = 24 * 3600
"""Age from which a folder without a lock is nobody's: its process died before it made one, or while it removed it."""


class Scratch:
    """A temporary folder that only this account can read; removed by `close`, or with this object. Removed by `close`,
    or when nobody holds this any more.
    """

    def __init__(self) -> None:
        sweep()
        self.path, handle = _locked_folder()
        self._leave = weakref.finalize(self, _remove, self.path, handle)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        self._leave()


def sweep() -> None:
    """Remove the temporary folders of imports whose processes are gone; other people's folders and links stay. Those of
    other people, and what only links there, stay.
    """
    for folder in _mine():
        try:
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            if _age_seconds(folder) > FORGOTTEN_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
            continue
        except OSError:
            continue
        if try_lock(handle, fcntl.LOCK_EX):
            _remove(folder, handle)
        else:
            os.close(handle)


def _mine() -> Iterator[Path]:
    with os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            if not entry.name.startswith(PREFIX):
                continue
            try:
                is_mine = entry.stat(follow_symlinks=False).st_uid == os.getuid()
                if is_mine and entry.is_dir(follow_symlinks=False):
                    yield Path(entry.path)
            except OSError:  # somebody else removed it meanwhile
                continue


def _locked_folder() -> tuple[Path, int]:
    """A new folder and its lock; another one if a sweep took the lock before this process could."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        if try_lock(handle, fcntl.LOCK_EX) and (folder / LOCK).exists():
            return folder, handle
        os.close(handle)


def _age_seconds(folder: Path) -> float:
    """By the file system's own clock, which stamped the folder."""
    try:
        with tempfile.TemporaryFile() as fresh:
            return os.fstat(fresh.fileno()).st_mtime - folder.stat(follow_symlinks=False).st_mtime
    except OSError:
        return 0.0


def _remove(folder: Path, handle: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(handle)
