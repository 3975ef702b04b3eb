"""What the fault layer does to requests and answers as ASGI knows them: read ahead, hold back, reset."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from struct import pack
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope


@dataclass(slots=True)
class HeldAnswer:
    """A complete answer of the application, held back."""

    start: MutableMapping[str, Any]
    body: bytes


async def held_back(app: ASGIApp, scope: Scope, receive: Receive) -> HeldAnswer:
    """Let the application answer, and keep the answer."""
    answer = HeldAnswer({}, b"")

    async def hold(message: Message) -> None:
        if message["type"] == "http.response.start":
            answer.start = message
        else:
            answer.body += message.get("body", b"")

    await app(scope, receive, hold)
    return answer


class _Replayed:
    """The messages of a request whose body was read ahead."""

    def __init__(self, receive: Receive, body: bytes) -> None:
        self.receive = receive
        self._body: bytes | None = body

    async def __call__(self) -> Message:
        """The body at once, then whatever comes."""
        body, self._body = self._body, None
        if body is None:
            return await self.receive()
        return {"type": "http.request", "body": body, "more_body": False}


async def read_ahead(receive: Receive) -> tuple[bytes, Receive]:
    """The body, and what gives it once more."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body, _Replayed(receive, body)


async def reset(receive: Receive) -> None:
    """Reset the connection: no goodbye, no answer.

    ASGI has no word for this, so the transport is taken from uvicorn's request, whose method `receive` is.

    Raises ConnectionResetError: in front of any other server, which makes what it can of it.
    """
    while isinstance(receive, _Replayed):
        receive = receive.receive
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    if transport is None:
        raise ConnectionResetError("planted")
    transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, pack("ii", 1, 0))  # closing sends RST
    transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass
