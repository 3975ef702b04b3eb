"""Months and the manifest of a closed one as tables. Pure; the figures of a manifest are exact, as it was hashed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from billing_core.month_close.model import Difference, Month, MonthState, digest
from billing_core.types import parse_time
from components.months.causes import cause_label
from components.months.texts import STATE_MARKS, month_name, short_hash
from components.shared.formats import UNKNOWN, count, exact, moment, short_credits, short_usd

Rows = dict[str, list[str]]
Manifest = Mapping[str, Any]

BOOKS = {
    "langfuse_credits": "Langfuse",
    "ledger_credits": "Ledger",
    "sent_credits": "Sent",
    "stripe_credits": "Stripe",
    "unexplained_credits": "Unexplained",
}
"""What the manifest calls the books, and what people do."""

_TOTALS = {
    "events": "Events",
    "credits_ai_tokens": "AI token credits",
    "credits_compute": "Compute credits",
    "credits_storage": "Storage credits",
    "credits_total": "Credits",
    "amount_usd": "Amount (USD)",
    "cost_usd": "Langfuse cost (USD)",
    "tokens_in": "Tokens in",
    "tokens_out": "Tokens out",
    "tokens_total": "Tokens",
}


def read_manifest(text: str, sha256: str | None) -> Manifest | None:
    """A manifest as a mapping; `None` if its text is not the one that was hashed: then nothing in it may be
    believed.
    """
    if digest(text) != sha256:
        return None
    found: Manifest = json.loads(text)
    return found


def _figure(value: object) -> str:
    return UNKNOWN if value is None else exact(Decimal(str(value)))


def total_rows(manifest: Manifest) -> Rows:
    """The sums over the whole closed month, as a table."""
    totals = manifest["totals"]
    shown = {label: totals[name] for name, label in _TOTALS.items() if name in totals}
    return {"Total": list(shown), "Figure": [_figure(value) for value in shown.values()]}


def status_rows(manifest: Manifest) -> Rows:
    """Events and credits of a closed month by sync status at its close, as a table."""
    lines = manifest["by_status"]
    return {
        "Status": [line["status"] for line in lines],
        "Events": [count(line["events"]) for line in lines],
        "Credits": [_figure(line["credits"]) for line in lines],
        "Amount (USD)": [_figure(line["amount_usd"]) for line in lines],
    }


def set_rows(manifest: Manifest) -> Rows:
    """Everything a closed month is proven by, as a table: one count and hash per kind of entry."""
    sets = manifest["sets"]
    return {
        "Entries": [name.replace("_", " ").capitalize() for name in sets],
        "Number": [count(one["entries"]) for one in sets.values()],
        "SHA-256": [one["sha256"] for one in sets.values()],
    }


def export_rows(manifest: Manifest) -> Rows:
    """Exports of a closed month that come out the same, byte for byte, for ever, as a table."""
    made = manifest["exports"]
    return {
        "Export": [f"{one['dataset'].replace('-', ' ').capitalize()} as {_form(one['format'])}" for one in made],
        "Rows": [count(one["rows"]) for one in made],
        "Bytes": [count(one["bytes"]) for one in made],
        "SHA-256": [one["sha256"] for one in made],
    }


def _form(name: str) -> str:
    return name if name == "journal" else name.upper()


def exception_rows(manifest: Manifest) -> Rows:
    """The obstacles that somebody accepted at the close, and why, as a table."""
    accepted = manifest["exceptions"]
    return {
        "Cause": [cause_label(one["cause"]) for one in accepted],
        "What": [one["says"] for one in accepted],
        "Events": [count(one["events"]) for one in accepted],
        "Credits": [_figure(one["credits"]) for one in accepted],
        "Accepted by": [one["accepted_by"] for one in accepted],
        "Reason": [one["reason"] for one in accepted],
    }


def stripe_rows(manifest: Manifest) -> Rows:
    """Credits by Langfuse, ledger and Stripe at the close, over all customers, as a table."""
    part = manifest["stripe"]
    return {"Book": list(BOOKS.values()), "Credits": [_figure(part[name]) for name in BOOKS]}


def customer_rows(manifest: Manifest, shown: int) -> Rows:
    """Credits by Langfuse, ledger and Stripe at the close, per customer: first those with unexplained credits, then the
    largest at Langfuse.
    """
    customers = sorted(
        manifest["stripe"]["customers"],
        key=lambda one: (
            -Decimal(one["unexplained_credits"]),
            -Decimal(one["langfuse_credits"] or 0),
            one["customer_id"] or "",
        ),
    )[:shown]
    return {
        "Customer": [one["customer_id"] or "no customer" for one in customers],
        **{label: [_figure(one[name]) for one in customers] for name, label in BOOKS.items()},
    }


def card_rows(manifest: Manifest) -> Rows:
    """The rate cards a month was rated with, as a table. Credits of the earlier system come with no card."""
    cards: Sequence[Mapping[str, Any]] = manifest["rate_cards"]
    return {"Rate card": [one["id"] for one in cards], "SHA-256": [one["sha256"] or "no card" for one in cards]}


def facts_rows(manifest: Manifest, zone: ZoneInfo) -> Rows:
    """The context of a close as a table: its window, the ledger's booking, the audit log and the close before it."""
    head, previous = manifest["audit_head"], manifest.get("previous")
    before = "none" if previous is None else f"{month_name(previous['period'])}, {short_hash(previous['sha256'])}"
    facts = {
        "Format": manifest["manifest"],
        "From": moment(parse_time(manifest["from"]), zone),
        "To": moment(parse_time(manifest["to"]), zone),
        "Ledger booking number": count(manifest["booking"]),
        "Audit log at the close": f"entry {count(head['seq'])}, {short_hash(head['hash'])}",
        "Previous close": before,
    }
    return {"Fact": list(facts), "Value": list(facts.values())}


def month_rows(months: Sequence[Month], zone: ZoneInfo) -> dict[str, list[str]]:
    """The table of months; late usage and who closed have columns as soon as there is any."""
    rows = {
        "Month": [month_name(month.period) for month in months],
        "State": [STATE_MARKS[month.state].text for month in months],
        "Events": [count(month.events) for month in months],
        "Credits": [short_credits(month.credits.total) for month in months],
        "Amount (USD)": [short_usd(month.amount_usd) for month in months],
    }
    if any(month.late_events for month in months):
        rows["Late events"] = [count(month.late_events) if month.late_events else "" for month in months]
        rows["Late credits"] = [short_credits(month.late_credits) if month.late_events else "" for month in months]
    closed = [month if month.state is MonthState.CLOSED else None for month in months]
    if any(closed):
        rows[f"Closed ({zone.key})"] = ["" if month is None else moment(month.closed_at, zone) for month in closed]
        rows["By"] = ["" if month is None else month.closed_by or UNKNOWN for month in closed]
    return rows


def difference_rows(differences: Sequence[Difference]) -> dict[str, list[str]]:
    """The differences between a closed month and its manifest, as a table."""
    return {
        "What": [one.what for one in differences],
        "Finding": [one.says for one in differences],
        "When it was closed": [one.expected or "" for one in differences],
        "Now": [one.found or "" for one in differences],
    }
