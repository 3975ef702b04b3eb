"""Adds up the engine's grouped rows to exact totals (credits, US dollars, counts). Pure. Pure and exact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from billing_core.types import Credits, SyncStatus, Totals
from billing_core.values.decimals import EXACT

UNSYNCED = frozenset({SyncStatus.PENDING, SyncStatus.SENDING, SyncStatus.ERROR})
"""Not accepted by Stripe yet."""

EPOCH = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over usage events: unknown plus known is known; unknown alone stays unknown."""

    totals: Totals
    events: int
    unsynced_credits: Decimal
    errors: int


@dataclass(frozen=True, slots=True)
class DayTotals(Sums):
    """Sums over the events of one day of the reporting timezone."""

    day: date


def parts_of(row: Mapping[str, Any]) -> Credits:
    """The credits by type of a row that has one column per type; no rows at all sum to 0."""
    ai, compute, storage = (
        row[f"credits_{part}"] if row[f"credits_{part}"] is not None else Decimal(0)
        for part in ("ai_tokens", "compute", "storage")
    )
    return Credits(ai_tokens=ai, compute=compute, storage=storage, total=EXACT.add(EXACT.add(ai, compute), storage))


def add_up(rows: Iterable[Mapping[str, Any]]) -> Sums:
    """The sums over rows of `queries.totals`, which has one row per sync status and credit price."""
    known: dict[str, Any] = dict.fromkeys(("cost_usd", "tokens_in", "tokens_out", "tokens_total"))
    parts = {f"credits_{part}": Decimal(0) for part in ("ai_tokens", "compute", "storage")}
    amount = unsynced = Decimal(0)
    events = errors = 0
    for row in rows:
        total = parts_of(row).total
        amount = EXACT.add(amount, EXACT.multiply(total, row["credit_price_usd"]))
        events += row["events"]
        if row["sync_status"] in UNSYNCED:
            unsynced = EXACT.add(unsynced, total)
        if row["sync_status"] == SyncStatus.ERROR:
            errors += row["events"]
        for name in parts:
            parts[name] = EXACT.add(parts[name], row[name])
        for name, sum_so_far in known.items():
            if row[name] is not None:
                known[name] = row[name] if sum_so_far is None else EXACT.add(sum_so_far, row[name])
    tokens = {name: None if value is None else int(value) for name, value in known.items() if name != "cost_usd"}
    totals = Totals(credits=parts_of(parts), amount_usd=amount, cost_usd=known["cost_usd"], **tokens)
    return Sums(totals, events, unsynced, errors)


def by_day(rows: Iterable[Mapping[str, Any]]) -> tuple[DayTotals, ...]:
    """The sums of each day from rows of `queries.daily`, oldest first; days without events are absent."""
    grouped: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        grouped.setdefault(row["day"], []).append(row)
    days = []
    for number in sorted(grouped):
        sums = add_up(grouped[number])
        day = EPOCH + timedelta(days=number)
        days.append(DayTotals(sums.totals, sums.events, sums.unsynced_credits, sums.errors, day))
    return tuple(days)
