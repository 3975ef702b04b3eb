"""Invoices, made up from the subscription, the clock and the meter events received.

At each period edge a draft opens: the metered usage of the period that ended, the fees of the one that begins. For an
hour it takes in late usage, then it is finalized, and paid an hour later. What comes in after that is on no invoice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from billing_core.sandbox.stripe.catalog import PRICES
from billing_core.sandbox.stripe.events import InvoiceItem
from billing_core.sandbox.stripe.subscriptions import SandboxPeriod, SandboxSubscription, edge
from billing_core.sandbox.stripe.wire import decimal_text

DRAFT_SECONDS = 3600
PAYMENT_SECONDS = 3600
RETRY_SECONDS = 3 * 86_400

Usage = Callable[[str, int, int, int | None], Decimal]
"""Meter id, start, end (Unix seconds) and the moment that ends the counting (`None`: now, with lag) to units used."""


@dataclass(frozen=True, slots=True)
class SandboxInvoice:
    """Number `number` of a subscription: opened at `opened`, finalized at `finalized` (Unix seconds)."""

    subscription: SandboxSubscription
    number: int
    status: str
    opened: int
    finalized: int

    @property
    def id(self) -> str:
        """Stripe's id."""
        return f"in_{self.subscription.id.removeprefix('sub_')}_{self.number:04d}"

    @property
    def covered(self) -> SandboxPeriod | None:
        """The period whose usage it bills; the first invoice bills none."""
        return _period(self.subscription, self.number - 1) if self.number else None

    @property
    def coming(self) -> SandboxPeriod | None:
        """The period whose fees it bills; the invoice of a cancellation bills none."""
        ended = self.subscription.ended_at
        return _period(self.subscription, self.number) if ended is None or self.opened < ended else None


def _period(subscription: SandboxSubscription, number: int) -> SandboxPeriod:
    return SandboxPeriod(number, edge(subscription.anchor, number), edge(subscription.anchor, number + 1))


def invoices_of(subscription: SandboxSubscription, now: int) -> list[SandboxInvoice]:
    """All up to `now`, newest first."""
    last = subscription.period.number + (1 if subscription.ended_at == subscription.period.end else 0)
    found = []
    for number in range(last, -1, -1):
        opened = edge(subscription.anchor, number)
        finalized = opened + (DRAFT_SECONDS if number else 0)
        found.append(SandboxInvoice(subscription, number, "", opened, finalized))
    unpaid = next((one.number for one in found if one.finalized <= now), None)
    unpaid = unpaid if subscription.profile.status == "past_due" else None
    return [
        SandboxInvoice(subscription, one.number, _status(one, now, one.number == unpaid), one.opened, one.finalized)
        for one in found
    ]


def _status(invoice: SandboxInvoice, now: int, unpaid: bool) -> str:
    if now < invoice.finalized:
        return "draft"
    if unpaid or (invoice.number and now < invoice.finalized + PAYMENT_SECONDS):
        return "open"
    return "paid"


def _cents(quantity: Decimal, unit_cents: str) -> int:
    return int((quantity * Decimal(unit_cents)).quantize(Decimal(1), ROUND_HALF_UP))


def _lines(
    subscription: SandboxSubscription,
    invoice_id: str,
    covered: SandboxPeriod | None,
    coming: SandboxPeriod | None,
    used: Callable[[str], Decimal],
) -> list[dict[str, Any]]:
    """Usage first, then fees; in a trial everything is free."""
    lines: list[dict[str, Any]] = []
    for metered in (True, False):
        period = covered if metered else coming
        for position, price_id in enumerate(subscription.profile.prices):
            meter_id = PRICES[price_id]["recurring"]["meter"]
            if period is None or (meter_id is not None) != metered:
                continue
            quantity = used(meter_id) if metered else Decimal(1)
            item_id, number = subscription.item_id(position), len(lines) + 1
            lines.append(_line(subscription.id, invoice_id, item_id, number, PRICES[price_id], period, quantity))
    return lines


def _line(
    subscription_id: str,
    invoice_id: str,
    item_id: str,
    number: int,
    price: dict[str, Any],
    period: SandboxPeriod,
    quantity: Decimal,
) -> dict[str, Any]:
    amount = _cents(quantity, price["unit_amount_decimal"])
    return {
        "id": f"il_{invoice_id.rpartition('in_')[2]}_{number}",
        "object": "line_item",
        "amount": amount,
        "currency": "usd",
        "description": f"{decimal_text(quantity)} × {price['nickname']}",
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": invoice_id,
        "livemode": False,
        "metadata": {},
        "parent": {
            "invoice_item_details": None,
            "subscription_item_details": {
                "invoice_item": None,
                "proration": False,
                "proration_details": {"credited_items": None},
                "subscription": subscription_id,
                "subscription_item": item_id,
            },
            "type": "subscription_item_details",
        },
        "period": {"start": period.start, "end": period.end},
        "pretax_credit_amounts": [],
        "pricing": {
            "price_details": {"price": price["id"], "product": price["product"]},
            "type": "price_details",
            "unit_amount_decimal": price["unit_amount_decimal"],
        },
        "quantity": int(quantity),
        "quantity_decimal": decimal_text(quantity),
        "subtotal": amount,
        "taxes": [],
    }


NO_PRORATION: dict[str, Any] = {"credited_items": None, "discount_amounts": []}


def item_object(item: InvoiceItem, invoice_id: str | None) -> dict[str, Any]:
    """An invoice item; `invoice_id` is that of the invoice it is on."""
    return {
        "id": item.id,
        "object": "invoiceitem",
        "amount": item.amount,
        "currency": item.currency,
        "customer": item.customer,
        "customer_account": None,
        "date": item.created,
        "description": item.description,
        "discountable": True,
        "discounts": [],
        "invoice": invoice_id,
        "livemode": False,
        "metadata": item.metadata,
        "net_amount": item.amount,
        "parent": None,
        "period": {"start": item.start, "end": item.end},
        "pricing": {"price_details": None, "type": "price_details", "unit_amount_decimal": str(item.amount)},
        "proration": False,
        "proration_details": NO_PRORATION,
        "quantity": 1,
        "quantity_decimal": "1",
        "tax_rates": [],
        "test_clock": None,
    }


def _item_line(item: InvoiceItem, invoice_id: str) -> dict[str, Any]:
    return {
        "id": f"il_{invoice_id.rpartition('in_')[2]}_{item.id}",
        "object": "line_item",
        "amount": item.amount,
        "currency": item.currency,
        "description": item.description,
        "discount_amounts": [],
        "discountable": True,
        "discounts": [],
        "invoice": invoice_id,
        "livemode": False,
        "metadata": item.metadata,
        "parent": {
            "invoice_item_details": {
                "invoice_item": item.id,
                "proration": False,
                "proration_details": {"credited_items": None},
                "subscription": None,
            },
            "subscription_item_details": None,
            "type": "invoice_item_details",
        },
        "period": {"start": item.start, "end": item.end},
        "pretax_credit_amounts": [],
        "pricing": {"price_details": None, "type": "price_details", "unit_amount_decimal": str(item.amount)},
        "quantity": 1,
        "quantity_decimal": "1",
        "subtotal": item.amount,
        "taxes": [],
    }


def _object(
    subscription: SandboxSubscription,
    id_: str,
    status: str,
    created: int,
    period: SandboxPeriod,
    lines: list[dict[str, Any]],
) -> dict[str, Any]:
    total = sum(line["amount"] for line in lines)
    paid = total if status == "paid" else 0
    return {
        "id": id_,
        "object": "invoice",
        "account_country": "US",
        "account_name": "Sandbox",
        "amount_due": total,
        "amount_overpaid": 0,
        "amount_paid": paid,
        "amount_remaining": total - paid,
        "amount_shipping": 0,
        "application": None,
        "attempt_count": 0,
        "attempted": status == "paid",
        "auto_advance": status == "draft",
        "automatic_tax": {
            "disabled_reason": None,
            "enabled": False,
            "liability": None,
            "provider": None,
            "status": None,
        },
        "automatically_finalizes_at": None,
        "billing_reason": "subscription_cycle",
        "collection_method": "charge_automatically",
        "created": created,
        "currency": "usd",
        "customer": subscription.customer_id,
        "default_tax_rates": [],
        "description": None,
        "discounts": [],
        "due_date": None,
        "effective_at": None,
        "hosted_invoice_url": None,
        "issuer": {"type": "self"},
        "lines": {"object": "list", "data": lines, "has_more": False, "total_count": len(lines), "url": ""},
        "livemode": False,
        "metadata": {},
        "next_payment_attempt": None,
        "number": None,
        "on_behalf_of": None,
        "parent": {
            "quote_details": None,
            "subscription_details": {"metadata": {}, "subscription": subscription.id},
            "type": "subscription_details",
        },
        "payment_settings": {"default_mandate": None, "payment_method_options": None, "payment_method_types": None},
        "period_end": period.end,
        "period_start": period.start,
        "post_payment_credit_notes_amount": 0,
        "pre_payment_credit_notes_amount": 0,
        "receipt_number": None,
        "starting_balance": 0,
        "ending_balance": 0,
        "statement_descriptor": None,
        "status": status,
        "status_transitions": {
            "finalized_at": None,
            "marked_uncollectible_at": None,
            "paid_at": None,
            "voided_at": None,
        },
        "subtotal": total,
        "subtotal_excluding_tax": total,
        "test_clock": None,
        "total": total,
        "total_discount_amounts": [],
        "total_excluding_tax": total,
        "total_pretax_credit_amounts": [],
        "total_taxes": [],
        "webhooks_delivered_at": created,
    }


def invoice_object(
    invoice: SandboxInvoice, usage: Usage, now: int, items: Iterable[InvoiceItem] = ()
) -> dict[str, Any]:
    """One invoice; a finalized one counts what had come in when it was finalized, cancellations included."""
    subscription, draft, first = invoice.subscription, invoice.status == "draft", invoice.number == 0
    covered, coming = invoice.covered, invoice.coming
    trial = subscription.profile.status == "trialing"

    def used(meter_id: str) -> Decimal:
        assert covered is not None  # noqa: S101 - usage lines need a period
        return usage(meter_id, covered.start, covered.end, None if draft else invoice.finalized)

    lines = _lines(subscription, invoice.id, covered, coming, used)
    for line in lines if trial else []:
        line.update(amount=0, subtotal=0, description="Trial period")
    lines += [_item_line(item, invoice.id) for item in items]
    fallback = _period(subscription, 0)
    period = covered or SandboxPeriod(0, fallback.start, fallback.start)
    shown = _object(subscription, invoice.id, invoice.status, invoice.opened, period, lines)
    shown["lines"]["url"] = f"/v1/invoices/{invoice.id}/lines"
    shown["billing_reason"] = "subscription_create" if first else "subscription_cycle"
    if draft:
        shown["automatically_finalizes_at"] = invoice.finalized
        return shown
    paid = invoice.status == "paid"
    shown["number"] = f"SANDBOX-{subscription.id.removeprefix('sub_').upper()}-{invoice.number + 1:04d}"
    shown["effective_at"] = invoice.finalized
    shown["status_transitions"]["finalized_at"] = invoice.finalized
    shown["status_transitions"]["paid_at"] = invoice.finalized + (0 if first else PAYMENT_SECONDS) if paid else None
    if paid:
        shown["attempt_count"] = 1
    elif subscription.profile.status == "past_due":
        shown["attempted"] = True
        shown["attempt_count"] = (now - invoice.finalized) // RETRY_SECONDS + 1
        shown["next_payment_attempt"] = invoice.finalized + shown["attempt_count"] * RETRY_SECONDS
    else:
        shown["next_payment_attempt"] = invoice.finalized + PAYMENT_SECONDS
    return shown


def preview_object(
    subscription: SandboxSubscription, usage: Usage, items: Iterable[InvoiceItem] = ()
) -> dict[str, Any]:
    """The invoice of the next edge as it stands: provisional, usage with lag. In a trial usage is free."""
    period = subscription.period
    coming = _period(subscription, period.number + 1)
    trial = subscription.profile.status == "trialing"

    def used(meter_id: str) -> Decimal:
        return Decimal(0) if trial else usage(meter_id, period.start, period.end, None)

    id_ = f"upcoming_in_{subscription.id.removeprefix('sub_')}_{period.number + 1:04d}"
    lines = _lines(subscription, id_, period, coming, used) + [_item_line(item, id_) for item in items]
    shown = _object(subscription, id_, "draft", period.end, period, lines)
    shown["lines"]["url"] = f"/v1/invoices/{id_}/lines"
    shown["billing_reason"] = "upcoming"
    shown["next_payment_attempt"] = period.end + DRAFT_SECONDS
    shown["automatically_finalizes_at"] = None
    shown["webhooks_delivered_at"] = None
    return shown
