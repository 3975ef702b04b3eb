"""Stripe's face: what the dashboard uses of v1 and v2, with the refusals, delays and losses of the reference."""

from __future__ import annotations

from starlette.routing import Route

from billing_core.sandbox.stripe import control, items, meters, v1, v2


def routes() -> list[Route]:
    """The routes of this face and of its switches; the busiest first."""
    return [*meters.routes(), *v2.routes(), *v1.routes(), *items.routes(), *control.routes()]
