"""Stripe's face: what the dashboard uses of v1 and v2, with the refusals, delays and losses of the reference."""

from __future__ import annotations

from starlette.routing import Route

from billing_core.sandbox import stripe_control, stripe_meters, stripe_v1, stripe_v2
from billing_core.sandbox.stripe_account import Account
from billing_core.sandbox.stripe_wire import unflatten

__all__ = ["Account", "routes", "unflatten"]


def routes() -> list[Route]:
    """The routes of this face and of its switches; the busiest first."""
    return [*stripe_meters.routes(), *stripe_v2.routes(), *stripe_v1.routes(), *stripe_control.routes()]
