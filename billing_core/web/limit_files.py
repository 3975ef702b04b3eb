"""Routes: downloads of plans, limits and notices."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from billing_core.web import wiring
from billing_core.web.usage_api import csv_download


async def limits_csv(request: Request) -> Response:
    """Route: every organization's limits as CSV, as far as a signed-in admin may see them."""
    return await csv_download(
        request, "limits.csv", lambda principal: wiring.service().organizations.limits.csv(principal)
    )


async def notices_csv(request: Request) -> Response:
    """Route: every notice of a reached limit as CSV, open and seen, as far as a signed-in admin may see them."""
    return await csv_download(
        request, "notices.csv", lambda principal: wiring.service().organizations.limits.notices.csv(principal)
    )
