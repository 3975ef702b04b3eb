"""Usage that an import brought as unsent and that Stripe counts already.

A file says how things stood when it was written, and of a closed month for ever how they stood at the close. The
ledger it came from may have sent since what it calls pending; sending it again would bill it twice. Stripe's sums
tell: what they hold of an hour beyond what this ledger knows to be billed there was sent by somebody else. Then the
imported events up to that hour are kept back until a person decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal

from billing_core.errors import NotFound
from billing_core.ledger.brought import WHOLE, Brought, billed_by_hour, brought_unsent
from billing_core.ledger.engine import Engine
from billing_core.stripe.provider import StripeProvider
from billing_core.usage import Window, hour_of, whole_hours

__all__ = ["find", "judge"]

Hours = Mapping[datetime, Decimal]
"""UTC hour → credits; what is not there is 0."""


def judge(brought: Iterable[Brought], billed: Hours, counted: Hours) -> dict[str, str]:
    """Of one customer's unsent imported events those up to the last hour of which Stripe counts more than is known.

    The other ledger sends in the order of time and carries fractions on: what it sent for an hour may stand in a later
    one, and differences below a credit are such fractions. Returns event id → why it may not be sent.

    Parameters
    ----------
    billed:
        Credits that this ledger sent, or knows to have been billed elsewhere.
    counted:
        Stripe's sums.
    """
    more = {hour: total - billed.get(hour, Decimal(0)) for hour, total in counted.items()}
    last = max((hour for hour, credits_ in more.items() if credits_ >= WHOLE), default=None)
    if last is None:
        return {}
    reason = (
        f"Stripe counts {int(more[last]):,} credits in the hour from {last:%Y-%m-%d %H:%M} UTC that were not sent from "
        "here; the ledger this event was imported from may have sent it since. Release it if it did not"
    )
    return {event.event_id: reason for event in brought if hour_of(event.timestamp) <= last}


def find(engine: Engine, provider: StripeProvider, meter_id: str, settled_before: datetime) -> dict[str, str]:
    """Read the sums of customers who have such events, and judge; usually there are none, and nothing is read.

    Raises
    ------
    UpstreamError
        If Stripe cannot be read: without its sums these events may not be sent.
    """
    found: dict[str, str] = {}
    for customer, events in brought_unsent(engine, settled_before).items():
        times = [event.timestamp for event in events]
        hours = whole_hours(Window(min(times), max(times) + timedelta(microseconds=1)))
        try:
            rows = provider.summaries(meter_id, customer, hours.start, hours.end, "hour")
        except NotFound:  # no such customer: nothing is counted for it
            continue
        counted = {row.start: row.value for row in rows}
        found |= judge(events, billed_by_hour(engine, customer, hours), counted)
    return found
