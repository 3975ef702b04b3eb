"""Builds limits from subscriptions, the customers of organizations and their usage. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from billing_core.organizations.limits import LONGEST_MONTH, Limit
from billing_core.rating.card import Plan
from billing_core.stripe.model import Subscription
from billing_core.stripe.periods import is_over
from billing_core.stripe_sync.customer_status import NO_SUBSCRIPTION, subscription_state
from billing_core.values.decimals import EXACT

Pairs = Mapping[tuple[str | None, str | None], Decimal]
"""Organization and customer that belong together → the credits of both in the customer's period."""


@dataclass(frozen=True, slots=True)
class CustomerPlan:
    """The plan of one customer by its subscription at Stripe; see `Limit` for the fields."""

    name: str | None
    state: str
    included: int | None = None
    start: datetime | None = None
    end: datetime | None = None


def plans_of(
    subscriptions: Iterable[Subscription], meter_id: str | None, plans: Sequence[Plan], now: datetime
) -> dict[str, CustomerPlan]:
    """The plan of every customer that has a subscription."""
    by_customer: dict[str, list[Subscription]] = {}
    for subscription in subscriptions:
        by_customer.setdefault(subscription.customer_id, []).append(subscription)
    return {customer: _plan(found, meter_id, plans, now) for customer, found in by_customer.items()}


def _plan(
    subscriptions: Sequence[Subscription], meter_id: str | None, plans: Sequence[Plan], now: datetime
) -> CustomerPlan:
    """An ended subscription includes nothing; a period that does not run now (it was read before) is not known."""
    standing = subscription_state(subscriptions, meter_id, plans)
    if standing is None:
        return CustomerPlan(None, NO_SUBSCRIPTION)
    plan, start, end = standing.plan, standing.period_start, standing.period_end
    name, state = None if plan is None else plan.name, standing.subscription.status
    if is_over(standing.subscription, now):
        return CustomerPlan(name, state)
    included = None if plan is None else plan.credits_per_month
    if start is None or end is None or not start <= now < end:
        return CustomerPlan(name, state, included)
    return CustomerPlan(name, state, included if end - start <= LONGEST_MONTH else None, start, end)


def limits_of(pairs: Pairs, plans: Mapping[str, CustomerPlan], absent: CustomerPlan) -> list[Limit]:
    """The limits: one per organization and customer; one without customer for organizations that have none at all.

    `absent` is what is said of customers that `plans` does not hold.
    """
    paid = {organization for organization, customer in pairs if customer is not None}
    sharing: dict[str, list[str]] = {}
    whole: dict[str, Decimal] = {}
    for (organization, customer), used in pairs.items():
        if customer is not None:
            whole[customer] = EXACT.add(whole.get(customer, Decimal(0)), used)
            if organization is not None:
                sharing.setdefault(customer, []).append(organization)
    together = {customer: tuple(sorted(organizations)) for customer, organizations in sharing.items()}
    rows = []
    for organization, customer in sorted(pairs, key=lambda pair: (pair[0] is None, pair[0] or "", pair[1] or "")):
        if customer is not None:
            own, shared = pairs[organization, customer], together.get(customer, ())
            rows.append(_limit(organization, customer, plans.get(customer, absent), whole[customer], own, shared))
        elif organization is not None and organization not in paid:
            rows.append(Limit(organization, None, None, NO_SUBSCRIPTION, None, None, None, (), None, None))
    return rows


def _limit(
    organization: str | None, customer: str, plan: CustomerPlan, used: Decimal, own: Decimal, sharing: tuple[str, ...]
) -> Limit:
    has_period = plan.start is not None
    return Limit(
        organization_id=organization,
        customer_id=customer,
        plan=plan.name,
        state=plan.state,
        included=plan.included,
        used=used if has_period else None,
        own_used=own if has_period else None,
        sharing=sharing,
        period_start=plan.start,
        period_end=plan.end,
    )
