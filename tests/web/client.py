"""Asking an ASGI application without a socket."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from starlette.types import ASGIApp

from billing_core.web import wiring
from billing_core.web.cookies import COOKIE_NAME


class Client:
    """Requests to `app` as from a browser at `base_url`; answers are httpx's, redirects are not followed."""

    def __init__(self, app: ASGIApp, base_url: str = "http://dashboard") -> None:
        self._app = app
        self._base_url = base_url

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def asked() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url=self._base_url) as client:
                return await client.request(method, path, **options)

        return asyncio.run(asked())


def get_as(client: Client, path: str, name: str) -> httpx.Response:
    """Ask as one of the demo accounts, with the cookie its browser would send."""
    gatekeeper = wiring.gatekeeper()
    session_id = gatekeeper.sign_in(name, "any", "127.0.0.1", lambda *_: True)
    cookie = gatekeeper.cookie_for(gatekeeper.ticket(session_id))
    return client.get(path, headers={"Cookie": f"{COOKIE_NAME}={cookie}"})
