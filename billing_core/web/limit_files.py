"""Downloads of plans, limits and notices."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from billing_core.web import wiring
from billing_core.web.usage_api import csv_download


async def limits_csv(request: Request) -> Response:
    """Every organization's limits, as far as a signed-in admin may see them."""
    return await csv_download(
        request, "limits.csv", lambda principal: wiring.service().organizations.limits.csv(principal)
    )


async def notices_csv(request: Request) -> Response:
    """Every notice of a reached limit, open and seen, as far as a signed-in admin may see them."""
    return await csv_download(
        request, "notices.csv", lambda principal: wiring.service().organizations.limits.notices.csv(principal)
    )
