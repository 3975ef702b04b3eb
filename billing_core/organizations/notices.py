"""Rules for notices that a customer reached a threshold of its plan: when they are raised, and when a receiver is tried
again. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any

from billing_core.ledger.deliveries import DeliveryOutcome, DeliveryTry
from billing_core.ledger.notices import Reached
from billing_core.organizations.limits import Limit, percent_of
from billing_core.types import plain_decimal, utc_text

GIVE_UP_AFTER = timedelta(hours=24)
TRIES_PER_GO = 3
FIRST_DISTANCE, LONGEST_DISTANCE = timedelta(minutes=5), timedelta(hours=6)
"""From a go that failed to the next: doubled each time."""


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


class DeliveryState(StrEnum):
    """How far a message got on its way to a receiver."""

    DELIVERED = "delivered"
    WAITING = "waiting"
    FAILED = "failed"
    GIVEN_UP = "given_up"
    COVERED = "covered"
    NOT_SENT = "not_sent"
    """No receiver is set."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """The delivery of a message: its last try, and when it may be tried again."""

    state: DeliveryState
    tries: int = 0
    last: DeliveryTry | None = None
    next_at: datetime | None = None


def due_at(raised_at: datetime, tries: Sequence[DeliveryTry]) -> datetime | None:
    """When a notice may next be delivered; `None` once it was delivered or given up."""
    if any(one.outcome is not DeliveryOutcome.FAILED for one in tries):
        return None
    if not tries:
        return raised_at
    goes = -(-len(tries) // TRIES_PER_GO)
    return max(one.at for one in tries) + min(FIRST_DISTANCE * (1 << min(goes - 1, 20)), LONGEST_DISTANCE)


def delivery_of(raised_at: datetime, tries: Sequence[DeliveryTry], *, has_webhook: bool) -> Delivery:
    """The state of a notice's delivery, from its delivery log."""
    last = max(tries, key=lambda one: (one.at, one.number), default=None)
    made = sum(one.number > 0 for one in tries)
    for outcome, state in (
        (DeliveryOutcome.DELIVERED, DeliveryState.DELIVERED),
        (DeliveryOutcome.GIVEN_UP, DeliveryState.GIVEN_UP),
        (DeliveryOutcome.COVERED, DeliveryState.COVERED),
    ):
        if any(one.outcome is outcome for one in tries):
            return Delivery(state, made, last)
    if tries:
        return Delivery(DeliveryState.FAILED, made, last, due_at(raised_at, tries))
    return Delivery(DeliveryState.WAITING if has_webhook else DeliveryState.NOT_SENT)


_WORST_FIRST = (
    DeliveryState.GIVEN_UP,
    DeliveryState.FAILED,
    DeliveryState.WAITING,
    DeliveryState.COVERED,
    DeliveryState.DELIVERED,
    DeliveryState.NOT_SENT,
)


def delivery_to_all(raised_at: datetime, tries: Sequence[DeliveryTry], keys: Iterable[str | None]) -> Delivery:
    """The delivery to several receivers as one: that of the receiver it is worst with; `NOT_SENT` without any."""
    per_key = deliveries_of(raised_at, tries, keys)
    if not per_key:
        return delivery_of(raised_at, tries, has_webhook=False)
    worst = min(per_key.values(), key=lambda one: _WORST_FIRST.index(one.state))
    return replace(worst, tries=sum(one.tries for one in per_key.values()))


def deliveries_of(
    raised_at: datetime, tries: Sequence[DeliveryTry], keys: Iterable[str | None]
) -> dict[str | None, Delivery]:
    """The delivery to each receiver: those given, and those that were tried earlier."""
    found = dict.fromkeys((*keys, *(one.address for one in tries if one.outcome is not DeliveryOutcome.COVERED)))
    return {
        key: delivery_of(
            raised_at,
            [one for one in tries if one.address == key or one.outcome is DeliveryOutcome.COVERED],
            has_webhook=True,
        )
        for key in found
    }
