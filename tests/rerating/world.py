"""Cards and stored events for tests of re-rating."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pyarrow as pa

from billing_core.ledger.schema import stored
from billing_core.rating.card import RateCard, RateCardFile
from billing_core.rating.events import Policy, to_events
from tests.factories import CARD, usage_table


def card(id_: str = "dear", **changes: Any) -> RateCard:
    """The built-in card with another id and other prices."""
    return RateCard.model_validate({**CARD.model_dump(), "id": id_, **changes})


def only(*cards: RateCard) -> RateCardFile:
    """A rate card file."""
    return RateCardFile(cards=cards)


DEAR = card(margin=Decimal(2))
"""AI tokens cost twice as much; a trace of the factory costs 200 + 50 instead of 100 + 50."""

BY_COST = card("by-cost", ai={"basis": "cost"})
ONLY_GPT = card("only-gpt", ai={"rates": [{"model": "gpt-*", "credits_per_1000_tokens": 100}]})


def as_stored(rows: list[dict[str, Any]], rate_card: RateCard | None = CARD, **columns: Any) -> pa.Table:
    """Usage as the ledger keeps it once it was rated; `columns` are those that only the ledger adds."""
    usage = usage_table(rows)
    return ledger_columns(to_events(usage, [rate_card] * usage.num_rows, Policy()), **columns)


def ledger_columns(events: pa.Table, **columns: Any) -> pa.Table:
    """`EVENT_SCHEMA` rows with the ledger's own types and what re-rating reads beyond them."""
    table = stored(events)
    extra = {"billed_elsewhere": pa.nulls(table.num_rows, pa.bool_())}
    for name, values in {**extra, **columns}.items():
        table = table.append_column(name, values if isinstance(values, pa.Array) else pa.array(values))
    return table
