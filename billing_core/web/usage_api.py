"""Routes for usage events: `GET /api/billing/usage/events` and the CSV download (CONTRACT section 5)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from billing_core.access import Principal
from billing_core.errors import AccessDenied, BadParameter, BillingError, NotFound, SettingsError, WarehouseError
from billing_core.types import GetUsageEventsParams
from billing_core.web import wiring
from billing_core.web.cookies import COOKIE_NAME

REPEATABLE = frozenset({"customer", "organization", "user", "chatflow", "model", "environment", "status", "without"})

_NO_STORE = {"Cache-Control": "no-store"}

_STATUS = {BadParameter: 422, AccessDenied: 403, NotFound: 404, WarehouseError: 503, SettingsError: 503}


def parse_query(query: Mapping[str, list[str]]) -> GetUsageEventsParams:
    """The parameters for usage events from a query string; a repeated filter means any of its values.

    Only `without` means all of them: the events that lack everything named.

    Raises
    ------
    BadParameter
        Naming the parameter; also when one that has a single value is repeated.
    """
    values: dict[str, Any] = {}
    for name, given in query.items():
        if name in REPEATABLE:
            values[name] = given
        elif len(given) > 1:
            raise BadParameter(name, given, "one value")
        else:
            values[name] = given[0]
    return GetUsageEventsParams.parse(values)


def query_of(request: Request) -> dict[str, list[str]]:
    """Every parameter of the query string with all its values."""
    return {name: request.query_params.getlist(name) for name in request.query_params}


async def usage_events(request: Request) -> Response:
    """Route: one page of usage events as JSON, for a bearer token."""

    def answer() -> Response:
        principal = wiring.tokens().authenticate(request.headers.get("authorization"))
        if principal is None:
            return _refusal(401, "a valid bearer token is needed", {"WWW-Authenticate": "Bearer"})
        params = parse_query(query_of(request))
        document = wiring.service().get_usage_events(params, principal).to_json()
        return JSONResponse(document, headers=_NO_STORE)

    return await _guarded(answer)


async def usage_events_csv(request: Request) -> Response:
    """Route: the usage events of the page's filter as CSV, streamed, for a signed-in person."""

    def pieces(principal: Principal) -> Iterator[bytes]:
        return wiring.service().csv(parse_query(query_of(request)), principal)

    return await csv_download(request, "usage-events.csv", pieces)


async def csv_download(
    request: Request,
    name: str,
    pieces: Callable[[Principal], Iterable[str] | Iterable[bytes]],
    *,
    audited_here: bool = True,
) -> Response:
    """A response that streams CSV to the signed-in person of the request's cookie.

    `pieces` decides whether that person may have it, before the first one; unless `audited_here` it also tells the
    audit log.
    """

    def answer() -> Response:
        gatekeeper = wiring.gatekeeper()
        session_id = gatekeeper.session_in(request.cookies.get(COOKIE_NAME))
        principal = None if session_id is None else gatekeeper.principal(session_id)
        if principal is None:
            return _refusal(401, "sign in first, then download again", {})
        headers = {"Content-Disposition": f'attachment; filename="{name}"', **_NO_STORE}
        told = pieces(principal)
        if audited_here:
            told = _audited(told, principal, name, query_of(request))
        return StreamingResponse(told, media_type="text/csv; charset=utf-8", headers=headers)

    return await _guarded(answer)


def _audited(
    pieces: Iterable[str] | Iterable[bytes], principal: Principal, name: str, query: Mapping[str, list[str]]
) -> Iterator[bytes]:
    """The pieces of a download; when it is over, or broken off, the audit log says who took what."""
    digest, size, is_whole = hashlib.sha256(), 0, False
    try:
        for piece in pieces:
            data = piece.encode() if isinstance(piece, str) else piece
            digest.update(data)
            size += len(data)
            yield data
        is_whole = True
    finally:
        facts = {"file": name, "filter": dict(query), "bytes": size, "whole": is_whole}
        wiring.service().audit(principal.name, "export", {**facts, "sha256": digest.hexdigest()})


async def _guarded(answer: Callable[[], Response]) -> Response:
    """Run off the event loop; expected errors become their status with one sentence."""
    try:
        return await run_in_threadpool(answer)
    except BillingError as error:
        status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 500)
        extra = {"parameter": error.parameter} if isinstance(error, BadParameter) else {}
        return _refusal(status, str(error), {}, **extra)


def _refusal(status: int, says: str, headers: Mapping[str, str], **extra: str) -> Response:
    return JSONResponse({"error": says, **extra}, status_code=status, headers=dict(headers))
