"""The sandbox as one ASGI application: both Langfuse faces, Stripe's face, faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp

from billing_core.sandbox.data.dataset import SandboxDataset
from billing_core.sandbox.faults import faults
from billing_core.sandbox.http import ApiGeneration, HttpError, Sandbox, refuse, wall_clock
from billing_core.sandbox.langfuse import common, legacy, v2
from billing_core.sandbox.stripe import routes as stripe
from billing_core.sandbox.stripe.account import Account


async def unknown_route(_: Request, __: Exception) -> Response:
    """HTML, like the web framework of the real server."""
    return HTMLResponse("<!DOCTYPE html><html><body>404: This page could not be found.</body></html>", 404)


def create_app(
    dataset: SandboxDataset,
    *,
    mode: ApiGeneration | str = ApiGeneration.V4,
    latency_seconds: float = 0.0,
    clock: Callable[[], int] = wall_clock,
    stripe_journal: Path | None = None,
) -> ASGIApp:
    """The application over `dataset`; `latency_seconds` is added to every answer.

    `clock` returns milliseconds since 1970 and decides which rows have arrived. In the file `stripe_journal` Stripe's
    face keeps what it received, for the next start.

    Raises ValueError: if `mode` is none of `v4`, `v3`, `dual`. SettingsError: if the journal cannot be used.
    """
    app = Starlette(
        routes=[*common.routes(), *v2.routes(), *legacy.routes(), *stripe.routes(), *faults.routes()],
        exception_handlers={HttpError: refuse, 404: unknown_route},
    )
    app.state.sandbox = Sandbox(dataset, ApiGeneration(mode), clock)
    app.state.stripe = Account(clock, stripe_journal)
    return faults.FaultLayer(app, latency_seconds)
