"""The books as `compare` wants them, and how the ledger's share of them is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.ledger.engine import Engine, Writer
from billing_core.ledger.queries import instant
from billing_core.ledger.schema import coverage_table, events_table, holds_table, intents_table
from billing_core.values.usage_frame import Window

__all__ = [
    "COVERAGE",
    "HOLDS",
    "INTENTS",
    "LEDGER",
    "UPSTREAM",
    "ComparisonInput",
    "LedgerState",
    "active_customers",
    "active_holds",
    "coverage_elsewhere",
    "coverage_in",
    "events_covered_in",
    "events_in",
    "intents_in",
    "late_candidates",
    "read_ledger",
    "sent_to",
]

_CREDITS = pa.decimal128(18, 6)
_TIME = pa.timestamp("us")

UPSTREAM = pa.schema(
    {"id": pa.string(), "customer_id": pa.string(), "timestamp": _TIME, "credits_total": _CREDITS, "flags": pa.string()}
)
"""Langfuse, read anew and rated as the ledger would: one row per trace. Times are UTC without an offset."""

LEDGER = pa.schema(
    {
        "id": pa.string(), "customer_id": pa.string(), "timestamp": _TIME, "credits_total": _CREDITS,
        "sync_status": pa.string(), "sync_error": pa.string(), "flags": pa.string(), "marks": pa.string(),
        "meter_event_identifier": pa.string(), "billed_elsewhere": pa.bool_(),
    }
)  # fmt: skip
"""Booked events: those of the window, and any others that the coverage or Langfuse name."""

COVERAGE = pa.schema(
    {
        "identifier": pa.string(), "event_id": pa.string(), "customer_id": pa.string(), "credits": _CREDITS,
        "state": pa.string(), "stamp": _TIME,
    }
)  # fmt: skip
"""What intents cover, with the intent's state and stamp: all of every event in the window and of every intent in it."""

INTENTS = pa.schema(
    {
        "identifier": pa.string(), "customer_id": pa.string(), "stamp": _TIME, "credits": _CREDITS,
        "carried_before": _CREDITS, "value": pa.int64(), "state": pa.string(), "answered_at": _TIME,
    }
)  # fmt: skip
"""Intents whose stamp lies in the window."""

HOLDS = pa.schema({"event_id": pa.string(), "cause": pa.string()})
"""Active holds."""

IDS_AT_ONCE = 50_000


@dataclass(frozen=True, slots=True)
class LedgerState:
    """One consistent state of the ledger; columns as `LEDGER`, `COVERAGE`, `INTENTS` and `HOLDS` say."""

    events: pa.Table
    coverage: pa.Table
    intents: pa.Table
    holds: pa.Table


@dataclass(frozen=True, slots=True)
class ComparisonInput:
    """Everything a comparison needs.

    Attributes
    ----------
    window:
        Whole UTC hours.
    upstream:
        As `UPSTREAM` says; `None` if Langfuse could not be read. Traces outside the window may be among them.
    stripe:
        (customer, start of the UTC hour) → what Stripe counts, hours without usage absent; `None` if unknown.
    stripe_read_at:
        When the reading of `stripe` began, aware UTC.
    stripe_unknown:
        Customers whose summaries could not be read.
    """

    window: Window
    upstream: pa.Table | None
    ledger: LedgerState
    stripe: Mapping[tuple[str, datetime], Decimal] | None
    stripe_read_at: datetime | None = None
    stripe_unknown: frozenset[str] = field(default=frozenset())


def _within(column: ir.TimestampColumn, window: Window) -> ir.BooleanValue:
    return (column >= instant(window.start)) & (column < instant(window.end))


def events_in(window: Window) -> ir.Table:
    """Events of the window."""
    t = events_table()
    return t.filter(_within(t.timestamp, window)).select(*LEDGER.names)


def events_covered_in(window: Window) -> ir.Table:
    """Events outside the window that an intent of the window covers."""
    t = events_table()
    covered = coverage_table().semi_join(intents_in(window), "identifier")
    elsewhere = covered.anti_join(events_in(window).select("id"), [("event_id", "id")])
    return t.filter(~_within(t.timestamp, window)).semi_join(elsewhere, [("id", "event_id")]).select(*LEDGER.names)


def coverage_in(window: Window) -> ir.Table:
    """All coverage by intents of the window."""
    intents = intents_table()
    inside = intents.filter(_within(intents.stamp, window)).select("identifier", "state", "stamp")
    return coverage_table().join(inside, "identifier").select(*COVERAGE.names)


def coverage_elsewhere(window: Window) -> ir.Table:
    """Coverage of the window's events by intents outside the window."""
    intents = intents_table()
    outside = intents.filter(~_within(intents.stamp, window)).select("identifier", "state", "stamp")
    joined = coverage_table().join(outside, "identifier")
    return joined.semi_join(events_in(window).select("id"), [("event_id", "id")]).select(*COVERAGE.names)


def intents_in(window: Window) -> ir.Table:
    """Intents stamped inside the window, whatever became of them."""
    t = intents_table()
    return t.filter(_within(t.stamp, window)).select(*INTENTS.names)


def active_holds() -> ir.Table:
    """Holds nobody has released."""
    t = holds_table()
    return t.filter(t.released_at.isnull()).select(*HOLDS.names)


def active_customers(window: Window) -> ir.Table:
    """Customers with usage or intents in the window, as `customer_id`."""
    t, intents = events_table(), intents_table()
    used = t.filter(_within(t.timestamp, window) & t.customer_id.notnull()).select("customer_id")
    sent = intents.filter(_within(intents.stamp, window)).select("customer_id")
    return used.union(sent, distinct=True)


def late_candidates(window: Window, ended: datetime) -> ir.Table:
    """Sent intents of the window that were first tried at or after `ended`, as `findings.after_finalization` wants."""
    t = _sent(intents_table())
    late = t.filter(_within(t.stamp, window) & (t.first_attempt_at >= instant(ended)))
    return late.select("identifier", "customer_id", "stamp", "value", "first_attempt_at")


def sent_to(customer_id: str, start: datetime, end: datetime) -> ir.Table:
    """Whole credits sent to a customer for a period, one row."""
    t = _sent(intents_table())
    mine = t.filter((t.customer_id == customer_id) & _within(t.stamp, Window(start, end)))
    return mine.aggregate(value=mine.value.sum().fill_null(0).cast("decimal(38, 0)"))


def _sent(t: ir.Table) -> ir.Table:
    return t.filter(t.state.isin(["accepted", "confirmed"]))


def read_ledger(engine: Engine, window: Window, upstream: pa.Table | None = None) -> LedgerState:
    """The ledger's books of a window, all from one transaction.

    Traces of `upstream` (as `UPSTREAM` says) that are booked outside the window are read as well, with what covers
    them: a trace that moved into the window after it was sent is not simply late.
    """
    with engine.transaction() as writer:
        events = _all_of(writer, LEDGER, events_in(window), events_covered_in(window))
        coverage = _all_of(writer, COVERAGE, coverage_in(window), coverage_elsewhere(window))
        for ids in _absent(upstream, events):
            moved = _rows(writer, _BOOKED, ids, LEDGER)
            events = pa.concat_tables([events, moved])
            coverage = pa.concat_tables([coverage, _rows(writer, _COVERING, moved["id"].to_pylist(), COVERAGE)])
        return LedgerState(
            events,
            coverage,
            _shaped(writer.read(intents_in(window)), INTENTS),
            _shaped(writer.read(active_holds()), HOLDS),
        )


_BOOKED = f"SELECT {', '.join(LEDGER.names)} FROM events WHERE id IN (SELECT unnest(?))"
_COVERING = """
SELECT c.identifier, c.event_id, c.customer_id, c.credits, i.state, i.stamp
FROM coverage c JOIN intents i ON i.identifier = c.identifier WHERE c.event_id IN (SELECT unnest(?))
"""


def _absent(upstream: pa.Table | None, events: pa.Table) -> Iterator[list[str]]:
    """Ids that Langfuse names and `events` lacks, in portions."""
    if upstream is None or not upstream.num_rows:
        return
    ids = upstream["id"].filter(pc.invert(pc.is_in(upstream["id"], events["id"].combine_chunks())))
    for first in range(0, len(ids), IDS_AT_ONCE):
        yield ids.slice(first, IDS_AT_ONCE).to_pylist()


def _rows(writer: Writer, query: str, ids: list[str], schema: pa.Schema) -> pa.Table:
    rows = writer.rows(query, [ids])
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema=schema)


def _all_of(writer: Writer, schema: pa.Schema, *expressions: ir.Table) -> pa.Table:
    """Disjoint expressions together. Not as one union: DuckDB 1.5 never ends a long one whose parts are joins."""
    return pa.concat_tables([_shaped(writer.read(expression), schema) for expression in expressions])


def _shaped(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Text that the engine stores as an enumeration, and its time types, as plain columns."""
    return table.select(schema.names).cast(schema)
