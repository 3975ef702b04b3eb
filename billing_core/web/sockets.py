"""The open WebSockets: limits for what each may send, and for how many strangers may hold.

A socket belongs to a stranger until somebody signs in over it, or comes with the cookie of a session. The door admits
and ends sockets; the pages tell who has signed in, from the thread of their script.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from billing_core.values.hosts import is_loopback, network_of

STRANGER_BYTES = 64 * 1024
"""The sign-in form and its address are a few kilobytes."""

SIGNED_IN_BYTES = 1024 * 1024
"""All widgets of a page together; files go by HTTP."""

STRANGER_SECONDS = 10 * 60.0
"""How long a stranger's socket lives. A browser that waits at the form connects again by itself."""

BUSY_SECONDS = 15.0
"""Where something came this recently somebody may be signing in: the socket may live up to twice as long."""

STRANGERS_PER_ADDRESS = 20
STRANGERS_IN_ALL = 200
"""Strangers' sockets at the same time. This machine's own address has no limit of its own: a proxy may stand there."""

SOCKET_HEADER = "x-billing-socket"
"""The header under which pages find the id of their socket. What a browser sends under this name is dropped."""

EXPIRED = 1001
"""The close code of a socket whose time is over: going away, come again."""

End: TypeAlias = Callable[[int], Awaitable[None]]
SetLimit: TypeAlias = Callable[[int], None]


class Socket:
    """One open WebSocket. `end` closes it with a code, `set_limit` tells the server how long a message may be."""

    def __init__(self, address: str, is_signed_in: bool) -> None:
        self.id = secrets.token_urlsafe(16)
        self.address = address
        self.is_signed_in = is_signed_in
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = self._ends_at = float("-inf")

    @property
    def limit(self) -> int:
        """The longest message this socket may send, in bytes."""
        return SIGNED_IN_BYTES if self.is_signed_in else STRANGER_BYTES

    def open(self, end: End, set_limit: SetLimit) -> None:
        """Begin to apply the socket's limits; called on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._end, self._set_limit = end, set_limit
        self._apply()

    def on_message(self) -> None:
        """Count a message the socket sent; called on the event loop."""
        if self._loop is not None:
            self._heard_at = self._loop.time()

    def changed(self) -> None:
        """Apply the limits of the person the socket belongs to now; called from any thread."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._apply)

    def close(self) -> None:
        """Stop applying limits to the socket; called on the event loop."""
        self._loop = None
        self._stop_timer()

    def _apply(self) -> None:
        if self._loop is None:
            return
        self._set_limit(self.limit)
        self._stop_timer()
        if not self.is_signed_in:
            self._ends_at = self._loop.time() + 2 * STRANGER_SECONDS
            self._timer = self._loop.call_later(STRANGER_SECONDS, self._expire)

    def _expire(self) -> None:
        if self._loop is None:
            return
        now = self._loop.time()
        if now - self._heard_at < BUSY_SECONDS and now < self._ends_at:
            self._timer = self._loop.call_later(BUSY_SECONDS, self._expire)
        else:
            self._ending = self._loop.create_task(_awaited(self._end(EXPIRED)))  # kept: the loop holds tasks weakly

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


async def _awaited(ending: Awaitable[None]) -> None:
    await ending


class Sockets:
    """All open WebSockets of this process; every method may be called from any thread."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._open: dict[str, Socket] = {}

    def admit(self, address: str, *, is_signed_in: bool) -> Socket | None:
        """A new WebSocket for a client at `address`; `None` where strangers hold as many as they may."""
        place = network_of(address)
        with self._turn:
            if not is_signed_in:
                strangers = [socket.address for socket in self._open.values() if not socket.is_signed_in]
                if len(strangers) >= STRANGERS_IN_ALL:
                    return None
                if not is_loopback(address) and strangers.count(place) >= STRANGERS_PER_ADDRESS:
                    return None
            socket = Socket(place, is_signed_in)
            self._open[socket.id] = socket
            return socket

    def mark(self, socket_id: str, *, is_signed_in: bool) -> None:
        """Note whether a socket belongs to a signed-in person or to a stranger. Unknown ids are closed sockets'."""
        with self._turn:
            socket = self._open.get(socket_id)
            if socket is None or socket.is_signed_in == is_signed_in:
                return
            socket.is_signed_in = is_signed_in
        socket.changed()

    def leave(self, socket: Socket) -> None:
        """Forget a socket that was closed."""
        with self._turn:
            self._open.pop(socket.id, None)
        socket.close()


def limit_uvicorn_messages() -> None:
    """Let every new connection begin with a stranger's limit; uvicorn knows one limit for all, 200 MB by default.

    A message is read whole before the application sees it, and the first may arrive together with the handshake: a
    limit set later than here comes too late.
    """
    from uvicorn.protocols.websockets import websockets_sansio_impl as implementation

    original = implementation.WebSocketsSansIOProtocol.connection_made

    def connection_made(protocol: Any, transport: Any) -> None:
        protocol.conn.max_message_size = STRANGER_BYTES
        original(protocol, transport)

    setattr(implementation.WebSocketsSansIOProtocol, "connection_made", connection_made)  # noqa: B010 - mypy


def message_limit_setter(receive: object) -> SetLimit:
    """A function that changes the message limit behind an ASGI `receive`; only uvicorn's."""
    connection: Any = getattr(getattr(receive, "__self__", None), "conn", None)

    def set_limit(size: int) -> None:
        if connection is not None:
            connection.max_message_size = size

    return set_limit
