"""Builds the parts of a closed month's manifest. Pure and exact."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from billing_core.ledger.closes import Close
from billing_core.ledger.settlements import Settlement
from billing_core.month_close.model import digest
from billing_core.reconcile.report import Reconciliation, added
from billing_core.types import plain_decimal, utc_text
from billing_core.usage_events.totals import Sums, add_up


def heading(close: Close) -> dict[str, Any]:
    """The part that journal and manifest of a close have in common: month, window, timezone, who and when."""
    return {
        "period": close.period,
        "timezone": close.timezone,
        "from": utc_text(close.start),
        "to": utc_text(close.end),
        "closed_at": utc_text(close.closed_at),
        "closed_by": close.closed_by,
        "booking": close.seq,
    }


def totals_of(by_status: Mapping[str, Sums]) -> dict[str, Any]:
    whole = together(by_status.values())
    totals = whole.totals.model_dump(mode="json")
    parts = totals.pop("credits")
    return {"events": whole.events, **{f"credits_{name}": value for name, value in parts.items()}, **totals}


def settlement_line(settlement: Settlement, events: int) -> dict[str, Any]:
    """A settlement of the month as the manifest names it."""
    return {
        "id": settlement.id,
        "as": settlement.kind,
        "customer_id": settlement.customer_id,
        "events": events,
        "credits": plain_decimal(settlement.credits),
        "amount_usd": plain_decimal(settlement.amount_usd),
        "amount": settlement.amount,
        "currency": settlement.currency,
        "item_id": settlement.item_id,
        "reason": settlement.reason,
        "settled_at": utc_text(settlement.made_at),
        "settled_by": settlement.actor,
    }


def status_line(status: str, sums: Sums) -> dict[str, Any]:
    totals = sums.totals
    return {
        "status": status,
        "events": sums.events,
        "credits": plain_decimal(totals.credits.total),
        "amount_usd": plain_decimal(totals.amount_usd),
    }


def stripe_part(found: Reconciliation, is_connected: bool) -> dict[str, Any]:
    """The manifest's reconciliation: credits in the three books, per customer and in sum; unknown is null."""
    document = json.dumps(found.to_json())
    customers: dict[str | None, list[Any]] = {}
    for row in found.rows:
        customers.setdefault(row.customer_id, []).append(row)
    books = ("langfuse_credits", "ledger_credits", "sent_credits", "stripe_credits")

    def line(rows: Sequence[Any]) -> dict[str, Any]:
        sums = {}
        for book in books:
            values = [getattr(row, book) for row in rows]
            known = None if any(value is None for value in values) else added(values)
            sums[book] = None if known is None else plain_decimal(known)
        sums["unexplained_credits"] = plain_decimal(added(row.unexplained_credits for row in rows))
        return sums

    return {
        "connected": is_connected,
        "reconciled_at": utc_text(found.made_at),
        "reconciliation_sha256": digest(document),
        **line(found.rows),
        "customers": [
            {"customer_id": customer, **line(customers[customer])}
            for customer in sorted(customers, key=lambda name: (name is None, name or ""))
        ],
    }


def together(many: Iterable[Sums]) -> Sums:
    """The sums of disjoint sets of events, added up."""
    rows = [
        {
            **{f"credits_{part}": getattr(one.totals.credits, part) for part in ("ai_tokens", "compute", "storage")},
            "credit_price_usd": Decimal(0),
            "sync_status": "",
            "events": one.events,
            "amount_usd": one.totals.amount_usd,
            **{name: getattr(one.totals, name) for name in ("cost_usd", "tokens_in", "tokens_out", "tokens_total")},
        }
        for one in many
    ]
    summed = add_up(rows)
    amount = added(row["amount_usd"] for row in rows)
    return Sums(summed.totals.model_copy(update={"amount_usd": amount}), summed.events, Decimal(0), 0)
