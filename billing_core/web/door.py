"""Middleware that refuses requests of other sites, and clients that send too much, before Streamlit sees them.

Streamlit's own check of a foreign `Origin` asks the internet for this machine's address, on the event loop. What the
door lets through never gets there: behind it `Origin` is absent, or says the same as `Host`.
"""

from __future__ import annotations

import logging
import re
import socket as machine
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from billing_core.values.hosts import HostPort, Reach, Site, address_of, reach_of
from billing_core.web.forwarded import Networks, client_address, forwarded_scheme, is_within
from billing_core.web.sockets import SOCKET_HEADER, Socket, Sockets, message_limit_setter

_log = logging.getLogger(__name__)

PROBES = re.compile(r"/(healthz|readyz)")
"""Load balancers ask these by address, and some without any `Host`. The answers are open to everybody."""

HINT = "BILLING_PUBLIC_URL names the address people use"

DISTINCT_LINES = 50
"""Warnings logged, each once: more would let strangers fill the disk."""

NOT_BINARY, POLICY, TOO_BIG, TRY_AGAIN = 1003, 1008, 1009, 1013
"""Close codes of WebSockets."""


@dataclass(frozen=True, slots=True)
class DoorRules:
    """The settings of the request check: the public address, trusted proxies, the mode."""

    public: Site | None = None
    trusted: Networks = ()
    is_live: bool = True


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused: the status and one line of text."""

    status: HTTPStatus
    line: str


def refusal(hosts: Sequence[str], origins: Sequence[str], arrived_at: str | None, rules: DoorRules) -> Refusal | None:
    """The reason for refusing a request with these `Host` and `Origin` headers; `None` if it is accepted.

    `arrived_at` is the address of this machine that the connection was made to, `None` for a local socket.
    """
    place = HostPort.parse(hosts[0]) if len(hosts) == 1 else None
    if place is None:
        return Refusal(HTTPStatus.BAD_REQUEST, "The request does not name one valid host.")
    if not _is_own(place, arrived_at, rules):
        return Refusal(HTTPStatus.MISDIRECTED_REQUEST, f"{place} is not served here; {HINT}.")
    if not origins:
        return None
    site = Site.parse(origins[0]) if len(origins) == 1 else None
    if site is None or not _is_from_own_page(site, place, rules.public):
        return Refusal(HTTPStatus.FORBIDDEN, f"Requests of other sites are refused; {HINT}.")
    return None


def _is_own(place: HostPort, arrived_at: str | None, rules: DoorRules) -> bool:
    if _is_public(place, rules.public):
        return True
    if arrived_at is None or reach_of(arrived_at) is Reach.LOOPBACK:
        return reach_of(place.host) is Reach.LOOPBACK
    if rules.public is not None or rules.is_live:
        return False
    # A demo on a network. A page of another site can make a browser come here under that site's name only.
    return (
        place.host in {arrived_at.lower(), machine.gethostname().lower()}
        or address_of(place.host) is not None
        or reach_of(place.host) is Reach.LOOPBACK
    )


def _is_public(place: HostPort, public: Site | None) -> bool:
    return public is not None and place.host == public.host and place.port in {None, public.port}


def _is_from_own_page(site: Site, place: HostPort, public: Site | None) -> bool:
    if site == public:
        return True
    return site.is_at(place) and not _is_public(place, public)


class Door:
    """ASGI middleware that refuses requests of other sites, in front of everything, for HTTP and WebSockets."""

    def __init__(
        self,
        app: ASGIApp,
        rules: Callable[[], DoorRules],
        sockets: Sockets,
        is_signed_in: Callable[[str | None], Awaitable[bool]],
        cookie_name: str,
    ) -> None:
        self._app = app
        self._rules = rules
        self._sockets = sockets
        self._is_signed_in = is_signed_in
        self._cookie_name = cookie_name
        self._told: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        rules = self._rules()
        headers = Headers(scope=scope)
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        is_probe = scope["type"] == "http" and not origins and PROBES.fullmatch(scope["path"]) is not None
        arrived_at = scope["server"][0] if scope.get("server") else None
        refused = None if is_probe else refusal(hosts, origins, arrived_at, rules)
        if refused is not None:
            self._log_once(f"turned away: {refused.line} Host: {_shown(hosts)}, Origin: {_shown(origins)}")
            await _turn_away(refused, scope, receive, send)
        elif scope["type"] == "http":
            await self._app(self._as_people_see_it(scope, headers, rules), receive, send)
        else:
            await self._hold(self._as_people_see_it(scope, headers, rules), headers, receive, send)

    def _as_people_see_it(self, scope: Scope, headers: Headers, rules: DoorRules) -> Scope:
        """The scope with the client and the scheme as they are in front of all proxies."""
        peer = scope["client"] or ("", 0)
        forwarded = headers.getlist("x-forwarded-for")
        if forwarded and not is_within(address_of(peer[0]), rules.trusted):
            self._log_once(
                f"ignored: X-Forwarded-For of {peer[0] or 'a local socket'} does not count; see BILLING_TRUSTED_PROXIES"
            )
        address = client_address(peer[0], forwarded, rules.trusted)
        scheme = forwarded_scheme(peer[0], headers.getlist("x-forwarded-proto"), rules.trusted)
        place = HostPort.parse(headers.get("host", ""))
        if scheme is None and place is not None and rules.public is not None and _is_public(place, rules.public):
            scheme = rules.public.scheme
        if scheme is None:
            scheme = scope["scheme"]
        elif scope["type"] == "websocket":
            scheme = {"http": "ws", "https": "wss"}[scheme]
        client = scope["client"] and (address, peer[1] if address == peer[0] else 0)
        return {**scope, "client": client, "scheme": scheme}

    async def _hold(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """Serve one WebSocket within the limits of who it belongs to."""
        cookie = cookie_parser(headers.get("cookie", "")).get(self._cookie_name)
        address = scope["client"][0] if scope["client"] else "127.0.0.1"
        socket = self._sockets.admit(address, is_signed_in=await self._is_signed_in(cookie))
        if socket is None:
            self._log_once("turned away: too many WebSockets of people who have not signed in")
            await send({"type": "websocket.close", "code": TRY_AGAIN})
            return
        own = {b"host", b"origin", SOCKET_HEADER.encode()}
        kept = [pair for pair in scope["headers"] if pair[0].lower() not in own]
        origin = headers.get("origin")
        if origin is None:
            kept.append((b"host", headers["host"].encode()))
        else:  # Streamlit compares the texts, and asks the internet where they differ
            kept += [(b"host", origin.partition("://")[2].encode()), (b"origin", origin.encode())]
        kept.append((SOCKET_HEADER.encode(), socket.id.encode()))
        line = _Line(receive, send, socket)
        socket.open(line.end, message_limit_setter(receive))
        try:
            await self._app({**scope, "headers": kept}, line.receive, line.send)
        finally:
            self._sockets.leave(socket)

    def _log_once(self, line: str) -> None:
        if line not in self._told and len(self._told) < DISTINCT_LINES:
            self._told.add(line)
            _log.warning(line)
            if len(self._told) == DISTINCT_LINES:
                _log.warning("the door logs nothing more until the next start: %s different lines", DISTINCT_LINES)


class _Line:
    """Both directions of one WebSocket. Once it has been ended from here, nothing more is sent on it."""

    def __init__(self, receive: Receive, send: Send, socket: Socket) -> None:
        self._receive, self._send, self._socket = receive, send, socket
        self._has_ended = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] != "websocket.receive":
            return message
        self._socket.on_message()
        content = message.get("bytes")
        if content is None:
            code = NOT_BINARY
        elif len(content) > self._socket.limit:
            code = TOO_BIG
        else:
            return message
        await self.end(code)
        return {"type": "websocket.disconnect", "code": code}

    async def send(self, message: Message) -> None:
        if not self._has_ended:
            await self._send(message)

    async def end(self, code: int) -> None:
        if not self._has_ended:
            self._has_ended = True
            await self._send({"type": "websocket.close", "code": code})


async def _turn_away(refused: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": POLICY})  # before it was accepted: the server answers 403
        return
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    await PlainTextResponse(refused.line + "\n", refused.status, headers)(scope, receive, send)


def _shown(values: Sequence[str]) -> str:
    return ", ".join(ascii(value[:100]) for value in values[:2]) or "none"
