"""The SQLite file that keeps sessions and counts of failed sign-ins."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from billing_core.errors import WarehouseError

BUSY_TIMEOUT_SECONDS = 5.0
"""How long a transaction waits for another process that uses the same file."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sessions (
    digest      TEXT PRIMARY KEY,  -- SHA-256 of the session id: the file gives nobody a session
    user        TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    address     TEXT NOT NULL,
    created_at  REAL NOT NULL,     -- seconds since 1970, UTC, as every time here
    seen_at     REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (
    id          INTEGER PRIMARY KEY,
    user_key    TEXT NOT NULL,     -- SHA-256 of the name as typed: it may be a password in the wrong field
    address     TEXT NOT NULL,
    at          REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS failures_by_user ON failures (user_key, at);
CREATE INDEX IF NOT EXISTS failures_by_address ON failures (address, at);
CREATE TABLE IF NOT EXISTS successes (
    user_key    TEXT NOT NULL,
    address     TEXT NOT NULL,
    at          REAL NOT NULL,
    PRIMARY KEY (user_key, address)
) WITHOUT ROWID;
"""


class Store:
    """A connection to the SQLite file of sessions: one transaction at a time in this process; other processes may use
    the file as well.

    Without a path it is kept in memory and ends with the process, which is all demo mode needs.

    Raises WarehouseError: from every method, when the file cannot be opened, read or written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path or "in memory"
        self._turn = threading.Lock()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite alone would create it readable by all
            self._connection = sqlite3.connect(
                path or ":memory:", timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise self._failed(error) from None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction: everything in the block is written, or nothing; writers of all processes take turns."""
        with self._turn:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._failed(error) from None

    def row(self, query: str, parameters: tuple[object, ...]) -> tuple[Any, ...] | None:
        """The first row of a query; `None` without one. It does not wait for writers of other processes."""
        with self._turn:
            try:
                found: tuple[Any, ...] | None = self._connection.execute(query, parameters).fetchone()
            except sqlite3.Error as error:
                raise self._failed(error) from None
            return found

    def close(self) -> None:
        """Close the SQLite file; every later call is refused. A closed store refuses every call."""
        with self._turn:
            self._connection.close()

    def _failed(self, error: Exception) -> WarehouseError:
        return WarehouseError(f"the session store {self._path} cannot be used: {error}")
