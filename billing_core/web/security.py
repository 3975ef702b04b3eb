"""Middleware for security headers on every response, and for Streamlit's addresses that nobody needs."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from billing_core.values.hosts import HostPort

HSTS_SECONDS = 365 * 24 * 60 * 60

_METRICS = re.compile(r"/_stcore/+metrics/*$")
"""Streamlit's metrics count sessions and name functions, and ask for no sign-in."""

_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)

_PERMISSIONS = ", ".join(
    f"{feature}=()"
    for feature in (
        "accelerometer",
        "camera",
        "display-capture",
        "geolocation",
        "gyroscope",
        "magnetometer",
        "microphone",
        "midi",
        "payment",
        "serial",
        "usb",
    )
)


def is_https(scope: Scope) -> bool:
    """Whether the browser came over HTTPS, ending here or at a trusted proxy in front."""
    return scope["scheme"] in {"https", "wss"}


def inline_script_hashes(html: str) -> tuple[str, ...]:
    """CSP sources for the inline scripts of Streamlit's shell page, so that no other inline script runs."""
    digests = (hashlib.sha256(script.encode()).digest() for script in _INLINE_SCRIPT.findall(html))
    return tuple(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)


def own_socket(scope: Scope) -> str:
    """The CSP source of the page's own WebSocket, for browsers that do not count it as 'self'.

    Empty for an IPv6 address, which CSP has no spelling for, and for a host that is none.
    """
    place = HostPort.parse(Headers(scope=scope).get("host", ""))
    if place is None or ":" in place.host:
        return ""
    return f"{'wss' if is_https(scope) else 'ws'}://{place}"


def content_security_policy(script_sources: Iterable[str] = (), socket: str = "") -> str:
    """The Content-Security-Policy of a page, which loads from itself only; exceptions have their reason here."""
    scripts = " ".join(("'self'", "'wasm-unsafe-eval'", *script_sources))
    return "; ".join(
        (
            "default-src 'self'",
            f"script-src {scripts}",
            "style-src 'self' 'unsafe-inline'",  # Streamlit's emotion and Plotly write style elements
            "img-src 'self' data: blob:",  # Plotly's chart images, downloads of charts
            "font-src 'self' data:",
            f"connect-src 'self' {socket}".rstrip(),
            "worker-src 'self' blob:",
            "frame-src 'self'",
            "frame-ancestors 'self'",  # Streamlit shows components in frames of its own origin
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
        )
    )


class SecurityHeaders:
    """ASGI middleware that adds security headers to every response, right behind the door."""

    def __init__(self, app: ASGIApp, script_sources: Iterable[str] = ()) -> None:
        self._app = app
        self._script_sources = tuple(script_sources)
        self._headers = {
            "X-Frame-Options": "SAMEORIGIN",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
            "Permissions-Policy": _PERMISSIONS,
            "Cross-Origin-Opener-Policy": "same-origin",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
                headers["Content-Security-Policy"] = content_security_policy(self._script_sources, own_socket(scope))
                if is_https(scope):
                    headers["Strict-Transport-Security"] = f"max-age={HSTS_SECONDS}"
            await send(message)

        if _METRICS.search(scope["path"]):
            await Response(status_code=HTTPStatus.NOT_FOUND)(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)
