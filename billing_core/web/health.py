"""Routes for load balancers: `/healthz` says that the process serves, `/readyz` that people can work."""

from __future__ import annotations

import logging

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse

from billing_core.errors import BillingError
from billing_core.web import wiring

_log = logging.getLogger(__name__)

_NO_STORE = {"Cache-Control": "no-store"}


async def healthz(_request: Request) -> JSONResponse:
    """Route: always 200, whatever is misconfigured: restarting the process would not help."""
    return JSONResponse({"status": "ok"}, headers=_NO_STORE)


async def readyz(_request: Request) -> JSONResponse:
    """Route: 200 when the settings are good and the ledger answers, else 503.

    The answer is open to anyone, so it names the kind of fault only; the log and the sign-in page say which.
    """
    try:
        await run_in_threadpool(wiring.ready)
    except BillingError as error:
        _log.warning("not ready: %s", error)
        return JSONResponse({"status": "unavailable", "reason": type(error).__name__}, 503, headers=_NO_STORE)
    except Exception:  # noqa: BLE001 - a health check answers whatever breaks
        _log.exception("not ready: unexpected fault")
        return JSONResponse({"status": "unavailable", "reason": "InternalError"}, 503, headers=_NO_STORE)
    return JSONResponse({"status": "ready"}, headers=_NO_STORE)
