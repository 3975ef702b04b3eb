"""The rows of a usage export: one per event, per day, as FOCUS or as an accounting journal.

Whatever the form, its totals are added up from the rows that are written and held against the screen's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc

from billing_core.errors import WarehouseError
from billing_core.exports.bookkeeping import (
    Bookings,
    InvoicedItem,
    WriteOff,
    invoiced_in,
    month_bookings,
    together,
    written_off_in,
)
from billing_core.exports.bookkeeping_files import ROWS, BookkeepingSettings, csv_text, datev_bytes, datev_header
from billing_core.exports.day_grain import DAY_SCHEMA, days, month_windows, named_month
from billing_core.exports.event_slices import (
    SLICE_ROWS,
    TimeSpan,
    in_order,
    pinned,
    read_at,
    sorted_slice,
    spans_of,
    unordered,
    within,
)
from billing_core.exports.flat_schema import AMOUNT, EXTRA_SCHEMA, FLAT_SCHEMA, field, flat_table, with_extras
from billing_core.exports.focus import focus_table
from billing_core.exports.focus_schema import FocusProfile, focus_schema, focus_text
from billing_core.exports.journal import JOURNAL_COLUMNS, journal_rows
from billing_core.exports.model import Format
from billing_core.exports.prefetch import ahead
from billing_core.exports.running_totals import RunningTotals, Value, compare, totals_of
from billing_core.exports.source import RowSource
from billing_core.ledger import export_queries
from billing_core.ledger.closes import CloseStore
from billing_core.ledger.journal import Ledger
from billing_core.ledger.queries import PAGE_COLUMNS, Selection, totals
from billing_core.usage_events.totals import add_up
from billing_core.values.decimals import EXACT, exact_sum
from billing_core.values.journal_accounts import JournalAccounts

T = TypeVar("T")

FOCUS_SLICE_ROWS = 50_000
"""Events that become FOCUS rows at a time: up to three of them each, with sixty columns."""

FOCUS_COLUMNS = (*PAGE_COLUMNS, "accounted_at")

JOURNAL_SCHEMA = pa.schema(
    [field(name, AMOUNT if name in {"debit", "credit"} else pa.string()) for name in JOURNAL_COLUMNS]
)


@dataclass(frozen=True, slots=True)
class RequestedUsage:
    """The usage events of an export request, fixed to one state of the ledger, and the screen's totals of them.

    `events` counts them, `shown` are their totals, `charged` counts the parts (AI tokens, compute, storage) of theirs
    that are not 0 credits.
    """

    ledger: Ledger
    selection: Selection
    zone: ZoneInfo
    events: int
    charged: int
    shown: Mapping[str, Value]
    versions: tuple[str, ...]
    meta: Mapping[str, Any]

    @classmethod
    def of(cls, ledger: Ledger, selection: Selection, zone: ZoneInfo, meta: Mapping[str, Any]) -> RequestedUsage:
        """The events of a request, fixed to the ledger as it is now, whatever is booked meanwhile."""
        selection = pinned(selection)
        sums = add_up(ledger.read_rows(totals(selection)))
        rows = ledger.read_rows(export_queries.charged_parts(selection))
        versions = tuple(sorted(row["rate_card_version"] for row in rows))
        return cls(
            ledger,
            selection,
            zone,
            sums.events,
            sum(int(row["charged"]) for row in rows),
            totals_of(sums.totals),
            versions,
            {**meta, "rate_card_versions": list(versions)},
        )

    def spans(self, most: int = SLICE_ROWS) -> list[TimeSpan]:
        """The spans of time that the events are read in, each of at most `most` rows."""
        return spans_of(self.ledger, self.selection, most)

    def check(self, running: RunningTotals, events: int) -> None:
        """Check that what was written adds up to what the screen shows; raises `WarehouseError`."""
        compare(running.sums, self.shown, events, self.events)
        if running.versions != set(self.versions):
            raise WarehouseError("export: rows name other rate cards than the ledger said; nothing was written")


def by_event(usage: RequestedUsage, *, extras: bool = False) -> RowSource:
    """The rows of a usage export in the order in which events count; `extras`: what an import needs too."""
    schema = pa.schema([*FLAT_SCHEMA, *EXTRA_SCHEMA]) if extras else FLAT_SCHEMA

    def made_of(stored: pa.Table) -> pa.Table:
        flat = flat_table(stored)
        return with_extras(flat, stored, with_costs=usage.selection.scope.sees_costs) if extras else flat

    def tables() -> Iterator[pa.Table]:
        running = RunningTotals()
        columns = (*PAGE_COLUMNS, *(EXTRA_SCHEMA.names if extras else ()))
        for table in _slices(usage, usage.spans(), columns, made_of):
            running.add(table)
            yield table
        usage.check(running, running.rows)

    def head(rows: int) -> pa.Table:
        return flat_table(_first(usage, rows, PAGE_COLUMNS))

    return RowSource(schema, usage.events, usage.shown, usage.meta, tables, head=None if extras else head)


def _first(usage: RequestedUsage, rows: int, columns: Sequence[str]) -> pa.Table:
    return usage.ledger.engine.read(in_order(usage.selection, columns, rows))


def _slices(
    usage: RequestedUsage, spans: Sequence[TimeSpan], columns: Sequence[str], make: Callable[[pa.Table], T]
) -> Iterator[T]:
    """What `make` makes of the stored rows of each slice, in order."""
    names = tuple(dict.fromkeys(columns))

    def read(span: TimeSpan) -> Callable[[], T]:
        part = within(usage.selection, span)
        question = lambda asked: unordered(asked, names)  # noqa: E731
        return lambda: make(sorted_slice(read_at(usage.ledger, part, question), part))

    return ahead([read(span) for span in spans])


def by_day(usage: RequestedUsage) -> RowSource:
    """The rows of a usage export by day: one per day of the timezone and combination of attributes."""
    reads = days(usage.ledger, usage.selection, usage.zone, usage.spans())
    counted = sum(read.rows() for read in reads)

    def tables() -> Iterator[pa.Table]:
        running, events = RunningTotals(), 0
        for table in ahead([read.table for read in reads]):
            running.add(table)
            events += pc.sum(table["events"]).as_py() or 0
            yield table
        usage.check(running, events)

    return RowSource(DAY_SCHEMA, counted, usage.shown, usage.meta, tables)


def focus(usage: RequestedUsage, profile: FocusProfile) -> RowSource:
    """The rows of a FOCUS export: one per event and kind of resource that cost credits."""

    def tables() -> Iterator[pa.Table]:
        running, written = RunningTotals(), Decimal(0)
        spans = usage.spans(FOCUS_SLICE_ROWS)
        made_of = lambda stored: (flat_table(stored), focus_table(_when_counted(stored), profile))  # noqa: E731
        for flat, made in _slices(usage, spans, FOCUS_COLUMNS, made_of):
            running.add(flat)
            written = EXACT.add(written, pc.sum(made["BilledCost"]).as_py() or Decimal(0))
            yield made
        usage.check(running, running.rows)
        compare({"amount_usd": written}, {"amount_usd": usage.shown["amount_usd"]}, running.rows, usage.events)

    def head(rows: int) -> pa.Table:
        return focus_table(_when_counted(_first(usage, rows, FOCUS_COLUMNS)), profile)

    return RowSource(focus_schema(profile), usage.charged, usage.shown, usage.meta, tables, focus_text, head)


def _when_counted(stored: pa.Table) -> pa.Table:
    """Events of a closed month count when the close said so: `accounted_at` only where that is not when they began."""
    counted = pc.if_else(pc.equal(stored["moment"], stored["timestamp"]), None, stored["moment"])
    position = stored.column_names.index("accounted_at")
    return stored.set_column(position, "accounted_at", counted.cast(stored.schema.field("accounted_at").type))


def journal(usage: RequestedUsage, accounts: JournalAccounts) -> RowSource:
    """The rows of an accounting journal: per month and organization what is owed, and what earned it."""
    lines = [line for start, end in _months(usage) for line in _lines(usage, start, end, accounts)]
    columns = [pa.array([getattr(line, one.name) for line in lines], one.type) for one in JOURNAL_SCHEMA]
    table = pa.Table.from_arrays(columns, schema=JOURNAL_SCHEMA)
    owed = Decimal(0)
    for line in lines:
        if line.account == accounts.receivable:
            owed = EXACT.subtract(EXACT.add(owed, line.debit or Decimal(0)), line.credit or Decimal(0))

    def tables() -> Iterator[pa.Table]:
        compare({"amount_usd": owed}, {"amount_usd": usage.shown["amount_usd"]}, usage.events, usage.events)
        yield table

    return RowSource(JOURNAL_SCHEMA, table.num_rows, usage.shown, usage.meta, tables)


def bookkeeping(usage: RequestedUsage, form: Format, settings: BookkeepingSettings) -> RowSource:
    """The rows of a file for bookkeeping software: per month what each customer owes, and what earned it, in cents."""
    booked = _booked(usage)
    names, rows_of = ROWS[form]
    rows = list(rows_of(booked, settings))
    schema = pa.schema([field(name, pa.string()) for name in names])
    table = pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=schema)
    totals: dict[str, Value] = {
        "debit_usd": booked.debits,
        "credit_usd": EXACT.subtract(booked.debits, exact_sum(one.amount for one in booked.postings)),
        "receivable_usd": booked.on("receivable"),
        "rounding_usd": booked.on("rounding"),
        "written_off_usd": booked.on("write_off"),
        "without_customer_usd": booked.without_customer,
        "amount_usd": usage.shown["amount_usd"],
    }

    def tables() -> Iterator[pa.Table]:
        made = {"amount_usd": EXACT.add(booked.exact, booked.without_customer)}
        compare(made, {"amount_usd": usage.shown["amount_usd"]}, usage.events, usage.events)
        yield table

    def file() -> bytes:
        if form is not Format.DATEV:
            return csv_text(names, rows)
        return datev_bytes(datev_header(booked.postings, settings.datev, "Usage"), rows)

    return RowSource(schema, len(rows), totals, usage.meta, tables, file=file)


def _booked(usage: RequestedUsage) -> Bookings:
    """The bookings of each month of the request, as one."""
    closed_at = {close.period: close.closed_at for close in CloseStore(usage.ledger.engine).counting()}
    everywhere = _write_offs(usage, replace(usage.selection, start=None, end=None))

    def month(start: datetime, end: datetime) -> Bookings:
        part = _within_window(usage, start, end)
        first, after = part.start or start, part.end or end
        written_off = written_off_in(first, after, _write_offs(usage, part), everywhere, closed_at)
        items = [InvoicedItem(**row) for row in usage.ledger.read_rows(export_queries.invoice_items(part))]
        return month_bookings(
            named_month(usage.zone, start),
            (after - timedelta(microseconds=1)).astimezone(usage.zone).date(),
            usage.ledger.read_rows(export_queries.credits_by_customer(part)),
            written_off,
            invoiced_in(items, closed_at),
        )

    return together([month(start, end) for start, end in _months(usage)])


def _write_offs(usage: RequestedUsage, selection: Selection) -> list[WriteOff]:
    rows = usage.ledger.read_rows(export_queries.write_offs(selection))
    return [WriteOff(**row) for row in rows if row["customer_id"]]


def _months(usage: RequestedUsage) -> list[tuple[datetime, datetime]]:
    spans = usage.spans()
    return month_windows(usage.zone, spans[0].start, spans[-1].end) if spans else []


def _within_window(usage: RequestedUsage, start: datetime, end: datetime) -> Selection:
    """The part of a selection that is in `[start, end)`, too."""
    whole = usage.selection
    return replace(
        whole,
        start=start if whole.start is None else max(start, whole.start.astimezone(UTC)),
        end=end if whole.end is None else min(end, whole.end.astimezone(UTC)),
    )


def _lines(usage: RequestedUsage, start: datetime, end: datetime, accounts: JournalAccounts) -> list[Any]:
    sums = usage.ledger.read_rows(export_queries.credits_by_price(_within_window(usage, start, end)))
    return journal_rows(sums, accounts, named_month(usage.zone, start))
