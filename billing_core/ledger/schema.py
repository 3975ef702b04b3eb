"""The ledger's tables and columns, engine-neutral.

Times are UTC without an offset in the column (engines cut days much faster that way); lists that people
filter and sort by are kept as delimited text, which every engine compresses to almost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import ibis
import ibis.expr.datatypes as dt
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.rating.events import EVENT_SCHEMA
from billing_core.types import SyncStatus

MODEL_SEPARATOR = "\x1f"
"""Unit separator, around every model name, so that "is one of the models" is a plain text search."""

FLAG_SEPARATOR = ","

QUARTER_HOUR_SECONDS = 900

IMPORT_RUN = "import:"
"""How the runs begin that book an import; its id follows."""

SETTINGS_RUN = "settings"
"""How the runs begin that book what the settings in force would bill otherwise than it was sent."""

UNDO_RUN = "undo of "
"""How the runs begin that take one back; the run that booked it follows."""

UNDONE = "import undone"
"""What a revision says changed when an import was taken back."""

SENT = ("sending", "processed", "confirmed")
"""Statuses after which a change needs a correction instead of an edit."""

VOID = ("rejected", "void")
"""States of intents that count for nothing: Stripe refused them, or they never arrived and were withdrawn."""

DELIVERED = ("accepted", "confirmed")
"""States of intents that Stripe has."""

OPEN = ("open", "sending")
"""States of intents whose end is not known."""

ELSEWHERE = "billed_elsewhere"
"""Column of events that an import brought as billed: never sent from here, and their identifier is not one of ours."""

DUPLICATE = "duplicate"
"""Code of an intent whose identifier Stripe had before this ledger tried it: what is stored there may be another."""

TIME = pa.timestamp("us", tz="UTC")


@dataclass(frozen=True, slots=True)
class Column:
    """A stored column: name, type in Ibis, and type in DuckDB."""

    name: str
    kind: str
    duckdb: str


_TEXT = ("string", "VARCHAR")
_TIME = ("timestamp(6)", "TIMESTAMP")
_COUNT = ("int64", "BIGINT")
_YES_NO = ("boolean", "BOOLEAN")
_CREDITS = ("decimal(18, 6)", "DECIMAL(18,6)")
_STATUS = ("string", f"ENUM({', '.join(repr(status.value) for status in sorted(SyncStatus))})")
"""One byte per event, ordered as text is."""
_USAGE_KIND = (
    "array<struct<model: string, input: int64, output: int64, cache_read: int64, cache_write: int64, "
    "reasoning: int64, other: int64, cost_usd: decimal(24, 12)>>"
)
_USAGE_DUCKDB = (
    'STRUCT(model VARCHAR, "input" BIGINT, "output" BIGINT, cache_read BIGINT, cache_write BIGINT, '
    "reasoning BIGINT, other BIGINT, cost_usd DECIMAL(24,12))[]"
)
_LINES_KIND = (
    "array<struct<model: string, name: string, type: string, level: string, key: string, quantity: int64, "
    "cost_usd: decimal(24, 12), repeats: boolean, unpriced: boolean>>"
)
_LINES_DUCKDB = (
    "STRUCT(model VARCHAR, name VARCHAR, type VARCHAR, level VARCHAR, key VARCHAR, quantity BIGINT, "
    "cost_usd DECIMAL(24,12), repeats BOOLEAN, unpriced BOOLEAN)[]"
)
_KINDS = {
    **dict.fromkeys(
        (
            "timestamp",
            "ended_at",
            "updated_at",
            "synced_at",
            "booked_at",
            "superseded_at",
            "stamp",
            "created_at",
            "first_attempt_at",
            "last_attempt_at",
            "unknown_since",
            "answered_at",
            "confirmed_at",
            "held_at",
            "released_at",
            "accounted_at",
            "moment",
            "hour",
            "found_at",
        ),
        _TIME,
    ),
    **dict.fromkeys(
        (
            "tokens_in",
            "tokens_out",
            "tokens_total",
            "observations",
            "seq",
            "revision",
            "superseded_seq",
            "value",
            "events",
            "attempts",
            "close_seq",
        ),
        _COUNT,
    ),
    **dict.fromkeys(
        (
            "latency_seconds",
            "active_seconds",
            "credits_ai_tokens",
            "credits_compute",
            "credits_storage",
            "credits_total",
            "credits",
            "carried_before",
            "counted",
            "delivered",
        ),
        _CREDITS,
    ),
    **dict.fromkeys(("has_error", "billed_elsewhere", "is_reversal"), _YES_NO),
    "storage_gb": ("decimal(24, 12)", "DECIMAL(24,12)"),
    "cost_usd": ("decimal(18, 12)", "DECIMAL(18,12)"),
    "sync_status": _STATUS,
    "quarter_hour": ("int32", "INTEGER"),
    "credit_price_usd": ("decimal(18, 12)", "DECIMAL(18,12)"),
    "usage": (_USAGE_KIND, _USAGE_DUCKDB),
    "usage_lines": (_LINES_KIND, _LINES_DUCKDB),
}

_LEDGER_ONLY = (
    "quarter_hour",
    "meter_event_identifier",
    "synced_at",
    "marks",
    "seq",
    "revision",
    "booked_at",
    "run_id",
)
"""Added by the ledger: the quarter of an hour since 1970 the event began in (every timezone's days and hours
consist of whole ones), Stripe's identifier, its own flags (`marks`), booking number, revision, when, by which run."""


def _column(name: str) -> Column:
    kind, duckdb = _KINDS.get(name, _TEXT)
    return Column(name, kind, duckdb)


LEARNED = ("active_seconds", "usage_lines")
"""What rating by active time, by observation and by usage key needs. An event that is read again learns it, if it was
read before that was kept: without a revision, because nothing about the event changes."""

ADDED_LATER = tuple(
    _column(name) for name in ("has_error", "accounted_at", "billed_elsewhere", "named_customer_id", "policy", *LEARNED)
)
"""Columns of events that older ledgers get when they are opened (null there: not known), oldest first.

They stand last in both tables, where `ALTER TABLE` puts them: `SELECT *` means the same in every ledger.
`accounted_at` is when an event counts that came, or changed, after its month was closed (null: when it began);
`billed_elsewhere` says that an import brought it as billed already, by whatever did it; `policy` is the fingerprint of
the billing policy it was booked under (table `policies`), and `named_customer_id` whom its trace names, read with that
policy's metadata names."""

POLICY_COLUMNS = {"named_customer_id": pa.string(), "policy": pa.string(), "policy_differs": pa.bool_()}
"""What a pull says beside `EVENT_SCHEMA` of the events it books; null policy: leave what the ledger says."""

_FIRST_VERSION = tuple(
    _column(name)
    for name in (*EVENT_SCHEMA.names, *_LEDGER_ONLY)
    if name not in {column.name for column in ADDED_LATER}
)
_SUPERSEDED = tuple(_column(name) for name in ("superseded_seq", "superseded_at", "changed_columns"))

EVENT_COLUMNS = (*_FIRST_VERSION, *ADDED_LATER)
_WHEN_CLOSES_CAME = 3
"""How many of `ADDED_LATER` there were: what came after stands behind the close's own columns."""
CLOSED_COLUMNS = (
    *_FIRST_VERSION,
    *ADDED_LATER[:_WHEN_CLOSES_CAME],
    *(_column(name) for name in ("close_seq", "moment", "is_reversal")),
    *ADDED_LATER[_WHEN_CLOSES_CAME:],
)
"""Events as they were when their month was closed: by which close, when they count, whether they take one back."""
REVISION_COLUMNS = (*_FIRST_VERSION, *_SUPERSEDED, *ADDED_LATER)

SYNC_TABLES: dict[str, tuple[Column, ...]] = {
    name: tuple(_column(column) for column in columns)
    for name, columns in {
        "intents": (
            "identifier",
            "event_name",
            "customer_id",
            "source",
            "revision",
            "stamp",
            "credits",
            "carried_before",
            "value",
            "events",
            "state",
            "created_at",
            "attempts",
            "first_attempt_at",
            "last_attempt_at",
            "unknown_since",
            "answered_at",
            "answer",
            "code",
            "request_id",
            "confirmed_at",
            "push_id",
        ),
        "coverage": ("identifier", "event_id", "customer_id", "credits"),
        "holds": ("event_id", "cause", "reason", "actor", "held_at", "released_at", "released_by"),
        "sent_elsewhere": ("customer_id", "hour", "counted", "delivered", "found_at", "released_at", "released_by"),
    }.items()
}
"""What is on its way to Stripe: meter events written down before they are sent (`stamp` is their timestamp, `value`
whole credits, `credits` the exact sum they cover), which part of which event each covers, what is kept back, and what
Stripe `counted` in an hour that is not what was `delivered` from here, until somebody decided about it."""

LIVE = ("sending", "settled", "confirmed", "taking_back")
"""States of settlements that count: those of which Stripe has, or may have, the invoice item, and write-offs."""

IN_DOUBT = ("sending", "taking_back")
"""States of settlements whose invoice item may or may not be at Stripe."""

WRITE_OFF, INVOICE_ITEM = "write_off", "invoice_item"
"""Kinds of settlements."""

COMPARED = tuple(
    name
    for name in EVENT_SCHEMA.names
    if name not in {"id", "trace_base", "metadata", "problems", "sync_status", "sync_error", "updated_at"}
)
"""A re-read event is *changed* when one of these differs: facts, credits and flags, not wording or links."""

COMPARED_IF_KNOWN = frozenset({"has_error", *LEARNED})
"""Of these only a difference between two known values is a change: to learn what was not asked before changes nothing,
and an event that was sent must not look corrected because of it."""


@cache
def events_table() -> ir.Table:
    """The table of current usage events, as an unbound Ibis table."""
    return ibis.table({c.name: dt.dtype(c.kind) for c in EVENT_COLUMNS}, name="events")


@cache
def revisions_table() -> ir.Table:
    """The table of superseded states of events: never edited, never deleted."""
    return ibis.table({c.name: dt.dtype(c.kind) for c in REVISION_COLUMNS}, name="event_revisions")


@cache
def closed_events_table() -> ir.Table:
    """The table of frozen events of closed months, never edited; the table `closes` says which closes count."""
    return ibis.table({c.name: dt.dtype(c.kind) for c in CLOSED_COLUMNS}, name="closed_events")


def _sync_table(name: str) -> ir.Table:
    return ibis.table({c.name: dt.dtype(c.kind) for c in SYNC_TABLES[name]}, name=name)


@cache
def intents_table() -> ir.Table:
    """The table of intents: meter events as they were planned, and their outcome."""
    return _sync_table("intents")


@cache
def coverage_table() -> ir.Table:
    """The table of credits of an event inside an intent; several intents may cover one event (corrections)."""
    return _sync_table("coverage")


@cache
def holds_table() -> ir.Table:
    """The table of events held back by a rule or a person; a hold is active while `released_at` is null."""
    return _sync_table("holds")


_EXACT_USD = "decimal(38, 18)"


@cache
def settlement_parts_table() -> ir.Table:
    """The table of what each settlement settles of which event."""
    names = ("event_id", "customer_id", "credits", "stamp")
    kinds = {name: dt.dtype(_column(name).kind) for name in names}
    return ibis.table({"settlement_id": "string", **kinds, "amount_usd": _EXACT_USD}, name="settlement_events")


@cache
def settlements_table() -> ir.Table:
    """The table of settlements (the columns that planning and bookings need)."""
    texts = dict.fromkeys(("id", "kind", "state", "month", "currency"), "string")
    times = dict.fromkeys(("made_at", "taken_back_at"), "timestamp(6)")
    return ibis.table({**texts, **times, "amount_usd": _EXACT_USD, "amount": "int64"}, name="settlements")


def stored(events: pa.Table) -> pa.Table:
    """Rows of `EVENT_SCHEMA`, with `POLICY_COLUMNS` where given, in the ledger's own types, in time order."""
    columns = []
    for name in EVENT_SCHEMA.names:
        column = events[name]
        if name == "models":
            joined = pc.binary_join(column, MODEL_SEPARATOR)
            edge = pa.scalar(MODEL_SEPARATOR)
            wrapped = pc.binary_join_element_wise(edge, joined, edge, "")
            column = pc.if_else(pc.equal(joined, ""), "", wrapped)
        elif name in {"flags", "problems"}:
            column = pc.binary_join(column, FLAG_SEPARATOR if name == "flags" else "\n")
        elif pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.timestamp("us"))
        elif name == "observations":
            column = column.cast(pa.int64())
        columns.append(column)
    table = pa.Table.from_arrays(columns, names=EVENT_SCHEMA.names)
    seconds = table["timestamp"].cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    quarters = pc.cast(pc.floor(pc.divide(seconds.cast(pa.float64()), QUARTER_HOUR_SECONDS)), pa.int32())
    table = table.append_column("quarter_hour", quarters)
    for name, kind in POLICY_COLUMNS.items():
        column = events[name] if name in events.column_names else pa.nulls(table.num_rows, kind)
        table = table.append_column(name, column)
    return table.sort_by([("timestamp", "ascending"), ("id", "ascending")])


def without_offsets(rows: pa.Table) -> pa.Table:
    """The table with its times as they are stored: UTC, microseconds, without an offset."""
    plain = pa.timestamp("us")
    for position, field in enumerate(rows.schema):
        if pa.types.is_timestamp(field.type) and field.type != plain:
            column = rows.column(position).cast(pa.timestamp("us", tz=field.type.tz)).cast(plain)
            rows = rows.set_column(position, pa.field(field.name, plain), column)
    return rows


def times(values: Sequence[datetime | None]) -> pa.Array:
    """A column of aware times."""
    return pa.array(values, TIME)


def utc(time: datetime) -> datetime:
    """A stored time as what it is: aware UTC."""
    return time.replace(tzinfo=UTC)


def with_mark(marks: str, mark: str) -> str:
    """The marks of an event with one more."""
    return marks if mark in marks.split(FLAG_SEPARATOR) else FLAG_SEPARATOR.join(filter(None, [marks, mark]))


def without_mark(marks: str, mark: str) -> str:
    """The marks of an event without one."""
    return FLAG_SEPARATOR.join(m for m in marks.split(FLAG_SEPARATOR) if m and m != mark)
