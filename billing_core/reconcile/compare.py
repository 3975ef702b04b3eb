"""Compares the credits of Langfuse, ledger and Stripe and names the causes of differences. Pure: tables in, rows out.

Columnar: the rules run as SQL over Arrow in an in-memory DuckDB, Python only sees groups. All sums are exact
decimals. Every difference is an *entry* (customer, day, step, cause, credits, event or meter event) of exactly that
size, so that causes add up by construction; what no rule claims becomes a part without a cause, which is unexplained.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa

from billing_core.ledger.schema import without_offsets
from billing_core.reconcile import rules
from billing_core.reconcile.books import UPSTREAM, ComparisonInput
from billing_core.reconcile.hours import HourIntent, KeptBack, LegacyEvent, explain_hour
from billing_core.reconcile.report import Cause, ComparisonStep, CustomerDay, DifferencePart, Reconciliation, added
from billing_core.values.decimals import EXACT

LAG = timedelta(hours=1)
"""How long an accepted meter event may be missing from Stripe's summaries: no lag is published (Stripe notes, 4)."""

MEMORY_LIMIT = "2GB"

Key = tuple[str | None, date]
"""A row's place: customer and UTC day."""

Hour = tuple[str, datetime]
"""Customer and UTC hour, without an offset as the engine has it."""


def compare(books: ComparisonInput, *, now: datetime) -> Reconciliation:
    """One row per customer and UTC day with any credits, with the causes of every difference.

    now: When this comparison is made, aware UTC.
    """
    with _Comparison(books, now) as comparison:
        parts = comparison.parts()
        ledger_sums = comparison.sums()
        sent_by_hour = comparison.sent()
        stripe = _counted(books)
        if stripe is not None:
            _add_hours(comparison, parts, sent_by_hour, stripe, books.stripe_unknown)
    sent, counted = _by_day(sent_by_hour), _by_day(stripe or {})
    rows = []
    for customer, day in sorted(ledger_sums.keys() | parts.keys() | sent.keys() | counted.keys(), key=_in_order):
        key = (customer, day)
        langfuse, ledger = ledger_sums.get(key, (Decimal(0), Decimal(0)))
        is_known = stripe is not None and customer not in books.stripe_unknown
        row = CustomerDay(
            customer,
            day,
            None if books.upstream is None else langfuse,
            ledger,
            sent.get(key, Decimal(0)),
            counted.get(key, Decimal(0)) if is_known else None,
            tuple(parts.get(key, ())),
        )
        rows.append(replace(row, parts=tuple(sorted((*row.parts, *_leftovers(row)), key=lambda part: part.sort_key))))
    return Reconciliation(books.window, now.replace(microsecond=0), tuple(rows))


class _Comparison:
    """An in-memory engine with the books laid out; closed at the end, nothing stays."""

    def __init__(self, books: ComparisonInput, now: datetime) -> None:
        self._books = books
        read_at = books.stripe_read_at or now
        self._engine = duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "autoinstall_known_extensions": "false"})
        times = {"window_start": books.window.start, "window_end": books.window.end, "lag_since": read_at - LAG}
        for name, time in times.items():
            self._engine.execute(f"SET VARIABLE {name} = TIMESTAMP '{_naive(time).isoformat(sep=' ')}'")
        tables = {
            "upstream": UPSTREAM.empty_table() if books.upstream is None else books.upstream,
            "ledger": books.ledger.events,
            "coverage": books.ledger.coverage,
            "intents": books.ledger.intents,
            "holds": books.ledger.holds,
            "settled": books.ledger.settled,
        }
        for name, table in tables.items():
            self._engine.register(name, without_offsets(table))
        for view in rules.VIEWS:
            self._engine.execute(view)

    def __enter__(self) -> _Comparison:
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()

    def parts(self) -> defaultdict[Key, list[DifferencePart]]:
        """Between Langfuse and ledger, and between ledger and what was sent."""
        self._engine.execute(rules.ENTRIES)
        self._engine.execute(rules.COVERED)
        self._engine.execute(rules.SETTLED)
        if self._books.upstream is not None:
            self._engine.execute(rules.LANGFUSE_LEDGER)
        self._engine.execute(rules.LEDGER_SENT)
        found: defaultdict[Key, list[DifferencePart]] = defaultdict(list)
        for customer, day, step, cause, amount, event_ids, meter_events in self._engine.execute(rules.PARTS).fetchall():
            cause = None if cause is None else Cause(cause)
            found[customer, day].append(
                DifferencePart(ComparisonStep(step), cause, amount, tuple(event_ids), tuple(meter_events))
            )
        return found

    def sums(self) -> dict[Key, tuple[Decimal, Decimal]]:
        """Credits in Langfuse and in the ledger."""
        rows = self._engine.execute(rules.SUMS).fetchall()
        return {(customer, day): (langfuse, ledger) for customer, day, langfuse, ledger in rows}

    def sent(self) -> dict[Hour, Decimal]:
        """Whole credits sent per customer and hour."""
        return {(customer, hour): value for customer, hour, value in self._engine.execute(rules.SENT).fetchall()}

    def hours(self, wanted: list[Hour]) -> Iterator[tuple[Hour, list[HourIntent], list[LegacyEvent], list[KeptBack]]]:
        """What may explain a difference, for each of these hours."""
        columns: dict[str, Any] = {
            "customer": pa.array([customer for customer, _ in wanted], pa.string()),
            "hour": pa.array([hour for _, hour in wanted], pa.timestamp("us")),
        }
        self._engine.register("differing", pa.table(columns))
        intents: defaultdict[Hour, list[HourIntent]] = defaultdict(list)
        for customer, hour, identifier, value, unknown, recent, ids in self._engine.execute(
            rules.HOUR_INTENTS
        ).fetchall():
            intents[customer, hour].append(HourIntent(identifier, value, unknown, recent, tuple(ids or ())))
        legacy: defaultdict[Hour, list[LegacyEvent]] = defaultdict(list)
        for customer, hour, event_id, amount in self._engine.execute(rules.HOUR_LEGACY).fetchall():
            legacy[customer, hour].append(LegacyEvent(event_id, amount))
        kept_back: defaultdict[Hour, list[KeptBack]] = defaultdict(list)
        for customer, hour, event_id, amount in self._engine.execute(rules.HOUR_KEPT_BACK).fetchall():
            kept_back[customer, hour].append(KeptBack(event_id, amount))
        for key in wanted:
            yield key, intents[key], legacy[key], kept_back[key]


def _leftovers(row: CustomerDay) -> Iterator[DifferencePart]:
    """What the parts of a step leave over of its difference: books that contradict each other in a way no rule sees."""
    books = (row.langfuse_credits, row.ledger_credits, row.sent_credits, row.stripe_credits)
    for step, earlier, later in zip(ComparisonStep, books, books[1:], strict=False):
        if earlier is not None and later is not None:
            claimed = added(part.credits for part in row.parts if part.step is step)
            if rest := EXACT.subtract(EXACT.subtract(earlier, later), claimed):
                yield DifferencePart(step, None, rest)


def _counted(books: ComparisonInput) -> dict[Hour, Decimal] | None:
    """What Stripe counts inside the window, hours as they are in the engine: UTC without an offset."""
    if books.stripe is None:
        return None
    window = books.window
    return {
        (customer, _naive(hour)): amount
        for (customer, hour), amount in books.stripe.items()
        if window.start <= hour < window.end and amount
    }


def _add_hours(
    comparison: _Comparison,
    parts: defaultdict[Key, list[DifferencePart]],
    sent: dict[Hour, Decimal],
    counted: dict[Hour, Decimal],
    unknown: frozenset[str],
) -> None:
    """Add what lies between sent and counted; the parts of a day's hours with one cause and sign become one."""
    nothing = Decimal(0)
    differences = {
        key: difference
        for key in sorted(sent.keys() | counted.keys())
        if key[0] not in unknown and (difference := EXACT.subtract(sent.get(key, nothing), counted.get(key, nothing)))
    }
    merged: dict[tuple[Key, Cause | None, bool], DifferencePart] = {}
    for (customer, hour), intents, legacy, kept_back in comparison.hours(list(differences)):
        for part in explain_hour(differences[customer, hour], intents, legacy, kept_back):
            key = ((customer, hour.date()), part.cause, part.credits < 0)
            merged[key] = _merged(merged[key], part) if key in merged else part
    for (row, _, _), part in merged.items():
        parts[row].append(part)


def _merged(one: DifferencePart, other: DifferencePart) -> DifferencePart:
    return DifferencePart(
        one.step,
        one.cause,
        EXACT.add(one.credits, other.credits),
        tuple(sorted({*one.event_ids, *other.event_ids})),
        tuple(sorted({*one.meter_events, *other.meter_events})),
    )


def _by_day(hours: dict[Hour, Decimal]) -> dict[Key, Decimal]:
    days: dict[Key, Decimal] = {}
    for (customer, hour), amount in hours.items():
        key = (customer, hour.date())
        days[key] = EXACT.add(days.get(key, Decimal(0)), amount)
    return days


def _in_order(key: Key) -> tuple[bool, str, date]:
    customer, day = key
    return customer is None, customer or "", day


def _naive(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(tzinfo=None)
