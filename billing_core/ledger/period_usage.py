"""Questions for credits per organization and customer inside each customer's own billing period. Pure.

Billing periods differ from customer to customer and begin at any second, so they come along as a table.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from billing_core.ledger.compiled import Bound, Question, ask, bound_time
from billing_core.ledger.queries import Chosen, Selection, choose, selected

GIVEN = "given_periods"
"""The name under which `customers_and_usage` expects `periods_table`."""

_COLUMNS = {"customer_id": "string", "period_start": "timestamp(6)", "period_end": "timestamp(6)"}


def periods_table(periods: Iterable[tuple[str, datetime, datetime]]) -> pa.Table:
    """A table of billing periods, one row per customer: id, and the period's aware ends, half open."""
    rows = [
        {"customer_id": customer, "period_start": start.astimezone(UTC), "period_end": end.astimezone(UTC)}
        for customer, start, end in periods
    ]
    time = pa.timestamp("us", tz="UTC")
    kinds = {"customer_id": pa.string(), "period_start": time, "period_end": time}
    return pa.Table.from_pylist(rows, schema=pa.schema(list(kinds.items())))


def customers_and_usage(selection: Selection, named_since: datetime) -> Question:
    """A question: credits per organization and customer named together by an event, inside the customer's billing
    period.

    `used` is the credits of the pair inside the customer's period, null where it has none; `is_named` says whether
    one of their events began at `named_since` or later.
    """
    return ask(_customers_and_usage, choose(selection), bound_time(named_since))


def _customers_and_usage(chosen: Chosen, named_since: Bound) -> ir.Table:
    events = selected(chosen).select("organization_id", "customer_id", "timestamp", "credits_total")
    periods = ibis.table(_COLUMNS, name=GIVEN)
    t = events.left_join(periods, "customer_id")
    inside = (t.timestamp >= t.period_start) & (t.timestamp < t.period_end)
    return t.group_by("organization_id", "customer_id").aggregate(
        used=ibis.ifelse(inside, t.credits_total, ibis.null("decimal(18, 6)")).sum(),
        is_named=(t.timestamp >= named_since.scalar).any(),
    )
