"""How far a message got on its way to its receivers, and when one is tried again, from the delivery log. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from billing_core.ledger.deliveries import DeliveryOutcome, DeliveryTry

GIVE_UP_AFTER = timedelta(hours=24)
TRIES_PER_GO = 3
FIRST_DISTANCE, LONGEST_DISTANCE = timedelta(minutes=5), timedelta(hours=6)
"""From a go that failed to the next: doubled each time."""


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
