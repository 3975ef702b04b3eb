"""Reads the ledger's part of a reconciliation in one transaction, and what was sent in a window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.ledger.compiled import Bound, Question, ask, bound_text, bound_time
from billing_core.ledger.engine import Engine, Writer
from billing_core.ledger.schema import LIVE, WRITE_OFF, coverage_table, events_table, holds_table, intents_table
from billing_core.values.usage_frame import Window

_CREDITS = pa.decimal128(18, 6)
_TIME = pa.timestamp("us")

LEDGER = pa.schema(
    {
        "id": pa.string(),
        "customer_id": pa.string(),
        "timestamp": _TIME,
        "credits_total": _CREDITS,
        "sync_status": pa.string(),
        "sync_error": pa.string(),
        "flags": pa.string(),
        "marks": pa.string(),
        "meter_event_identifier": pa.string(),
        "billed_elsewhere": pa.bool_(),
    }
)
"""Booked events: those of the window, and any others that the coverage or Langfuse name."""

COVERAGE = pa.schema(
    {
        "identifier": pa.string(),
        "event_id": pa.string(),
        "customer_id": pa.string(),
        "credits": _CREDITS,
        "state": pa.string(),
        "stamp": _TIME,
    }
)
"""What intents cover, with the intent's state and stamp: all of every event in the window and of every intent in it."""

INTENTS = pa.schema(
    {
        "identifier": pa.string(),
        "customer_id": pa.string(),
        "stamp": _TIME,
        "credits": _CREDITS,
        "carried_before": _CREDITS,
        "value": pa.int64(),
        "state": pa.string(),
        "answered_at": _TIME,
    }
)
"""Intents whose stamp lies in the window."""

HOLDS = pa.schema({"event_id": pa.string(), "cause": pa.string()})
"""Active holds."""

SETTLED = pa.schema(
    {
        "event_id": pa.string(),
        "customer_id": pa.string(),
        "credits": _CREDITS,
        "is_written_off": pa.bool_(),
        "is_unknown": pa.bool_(),
    }
)
"""What settlements that count settle of the events in `LEDGER`; `is_unknown`: the invoice item may not be at Stripe."""

IDS_AT_ONCE = 50_000


@dataclass(frozen=True, slots=True)
class LedgerState:
    """One consistent state of the ledger; columns as `LEDGER`, `COVERAGE`, `INTENTS`, `HOLDS` and `SETTLED` say."""

    events: pa.Table
    coverage: pa.Table
    intents: pa.Table
    holds: pa.Table
    settled: pa.Table = field(default_factory=SETTLED.empty_table)


@dataclass(frozen=True, slots=True)
class _Span:
    """A window whose ends are bound, half open."""

    start: Bound
    end: Bound


def _span(window: Window) -> _Span:
    return _Span(bound_time(window.start), bound_time(window.end))


def _within(column: ir.TimestampColumn, span: _Span) -> ir.BooleanValue:
    return (column >= span.start.scalar) & (column < span.end.scalar)


def _events_in(span: _Span) -> ir.Table:
    """Events of the window."""
    t = events_table()
    return t.filter(_within(t.timestamp, span)).select(*LEDGER.names)


def _events_covered_in(span: _Span) -> ir.Table:
    """Events outside the window that an intent of the window covers."""
    t = events_table()
    covered = coverage_table().semi_join(_intents_in(span), "identifier")
    elsewhere = covered.anti_join(_events_in(span).select("id"), [("event_id", "id")])
    return t.filter(~_within(t.timestamp, span)).semi_join(elsewhere, [("id", "event_id")]).select(*LEDGER.names)


def _coverage_in(span: _Span) -> ir.Table:
    """All coverage by intents of the window."""
    intents = intents_table()
    inside = intents.filter(_within(intents.stamp, span)).select("identifier", "state", "stamp")
    return coverage_table().join(inside, "identifier").select(*COVERAGE.names)


def _coverage_elsewhere(span: _Span) -> ir.Table:
    """Coverage of the window's events by intents outside the window."""
    intents = intents_table()
    outside = intents.filter(~_within(intents.stamp, span)).select("identifier", "state", "stamp")
    joined = coverage_table().join(outside, "identifier")
    return joined.semi_join(_events_in(span).select("id"), [("event_id", "id")]).select(*COVERAGE.names)


def _intents_in(span: _Span) -> ir.Table:
    """Intents stamped inside the window, whatever became of them."""
    t = intents_table()
    return t.filter(_within(t.stamp, span)).select(*INTENTS.names)


def _active_holds() -> ir.Table:
    """Holds nobody has released."""
    t = holds_table()
    return t.filter(t.released_at.isnull()).select(*HOLDS.names)


def active_customers(window: Window) -> Question:
    """A question: customers with usage or intents in the window, as `customer_id`."""
    return ask(_active_customers, _span(window))


def _active_customers(span: _Span) -> ir.Table:
    t, intents = events_table(), intents_table()
    used = t.filter(_within(t.timestamp, span) & t.customer_id.notnull()).select("customer_id")
    sent = intents.filter(_within(intents.stamp, span)).select("customer_id")
    return used.union(sent, distinct=True)


def late_candidates(window: Window, ended: datetime) -> Question:
    """A question: sent intents of the window that were first tried at or after `ended`, as
    `findings.after_finalization` needs them.
    """
    return ask(_late_candidates, _span(window), bound_time(ended))


def _late_candidates(span: _Span, ended: Bound) -> ir.Table:
    t = _sent(intents_table())
    late = t.filter(_within(t.stamp, span) & (t.first_attempt_at >= ended.scalar))
    return late.select("identifier", "customer_id", "stamp", "value", "first_attempt_at")


def sent_to(customer_id: str, start: datetime, end: datetime) -> Question:
    """A question: whole credits sent to a customer for a period, one row."""
    return ask(_sent_to, bound_text(customer_id), _span(Window(start, end)))


def _sent_to(customer: Bound, span: _Span) -> ir.Table:
    t = _sent(intents_table())
    mine = t.filter((t.customer_id == customer.scalar) & _within(t.stamp, span))
    return mine.aggregate(value=mine.value.sum().fill_null(0).cast("decimal(38, 0)"))


def _sent(t: ir.Table) -> ir.Table:
    return t.filter(t.state.isin(["accepted", "confirmed"]))


def read_ledger(engine: Engine, window: Window, upstream: pa.Table | None = None) -> LedgerState:
    """The ledger's events, coverage, intents and holds of a window, all from one transaction.

    Traces of `upstream` (by `id`) that are booked outside the window are read as well, with what covers
    them: a trace that moved into the window after it was sent is not simply late.
    """
    span = _span(window)
    with engine.transaction() as writer:
        events = _all_of(writer, LEDGER, ask(_events_in, span), ask(_events_covered_in, span))
        coverage = _all_of(writer, COVERAGE, ask(_coverage_in, span), ask(_coverage_elsewhere, span))
        for ids in _absent(upstream, events):
            moved = _rows(writer, _BOOKED, ids, LEDGER)
            events = pa.concat_tables([events, moved])
            coverage = pa.concat_tables([coverage, _rows(writer, _COVERING, moved["id"].to_pylist(), COVERAGE)])
        return LedgerState(
            events,
            coverage,
            _shaped(writer.read(ask(_intents_in, span)), INTENTS),
            _shaped(writer.read(ask(_active_holds)), HOLDS),
            _rows(writer, _SETTLED, events["id"].to_pylist(), SETTLED),
        )


_BOOKED = f"SELECT {', '.join(LEDGER.names)} FROM events WHERE id IN (SELECT unnest(?))"
_COVERING = """
SELECT c.identifier, c.event_id, c.customer_id, c.credits, i.state, i.stamp
FROM coverage c JOIN intents i ON i.identifier = c.identifier WHERE c.event_id IN (SELECT unnest(?))
"""


_SETTLED = f"""
SELECT x.event_id, x.customer_id, x.credits, s.kind = '{WRITE_OFF}', s.state = 'sending'
FROM settlement_events x JOIN settlements s ON s.id = x.settlement_id
WHERE s.state IN {LIVE!r} AND x.event_id IN (SELECT unnest(?))
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


def _all_of(writer: Writer, schema: pa.Schema, *questions: Question) -> pa.Table:
    """Disjoint answers together. Not as one union: DuckDB 1.5 never ends a long one whose parts are joins."""
    return pa.concat_tables([_shaped(writer.read(question), schema) for question in questions])


def _shaped(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Text that the engine stores as an enumeration, and its time types, as plain columns."""
    return table.select(schema.names).cast(schema)
