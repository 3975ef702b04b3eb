"""Finds usage that Stripe counts but no invoice will bill. Pure; a summary that agrees says nothing about it.

Usage is billed when a subscription has an item on the meter, and only while the invoice of its period is a draft
(Stripe notes, sections 5 and 9). Summaries go on growing regardless.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from billing_core.reconcile.report import UnbilledFinding, added
from billing_core.stripe.periods import is_over
from billing_core.types import plain_decimal
from billing_core.values.counts import count_of
from billing_core.values.decimals import EXACT
from billing_core.values.usage_frame import HOUR, Window

if TYPE_CHECKING:
    from billing_core.stripe.model import Invoice, Subscription

NO_METERED_ITEM = "no_metered_item"
AFTER_FINALIZATION = "after_finalization"
SEVERAL_SUBSCRIPTIONS = "several_subscriptions"

NOT_INVOICED = frozenset({"incomplete_expired", "paused"})
"""Statuses in which no invoice is made."""

NOT_FINAL = frozenset({"draft", "void", None})


@dataclass(frozen=True, slots=True)
class BilledLine:
    """The credits that final invoices billed of a customer's usage in `[start, end)`."""

    customer_id: str
    start: datetime
    end: datetime
    invoice_ids: tuple[str, ...]
    quantity: Decimal


def no_metered_item(
    counted: Mapping[tuple[str, datetime], Decimal], subscriptions: Iterable[Subscription], meter_id: str, now: datetime
) -> Iterator[UnbilledFinding]:
    """Findings: customers with credits counted in hours that no subscription with an item on the meter bills."""
    spans: dict[str, list[tuple[datetime | None, datetime | None]]] = {}
    for found in subscriptions:
        on_meter = any(item.meter_id == meter_id or item.is_unsaid for item in found.items)
        if on_meter and found.status not in NOT_INVOICED:
            ended = found.ended_at or (now if found.status == "canceled" else None)
            spans.setdefault(found.customer_id, []).append((found.started_at, ended))
    loose: dict[str, list[Decimal]] = {}
    for (customer, hour), amount in counted.items():
        billed = (
            (start is None or hour + HOUR > start) and (end is None or hour < end)
            for start, end in spans.get(customer, ())
        )
        if amount and not any(billed):
            loose.setdefault(customer, []).append(amount)
    for customer in sorted(loose):
        total = added(loose[customer])
        why = (
            "its subscriptions on the meter did not run then" if customer in spans else "no subscription has the meter"
        )
        says = f"Stripe counts {_grouped(total)} credits of {customer} that no invoice bills: {why}"
        yield UnbilledFinding(NO_METERED_ITEM, customer, total, says)


def several_subscriptions(
    counted: Mapping[tuple[str, datetime], Decimal], subscriptions: Iterable[Subscription], meter_id: str, now: datetime
) -> Iterator[UnbilledFinding]:
    """Findings: customers with two or more live subscriptions on the meter, each of which bills the same usage."""
    live: dict[str, list[str]] = {}
    for found in subscriptions:
        on_meter = any(item.meter_id == meter_id for item in found.items)
        if on_meter and found.status not in NOT_INVOICED and not is_over(found, now):
            live.setdefault(found.customer_id, []).append(found.id)
    for customer, ids in sorted(live.items()):
        if len(ids) > 1:
            total = added(amount for (one, _), amount in counted.items() if one == customer)
            says = (
                f"{customer} has {len(ids)} live subscriptions on the meter ({', '.join(sorted(ids))}): each bills its "
                f"usage, {_grouped(total)} credits of this time; end all but one at Stripe"
            )
            yield UnbilledFinding(SEVERAL_SUBSCRIPTIONS, customer, total, says)


def billed_lines(
    invoices: Iterable[Invoice], subscriptions: Iterable[Subscription], meter_id: str, window: Window
) -> list[BilledLine]:
    """The credits billed on the meter by final invoices, per customer and period that touches the window."""
    prices = {item.price_id for found in subscriptions for item in found.items if item.meter_id == meter_id}
    found: dict[tuple[str, datetime, datetime], tuple[set[str], list[Decimal]]] = {}
    for invoice in invoices:
        if invoice.status in NOT_FINAL or invoice.id is None:
            continue
        for line in invoice.lines:
            start, end = line.period_start, line.period_end
            if line.price_id not in prices or start is None or end is None or line.quantity is None:
                continue
            if start < window.end and end > window.start:
                ids, quantities = found.setdefault((invoice.customer_id, start, end), (set(), []))
                ids.add(invoice.id)
                quantities.append(line.quantity)
    return [BilledLine(*key, tuple(sorted(ids)), added(quantities)) for key, (ids, quantities) in sorted(found.items())]


def after_finalization(
    lines: Sequence[BilledLine], late: Iterable[Mapping[str, Any]], sent_in: Callable[[str, datetime, datetime], int]
) -> Iterator[UnbilledFinding]:
    """Findings: credits sent for a period after its end of which the final invoice knows nothing.

    What was sent after the end but while the invoice was a draft is billed; so only as much counts as was sent for the
    whole period beyond what the invoice billed.

    late: Sent intents (identifier, customer_id, stamp, value, first_attempt_at) that may be late; times aware UTC.
    sent_in: Whole credits sent to a customer for a period, late or not.
    """
    late = list(late)
    for line in lines:
        rows = [
            row
            for row in late
            if row["customer_id"] == line.customer_id
            and line.start <= row["stamp"] < line.end <= row["first_attempt_at"]
            and row["value"] > 0
        ]
        if not rows:
            continue
        total = sent_in(line.customer_id, line.start, line.end)
        unbilled = min(Decimal(sum(row["value"] for row in rows)), EXACT.subtract(Decimal(total), line.quantity))
        if unbilled > 0:
            says = (
                f"{', '.join(line.invoice_ids)} billed {_grouped(line.quantity)} of the {count_of(total, 'credit')} "
                f"sent to {line.customer_id} for {line.start:%Y-%m-%d %H:%M} to {line.end:%Y-%m-%d %H:%M} UTC: "
                f"{_grouped(unbilled)} came after it was final"
            )
            yield UnbilledFinding(
                AFTER_FINALIZATION, line.customer_id, unbilled, says, tuple(sorted(row["identifier"] for row in rows))
            )


def _grouped(value: Decimal) -> str:
    """Exact, with thousands separators."""
    whole, point, rest = plain_decimal(value).partition(".")
    return f"{int(whole):,}{point}{rest}"
