"""Turns the engine's grouped rows (`ledger.statistics`) into `Figures` per organization. Pure and exact."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from billing_core.ledger.queries import split_models
from billing_core.organizations.figures import MICROSECOND, Figures, TokensByClass
from billing_core.types import Credits, SyncStatus
from billing_core.usage_events.totals import UNSYNCED, parts_of
from billing_core.values.decimals import EXACT
from billing_core.values.usage_frame import TOKEN_CLASSES

PARTS = tuple(f"credits_{part}" for part in ("ai_tokens", "compute", "storage"))

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rows:
    """The engine's answers to the questions of `ledger.statistics`, for one selection."""

    sums: Iterable[Row]
    counts: Iterable[Row]
    latency: Iterable[Row]
    models: Iterable[Row]
    token_classes: Iterable[Row]


def roll_up(rows: Rows) -> dict[str | None, Figures]:
    """Figures per organization id, `None` being the events that name none."""
    added: dict[str | None, _Added] = defaultdict(_Added)
    for row in rows.sums:
        added[row["organization_id"]].add(row)
    counts = {row["organization_id"]: row for row in rows.counts}
    p95 = {row["organization_id"]: percentile(row["p95"]) for row in rows.latency}
    classes = {row["organization_id"]: row for row in rows.token_classes}
    models: dict[str | None, set[str]] = defaultdict(set)
    for row in rows.models:
        models[row["organization_id"]].update(split_models(row["models"] or ""))
    return {
        key: sums.figures(counts[key], p95.get(key), tuple(sorted(models[key])), classes.get(key))
        for key, sums in added.items()
    }


def percentile(seconds: float | None) -> Decimal | None:
    """A percentile in seconds, rounded to microseconds: one between two events has more digits than either."""
    return None if seconds is None else Decimal(seconds).quantize(MICROSECOND, ROUND_HALF_EVEN)


class _Added:
    """The sums of one organization while its rows come in."""

    def __init__(self) -> None:
        self.events = 0
        self.money: dict[str, Decimal] = defaultdict(Decimal)
        self.known: dict[str, Decimal] = {}

    def add(self, row: Row) -> None:
        self.events += row["events"]
        total = parts_of(row).total
        amount = EXACT.multiply(total, row["credit_price_usd"])
        for name in (*PARTS, "latency_seconds"):
            self._more(name, row[name])
        self._more("amount", amount)
        if row["sync_status"] in UNSYNCED:
            self._more("unsynced", total)
        if row["sync_status"] == SyncStatus.ERROR:
            self._more("failed", total)
        for name in ("cost_usd", "tokens_in", "tokens_out", "tokens_total"):
            self._know(name, row[name])
        if row["cost_kind"] != "unknown":
            self._know("known_cost_amount", amount)
            self._know("borne_cost", row["cost_usd"] if row["cost_kind"] == "ours" else Decimal(0))

    def _more(self, name: str, value: Decimal) -> None:
        self.money[name] = EXACT.add(self.money[name], value)

    def _know(self, name: str, value: Decimal | None) -> None:
        if value is not None:
            self.known[name] = EXACT.add(self.known.get(name, Decimal(0)), value)

    def _count(self, name: str) -> int | None:
        value = self.known.get(name)
        return None if value is None else int(value)

    def figures(self, counts: Row, p95: Decimal | None, models: tuple[str, ...], classes: Row | None) -> Figures:
        parts = {name: self.money[f"credits_{name}"] for name in ("ai_tokens", "compute", "storage")}
        total = EXACT.add(EXACT.add(parts["ai_tokens"], parts["compute"]), parts["storage"])
        return Figures(
            events=self.events,
            chats=counts["chats"],
            messages_sent=self.events,
            messages_generated=counts["messages_generated"],
            users=counts["users"],
            chatflows=counts["chatflows"],
            models=models,
            credits=Credits(**parts, total=total),
            amount_usd=self.money["amount"],
            cost_usd=self.known.get("cost_usd"),
            known_cost_amount_usd=self.known.get("known_cost_amount"),
            borne_cost_usd=self.known.get("borne_cost"),
            tokens_in=self._count("tokens_in"),
            tokens_out=self._count("tokens_out"),
            tokens_total=self._count("tokens_total"),
            tokens_by_class=TokensByClass() if classes is None else _classes(classes),
            latency_sum=self.money["latency_seconds"],
            latency_p95=p95,
            failed_events=counts["failed_events"],
            judged_events=counts["judged_events"],
            unsynced_credits=self.money["unsynced"],
            failed_credits=self.money["failed"],
        )


def _classes(row: Row) -> TokensByClass:
    return TokensByClass(**{name: None if row[name] is None else int(row[name]) for name in TOKEN_CLASSES})
