"""Answers to the signed-in person of a request's cookie, off the event loop; errors become a status and a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from billing_core.access import Principal
from billing_core.errors import AccessDenied, BadParameter, BillingError, NotFound, SettingsError, WarehouseError
from billing_core.web import wiring
from billing_core.web.cookies import COOKIE_NAME

NO_STORE = {"Cache-Control": "no-store"}

_STATUS = {BadParameter: 422, AccessDenied: 403, NotFound: 404, WarehouseError: 503, SettingsError: 503}


def query_of(request: Request) -> dict[str, list[str]]:
    """Every parameter of the query string with all its values."""
    return {name: request.query_params.getlist(name) for name in request.query_params}


async def for_signed_in(request: Request, answer: Callable[[Principal], Response]) -> Response:
    """`answer` for the person the session's cookie belongs to; 401 without one."""

    def asked() -> Response:
        gatekeeper = wiring.gatekeeper()
        session_id = gatekeeper.session_in(request.cookies.get(COOKIE_NAME))
        principal = None if session_id is None else gatekeeper.principal(session_id)
        return refusal(401, "sign in first, then download again") if principal is None else answer(principal)

    return await guarded(asked)


async def guarded(answer: Callable[[], Response]) -> Response:
    """`answer` off the event loop; expected errors become their status with one sentence."""
    try:
        return await run_in_threadpool(answer)
    except BillingError as error:
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
        extra = {"parameter": error.parameter} if isinstance(error, BadParameter) else {}
        return JSONResponse({"error": str(error), **extra}, status)


def refusal(status: int, says: str, headers: Mapping[str, str] | None = None) -> Response:
    """A refusal as JSON."""
    return JSONResponse({"error": says}, status, headers)
