"""From stored rows to the published forms of an event (CONTRACT section 4): objects, frames and CSV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa

from billing_core.ledger.queries import split_flags, split_models, with_utc
from billing_core.types import FLAT_FIELDS, Credits, UsageEvent
from billing_core.values.decimals import EXACT

if TYPE_CHECKING:
    import pandas as pd


def flat_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Stored events as dictionaries by flat names: `Decimal`, aware UTC times, lists."""
    for row in with_utc(table).to_pylist():
        base = row.pop("trace_base")
        row["trace_url"] = None if base is None else base + quote(row["id"], safe="")
        row["amount_usd"] = EXACT.multiply(row["credits_total"], row.pop("credit_price_usd"))
        row["models"] = split_models(row["models"])
        row["flags"] = split_flags(row["flags"], row.pop("marks"))
        yield {name: row[name] for name in FLAT_FIELDS}


def events(table: pa.Table) -> list[UsageEvent]:
    """Stored events (an Arrow table) as `UsageEvent` objects."""
    return [_event(row) for row in flat_rows(table)]


def _event(row: dict[str, Any]) -> UsageEvent:
    parts = {name: row.pop(f"credits_{name}") for name in Credits.model_fields}
    return UsageEvent(**row, credits=Credits(**parts))


def flat_frame(table: pa.Table) -> pd.DataFrame:
    """Stored events as a pandas frame with the flat columns; exact decimals as `Decimal` objects."""
    import pandas as pd  # a heavy import that the sign-in form must not wait for

    return pd.DataFrame.from_records(list(flat_rows(table)), columns=list(FLAT_FIELDS))
