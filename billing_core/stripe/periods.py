"""Billing periods of a customer: which usage an invoice will still bill. Pure: values in, values out.

Stripe bills usage in the period of its timestamp, but only while that period's invoice is a draft (notes,
sections 5 and 9). Summaries go on growing afterwards, so what comes too late has to be stopped here.
Periods belong to subscription items and are half open: usage at exactly `end` is in the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from billing_core.stripe.model import Invoice, Subscription, SubscriptionItem

LAST_MOMENTS = timedelta(minutes=10)
"""Nothing is sent this shortly before an invoice becomes final: Stripe still has to count it."""

ENDED = frozenset({"canceled", "incomplete_expired"})
NEVER_BEGAN = "incomplete_expired"
NOT_INVOICED = ENDED | {"paused"}
RANKS = {"active": 0, "trialing": 0, "past_due": 1, "unpaid": 2, "paused": 3, "incomplete": 4, NEVER_BEGAN: 9}
"""Which of two subscriptions a person means; statuses Stripe invents later come between."""
RANK_OF_UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class _Draft:
    """An invoice that can still change, and the spans of usage it bills."""

    id: str
    finalizes_at: datetime | None
    spans: tuple[tuple[datetime, datetime], ...]

    def covers(self, at: datetime) -> bool:
        return any(start <= at < end for start, end in self.spans)

    def takes_usage(self, now: datetime) -> bool:
        return self.finalizes_at is None or self.finalizes_at > now + LAST_MOMENTS


@dataclass(frozen=True, slots=True)
class _Course:
    """A subscription as far as one meter's usage is concerned: `[started_at, ended_at)` and what is open in it."""

    id: str
    started_at: datetime | None
    ended_at: datetime | None
    periods: tuple[tuple[datetime, datetime | None], ...]
    drafts: tuple[_Draft, ...]

    def concerns(self, at: datetime) -> bool:
        """Whether this subscription is the one to bill usage at `at`."""
        after_start = self.started_at is None or at >= self.started_at
        return after_start and (self.ended_at is None or at < self.ended_at)

    def closed(self, at: datetime, now: datetime) -> str | None:
        """Why usage at `at`, which concerns it, is too late."""
        if self.ended_at is None and any(at >= start for start, _ in self.periods):
            return None
        covering = [draft for draft in self.drafts if draft.covers(at)]
        if any(draft.takes_usage(now) for draft in covering):
            return None
        if covering:
            final = min(draft.finalizes_at for draft in covering if draft.finalizes_at is not None)
            return (
                f"invoice {covering[0].id} becomes final at {final:%Y-%m-%d %H:%M} UTC, "
                "too soon for more usage of its period"
            )
        if self.ended_at is not None:
            return f"subscription {self.id} ended at {self.ended_at:%Y-%m-%d %H:%M} UTC and its last invoice is final"
        if not self.periods:
            return f"subscription {self.id} has no current period and no draft invoice for this time"
        start = min(start for start, _ in self.periods)
        return f"the billing period ended by {start:%Y-%m-%d %H:%M} UTC and its invoice is final"


@dataclass(frozen=True, slots=True)
class BillingCalendar:
    """The billing periods of one customer for one meter, as they were known at `now`.

    A customer whose subscriptions do not hold the meter has edges but nothing ever closes: no invoice bills that
    usage, sooner or later (`billed_by_invoice`).
    """

    now: datetime
    billed_by_invoice: bool
    """Whether a subscription that is invoiced holds the meter."""
    deadline: datetime | None
    """When the next draft that still takes usage becomes final; `None` if none is known."""
    period: tuple[datetime, datetime] | None
    """The current period of the subscription a person would name; `None` without a live one."""
    valid_until: datetime | None
    """When the first of these answers changes by itself: read Stripe anew then."""
    _courses: tuple[_Course, ...] = field(repr=False)
    _edges: tuple[datetime, ...] = field(repr=False)

    def edges(self, start: datetime, end: datetime) -> tuple[datetime, ...]:
        """The bounds of billing periods within `(start, end)`, ascending: no meter event may straddle one."""
        return tuple(edge for edge in self._edges if start < edge < end)

    def closed(self, at: datetime) -> str | None:
        """The reason why usage at `at` can no longer be billed in its period, in words; `None` if it can.

        Usage that no subscription concerns (before the first, after the last, none at all) is open as well.
        """
        reasons = [course.closed(at, self.now) for course in self._courses if course.concerns(at)]
        return None if None in reasons else next(iter(reasons), None)


def calendar_of(
    subscriptions: Sequence[Subscription], invoices: Iterable[Invoice], meter_id: str, now: datetime
) -> BillingCalendar:
    """The billing periods of one customer, from its subscriptions and (at least) its draft invoices."""
    begun = [found for found in subscriptions if found.status != NEVER_BEGAN]
    metered = [found for found in begun if _on_meter(found, meter_id)]
    drafts = [invoice for invoice in invoices if invoice.status == "draft"]
    courses = tuple(_course(found, drafts, meter_id if metered else None, now) for found in metered or begun)
    open_drafts = [d for course in courses for d in course.drafts if d.takes_usage(now)] if metered else []
    finals = [draft.finalizes_at for draft in open_drafts if draft.finalizes_at is not None]
    ends = [end for course in courses if course.ended_at is None for _, end in course.periods if end and end > now]
    chosen = choose(begun, meter_id)
    return BillingCalendar(
        now=now,
        billed_by_invoice=any(found.status not in NOT_INVOICED and not is_over(found, now) for found in metered),
        deadline=min(finals, default=None),
        period=None if chosen is None or is_over(chosen, now) else _current_period(chosen, meter_id),
        valid_until=min([*ends, *(final - LAST_MOMENTS for final in finals)], default=None),
        _courses=courses if metered else (),
        _edges=tuple(sorted({edge for course in courses for edge in _edges_of(course)})),
    )


def choose(subscriptions: Iterable[Subscription], meter_id: str | None) -> Subscription | None:
    """The one subscription that decides a customer's plan: live before ended, then metered, then by status and age.

    Whatever stands at Stripe is shown: with ended ones only, the last one. Without `meter_id` none counts as metered.
    """

    def rank(found: Subscription) -> tuple[object, ...]:
        started = found.started_at.timestamp() if found.started_at else 0.0
        return (
            found.status == NEVER_BEGAN,
            found.status in ENDED,
            not _on_meter(found, meter_id),
            RANKS.get(found.status, RANK_OF_UNKNOWN),
            -started,
            found.id,
        )

    return min(subscriptions, key=rank, default=None)


def _course(found: Subscription, drafts: Iterable[Invoice], meter_id: str | None, now: datetime) -> _Course:
    items = found.items if meter_id is None else _on_meter(found, meter_id)
    prices = {item.price_id for item in items}
    return _Course(
        id=found.id,
        started_at=found.started_at,
        # An ended subscription that does not say when ended before now; nothing later can be its usage.
        ended_at=(found.ended_at or now) if is_over(found, now) else None,
        periods=tuple((item.period_start, item.period_end) for item in items if item.period_start is not None),
        drafts=tuple(_draft(invoice, prices) for invoice in drafts if invoice.subscription_id == found.id),
    )


def _draft(invoice: Invoice, prices: set[str]) -> _Draft:
    """What a draft bills: its own period or that of its lines.

    The two differ: a renewal's own fields may describe either the cycle that ended or the one that begins. Lines
    of our prices, where there are any, say it best; lines of other prices may span a whole year.
    """
    ours = [line for line in invoice.lines if line.price_id in prices] or invoice.lines
    spans = [(invoice.period_start, invoice.period_end), *((line.period_start, line.period_end) for line in ours)]
    known = tuple((start, end) for start, end in spans if start is not None and end is not None and start < end)
    return _Draft(invoice.id or "without id", invoice.finalizes_at, known)


def _edges_of(course: _Course) -> Iterable[datetime]:
    """Every moment at which something about this subscription changes."""
    moments = [course.started_at, course.ended_at]
    moments += [edge for span in course.periods for edge in span]
    moments += [edge for draft in course.drafts for span in draft.spans for edge in span]
    return [edge for edge in moments if edge is not None]


def _on_meter(found: Subscription, meter_id: str | None) -> tuple[SubscriptionItem, ...]:
    """The items that are on the meter, or for all Stripe says may be."""
    if meter_id is None:
        return ()
    return tuple(item for item in found.items if item.meter_id == meter_id or item.is_unsaid)


def is_over(found: Subscription, now: datetime) -> bool:
    """Whether a subscription has ended: it includes nothing any more, and no further usage is its own."""
    return found.status in ENDED or (found.ended_at is not None and found.ended_at <= now)


def _current_period(found: Subscription, meter_id: str) -> tuple[datetime, datetime] | None:
    """Of the item on the meter, else of the first item that has one."""
    for item in (*_on_meter(found, meter_id), *found.items):
        if item.period_start is not None and item.period_end is not None:
            return item.period_start, item.period_end
    return None
