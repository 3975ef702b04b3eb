"""Routes that set and clear the session cookie: answers to two invisible images on the page.

`GET /auth/cookie/TICKET` sets it, `GET /auth/cookie/clear` removes it. Both answer only to requests of the
dashboard's own pages: a foreign page could otherwise sign somebody in under its own account, or out.
"""

from __future__ import annotations

import base64
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from billing_core.auth.sessions import ABSOLUTE_EXPIRY_SECONDS
from billing_core.errors import BillingError
from billing_core.web import wiring
from billing_core.web.security import is_https

COOKIE_NAME = "billing_session"

COOKIE_PATH = "/auth/cookie"
"""Where both routes live, below the server's base path."""

_PIXEL = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")
"""A transparent GIF of one pixel."""


async def set_cookie(request: Request) -> Response:
    """Set the session cookie for a valid one-time ticket; 404 for any other request."""
    if not _is_from_own_page(request):
        return _refusal()
    try:
        value = await run_in_threadpool(lambda: wiring.gatekeeper().cookie_for(request.path_params["ticket"]))
    except BillingError:
        return _refusal()
    if value is None:
        return _refusal()
    response = _pixel()
    response.set_cookie(
        COOKIE_NAME,
        value,
        max_age=int(ABSOLUTE_EXPIRY_SECONDS),
        path="/",
        httponly=True,
        samesite="lax",
        secure=is_https(request.scope),
    )
    return response


async def clear_cookie(request: Request) -> Response:
    """Clear the session cookie. The session itself was ended by the page, whether this request arrives or not."""
    if not _is_from_own_page(request):
        return _refusal()
    response = _pixel()
    response.delete_cookie(COOKIE_NAME, path="/", httponly=True, samesite="lax", secure=is_https(request.scope))
    return response


def _is_from_own_page(request: Request) -> bool:
    """Browsers say where a request comes from; over plain HTTP on a network only the referrer does."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    host = request.headers.get("host")
    return host is not None and urlsplit(request.headers.get("referer", "")).netloc == host


def _pixel() -> Response:
    return Response(_PIXEL, media_type="image/gif", headers={"Cache-Control": "no-store"})


def _refusal() -> Response:
    return Response(status_code=HTTPStatus.NOT_FOUND, headers={"Cache-Control": "no-store"})
