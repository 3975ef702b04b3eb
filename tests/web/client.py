"""Asking an ASGI application without a socket."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from starlette.types import ASGIApp


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
