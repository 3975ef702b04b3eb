"""Route for usage events: `GET /api/billing/usage/events` (CONTRACT section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from billing_core.errors import BadParameter
from billing_core.types import GetUsageEventsParams
from billing_core.web import wiring
from billing_core.web.signed_in import NO_STORE, guarded, query_of, refusal

REPEATABLE = frozenset({"customer", "organization", "user", "chatflow", "model", "environment", "status", "without"})


def parse_query(query: Mapping[str, list[str]]) -> GetUsageEventsParams:
    """The parameters for usage events from a query string; a repeated filter means any of its values.

    Only `without` means all of them: the events that lack everything named.

    Raises BadParameter: naming the parameter; also when one that has a single value is repeated.
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


async def usage_events(request: Request) -> Response:
    """Route: one page of usage events as JSON, for a bearer token."""

    def answer() -> Response:
        principal = wiring.tokens().authenticate(request.headers.get("authorization"))
        if principal is None:
            return refusal(401, "a valid bearer token is needed", {"WWW-Authenticate": "Bearer"})
        params = parse_query(query_of(request))
        document = wiring.service().get_usage_events(params, principal).to_json()
        return JSONResponse(document, headers=NO_STORE)

    return await guarded(answer)
