"""Limits of plans: credits used of those included, in the subscription's own period. Pure and exact.

A share is known only where both numbers are. An unknown plan is unknown: never Free, never 0 %.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from billing_core.stripe.periods import ENDED
from billing_core.stripe_sync.customer_status import NO_SUBSCRIPTION, UNKNOWN
from billing_core.values.decimals import EXACT

EARLY = Fraction(1, 20)
"""In this first part of a period a straight line through what was used says nothing yet."""

LONGEST_MONTH = timedelta(days=32)
"""Plans include credits per month: what a longer period includes is not known from that."""


def percent_of(used: Decimal | None, included: int | None) -> Decimal | None:
    """The percent of included credits used, beyond 100 where it is; `None` where a side is unknown or nothing is
    included.

    Cut, not rounded, to two decimals: 100.00 is shown only when all of it is used.
    """
    if used is None or not included:
        return None
    return Decimal(Fraction(used) * 10_000 // included).scaleb(-2)


def reached(used: Decimal | None, included: int | None, thresholds: Iterable[int]) -> tuple[int, ...]:
    """The thresholds (percent) that usage has reached exactly or passed, lowest first; none of an unknown share."""
    if used is None or not included:
        return ()
    return tuple(sorted(t for t in thresholds if Fraction(used) * 100 >= t * included))


def is_too_early(start: datetime, end: datetime, now: datetime) -> bool:
    """Whether less than 5 % of the period `[start, end)` has passed, too little to extrapolate from."""
    return now - start < (end - start) * EARLY.numerator / EARLY.denominator


def pace_of(used: Decimal, start: datetime, end: datetime, now: datetime) -> Decimal | None:
    """Credits at the period's end if usage goes on as it did on average so far; six decimals, half-even.

    `None` while it is too early to say, and when nothing of the period has passed.
    """
    elapsed, length = min(now, end) - start, end - start
    if elapsed <= timedelta() or is_too_early(start, end, now):
        return None
    microsecond = timedelta(microseconds=1)
    at_end = Fraction(used) * Fraction(length // microsecond, elapsed // microsecond)
    return Decimal(round(at_end * 10**6)).scaleb(-6)


@dataclass(frozen=True, slots=True)
class Limit:
    """An organization and a Stripe customer that pays for it (`None`: nobody known), as far as a reader may see.

    organization_id: `None`: events of the customer that name no organization.
    state: Stripe's subscription status, `none` without a subscription, `unknown` where it was not read.
    plan: Its name on the rate card, `None` if no price of the subscription is on it.
    included: Credits of the plan per period. `None` if unknown, ended, or if the period is longer than a month.
    used: Credits of the customer's events in the period, exact. `None` without a current period.
    own_used: The part of `used` that is this organization's.
    sharing: Every organization the customer pays for, sorted; one and the same object in all rows of a customer.
    period_start, period_end: The subscription's current period, half open, aware UTC; `None` where none is known to run
        now.
    """

    organization_id: str | None
    customer_id: str | None
    plan: str | None
    state: str
    included: int | None
    used: Decimal | None
    own_used: Decimal | None
    sharing: tuple[str, ...]
    period_start: datetime | None
    period_end: datetime | None

    @property
    def is_without(self) -> bool:
        """Whether there are no included credits to use up: no customer, no subscription, or one that has ended."""
        return self.customer_id is None or self.state == NO_SUBSCRIPTION or self.state in ENDED

    @property
    def shared_with(self) -> tuple[str, ...]:
        """Other organizations the customer pays for, sorted."""
        return tuple(one for one in self.sharing if one != self.organization_id)

    @property
    def percent_used(self) -> Decimal | None:
        """The percent of included credits used; see `percent_of`."""
        return percent_of(self.used, self.included)

    def is_too_early(self, now: datetime) -> bool:
        """Whether the period has only just begun (see `is_too_early`); false without one."""
        if self.period_start is None or self.period_end is None:
            return False
        return is_too_early(self.period_start, self.period_end, now)

    def pace(self, now: datetime) -> Decimal | None:
        """Credits at the period's end at the average rate so far; `None` if unknown or too early."""
        if self.used is None or self.period_start is None or self.period_end is None:
            return None
        return pace_of(self.used, self.period_start, self.period_end, now)

    def pace_percent(self, now: datetime) -> Decimal | None:
        """Credits at the period's end at the average rate so far, as percent of the credits included."""
        return percent_of(self.pace(now), self.included)

    def time_left(self, now: datetime) -> timedelta | None:
        """The time from now to the period's end, never negative; `None` without a period."""
        return None if self.period_end is None else max(self.period_end - now, timedelta())

    def urgency(self, now: datetime) -> Decimal | None:
        """The sort key for who runs out first: the pace in percent, or the percent used while that is too early."""
        pace = self.pace_percent(now)
        return self.percent_used if pace is None else pace

    def reached(self, thresholds: Iterable[int]) -> tuple[int, ...]:
        """The thresholds (percent) that usage has reached; see `reached`."""
        return reached(self.used, self.included, thresholds)


def by_customer(limits: Iterable[Limit]) -> tuple[Limit, ...]:
    """One limit per customer, that of its first organization: what it used and may use is the same in all of them.

    Organizations without a customer keep a row each.
    """
    found: dict[tuple[str | None, str | None], Limit] = {}
    for limit in limits:
        key = (None, limit.organization_id) if limit.customer_id is None else (limit.customer_id, None)
        if key not in found or found[key].organization_id is None:
            found[key] = limit
    return tuple(found.values())


def at_risk(limits: Iterable[Limit], thresholds: Sequence[int]) -> tuple[str, ...]:
    """The customers that have reached the lowest of the thresholds (percent of what their plan includes), sorted."""
    lowest = sorted(thresholds)[:1]
    return tuple(sorted({one.customer_id for one in limits if one.customer_id and one.reached(lowest)}))


@dataclass(frozen=True, slots=True)
class PlanTotal:
    """The totals of one plan's customers; each counts once, however many organizations it pays for.

    `state` is set where it matters more than the plan: `none`, `unknown`, and of ended ones Stripe's status; the plan
    is then `None`, as it is where no price is on the rate card. `included` and `used` add up the customers for which
    both are known: `known` of them.
    """

    plan: str | None
    state: str | None
    customers: int
    known: int
    included: int
    used: Decimal

    @property
    def percent_used(self) -> Decimal | None:
        """The percent of included credits used; see `percent_of`."""
        return percent_of(self.used, self.included)


def by_plan(limits: Sequence[Limit]) -> tuple[PlanTotal, ...]:
    """Totals per plan, most customers first; limits without a customer belong to none."""
    customers = {limit.customer_id: limit for limit in limits if limit.customer_id is not None}
    grouped: dict[tuple[str | None, str | None], list[Limit]] = {}
    for limit in customers.values():
        is_apart = limit.is_without or limit.state == UNKNOWN
        grouped.setdefault((None, limit.state) if is_apart else (limit.plan, None), []).append(limit)
    totals = [_total(plan, state, found) for (plan, state), found in grouped.items()]
    return tuple(sorted(totals, key=lambda t: (t.plan is None, -t.customers, t.plan or "", t.state or "")))


def _total(plan: str | None, state: str | None, limits: Sequence[Limit]) -> PlanTotal:
    included, used, known = 0, Decimal(0), 0
    for limit in limits:
        if limit.included is not None and limit.used is not None:
            included, used, known = included + limit.included, EXACT.add(used, limit.used), known + 1
    return PlanTotal(plan, state, len(limits), known, included, used)
