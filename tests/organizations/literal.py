"""Literal figures for tests: organizations with so many credits, everything else nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from billing_core.organizations.figures import Figures, OrganizationFigures, Statistics, added
from billing_core.types import Credits


def figures(credits_total: str = "0", **facts) -> Figures:
    """All of it AI credits; one event unless there are no credits; `facts` override fields."""
    total = Decimal(credits_total)
    held = Credits(ai_tokens=total, compute=Decimal(0), storage=Decimal(0), total=total)
    nothing = added([], latency_p95=None)
    return replace(nothing, **{"events": int(total != 0), "credits": held, **facts})


def organization(
    key: str | None, credits_total: str = "0", previous: str | None = None, daily: Sequence[str] = (), **facts
) -> OrganizationFigures:
    """An organization with so many credits now and in the period before, and on each day."""
    before = None if previous is None else figures(previous)
    return OrganizationFigures(key, figures(credits_total, **facts), before, tuple(map(Decimal, daily)), ())


def statistics(*organizations: OrganizationFigures) -> Statistics:
    """These organizations and their totals; from 1 November 2026."""
    then = [one.previous for one in organizations if one.previous is not None]
    return Statistics(
        organizations,
        added([one.now for one in organizations], latency_p95=None),
        added(then, latency_p95=None) if then else None,
        previous_window=(None, None) if then else None,
        first_day="2026-11-01",
        ties_out=True,
    )
