"""Routes: downloads of the Organization Stats page."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response

from billing_core.access import Principal
from billing_core.errors import BadParameter
from billing_core.types import GetUsageEventsParams
from billing_core.web import wiring
from billing_core.web.usage_api import csv_download, parse_query, query_of

ANOMALY_PARAMETERS = ("from", "to", "organization")

ASCENDING = {"asc": False, "desc": True}
"""`order` → whether the largest come first."""


async def organizations_csv(request: Request) -> Response:
    """Route: the table of organizations as CSV: the filters of `events`, and `find`, `sort` and `order` as the page has
    them.
    """

    def lines(principal: Principal) -> Iterable[str]:
        from billing_core.organizations import table  # brings the engine

        params, find, sort, descending = _table_query(query_of(request), table.DEFAULT_SORT)
        organizations = wiring.service().organizations
        found = organizations.statistics(params, principal)
        return table.organizations_csv(found, organizations.directory.names(principal), find, sort, descending)

    return await csv_download(request, "organizations.csv", lines)


async def organization_map_csv(request: Request) -> Response:
    """Route: the organization directory as CSV in the form of an import, as far as a signed-in admin may see it."""
    return await csv_download(
        request, "organization-map.csv", lambda principal: wiring.service().organizations.directory.csv_lines(principal)
    )


async def anomalies_csv(request: Request) -> Response:
    """Route: every anomaly between `from` and `to` as CSV, of one `organization` if named."""

    def pieces(principal: Principal) -> Iterable[bytes]:
        query = query_of(request)
        for name in sorted(query.keys() - set(ANOMALY_PARAMETERS)):
            raise BadParameter(name, query[name][0], "no such parameter, but one of " + ", ".join(ANOMALY_PARAMETERS))
        params = parse_query(query)
        if len(params.organization) > 1:
            raise BadParameter("organization", list(params.organization), "one organization, or none for all")
        forecasting = wiring.service().organizations.forecasting
        return forecasting.anomalies_csv(principal, params.from_, params.to, next(iter(params.organization), None))

    return await csv_download(request, "anomalies.csv", pieces)


def _table_query(query: dict[str, list[str]], default_sort: str) -> tuple[GetUsageEventsParams, str, str, bool]:
    """What the table asks for and how it is ordered: `sort` and `order` are the table's own here."""
    own = {name: (query.pop(name, None) or [""])[-1] for name in ("find", "sort", "order")}
    if own["order"] and own["order"] not in ASCENDING:
        raise BadParameter("order", own["order"], "asc or desc")
    return parse_query(query), own["find"], own["sort"] or default_sort, ASCENDING.get(own["order"], True)
