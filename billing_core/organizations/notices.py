"""Rules for notices that a customer reached a threshold of its plan: when they are raised, and their facts. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from billing_core.ledger.notices import Reached
from billing_core.organizations.limits import Limit, percent_of
from billing_core.types import plain_decimal, utc_text


def passed(limits: Iterable[Limit], thresholds: Iterable[int]) -> list[Reached]:
    """Every threshold that a customer's usage has reached, whether a notice was raised before or not, lowest first.

    It is told of the organization with the largest part of the use.
    """
    first: dict[str, Limit] = {}
    for limit in sorted(limits, key=_size):
        if limit.customer_id is not None:
            first.setdefault(limit.customer_id, limit)
    wanted = tuple(thresholds)
    return [one for _, limit in sorted(first.items()) for one in _passed(limit, wanted)]


def _size(limit: Limit) -> tuple[Decimal, bool, str]:
    """Largest first; an organization before none."""
    return (-(limit.own_used or Decimal(0)), limit.organization_id is None, limit.organization_id or "")


def _passed(limit: Limit, thresholds: Iterable[int]) -> list[Reached]:
    if limit.customer_id is None or limit.used is None or limit.included is None:
        return []
    if limit.period_start is None or limit.period_end is None:
        return []
    return [
        Reached(
            limit.organization_id,
            limit.customer_id,
            limit.plan,
            threshold,
            limit.period_start,
            limit.period_end,
            limit.included,
            limit.used,
        )
        for threshold in limit.reached(thresholds)
    ]


def facts_of(one: Reached, organization_name: str | None) -> dict[str, Any]:
    """A notice as JSON-ready facts for programs; exact numbers as text, percent cut to two decimals."""
    return {
        "organization_id": one.organization_id,
        "organization_name": organization_name,
        "customer_id": one.customer_id,
        "plan": one.plan,
        "threshold": one.threshold,
        "percent_used": plain_decimal(percent_of(one.used, one.included) or Decimal(0)),
        "credits": {"included": str(one.included), "used": plain_decimal(one.used)},
        "period": {"start": utc_text(one.period_start), "end": utc_text(one.period_end)},
    }
