"""Explore: usage events of a filter grouped by one or two dimensions, in periods, compared with an earlier window.

How parts of an event are told apart: tokens and cost as Langfuse reports them per model; AI credits as
`rating.parts` says; compute and storage belong to no model and no token class. Amounts follow from credits. Whether a
cost is known is decided per event, as everywhere: a margin counts the events whose cost is known (with the customer's
own key it costs us nothing), and each row says how much of its amount that leaves out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from billing_core.errors import BadParameter
from billing_core.ledger import explore_queries
from billing_core.ledger.explore_queries import RATED_BY, STORED, SUMMED, Grouping, Splitting
from billing_core.ledger.export_queries import cells
from billing_core.ledger.journal import Ledger
from billing_core.ledger.queries import Selection
from billing_core.rating.parts import needs_lines
from billing_core.runtime.clock import Clock
from billing_core.types import PREVIOUS
from billing_core.usage_events.explore_model import (
    COSTS,
    Dimension,
    Exploration,
    ExploreQuestion,
    ExploreRow,
    Metric,
    PeriodLength,
)
from billing_core.usage_events.mixed_usage import parts
from billing_core.usage_events.selection import bounds_of, compared_with
from billing_core.usage_events.totals import EPOCH
from billing_core.values.decimals import EXACT

MOST_PERIODS = 4096

SPLIT_AT_ONCE = 200_000
"""Events that are read at a time to be split, about."""

ADDED_BY_ENGINE = {Metric.CREDITS: "credits_total", Metric.EVENTS: "events", Metric.TOKENS: "tokens_total"}
"""Metrics that are the sum of one column, whatever the rate."""

OF_AMOUNTS = ("credits_total", "cost_usd", "tokens_total")
"""What the other sums of whole events follow from."""

DAY_SECONDS = 24 * 60 * 60
FIRST_MONDAY = EPOCH - timedelta(days=EPOCH.weekday())
MICROSECOND = Decimal("0.000001")
AI_TOKENS, COMPUTE, STORAGE = ("ai_tokens", "compute", "storage")
ZERO = Decimal(0)

Values = tuple[str | None, ...]
Place = tuple[Values, int | None]
"""A group and the number of its period."""

OTHERS: Values = ()
"""The group of all those that are not shown, where the engine made one of them."""


@dataclass(slots=True)
class _Cell:
    """What is known of one group in one period."""

    value: Decimal | None = None
    p95: Decimal | None = None
    amount: Decimal = ZERO
    unknown: Decimal = ZERO

    def add(self, value: Decimal | int) -> None:
        self.value = Decimal(value) if self.value is None else EXACT.add(self.value, value)

    def merge(self, other: _Cell) -> None:
        if other.value is not None:
            self.add(other.value)
        if other.amount or other.unknown:
            self.amount = EXACT.add(self.amount, other.amount)
            self.unknown = EXACT.add(self.unknown, other.unknown)


Cells = dict[Place, _Cell]


@dataclass(slots=True)
class _Read:
    """One window while it is read: its cells, and those of whole groups, which have no period."""

    selection: Selection
    shift: timedelta
    cells: Cells = field(default_factory=dict)
    whole: Cells = field(default_factory=dict)


class Explorer:
    """Answers explore questions about a selection of events; what it reads is limited by the selection's scope."""

    def __init__(self, ledger: Ledger, zone: ZoneInfo, clock: Clock) -> None:
        self._ledger, self._zone, self._clock = ledger, zone, clock

    def explore(self, selection: Selection, before: Selection | None, question: ExploreQuestion) -> Exploration:
        """The groups of a selection's events with their metric and that of `before`, and the totals of both."""
        found = self._answer(selection, before, question)
        if self._ledger.version() == selection.snapshot.latest:
            return found
        selection = _pinned(selection)  # something was booked meanwhile: all answers of the same state, once more
        return self._answer(selection, None if before is None else _pinned(before), question)

    def _answer(self, selection: Selection, before: Selection | None, question: ExploreQuestion) -> Exploration:
        now = _Read(selection, timedelta())
        earlier = None if before is None else _Read(before, self._distance(before, selection))
        reads = [now] if earlier is None else [now, earlier]
        has_engine_rest = question.top is not None and set(question.by) <= set(STORED)
        for read in reads:
            if has_engine_rest:
                read.whole = self._cells(read, replace(question, grain=None))
            else:
                read.cells = self._cells(read, question)
                read.whole = self._whole(read, question)
        groups = sorted({values for read in reads for values, _ in read.whole}, key=lambda one: _order(one, now.whole))
        shown = groups if question.top is None else groups[: question.top]
        rest = groups[len(shown) :]
        if has_engine_rest:
            for read in reads:
                is_known = question.grain is None and (question.is_additive or not rest)
                read.cells = read.whole if is_known else self._cells(read, question, shown if rest else None)
        totals = self._totals(now, question)
        if earlier is not None:
            totals = replace(totals, previous=self._totals(earlier, question).value)
        return Exploration(
            question,
            self._zone.key,
            selection.start,
            selection.end,
            None if before is None else before.start,
            None if before is None else before.end,
            tuple(_rows(question, now.cells, None if earlier is None else earlier.cells, shown, rest)),
            totals,
            selection.snapshot.as_of,
        )

    def compared(self, selection: Selection, question: ExploreQuestion) -> Selection | None:
        """The selection that a question compares with; `None` if with nothing.

        Raises BadParameter: if it asks for the period before, and the selection has no beginning; or for no window.
        """
        if question.compare == PREVIOUS and selection.start is None:
            raise BadParameter("compare", PREVIOUS, "a window that begins somewhere (from), or FROM..TO")
        if question.compare and question.grain is not None and selection.start is None:
            raise BadParameter("compare", question.compare, "a window that begins somewhere (from) to match periods")
        return compared_with(selection, question.compare, self._clock(), self._zone)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────

    def _cells(self, read: _Read, question: ExploreQuestion, shown: list[Values] | None = None) -> Cells:
        """The cells of a window; if some groups are `shown`, all others are one, `OTHERS`."""
        selection, by = read.selection, self._grouping(read, question)
        if by is None:
            return {}
        if shown is not None:
            by = explore_queries.showing(by, shown)
        if not question.is_additive:
            return self._spread(selection, question, by)
        if question.metric in ADDED_BY_ENGINE and set(question.by) <= set(STORED):
            return self._added_by_engine(selection, question, by)
        adder = _Adder(question)
        if {Dimension.MODEL, Dimension.TOKEN_CLASS} & set(question.by):
            self._add_parts(selection, question, by, adder)
        else:
            names = SUMMED if Dimension.CREDIT_TYPE in question.by else OF_AMOUNTS
            for row in self._ledger.read_rows(explore_queries.sums(selection, by, names, is_rated=True)):
                adder.add_whole(row)
        return adder.cells

    def _added_by_engine(self, selection: Selection, question: ExploreQuestion, by: Grouping) -> Cells:
        """The cells of a metric that needs no rate: a row for each, of which there may be one per user and day."""
        name = ADDED_BY_ENGINE[question.metric]
        names = () if name == "events" else (name,)
        found = self._ledger.engine.read(explore_queries.sums(selection, by, names, is_rated=False))
        columns = {one: found[one].to_pylist() for one in (*by.columns, name)}
        rows = found.num_rows
        groups = list(zip(*(columns[one] for one in question.by), strict=True))
        is_other = columns.get("is_other") or [False] * rows
        periods = columns.get("period") or [None] * rows
        return {
            (OTHERS if other else values, period): _Cell(None if value is None else Decimal(value))
            for values, other, period, value in zip(groups, is_other, periods, columns[name], strict=True)
        }

    def _grouping(self, read: _Read, question: ExploreQuestion) -> Grouping | None:
        """How the engine groups; `None`: there are no events to cut into periods."""
        keys = tuple(str(dimension) for dimension in question.by if dimension in STORED)
        if question.grain is None:
            return Grouping(keys)
        bounds = bounds_of(self._ledger, read.selection)
        if bounds is None:
            return None
        return explore_queries.by_period(keys, question.grain, self._zone, bounds, read.shift)

    def _add_parts(self, selection: Selection, question: ExploreQuestion, by: Grouping, adder: _Adder) -> None:
        cards = self._ledger.registered_cards()
        with_classes = Dimension.TOKEN_CLASS in question.by
        splitting = Splitting(with_classes, needs_lines(tuple(cards.values())))
        keys = (*by.columns, *RATED_BY)
        rest: dict[tuple[Any, ...], dict[str, Any]] = {}
        for row in self._ledger.read_rows(explore_queries.sums_by_model(selection, by, splitting)):
            if row["is_mixed"]:
                rest[tuple(row[key] for key in keys)] = row
            else:
                adder.add_whole(row, row["model"])
        for part in self._slices(selection) if rest else ():
            events = self._ledger.engine.read(explore_queries.mixed(part, by, splitting))
            for row in parts(events, keys, cards.get, with_classes=with_classes) if events.num_rows else ():
                adder.add_part(row)
                left = rest[tuple(row[key] for key in keys)]
                for name, of_part in (("credits_ai_tokens", "credits"), ("tokens_total", "tokens"), ("cost_usd",) * 2):
                    if row[of_part] is not None:
                        left[name] = EXACT.subtract(left[name] or ZERO, row[of_part])
        for row in rest.values():
            adder.add_rest(row)

    def _slices(self, selection: Selection) -> Iterator[Selection]:
        """The selection in pieces of whole UTC days with `SPLIT_AT_ONCE` events, or as few as a day has."""
        days = self._ledger.read_rows(cells(selection, DAY_SECONDS))
        first, rows, last = None, 0, None
        for day in sorted(days, key=lambda row: int(row["cell"])):
            if rows and rows + day["rows"] > SPLIT_AT_ONCE:
                yield _within(selection, first, last)
                first, rows = None, 0
            first, rows, last = day["cell"] if first is None else first, rows + day["rows"], day["cell"]
        if rows:
            yield _within(selection, first, last)

    def _spread(self, selection: Selection, question: ExploreQuestion, by: Grouping) -> Cells:
        asked = explore_queries.spread(
            selection, by, by_model=Dimension.MODEL in question.by, with_latency=question.metric is Metric.LATENCY
        )
        return {
            (_values(question, row), row.get("period")): _spread_cell(question.metric, row)
            for row in self._ledger.read_rows(asked)
        }

    def _totals(self, read: _Read, question: ExploreQuestion) -> ExploreRow:
        total = _Cell()
        if question.is_additive:
            for cell in read.cells.values():
                total.merge(cell)
            if total.value is None and question.metric in {Metric.CREDITS, Metric.AMOUNT_USD, Metric.EVENTS}:
                total.value = ZERO
        else:
            with_latency = question.metric is Metric.LATENCY
            asked = explore_queries.spread(read.selection, Grouping(()), by_model=False, with_latency=with_latency)
            total = _spread_cell(question.metric, self._ledger.read_rows(asked)[0])
        return _row(question, (), None, total)

    def _whole(self, read: _Read, question: ExploreQuestion) -> Cells:
        """The metric per group over the whole window, which groups are ordered by."""
        if question.grain is None:
            return read.cells
        if not question.is_additive:
            return self._cells(read, replace(question, grain=None))
        whole: Cells = {}
        for (values, _), cell in read.cells.items():
            whole.setdefault((values, None), _Cell()).merge(cell)
        return whole

    def _distance(self, before: Selection, selection: Selection) -> timedelta:
        """How far apart two windows begin, in local time: so days are compared with days across a change of clocks."""
        if before.start is None or selection.start is None:
            return timedelta()
        first, second = (one.astimezone(self._zone).replace(tzinfo=None) for one in (before.start, selection.start))
        return second - first


def _pinned(selection: Selection) -> Selection:
    """The same selection, read as of its booking, whatever was booked since."""
    now = selection.snapshot
    return replace(selection, snapshot=replace(now, latest=max(now.latest, now.as_of + 1)))


def _within(selection: Selection, first: int | None, last: int | None) -> Selection:
    start = datetime.fromtimestamp((first or 0) * DAY_SECONDS, UTC)
    end = datetime.fromtimestamp(((last or 0) + 1) * DAY_SECONDS, UTC)
    return replace(
        selection,
        start=start if selection.start is None else max(start, selection.start),
        end=end if selection.end is None else min(end, selection.end),
    )


class _Adder:
    """Adds up a metric per group from rows of `explore_queries` and of `mixed_usage.parts`."""

    def __init__(self, question: ExploreQuestion) -> None:
        self.cells: Cells = {}
        self._question, self._metric = question, question.metric
        self._by_type = Dimension.CREDIT_TYPE in question.by
        self._has_parts = not set(question.by) <= set(STORED)

    def add_whole(self, row: Mapping[str, Any], model: str | None = None) -> None:
        """Add sums of events that are not split: their AI credits, tokens and cost are of `model`."""
        self._usage(row, row["tokens_total"], row["cost_usd"], model)
        if self._has_parts:
            self._credits(row, AI_TOKENS, row["credits_ai_tokens"], model)
            self._without_model(row)
        else:
            self._credits(row, AI_TOKENS, row["credits_total"])

    def add_part(self, row: Mapping[str, Any]) -> None:
        """Add what belongs to one model and token class."""
        model, token_class = row["model"], row["token_class"]
        self._credits(row, AI_TOKENS, row["credits"] or ZERO, model, token_class)
        self._usage(row, row["tokens"], row["cost_usd"], model, token_class)

    def add_rest(self, row: Mapping[str, Any]) -> None:
        """Add what split events have beyond their parts, which belongs to no model and no token class."""
        if row["credits_ai_tokens"]:
            self._credits(row, AI_TOKENS, row["credits_ai_tokens"])
        tokens, cost = row["tokens_total"] or None, row["cost_usd"] or None
        if (tokens if self._metric is Metric.TOKENS else cost) is not None:
            self._usage(row, tokens, cost)
        self._without_model(row)

    def _without_model(self, row: Mapping[str, Any]) -> None:
        if self._metric is Metric.EVENTS:
            self._cell(row, None, None, None).add(row["events"])
        for kind in (COMPUTE, STORAGE):
            if row[f"credits_{kind}"]:
                self._credits(row, kind, row[f"credits_{kind}"])

    def _credits(
        self,
        row: Mapping[str, Any],
        kind: str,
        credits_: Decimal,
        model: str | None = None,
        token_class: str | None = None,
    ) -> None:
        if self._metric in {Metric.TOKENS, Metric.EVENTS} or (self._by_type and not credits_):
            return
        cell = self._cell(row, model, token_class, kind)
        if self._metric is Metric.CREDITS:
            cell.add(credits_)
            return
        amount = EXACT.multiply(credits_, row["credit_price_usd"])
        cell.amount = EXACT.add(cell.amount, amount)
        is_known = row["has_cost"] or (self._metric is Metric.MARGIN_USD and row["own_key"])
        if self._metric is Metric.AMOUNT_USD or (self._metric is Metric.MARGIN_USD and is_known):
            cell.add(amount)
        elif not is_known:
            cell.unknown = EXACT.add(cell.unknown, amount)

    def _usage(
        self,
        row: Mapping[str, Any],
        tokens: Decimal | None,
        cost: Decimal | None,
        model: str | None = None,
        token_class: str | None = None,
    ) -> None:
        match self._metric:
            case Metric.TOKENS:
                cell = self._cell(row, model, token_class, None)
                if tokens is not None:
                    cell.add(tokens)
            case Metric.COST_USD if cost is not None:
                self._cell(row, model, token_class, None).add(cost)
            case Metric.MARGIN_USD if cost is not None and not row["own_key"]:
                self._cell(row, model, token_class, None).add(EXACT.minus(cost))

    def _cell(self, row: Mapping[str, Any], model: str | None, token_class: str | None, kind: str | None) -> _Cell:
        if self._has_parts:
            row = {**row, Dimension.MODEL: model, Dimension.TOKEN_CLASS: token_class, Dimension.CREDIT_TYPE: kind}
        place = (_values(self._question, row), row.get("period"))
        found = self.cells.get(place)
        if found is None:
            found = self.cells[place] = _Cell()
        return found


def _values(question: ExploreQuestion, row: Mapping[str, Any]) -> Values:
    return OTHERS if row.get("is_other") else tuple(row[one] for one in question.by)


def _spread_cell(metric: Metric, row: Mapping[str, Any]) -> _Cell:
    if metric is not Metric.LATENCY:
        return _Cell(Decimal(row[str(metric)]))
    if not row["events"] or row["latency_p95"] is None:
        return _Cell()
    average = (row["latency_sum"] / row["events"]).quantize(MICROSECOND, ROUND_HALF_EVEN)
    return _Cell(average, Decimal(row["latency_p95"]).quantize(MICROSECOND, ROUND_HALF_EVEN))


# ── rows ─────────────────────────────────────────────────────────────────────────────────────────


def _rows(
    question: ExploreQuestion, now: Cells, earlier: Cells | None, shown: list[Values], rest: list[Values]
) -> Iterator[ExploreRow]:
    """Rows in order, those beyond `top` as one (per period)."""
    periods: dict[Values, set[int | None]] = {}
    for values, period in (*now, *(earlier or ())):
        periods.setdefault(values, set()).add(period)
    for values in shown:
        for period in _in_order(periods.get(values, set())):
            cell = now.get((values, period)) or _absent(question)
            yield _row(question, values, period, cell, None if earlier is None else earlier.get((values, period)))
    others = [OTHERS, *rest]
    for period in _in_order({period for values in others for period in periods.get(values, ())}):
        cell = _added(question, now, others, period) or _absent(question)
        before = None if earlier is None else _added(question, earlier, others, period)
        yield replace(_row(question, (None,) * len(question.by), period, cell, before), others=len(rest))


def _added(question: ExploreQuestion, cells_: Cells, groups: list[Values], period: int | None) -> _Cell | None:
    """Several groups as one; what does not add up over groups is unknown, unless the engine made one of them."""
    found = [cells_[values, period] for values in groups if (values, period) in cells_]
    if len(found) == 1 or not found:
        return found[0] if found else None
    sum_ = _Cell()
    for cell in found if question.is_additive else ():
        sum_.merge(cell)
    return sum_


def _in_order(periods: set[int | None]) -> list[int | None]:
    return sorted(periods, key=lambda number: number or 0)


def _order(values: Values, whole: Cells) -> tuple[Any, ...]:
    value = whole[values, None].value if (values, None) in whole else None
    names = tuple((name is None, name or "") for name in values)
    return (value is None, ZERO if value is None else EXACT.minus(value), names)


def _absent(question: ExploreQuestion) -> _Cell:
    """A group that was there earlier only has used nothing now; how long nothing took is not known."""
    return _Cell(None if question.metric is Metric.LATENCY else ZERO)


def _row(
    question: ExploreQuestion, values: Values, period: int | None, cell: _Cell, earlier: _Cell | None = None
) -> ExploreRow:
    has_cost = question.metric in COSTS
    return ExploreRow(
        values,
        None if period is None or question.grain is None else _first_day(period, question.grain),
        cell.value,
        cell.p95,
        cell.amount if has_cost else None,
        cell.unknown if has_cost else None,
        None if earlier is None else earlier.value,
    )


@lru_cache(MOST_PERIODS)
def _first_day(number: int, grain: PeriodLength) -> date:
    match grain:
        case PeriodLength.DAY:
            return EPOCH + timedelta(days=number)
        case PeriodLength.WEEK:
            return FIRST_MONDAY + timedelta(weeks=number)
        case PeriodLength.MONTH:
            return date(number // 12, number % 12 + 1, 1)
