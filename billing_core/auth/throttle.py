"""Limits failed sign-ins per name and address, checked before any hashing.

Limits are sliding windows: nobody is locked out for good, and refused attempts do not prolong the wait. The rules
look at the name as typed and never at whether such an account exists.
"""

from __future__ import annotations

import hashlib
import math
import sqlite3
from collections.abc import Callable

from billing_core.auth.fields import canonical_name
from billing_core.auth.store import Store
from billing_core.runtime.clock import seconds
from billing_core.values.hosts import is_loopback, network_of

WINDOW_SECONDS = 15 * 60.0
"""How long a failure counts."""

PER_USER_AND_ADDRESS = 5
PER_USER = 20
PER_ADDRESS = 50
IN_ALL = 200
"""Failures within the window after which the next attempt has to wait. Each costs a bcrypt check of about 0.3 s."""

FAMILIAR_SECONDS = 30 * 24 * 60 * 60.0
"""Where a name signed in this recently it is spared all limits but `PER_USER_AND_ADDRESS`: strangers failing elsewhere,
or behind the same proxy, cannot keep somebody from their own account."""

SHARED_ADDRESS = "local"
"""This machine, or everybody behind a proxy that runs on it and is not trusted: `PER_ADDRESS` does not apply."""


class Throttle:
    """Counts sign-in attempts in the session store, so that a restart forgives nothing. `now` in seconds since 1970."""

    def __init__(self, store: Store, now: Callable[[], float] = seconds) -> None:
        self._store = store
        self._now = now

    def begin(self, name: str, address: str) -> float:
        """Count a sign-in attempt and return how many seconds it has to wait; 0 means go ahead.

        The attempt counts as failed until `succeed` says otherwise: a hundred at once cannot slip through
        while the first is still being hashed.
        """
        key, address = _key(name), _place(address)
        now = self._now()
        with self._store.transaction() as connection:
            # The clock may have been set back: what lies in the future happened by now at the latest.
            connection.execute("UPDATE failures SET at = ? WHERE at > ?", (now, now))
            connection.execute("DELETE FROM failures WHERE at <= ?", (now - WINDOW_SECONDS,))
            rules: list[tuple[str, tuple[str, ...], int]] = [
                ("user_key = ? AND address = ?", (key, address), PER_USER_AND_ADDRESS)
            ]
            if not self._is_familiar(connection, now, key, address):
                rules += [("user_key = ?", (key,), PER_USER), ("TRUE", (), IN_ALL)]
                if address != SHARED_ADDRESS:
                    rules.append(("address = ?", (address,), PER_ADDRESS))
            wait = max(self._wait(connection, now, *rule) for rule in rules)
            if wait == 0.0:
                connection.execute("INSERT INTO failures (user_key, address, at) VALUES (?, ?, ?)", (key, address, now))
        return wait

    def succeed(self, name: str, address: str) -> None:
        """Forget the failed sign-ins of this name at this address; those of other names and addresses stay."""
        key, address = _key(name), _place(address)
        now = self._now()
        with self._store.transaction() as connection:
            connection.execute("DELETE FROM failures WHERE user_key = ? AND address = ?", (key, address))
            connection.execute("DELETE FROM successes WHERE at <= ? OR at > ?", (now - FAMILIAR_SECONDS, now))
            connection.execute("INSERT OR REPLACE INTO successes VALUES (?, ?, ?)", (key, address, now))

    @staticmethod
    def _wait(connection: sqlite3.Connection, now: float, rule: str, values: tuple[str, ...], allowed: int) -> float:
        """Seconds until fewer than `allowed` failures count: until the `allowed`-th newest leaves the window."""
        row = connection.execute(
            f"SELECT at FROM failures WHERE {rule} ORDER BY at DESC LIMIT 1 OFFSET ?", (*values, allowed - 1)
        ).fetchone()
        return 0.0 if row is None else max(row[0] + WINDOW_SECONDS - now, 0.0)

    @staticmethod
    def _is_familiar(connection: sqlite3.Connection, now: float, key: str, address: str) -> bool:
        row = connection.execute(
            "SELECT 1 FROM successes WHERE user_key = ? AND address = ? AND at > ? AND at <= ?",
            (key, address, now - FAMILIAR_SECONDS, now),
        ).fetchone()
        return row is not None


def wait_text(seconds: float) -> str:
    """The message to somebody who has to wait before signing in; the same whether the account exists or not."""
    minutes = max(math.ceil(seconds / 60), 1)
    return f"Too many attempts. Try again in {minutes} minute{'' if minutes == 1 else 's'}."


def _place(address: str) -> str:
    return SHARED_ADDRESS if is_loopback(address) else network_of(address)


def _key(name: str) -> str:
    return hashlib.sha256(canonical_name(name).encode(errors="replace")).hexdigest()
