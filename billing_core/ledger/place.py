"""The path of the embedded ledger's file: which files may be there, and which must not."""

from __future__ import annotations

import stat
from pathlib import Path

from billing_core.errors import SettingsError, WarehouseError


def log_of(path: Path) -> Path:
    """Path of DuckDB's write-ahead log of a ledger: it holds what was committed and is not in the file yet."""
    return path.with_name(path.name + ".wal")


def is_missing(path: Path) -> bool:
    """Whether there is no ledger file yet; an empty file counts as none (an earlier version left such on a full disk).

    Raises SettingsError: if what lies there can be no ledger, or has further names. WarehouseError: if only the log of
    a ledger is left.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        status = None
    if status is not None:
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "no file"
            raise SettingsError(f"BILLING_WAREHOUSE_URL: {path} is {what}; expected the name of a file")
        if status.st_nlink > 1:
            raise SettingsError(
                f"BILLING_WAREHOUSE_URL: {path} is one of {status.st_nlink} names (hard links) of the same file; its "
                "log and locks go by one name: remove the others, or make them symbolic links"
            )
        if status.st_size:
            return False
    log = log_of(path)
    if log.exists() and log.stat().st_size:
        raise WarehouseError(
            f"the ledger {path} is gone, but its log {log.name} is there; put the ledger back, or restore a backup "
            "after moving the log away"
        )
    return True


def remove(path: Path) -> None:
    """Delete a database file of ours and its write-ahead log, if they exist."""
    for file in (path, log_of(path)):
        file.unlink(missing_ok=True)
