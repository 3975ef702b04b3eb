"""Routes: downloads of a closed month's manifest and of the audit log."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from billing_core.access import Principal
from billing_core.errors import BadParameter
from billing_core.types import parse_time
from billing_core.web import wiring
from billing_core.web.usage_api import csv_download, query_of

if TYPE_CHECKING:  # the sign-in form must not wait for what it brings
    from billing_core.audit.service import AuditQuery

MANY = ("actor", "action")
ONE = ("from", "to", "search")
"""Parameters of the audit log: those that may be repeated, and those that may not."""


async def manifest_json(request: Request) -> Response:
    """Route: the manifest of a closed month, exactly the text that was hashed."""
    period = request.path_params["period"]

    def pieces(principal: Principal) -> Iterable[str]:
        return [wiring.service().months.manifest(period, principal)]  # refuses what is no month, before it is a name

    answer = await csv_download(request, f"close-{period}.json", pieces)  # the same door and the same refusals
    if answer.status_code == 200:
        answer.headers["Content-Type"] = "application/json"
    return answer


async def audit_csv(request: Request) -> Response:
    """Route: the audit log as CSV with the filters of its page, for a signed-in admin who may see everything."""
    return await csv_download(
        request,
        "audit.csv",
        lambda principal: wiring.service().trail.csv(principal, _audit_query(query_of(request))),
        audited_here=False,
    )


def _audit_query(query: dict[str, list[str]]) -> AuditQuery:
    from billing_core.audit.service import AuditQuery

    for name, given in query.items():
        if name not in (*MANY, *ONE):
            raise BadParameter(name, given[0], "no such parameter, but one of " + ", ".join((*MANY, *ONE)))
        if name in ONE and len(given) > 1:
            raise BadParameter(name, given, "one value")
    single = {name: query[name][0] for name in ONE if name in query}
    times = {}
    for name in ("from", "to"):
        try:
            times[name] = parse_time(single[name]) if name in single else None
        except ValueError as error:
            raise BadParameter(name, single[name], "an ISO 8601 time such as 2026-10-01T00:00:00Z") from error
    return AuditQuery(
        tuple(query.get("actor", ())), tuple(query.get("action", ())), times["from"], times["to"], single.get("search")
    )
