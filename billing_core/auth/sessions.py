"""The registry of sign-in sessions, kept on the server: a cookie alone is worth nothing.

The browser only holds a random id. Signing out, a removed account, another password, role or set of
organizations ends a session everywhere with its next run, whatever cookies or tabs are still around.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Callable

from billing_core.access import Principal
from billing_core.auth.store import Store
from billing_core.auth.users import User, principal_of
from billing_core.runtime.clock import seconds

IDLE_EXPIRY_SECONDS = 60 * 60.0
"""A session nobody used for this long has ended."""

ABSOLUTE_EXPIRY_SECONDS = 12 * 60 * 60.0
"""A session ends this long after signing in, however busy it is."""

CLOCK_STEP_SECONDS = 60.0
"""How far a session may seem to come from the future: a clock is set right by less, and set back by more."""

SEEN_EVERY_SECONDS = 60.0
"""How exactly use is recorded; more would be a write for every click."""


class SessionRegistry:
    """All sign-in sessions of one store. `now` is the clock in seconds since 1970."""

    def __init__(self, store: Store, now: Callable[[], float] = seconds) -> None:
        self._store = store
        self._now = now

    def create(self, user: User, address: str) -> str:
        """Begin a session for a user and return its secret id (256 random bits); only its SHA-256 is stored."""
        session_id = secrets.token_urlsafe(32)
        now = self._now()
        with self._store.transaction() as connection:
            connection.execute(
                "DELETE FROM sessions WHERE seen_at <= ? OR created_at <= ? OR seen_at > ?",
                (now - IDLE_EXPIRY_SECONDS, now - ABSOLUTE_EXPIRY_SECONDS, now + CLOCK_STEP_SECONDS),
            )
            connection.execute(
                "INSERT INTO sessions VALUES (?, ?, ?, ?, ?, ?)",
                (_digest(session_id), user.name, _fingerprint(user), address, now, now),
            )
        return session_id

    def check(self, session_id: str, find: Callable[[str], User | None]) -> Principal | None:
        """The person a session belongs to, with their role and organizations as of now; `None` if it has ended.

        `find` looks an account up by name. A session whose account is gone or changed is revoked for good, and so is
        one from the future: the clock was set back, and how old the session is can no longer be told.
        """
        digest = _digest(session_id)
        row = self._store.row("SELECT user, fingerprint, created_at, seen_at FROM sessions WHERE digest = ?", (digest,))
        if row is None:
            return None
        name, fingerprint, created_at, seen_at = row
        user = find(name)
        now = self._now()
        if (
            user is None
            or not hmac.compare_digest(fingerprint, _fingerprint(user))
            or not -CLOCK_STEP_SECONDS <= now - seen_at < IDLE_EXPIRY_SECONDS
            or now - created_at >= ABSOLUTE_EXPIRY_SECONDS
        ):
            self.revoke(session_id)
            return None
        if now - seen_at >= SEEN_EVERY_SECONDS:
            with self._store.transaction() as connection:
                connection.execute("UPDATE sessions SET seen_at = ? WHERE digest = ?", (now, digest))
        return principal_of(user)

    def revoke(self, session_id: str) -> str | None:
        """End one session and return the name of its account; `None` if there was none (any more)."""
        with self._store.transaction() as connection:
            ended = connection.execute("DELETE FROM sessions WHERE digest = ? RETURNING user", (_digest(session_id),))
            row = ended.fetchone()
        return None if row is None else str(row[0])


def signed_cookie(session_id: str, key: bytes) -> str:
    """The session cookie's value: the id and its HMAC-SHA256, so that guesses never reach the registry."""
    return f"{session_id}.{_seal(session_id, key)}"


def id_in_cookie(value: str, key: bytes) -> str | None:
    """The session id of a cookie that this key signed, else `None`."""
    session_id, _, seal = value.rpartition(".")
    good = hmac.compare_digest(seal.encode(), _seal(session_id, key).encode())
    return session_id if session_id and good else None


def _seal(session_id: str, key: bytes) -> str:
    return hmac.new(key, b"billing session\x00" + session_id.encode(), hashlib.sha256).hexdigest()


def _digest(session_id: str) -> str:
    return hashlib.sha256(session_id.encode()).hexdigest()


def _fingerprint(user: User) -> str:
    """Changes with anything a session must not outlive."""
    organizations = None if user.organizations is None else sorted(user.organizations)
    return hashlib.sha256(json.dumps([user.password_hash, user.role, organizations]).encode()).hexdigest()
