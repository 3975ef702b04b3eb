"""Every question about usage events that the ledger answers, for a `Selection`. Pure: nothing here runs anything.

All of them start from `selected`, which needs what `choose` makes of a `Selection`, and that has a `Scope`: a query
that forgets who is asking cannot be written. The functions with an underscore build expressions, once per shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from zoneinfo import ZoneInfo

import ibis
import ibis.expr.types as ir
import pyarrow as pa

from billing_core.access import Scope
from billing_core.ledger.compiled import (
    Bound,
    Listed,
    Question,
    among,
    ask,
    bound_decimal,
    bound_list,
    bound_number,
    bound_text,
    bound_time,
)
from billing_core.ledger.schema import (
    EVENT_COLUMNS,
    FLAG_SEPARATOR,
    MODEL_SEPARATOR,
    QUARTER_HOUR_SECONDS,
    closed_events_table,
    events_table,
    revisions_table,
)
from billing_core.ledger.stages import held_ids, ids_by_cause, ids_in_stages
from billing_core.types import Flag

QUARTERS_PER_DAY = 24 * 4
THURSDAY = 3
"""Weekday of 1970-01-01, Monday being 0."""

PART_COLUMNS = ("credits_ai_tokens", "credits_compute", "credits_storage")

AMOUNT_PLACES = 18
WIDE = Context(prec=60)

LATE = Flag.LATE_AFTER_CLOSE.value


@dataclass(frozen=True, slots=True)
class ClosedSpan:
    """A closed month: the booking number of its close, its aware UTC window `[start, end)`, and its name."""

    seq: int
    start: datetime
    end: datetime
    period: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The ledger as it was after booking number `as_of`; `latest` is the newest booking there is.

    `closed` are the months that were closed then: their events are the frozen ones, and what came later counts in
    the open month. Without any, events are what is known of them, each in its own time. `has_late` is false where
    nothing came late: questions are simpler then.
    """

    as_of: int
    latest: int
    closed: tuple[ClosedSpan, ...] = ()
    has_late: bool = True


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events are asked for, and for whom: a scope, a state of the ledger and filters (ANDed; values of one are
    ORed).

    `start` and `end` are aware and half open; amounts are US dollars, inclusive. `without` names stored text columns
    that are all null or empty. `causes`, `held` and `stages` are about how events stand with Stripe now, also
    in an older state of the ledger. `charged` names columns of credits of which one at least is not 0.
    """

    scope: Scope
    snapshot: Snapshot
    start: datetime | None = None
    end: datetime | None = None
    any_of: tuple[tuple[str, tuple[str, ...]], ...] = field(default=())
    models: tuple[str, ...] = ()
    amount_min: Decimal | None = None
    amount_max: Decimal | None = None
    search: str | None = None
    without: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    held: bool | None = None
    stages: tuple[str, ...] = ()
    charged: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Span:
    """The window of a closed month, half open."""

    start: Bound
    end: Bound


@dataclass(frozen=True, slots=True)
class Chosen:
    """A `Selection` with its values bound, as questions are compiled from it.

    as_of: The booking number after which the events are looked at; `None` is now.
    met, met_seqs: Closed months that the window touches; whose events count as frozen.
    closed, closed_seqs: All closed months, where anything came late; else there is no need to know.
    has_closed, is_frozen, has_late: Whether any month is closed; whether the whole window is inside one; whether
        anything came late.
    """

    organizations: Listed | None
    as_of: Bound | None
    start: Bound | None
    end: Bound | None
    any_of: tuple[tuple[str, Listed], ...]
    models: tuple[Bound, ...]
    amount_min: Bound | None
    amount_max: Bound | None
    search: Bound | None
    without: tuple[str, ...]
    causes: Listed | None
    held: bool | None
    stages: Listed | None
    charged: tuple[str, ...]
    met: tuple[_Span, ...]
    met_seqs: Listed
    closed: tuple[_Span, ...]
    closed_seqs: Listed
    has_closed: bool
    is_frozen: bool
    has_late: bool


def choose(selection: Selection) -> Chosen:
    """A selection with its values bound, for questions to be compiled from."""
    snapshot, start, end = selection.snapshot, selection.start, selection.end
    met = [one for one in snapshot.closed if (end is None or one.start < end) and (start is None or start < one.end)]
    is_frozen = start is not None and end is not None and any(one.start <= start and end <= one.end for one in met)
    has_late = bool(snapshot.closed) and snapshot.has_late and not is_frozen
    closed = snapshot.closed if has_late else ()
    return Chosen(
        organizations=None if selection.scope.organizations is None else bound_list(selection.scope.organizations),
        as_of=None if snapshot.as_of >= snapshot.latest else bound_number(snapshot.as_of),
        start=None if start is None else bound_time(start),
        end=None if end is None else bound_time(end),
        any_of=tuple((column, bound_list(values)) for column, values in selection.any_of),
        models=tuple(bound_text(f"{MODEL_SEPARATOR}{name}{MODEL_SEPARATOR}") for name in selection.models),
        amount_min=None if selection.amount_min is None else _amount(selection.amount_min, ROUND_CEILING),
        amount_max=None if selection.amount_max is None else _amount(selection.amount_max, ROUND_FLOOR),
        search=bound_text(selection.search.strip().lower()) if selection.search else None,
        without=selection.without,
        causes=bound_list(selection.causes) if selection.causes else None,
        held=selection.held,
        stages=bound_list(selection.stages) if selection.stages else None,
        charged=selection.charged,
        met=tuple(map(_span, met)),
        met_seqs=_seqs(met),
        closed=tuple(map(_span, closed)),
        closed_seqs=_seqs(closed),
        has_closed=bool(snapshot.closed),
        is_frozen=is_frozen,
        has_late=has_late,
    )


def _amount(limit: Decimal, rounding: str) -> Bound:
    """An inclusive limit that compares with amounts as `limit` does, and has no more digits than an engine takes.

    Amounts have as many decimals, and digits before them, as `AMOUNT_PLACES`.
    """
    largest = Decimal(10) ** AMOUNT_PLACES
    nearest = max(-largest, min(limit, largest)).quantize(Decimal(1).scaleb(-AMOUNT_PLACES), rounding, WIDE)
    return bound_decimal(nearest, AMOUNT_PLACES)


def _span(closed: ClosedSpan) -> _Span:
    return _Span(bound_time(closed.start), bound_time(closed.end))


def _seqs(closed: Sequence[ClosedSpan]) -> tuple[Bound, ...]:
    return tuple(bound_number(span.seq) for span in closed)


def _at(as_of: Bound | None) -> ir.Table:
    """The events as they stood at a booking: current ones of that age, and states superseded since."""
    events = events_table()
    if as_of is None:
        return events
    then = events.filter(events.seq <= as_of.scalar)
    old = revisions_table()
    superseded = old.filter((old.seq <= as_of.scalar) & (old.superseded_seq > as_of.scalar))
    return then.union(superseded.select(*events.columns))


def selected(chosen: Chosen) -> ir.Table:
    """The events of a selection, all stored columns. The principal's scope is always part of it.

    The window is about when events count: when they began, or for what came after its month was closed, when that
    was booked. Their `quarter_hour` is of the same moment, so that days add up to the window.
    """
    return _together(_parts(chosen))


def _parts(chosen: Chosen) -> list[ir.Table]:
    parts = [_filtered(book.events, book.moment, chosen) for book in _books(chosen)]
    return [part.select(*_columns(part, chosen)) for part in parts]


def _columns(t: ir.Table, chosen: Chosen) -> list[ir.Column]:
    """Every stored column; what events cost us is unknown to those who are limited to organizations."""
    hidden = () if chosen.organizations is None else ("cost_usd",)
    names = [column.name for column in EVENT_COLUMNS]
    return [ibis.null(t[name].type()).name(name) if name in hidden else t[name] for name in names]


def _together(parts: Sequence[ir.Table]) -> ir.Table:
    return parts[0] if len(parts) == 1 else ibis.union(*parts, distinct=False)


def to_freeze(selection: Selection, close_seq: int) -> Question:
    """A question: the events of a selection as the close with this number stores them."""
    return ask(_to_freeze, choose(selection), bound_number(close_seq))


def _to_freeze(chosen: Chosen, close_seq: Bound) -> ir.Table:
    return with_moment(chosen).mutate(close_seq=close_seq.scalar)


def with_moment(chosen: Chosen) -> ir.Table:
    """The events of a selection with the time (`bound_time`) each row counts at, and whether it reverses one."""
    parts = []
    for book in _books(chosen):
        t = _filtered(book.events, book.moment, chosen)
        further = {"moment": t[book.moment], "is_reversal": ibis.literal(book.is_reversal)}
        parts.append(t.select(*_columns(t, chosen), **further))
    return _together(parts)


@dataclass(frozen=True, slots=True)
class _Book:
    """A kind of events, and the column that says when they count."""

    events: ir.Table
    moment: str
    is_reversal: bool = False


def _books(chosen: Chosen) -> list[_Book]:
    """Where the events of a window are: without closed months all of them are in one place, as they are inside one.

    What cannot be in the window is left out, because an engine takes its time to plan it.
    """
    events, met = _at(chosen.as_of), chosen.met
    if not chosen.has_closed:
        return [_Book(events, "timestamp")]
    frozen = [_Book(_frozen(chosen.met_seqs), "moment")] if met else []
    if chosen.is_frozen:
        return frozen
    outside = events.filter(~_inside(events.timestamp, met)) if met else events
    if not chosen.has_late:
        return [_Book(outside, "timestamp"), *frozen]
    late = _late(events, chosen.closed)
    return [
        _Book(outside.filter(outside.accounted_at.isnull()), "timestamp"),
        *frozen,
        _Book(late, "accounted_at"),
        _Book(_taken_back(late, chosen.closed_seqs), "accounted_at", is_reversal=True),
    ]


def _inside(moment: ir.TimestampColumn, closed: Sequence[_Span]) -> ir.BooleanValue:
    return ibis.or_(*((moment >= span.start.scalar) & (moment < span.end.scalar) for span in closed))


def _frozen(close_seqs: Listed) -> ir.Table:
    t = closed_events_table()
    return t.filter(among(t.close_seq, close_seqs))


def _late(events: ir.Table, closed: Sequence[_Span]) -> ir.Table:
    """Events that came, or changed, after their month was closed, as they are now."""
    t = events.filter(events.accounted_at.notnull(), ~_inside(events.accounted_at, closed))
    return t.mutate(marks=_with_late_flag(t.marks), quarter_hour=_quarter_hour(t.accounted_at))


TAKEN_BACK = (
    "tokens_in",
    "tokens_out",
    "tokens_total",
    "storage_gb",
    "cost_usd",
    "credits_ai_tokens",
    "credits_compute",
    "credits_storage",
    "credits_total",
)
"""What a reversal has with the opposite sign. It lasted no time: a latency is never negative."""


def _taken_back(late: ir.Table, close_seqs: Listed) -> ir.Table:
    """What closed months already say of `late` events, with the opposite sign: both together are the difference.

    The newest frozen state counts; each came with its own reversal of the one before.
    """
    t = _frozen(close_seqs)
    t = t.filter(~t.is_reversal)
    newest = t.mutate(place=ibis.row_number().over(group_by=t.id, order_by=t.close_seq.desc()))
    newest = newest.filter(newest.place == 0)
    now = late.select(
        late_id="id",
        late_at="accounted_at",
        late_seq="seq",
        late_quarter="quarter_hour",
        late_status="sync_status",
        late_error="sync_error",
        late_identifier="meter_event_identifier",
        late_synced_at="synced_at",
        late_organization="organization_id",
    )
    back = newest.inner_join(now, newest.id == now.late_id)
    # Who may see the former organization only must not read how the event fares in its new one.
    same = back.organization_id.identical_to(back.late_organization)
    return back.mutate(
        accounted_at=back.late_at,
        seq=back.late_seq,
        quarter_hour=back.late_quarter,
        sync_status=ibis.ifelse(same, back.late_status, back.sync_status),
        sync_error=ibis.ifelse(same, back.late_error, back.sync_error),
        meter_event_identifier=ibis.ifelse(same, back.late_identifier, back.meter_event_identifier),
        synced_at=ibis.ifelse(same, back.late_synced_at, back.synced_at),
        latency_seconds=ibis.literal(0).cast("decimal(18, 6)"),
        marks=_with_late_flag(back.marks),
        **{name: (-back[name]).cast(back[name].type()) for name in TAKEN_BACK},
    )


def _with_late_flag(marks: ir.StringColumn) -> ir.StringValue:
    flag = ibis.literal(LATE)
    joined = ibis.ifelse(marks.fill_null("") == "", flag, marks + FLAG_SEPARATOR + flag)
    return ibis.ifelse(marks.fill_null("").contains(LATE), marks, joined)


def _quarter_hour(moment: ir.TimestampColumn) -> ir.IntegerValue:
    return (moment.epoch_seconds() // QUARTER_HOUR_SECONDS).cast("int32")


def _filtered(t: ir.Table, moment: str, chosen: Chosen) -> ir.Table:
    conditions: list[ir.BooleanValue] = []
    if chosen.organizations is not None:
        conditions.append(_within(t, chosen.organizations))
    if chosen.start is not None:
        conditions.append(t[moment] >= chosen.start.scalar)
    if chosen.end is not None:
        conditions.append(t[moment] < chosen.end.scalar)
    conditions += [among(t[column], values) for column, values in chosen.any_of]
    if chosen.models:
        conditions.append(ibis.or_(*(t.models.contains(name.scalar) for name in chosen.models)))
    if chosen.amount_min is not None:
        conditions.append(amount(t) >= chosen.amount_min.scalar)
    if chosen.amount_max is not None:
        conditions.append(amount(t) <= chosen.amount_max.scalar)
    if chosen.search is not None:
        conditions.append(_mentions(t, chosen.search))
    conditions += [t[column].fill_null("") == "" for column in chosen.without]
    if chosen.causes is not None:
        conditions.append(t.id.isin(ids_by_cause(chosen.causes)))
    if chosen.held is not None:
        conditions.append(t.id.isin(held_ids()) if chosen.held else ~t.id.isin(held_ids()))
    if chosen.stages is not None:
        conditions.append(t.id.isin(ids_in_stages(chosen.stages)))
    if chosen.charged:
        conditions.append(ibis.or_(*(t[column] != 0 for column in chosen.charged)))
    return t.filter(*conditions) if conditions else t


def _within(t: ir.Table, organizations: Listed) -> ir.BooleanValue:
    """Only these organizations: an event without one is nobody's, and an empty scope sees nothing."""
    return among(t.organization_id, organizations)


SEARCHED = ("id", "user_id", "session_id", "organization_id", "customer_id", "chatflow_id", "chatflow_name", "models")


def _mentions(t: ir.Table, needle: Bound) -> ir.BooleanValue:
    """Case-blind containment of lower-case text; `%` and `_` are ordinary characters: nothing here is a pattern."""
    return ibis.or_(*(t[name].fill_null("").lower().contains(needle.scalar) for name in SEARCHED))


def amount(t: ir.Table) -> ir.DecimalColumn:
    """The amount of each row in US dollars, exact: credits × the credit price of the card the event was rated with."""
    return t.credits_total * t.credit_price_usd


def _sort_keys(t: ir.Table, sort: str) -> list[ir.Column]:
    """Stored columns that order rows as the published field does."""
    match sort:
        case "amount_usd":
            return [amount(t)]
        case "trace_url":
            return [t.trace_base, t.id]
        case "flags":
            return [t.flags, t.marks]
        case _:
            return [t[sort]]


PAGE_COLUMNS = (
    "id",
    "timestamp",
    "ended_at",
    "organization_id",
    "customer_id",
    "user_id",
    "session_id",
    "chatflow_id",
    "chatflow_name",
    "environment",
    "models",
    "tokens_in",
    "tokens_out",
    "tokens_total",
    "latency_seconds",
    "storage_gb",
    "cost_usd",
    "ai_credentials_ownership",
    "credits_ai_tokens",
    "credits_compute",
    "credits_storage",
    "credits_total",
    "credit_price_usd",
    "rate_card_version",
    "sync_status",
    "sync_error",
    "meter_event_identifier",
    "synced_at",
    "trace_base",
    "flags",
    "marks",
)
"""Stored columns that a published event is made of."""


STATE_ORDER = ("accounted_at", "credits_total", "latency_seconds", "tokens_total", "cost_usd", "marks", "flags")
"""Columns by which the states of one event stand on a page, in this order: a reversal is before what replaces it."""


def page(selection: Selection, *, sort: str, descending: bool, limit: int, offset: int) -> Question:
    """A question: one page of events in a total order: the sort column, unknown values last, then the id."""
    rows, skipped, until = bound_number(limit), bound_number(offset), bound_number(limit + offset)
    return ask(_page, choose(selection), sort, descending, rows, skipped, until)


def _page(chosen: Chosen, sort: str, descending: bool, limit: Bound, offset: Bound, until: Bound) -> ir.Table:
    """With closed months every part gives its first rows only: an engine finds those without reading it whole."""

    def ordered(t: ir.Table) -> ir.Table:
        fields = _sort_keys(t, sort)
        keys = [field.desc(nulls_first=False) if descending else field.asc(nulls_first=False) for field in fields]
        further = [t.id]
        if chosen.has_closed:  # an event, its correction and what the correction takes back may all be there
            further += [t[name] for name in STATE_ORDER]
        keys += [one.asc(nulls_first=True) for one in further if not any(one.equals(field) for field in fields)]
        return t.order_by(*keys)

    parts = _parts(chosen)
    if len(parts) > 1:
        parts = [ordered(part).limit(until.rows) for part in parts]
    return ordered(_together(parts)).limit(limit.rows, offset=offset.rows).select(*PAGE_COLUMNS)


def in_time_order(selection: Selection, *, limit: int, offset: int) -> Question:
    """A question: some events of a selection with every stored column, oldest first."""
    return ask(_in_time_order, choose(selection), bound_number(limit), bound_number(offset))


def _in_time_order(chosen: Chosen, limit: Bound, offset: Bound) -> ir.Table:
    return selected(chosen).order_by("timestamp", "id").limit(limit.rows, offset=offset.rows)


SUMMED = (*PART_COLUMNS, "cost_usd", "tokens_in", "tokens_out", "tokens_total")


def _sums(t: ir.Table, *keys: str) -> ir.Table:
    """Plain sums per `keys`, sync status and credit price.

    Amounts (credits × price) and unsynced credits follow exactly from these few rows
    (`usage_events.totals`); computed over the events themselves they would cost the engine three times as long.
    """
    return t.group_by(*keys, "sync_status", "credit_price_usd").aggregate(
        events=t.count(), **{name: t[name].sum() for name in SUMMED}
    )


def totals(selection: Selection) -> Question:
    """A question: sums over the whole selection, per sync status and credit price."""
    return ask(_totals, choose(selection))


def _totals(chosen: Chosen) -> ir.Table:
    return _sums(selected(chosen))


def extent(selection: Selection) -> Question:
    """A question: first and last time of a selection's events (when they began, or count)."""
    return ask(_extent, choose(selection))


def _extent(chosen: Chosen) -> ir.Table:
    t = selected(chosen)
    return t.aggregate(
        first=t.timestamp.min(), last=ibis.greatest(t.timestamp, t.accounted_at.fill_null(t.timestamp)).max()
    )


def daily(selection: Selection, zone: ZoneInfo, start: datetime, end: datetime, *, only_late: bool = False) -> Question:
    """A question: the rows of `totals` per day of the reporting timezone, days counted from 1970-01-01.

    `start` and `end` bound the selection's times. `only_late`: of what was carried over from closed months.
    """
    return ask(_daily, choose(selection), local_time(zone, start, end), only_late)


def _daily(chosen: Chosen, clock: LocalTime, only_late: bool) -> ir.Table:
    t = selected(chosen)
    if only_late:
        t = t.filter(t.marks.contains(LATE))
    return _sums(t.mutate(day=local_day(t.quarter_hour, clock)), "day")


DIMENSIONS = {
    "organization": "organization_id",
    "customer": "customer_id",
    "user": "user_id",
    "chatflow": "chatflow_id",
    "chatflow_name": "chatflow_name",
    "model": "models",
    "environment": "environment",
    "status": "sync_status",
}
"""What events can be broken down by → the stored column. `model` groups by the set of models of an event."""


def breakdown(selection: Selection, dimensions: Sequence[str], *, limit: int | None = None) -> Question:
    """A question: credits by type per value of one or more dimensions, largest first."""
    return ask(_breakdown, choose(selection), tuple(dimensions), None if limit is None else bound_number(limit))


def _breakdown(chosen: Chosen, dimensions: tuple[str, ...], limit: Bound | None) -> ir.Table:
    t = selected(chosen)
    keys = [t[DIMENSIONS[name]].name(name) for name in dimensions]
    parts = {name: t[name].sum().fill_null(0) for name in (*PART_COLUMNS, "credits_total")}
    grouped = t.group_by(keys).aggregate(events=t.count(), **parts)
    ranked = grouped.order_by(
        grouped.credits_total.desc(), *(grouped[name].asc(nulls_first=False) for name in dimensions)
    )
    return ranked if limit is None else ranked.limit(limit.rows)


def by_hour_of_week(selection: Selection, zone: ZoneInfo, start: datetime, end: datetime) -> Question:
    """A question: credits per weekday (0 = Monday) and hour of the reporting timezone."""
    return ask(_by_hour_of_week, choose(selection), local_time(zone, start, end))


def _by_hour_of_week(chosen: Chosen, clock: LocalTime) -> ir.Table:
    t = selected(chosen)
    quarter = local_quarter_hour(t.quarter_hour, clock)
    sliced = t.mutate(weekday=(quarter // QUARTERS_PER_DAY + THURSDAY) % 7, hour=quarter // 4 % 24)
    return sliced.group_by("weekday", "hour").aggregate(credits_total=sliced.credits_total.sum(), events=sliced.count())


def facet(selection: Selection, dimension: str, *, limit: int) -> Question:
    """A question: values of a dimension with their event counts, most frequent first; unknown is not a value."""
    return ask(_facet, choose(selection), DIMENSIONS[dimension], bound_number(limit))


def _facet(chosen: Chosen, stored: str, limit: Bound) -> ir.Table:
    t = selected(chosen)
    column = t[stored].name("value")
    grouped = t.group_by(column).aggregate(events=t.count())
    present = grouped.filter(grouped.value.notnull() & (grouped.value != ""))
    return present.order_by(present.events.desc(), present.value.asc()).limit(limit.rows)


def distinct_values(selection: Selection, *columns: str) -> Question:
    """A question: the combinations of values that stored columns of a selection have, each once."""
    return ask(_distinct_values, choose(selection), columns)


def _distinct_values(chosen: Chosen, columns: tuple[str, ...]) -> ir.Table:
    return selected(chosen).select(*columns).distinct()


def event(scope: Scope, event_id: str) -> Question:
    """A question: every stored column of one event, if the scope may see it."""
    return ask(_event, choose(Selection(scope, Snapshot(0, 0))), bound_text(event_id))


def _event(chosen: Chosen, event_id: Bound) -> ir.Table:
    t = selected(chosen)
    return t.filter(t.id == event_id.scalar)


def revisions(scope: Scope, event_id: str) -> Question:
    """A question: superseded states of one event, oldest first."""
    return ask(_revisions, _seen_by(scope), bound_text(event_id))


def _revisions(organizations: Listed | None, event_id: Bound) -> ir.Table:
    mine = _states(revisions_table(), organizations, event_id)
    return mine.order_by(mine.revision.asc())


def closed_states(scope: Scope, event_id: str, closed: Sequence[ClosedSpan]) -> Question:
    """A question: the frozen rows of one event, oldest close first, with `close_seq` and `is_reversal`."""
    return ask(_closed_states, _seen_by(scope), bound_text(event_id), _seqs(closed))


def _closed_states(organizations: Listed | None, event_id: Bound, close_seqs: Listed) -> ir.Table:
    mine = _states(_frozen(close_seqs), organizations, event_id)
    return mine.order_by(mine.close_seq.asc(), mine.is_reversal.desc())


def _seen_by(scope: Scope) -> Listed | None:
    return None if scope.organizations is None else bound_list(scope.organizations)


def _states(t: ir.Table, organizations: Listed | None, event_id: Bound) -> ir.Table:
    """Those of one event, as far as it was of these organizations."""
    mine = t.filter(t.id == event_id.scalar)
    return mine if organizations is None else mine.filter(_within(mine, organizations))


@dataclass(frozen=True, slots=True)
class LocalTime:
    """The offsets of a timezone during a span, and the times at which each ends, in quarter hours since 1970."""

    shifts: tuple[Bound, ...]
    changes: tuple[Bound, ...]


def local_time(zone: ZoneInfo, start: datetime, end: datetime) -> LocalTime:
    """The offsets of `zone` for times between `start` and `end`.

    The zone's changes of offset within the span become constants, so no engine needs timezone data; every
    zone's offset since 1972 is a multiple of fifteen minutes.
    """
    steps = offsets(zone, start, end)
    return LocalTime(
        tuple(bound_number(int(offset.total_seconds()) // QUARTER_HOUR_SECONDS, "int8") for _, offset in steps),
        tuple(bound_number(int(until.timestamp()) // QUARTER_HOUR_SECONDS, "int32") for until, _ in steps[:-1]),
    )


def local_quarter_hour(column: ir.IntegerColumn, clock: LocalTime) -> ir.IntegerColumn:
    """The local time of a column, in quarter hours, exact for events of the clock's span."""
    *shifts, last = [shift.scalar for shift in clock.shifts]
    if not shifts:
        return column + last
    branches = [(column < change.scalar, column + shift) for change, shift in zip(clock.changes, shifts, strict=True)]
    return ibis.cases(*branches, else_=column + last)


def local_day(column: ir.IntegerColumn, clock: LocalTime) -> ir.IntegerColumn:
    """The local day of a column, counted from 1970-01-01."""
    return local_quarter_hour(column, clock) // QUARTERS_PER_DAY


def offsets(zone: ZoneInfo, start: datetime, end: datetime) -> list[tuple[datetime, timedelta]]:
    """The offsets of a timezone from `start` to `end` as `(until, offset)` steps; the last `until` is `end`."""
    steps: list[tuple[datetime, timedelta]] = []
    at, offset = start.astimezone(UTC), _offset(zone, start)
    last = end.astimezone(UTC)
    while at < last:
        ahead = min(at + timedelta(days=1), last)
        if _offset(zone, ahead) != offset:
            change = _first_change(zone, at, ahead)
            steps.append((change, offset))
            offset = _offset(zone, change)
            ahead = change
        at = ahead
    return [*steps, (last, offset)]


def _first_change(zone: ZoneInfo, low: datetime, high: datetime) -> datetime:
    """The instant between `low` and `high` at which the offset changes, to the second."""
    before = _offset(zone, low)
    while high - low > timedelta(seconds=1):
        middle = (low + (high - low) / 2).replace(microsecond=0)
        if middle <= low:
            break
        low, high = (middle, high) if _offset(zone, middle) == before else (low, middle)
    return high


def _offset(zone: ZoneInfo, at: datetime) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta()


def split_flags(flags: str, marks: str) -> list[str]:
    """The flags of an event: those that follow from its usage, then those the ledger put on it."""
    return [flag for text in (flags, marks) for flag in text.split(FLAG_SEPARATOR) if flag]


def split_models(models: str) -> list[str]:
    """The models of an event, from their stored text."""
    return [name for name in models.split(MODEL_SEPARATOR) if name]


def with_utc(table: pa.Table) -> pa.Table:
    """The table with its stored times typed as UTC."""
    for position, column in enumerate(table.schema):
        if pa.types.is_timestamp(column.type) and column.type.tz is None:
            kind = pa.timestamp("us", tz="UTC")
            table = table.set_column(position, pa.field(column.name, kind), table.column(position).cast(kind))
    return table
