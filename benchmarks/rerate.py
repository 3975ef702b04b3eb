"""What another card would have cost: the desk beside the rating function alone, and the memory it takes.

python -m benchmarks.rerate PATH [EVENTS]      (a ledger made by benchmarks.fill; the newest EVENTS, a million)

The alternative is `rating.rate` over the same events, in memory already: no reading, no comparing, no sums.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import ibis.expr.types as ir
import pyarrow as pa

from benchmarks.measure import PeakMemory, percentile, timed
from billing_core.access import system_principal
from billing_core.ledger.compiled import Bound, ask, bound_number, bound_time
from billing_core.ledger.schema import events_table
from billing_core.rating.card import AiRates, RateCard, RateCardFile, TokenRate, builtin_cards
from billing_core.rating.rate import rate
from billing_core.rerating.rules import NEEDED
from billing_core.service import BillingService
from billing_core.settings import load_settings

ROUNDS = 5
EVENTS = 1_000_000
WHO = system_principal("bench")

BUILTIN = builtin_cards().cards[0]
RATES = (
    TokenRate(model="gpt-5*", token_class="output", credits_per_1000_tokens=Decimal("133.3")),  # noqa: S106
    TokenRate(model="claude-*", credits_per_1000_tokens=Decimal("87.31")),
    TokenRate(credits_per_1000_tokens=Decimal(100)),
)
CARDS = {
    "one_rate": BUILTIN.model_copy(update={"id": "bench-one-rate", "margin": Decimal("1.1")}),
    "by_model": BUILTIN.model_copy(update={"id": "bench-by-model", "ai": AiRates(rates=RATES)}),
}


def measure(path: Path, events: int = EVENTS) -> dict[str, Any]:
    """Seconds, ratios and megabytes. Nothing is written."""
    settings = load_settings({"BILLING_WAREHOUSE_URL": f"duckdb:///{path}", "BILLING_MODE": "demo"}, env_file=None)
    service = BillingService.from_settings(settings)
    start = _start_of_newest(service, events)
    with PeakMemory().watched() as before:
        looked_at = service.rerating.what_if(WHO, _file(CARDS["one_rate"]), start).events
    figures: dict[str, Any] = {"events": looked_at, "peak_megabytes": round(before.megabytes)}
    rows = _in_memory(service, start)
    for name, card in CARDS.items():
        file, own, alone = _file(card), [], []
        for _ in range(ROUNDS):  # taken in turns, so that noise hits both
            own += timed([lambda cards=file: service.rerating.what_if(WHO, cards, start)])  # type: ignore[misc]
            alone += timed([lambda priced=card: rate(rows, priced)])  # type: ignore[misc]
        figures[f"{name}_seconds"] = round(percentile(own, 0.5) / 1000, 2)
        figures[f"{name}_rate_alone_seconds"] = round(percentile(alone, 0.5) / 1000, 2)
        figures[f"{name}_ratio"] = round(percentile(own, 0.5) / percentile(alone, 0.5), 2)
    service.close()
    return figures


def _file(card: RateCard) -> RateCardFile:
    return RateCardFile(cards=(card,))


def _start_of_newest(service: BillingService, events: int) -> datetime:
    first: datetime = service._ledger.read_rows(ask(_newest, bound_number(events)))[0]["first"]  # noqa: SLF001
    return first.astimezone(UTC)


def _newest(events: Bound) -> ir.Table:
    t = events_table()
    newest = t.order_by(t.timestamp.desc()).limit(events.rows)
    return newest.aggregate(first=newest.timestamp.min())


def _in_memory(service: BillingService, start: datetime) -> pa.Table:
    rows = service._ledger.engine.read(ask(_since, bound_time(start)))  # noqa: SLF001
    return rows.append_column("unpriced", pa.array([False] * rows.num_rows))


def _since(start: Bound) -> ir.Table:
    t = events_table()
    return t.filter(t.timestamp >= start.scalar).select(*NEEDED)


if __name__ == "__main__":
    wanted = int(sys.argv[2]) if len(sys.argv) > 2 else EVENTS
    print(json.dumps(measure(Path(sys.argv[1]).resolve(), wanted)))
