"""Routes for usage: `GET /api/billing/usage/events` (CONTRACT section 5) and `GET /api/billing/explore`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from billing_core.access import Principal
from billing_core.errors import BadParameter
from billing_core.types import GetUsageEventsParams
from billing_core.web import wiring
from billing_core.web.signed_in import NO_STORE, guarded, query_of, refusal

if TYPE_CHECKING:
    from billing_core.usage_events.explore_model import ExploreQuestion

REPEATABLE = frozenset(
    {
        "customer",
        "organization",
        "user",
        "chatflow",
        "model",
        "environment",
        "status",
        "cause",
        "stage",
        "credit_type",
        "without",
    }
)


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


EXPLORED = ("by", "metric", "grain", "compare", "top")
PAGED = ("sort", "order", "page", "limit")


def parse_explore(query: Mapping[str, list[str]]) -> tuple[GetUsageEventsParams, ExploreQuestion]:
    """The filter and the question of Explore from a query string; `by` is comma-separated.

    Raises BadParameter: naming the parameter.
    """
    from billing_core.usage_events.explore_model import ExploreQuestion  # it brings NumPy; the sign-in form comes first

    for name in query:
        if name in PAGED:
            raise BadParameter(name, query[name], f"no such parameter, but a filter or one of {', '.join(EXPLORED)}")
        if name in EXPLORED and len(query[name]) > 1:
            raise BadParameter(name, query[name], "one value")
    asked = {name: values[0] for name, values in query.items() if name in EXPLORED}
    filters = {name: values for name, values in query.items() if name not in EXPLORED}
    return parse_query(filters), ExploreQuestion.parse(asked)


async def usage_events(request: Request) -> Response:
    """Route: one page of usage events as JSON, for a bearer token."""
    return await _answered(
        request, lambda query, principal: wiring.service().get_usage_events(parse_query(query), principal).to_json()
    )


async def explore(request: Request) -> Response:
    """Route: usage grouped by one or two dimensions as JSON (as `explore --json` prints it), for a bearer token."""
    return await _answered(
        request, lambda query, principal: wiring.service().explore(*parse_explore(query), principal).to_json()
    )


async def _answered(
    request: Request, document: Callable[[Mapping[str, list[str]], Principal], dict[str, Any]]
) -> Response:
    def answer() -> Response:
        principal = wiring.tokens().authenticate(request.headers.get("authorization"))
        if principal is None:
            return refusal(401, "a valid bearer token is needed", {"WWW-Authenticate": "Bearer"})
        return JSONResponse(document(query_of(request), principal), headers=NO_STORE)

    return await guarded(answer)
