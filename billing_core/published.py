"""From stored rows to the published forms of an event (CONTRACT section 4): objects, frames and CSV."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa

from billing_core.decimals import EXACT
from billing_core.ledger.queries import split_flags, split_models, with_utc
from billing_core.types import FLAT_FIELDS, Credits, UsageEvent, plain_decimal, utc_text

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["csv_lines", "events", "flat_frame", "flat_rows"]

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet may take for a formula at the beginning of a cell."""


def flat_rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Rows with the flat names; decimals stay `Decimal`, times are aware UTC, lists are lists."""
    for row in with_utc(table).to_pylist():
        base = row.pop("trace_base")
        row["trace_url"] = None if base is None else base + quote(row["id"], safe="")
        row["amount_usd"] = EXACT.multiply(row["credits_total"], row.pop("credit_price_usd"))
        row["models"] = split_models(row["models"])
        row["flags"] = split_flags(row["flags"], row.pop("marks"))
        yield {name: row[name] for name in FLAT_FIELDS}


def events(table: pa.Table) -> list[UsageEvent]:
    """Stored rows as `UsageEvent` objects."""
    return [_event(row) for row in flat_rows(table)]


def _event(row: dict[str, Any]) -> UsageEvent:
    parts = {name: row.pop(f"credits_{name}") for name in Credits.model_fields}
    return UsageEvent(**row, credits=Credits(**parts))


def flat_frame(table: pa.Table) -> pd.DataFrame:
    """The flat columns as pandas, one row per event; exact decimals as `Decimal` objects."""
    import pandas as pd  # a heavy import that the sign-in form must not wait for

    return pd.DataFrame.from_records(list(flat_rows(table)), columns=list(FLAT_FIELDS))


def csv_cell(value: Any) -> str:
    """One value as CSV text that no spreadsheet runs: exact numbers, UTC times, lists as JSON."""
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return plain_decimal(value)
    if hasattr(value, "isoformat"):
        return utc_text(value)
    if isinstance(value, list):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = str(value)
        if isinstance(value, (int, float)):
            return text
    if text.startswith(FORMULA_STARTS):
        text = "'" + text
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n\r;') else text


def csv_line(values: Iterable[Any]) -> str:
    """One record, with its end as RFC 4180 asks."""
    return ",".join(map(csv_cell, values)) + "\r\n"


def csv_lines(tables: Iterator[pa.Table]) -> Iterator[bytes]:
    """A CSV document in pieces: the header, then one piece per table. UTF-8, `\\r\\n` as RFC 4180 asks."""
    yield csv_line(FLAT_FIELDS).encode()
    for table in tables:
        yield "".join(csv_line(row[name] for name in FLAT_FIELDS) for row in flat_rows(table)).encode()
