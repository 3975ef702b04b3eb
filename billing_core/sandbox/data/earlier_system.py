"""What the billing system before this one left behind: traces it billed, marked in their metadata."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from billing_core.sandbox.data.catalog import ORGANIZATIONS
from billing_core.sandbox.data.plan import TracePlan
from billing_core.sandbox.stripe.subscriptions import SandboxSubscription
from billing_core.sandbox.stripe.switches import Switches


def billed_before(plans: Iterable[TracePlan], taken_over: datetime) -> Iterator[TracePlan]:
    """Mark every trace of a customer that began before the billing period current at `taken_over`."""
    at = int(taken_over.timestamp())
    ends = {o.customer: _billed_until(o.customer, at) * 1000 for o in ORGANIZATIONS if o.customer is not None}
    for plan in plans:
        end = 0 if plan.customer is None else ends.get(plan.customer, 0)
        if plan.legacy_status is None and min(row.start for row in plan.rows) < end:
            plan.metadata["billing_status"] = plan.legacy_status = "processed"
        yield plan


def _billed_until(customer: str, at: int) -> int:
    """Unix seconds: the start of the current period; for a customer without a subscription, the handover itself."""
    subscription = SandboxSubscription.of(customer, Switches(), at)
    return at if subscription is None else subscription.period.start
