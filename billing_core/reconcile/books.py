"""The tables that `compare` reads: usage by Langfuse, ledger, intents and Stripe's sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

import pyarrow as pa

from billing_core.ledger.reconcile_queries import LedgerState
from billing_core.values.usage_frame import Window

_CREDITS = pa.decimal128(18, 6)
_TIME = pa.timestamp("us")

UPSTREAM = pa.schema(
    {"id": pa.string(), "customer_id": pa.string(), "timestamp": _TIME, "credits_total": _CREDITS, "flags": pa.string()}
)
"""Langfuse, read anew and rated as the ledger would: one row per trace. Times are UTC without an offset."""


@dataclass(frozen=True, slots=True)
class ComparisonInput:
    """Everything a reconciliation compares: the tables of Langfuse, ledger and Stripe.

    window: Whole UTC hours.
    upstream: As `UPSTREAM` says; `None` if Langfuse could not be read. Traces outside the window may be among them.
    stripe: (customer, start of the UTC hour) → what Stripe counts, hours without usage absent; `None` if unknown.
    stripe_read_at: When the reading of `stripe` began, aware UTC.
    stripe_unknown: Customers whose summaries could not be read.
    """

    window: Window
    upstream: pa.Table | None
    ledger: LedgerState
    stripe: Mapping[tuple[str, datetime], Decimal] | None
    stripe_read_at: datetime | None = None
    stripe_unknown: frozenset[str] = field(default=frozenset())
