"""Refuses uploads of people who may not upload: Streamlit would keep anybody's in memory."""

from __future__ import annotations

import re
from http import HTTPStatus

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from billing_core.access import Role
from billing_core.web import wiring
from billing_core.web.cookies import COOKIE_NAME

UPLOADERS = frozenset({Role.ADMIN, Role.FINANCE})

_UPLOADS = re.compile(r"/_stcore/+upload_file(/|$)")


class UploadGuard:
    """ASGI middleware that refuses uploads of people who may not upload, before the first byte is read.

    Admins import files, finance asks what another rate card would cost; nobody else is offered an upload. Who a
    browser belongs to says the session's cookie: uploads need cookies anyway, Streamlit's own guard against foreign
    pages is one.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] == "http"
            and scope["method"] in {"PUT", "DELETE"}
            and _UPLOADS.search(scope["path"])
            and not await run_in_threadpool(_may_upload, Request(scope))
        ):
            await Response(status_code=HTTPStatus.FORBIDDEN)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _may_upload(request: Request) -> bool:
    principal = wiring.principal_of_cookie(request.cookies.get(COOKIE_NAME))
    return principal is not None and principal.role in UPLOADERS
