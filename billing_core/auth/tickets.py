"""One-time tickets with which a browser fetches its session cookie.

A script behind a WebSocket cannot set a cookie. It puts a ticket into the address of an invisible image, and the
answer to that request sets the cookie. Tickets live in this process, where the WebSocket ends as well.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

TICKET_SECONDS = 60.0
"""How long a ticket may wait for its request."""


DELIVERED_SECONDS = 60 * 60.0
"""How long it is remembered that a cookie was fetched; whoever asks does so with the person's next click."""


class Tickets:
    """One-time tickets, valid for a short time. `now` is a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._turn = threading.Lock()
        self._open: dict[str, tuple[str, float]] = {}
        self._delivered: dict[str, float] = {}

    def issue(self, session_id: str) -> str:
        """A new ticket for a session."""
        ticket = secrets.token_urlsafe(32)
        now = self._now()
        with self._turn:
            self._open = {key: entry for key, entry in self._open.items() if entry[1] > now}
            self._delivered = {key: until for key, until in self._delivered.items() if until > now}
            self._open[ticket] = (session_id, now + TICKET_SECONDS)
        return ticket

    def redeem(self, ticket: str) -> str | None:
        """The session of a valid ticket; `None` for any other. Asking spends it and all others of its session."""
        now = self._now()
        with self._turn:
            session_id, good_until = self._open.get(ticket, ("", 0.0))
            if not session_id or good_until <= now:
                return None
            self._spend(session_id)
            self._delivered[session_id] = now + DELIVERED_SECONDS
            return session_id

    def is_delivered(self, session_id: str) -> bool:
        """Whether a ticket of this session was redeemed."""
        with self._turn:
            return session_id in self._delivered

    def void(self, session_id: str) -> None:
        """Make every ticket of a session invalid, once it has ended."""
        with self._turn:
            self._spend(session_id)

    def _spend(self, session_id: str) -> None:
        self._open = {key: entry for key, entry in self._open.items() if entry[0] != session_id}
