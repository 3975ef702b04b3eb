"""Downloads of the pages as CSV: one route for each file, for the signed-in person, told to the audit log."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeAlias

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from billing_core.access import Principal
from billing_core.errors import BadParameter, NotFound
from billing_core.types import PREVIOUS, parse_time
from billing_core.web import wiring
from billing_core.web.signed_in import NO_STORE, for_signed_in, query_of
from billing_core.web.sync_files import problems_lines, reconciliation_lines
from billing_core.web.usage_api import parse_query

if TYPE_CHECKING:  # the sign-in form must not wait for what it brings
    from billing_core.audit.service import AuditQuery

Query: TypeAlias = dict[str, list[str]]
Pieces: TypeAlias = Iterable[str] | Iterable[bytes]

ANOMALY_PARAMETERS = ("from", "to", "organization")

MANY = ("actor", "action")
ONE = ("from", "to", "search")
"""Parameters of the audit log: those that may be repeated, and those that may not."""

ASCENDING = {"asc": False, "desc": True}
"""`order` → whether the largest come first."""


def usage_events(principal: Principal, query: Query) -> Pieces:
    """The usage events of the page's filter."""
    return wiring.service().csv(parse_query(query), principal)


def problems(principal: Principal, _query: Query) -> Pieces:
    """Stuck usage: every cause with its events, credits and US dollars."""
    return problems_lines(wiring.service().stripe.problems(principal))


def reconciliation(principal: Principal, _query: Query) -> Pieces:
    """The newest reconciliation, row by row with its causes."""
    found = wiring.service().stripe.last_reconciliation(principal)
    if found is None:
        raise NotFound("nothing has been reconciled yet; press Reconcile on the Stripe Sync page first")
    return reconciliation_lines(found)


NOTHING = "nothing"
"""What a table is compared with, if with nothing; the usual comparison is the period before."""


def organizations(principal: Principal, query: Query) -> Pieces:
    """The table of organizations: the filters of `events`, and `find`, `sort`, `order` and `compare` as the page has
    them.
    """
    from billing_core.organizations import table  # brings the engine

    own = {name: (query.pop(name, None) or [""])[-1] for name in ("find", "sort", "order", "compare")}
    if own["order"] and own["order"] not in ASCENDING:
        raise BadParameter("order", own["order"], "asc or desc")
    compare = None if own["compare"] == NOTHING else own["compare"] or PREVIOUS
    part = wiring.service().organizations
    found, names = part.statistics(parse_query(query), principal, compare), part.directory.names(principal)
    descending = ASCENDING.get(own["order"], True)
    return table.organizations_csv(found, names, own["find"], own["sort"] or table.DEFAULT_SORT, descending)


def organization_map(principal: Principal, _query: Query) -> Pieces:
    """The organization directory in the form of an import."""
    return wiring.service().organizations.directory.csv_lines(principal)


def anomalies(principal: Principal, query: Query) -> Pieces:
    """Every anomaly between `from` and `to`, of one `organization` if named."""
    _only_known(query, ANOMALY_PARAMETERS)
    params = parse_query(query)
    if len(params.organization) > 1:
        raise BadParameter("organization", list(params.organization), "one organization, or none for all")
    forecasting = wiring.service().organizations.forecasting
    return forecasting.anomalies_csv(principal, params.from_, params.to, next(iter(params.organization), None))


def limits(principal: Principal, _query: Query) -> Pieces:
    """Every organization's limits."""
    return wiring.service().organizations.limits.csv(principal)


def notices(principal: Principal, _query: Query) -> Pieces:
    """Every notice of a reached limit, open and seen."""
    return wiring.service().organizations.limits.notices.csv(principal)


def audit(principal: Principal, query: Query) -> Pieces:
    """The audit log with the filters of its page; that it was taken, the log itself says."""
    return wiring.service().trail.csv(principal, _audit_query(query))


FILES: dict[str, Callable[[Principal, Query], Pieces]] = {
    "usage-events.csv": usage_events,
    "sync-problems.csv": problems,
    "reconciliation.csv": reconciliation,
    "organizations.csv": organizations,
    "organization-map.csv": organization_map,
    "anomalies.csv": anomalies,
    "limits.csv": limits,
    "notices.csv": notices,
    "audit.csv": audit,
}
"""Each decides, before its first piece, whether that person may have it."""


def download_routes(base_path: str = "") -> list[Route]:
    """A route for each of `FILES`, and one for the manifests of closed months."""
    folder = f"{base_path}/download"
    routes = [Route(f"{folder}/{name}", _route(name)) for name in FILES]
    return [*routes, Route(f"{folder}/manifest/{{period}}.json", manifest)]


def _route(name: str) -> Callable[[Request], object]:
    async def route(request: Request) -> Response:
        def answer(principal: Principal) -> Response:
            pieces = FILES[name](principal, query_of(request))
            if name != "audit.csv":
                pieces = _audited(pieces, principal, name, query_of(request))
            return _streamed(pieces, name, "text/csv; charset=utf-8")

        return await for_signed_in(request, answer)

    return route


async def manifest(request: Request) -> Response:
    """Route: the manifest of a closed month, exactly the text that was hashed."""
    period = request.path_params["period"]

    def answer(principal: Principal) -> Response:
        text = wiring.service().months.manifest(period, principal)  # refuses what is no month, before it is a name
        name = f"close-{period}.json"
        return _streamed(_audited([text], principal, name, query_of(request)), name, "application/json")

    return await for_signed_in(request, answer)


def _streamed(pieces: Pieces, name: str, kind: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"', **NO_STORE}
    return StreamingResponse(pieces, media_type=kind, headers=headers)


def _audited(pieces: Pieces, principal: Principal, name: str, query: Mapping[str, list[str]]) -> Iterator[bytes]:
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


def _only_known(query: Query, names: tuple[str, ...]) -> None:
    for name in sorted(query.keys() - set(names)):
        raise BadParameter(name, query[name][0], "no such parameter, but one of " + ", ".join(names))


def _audit_query(query: Query) -> AuditQuery:
    from billing_core.audit.service import AuditQuery

    _only_known(query, (*MANY, *ONE))
    single: dict[str, str] = {}
    for name in ONE:
        if len(given := query.get(name, [])) > 1:
            raise BadParameter(name, given, "one value")
        if given:
            single[name] = given[0]
    times = {}
    for name in ("from", "to"):
        try:
            times[name] = parse_time(single[name]) if name in single else None
        except ValueError as error:
            raise BadParameter(name, single[name], "an ISO 8601 time such as 2026-10-01T00:00:00Z") from error
    return AuditQuery(
        tuple(query.get("actor", ())), tuple(query.get("action", ())), times["from"], times["to"], single.get("search")
    )
