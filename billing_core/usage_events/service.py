"""Usage events as people ask for them: pages of rows, totals, breakdowns, explanations.

Answers about a state of the ledger never change (history is append-only), so they are remembered per
`Selection`, which holds the scope, the filters and the booking number: nobody is served another's rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from functools import lru_cache
from zoneinfo import ZoneInfo

import pyarrow as pa

from billing_core.access import SEES_NO_COSTS, Principal, scope_of
from billing_core.errors import AccessDenied, BadParameter, NotFound
from billing_core.ledger import queries
from billing_core.ledger.journal import Ledger
from billing_core.ledger.queries import Selection
from billing_core.rating.card import LEGACY_VERSION, RateCard
from billing_core.runtime.clock import Clock
from billing_core.types import PREVIOUS, GetUsageEventsParams, Pagination, UsageEventsResponse
from billing_core.usage_events import rows as published
from billing_core.usage_events.explain import EventExplanation, explain
from billing_core.usage_events.explore import Explorer
from billing_core.usage_events.explore_model import COSTS, Exploration, ExploreQuestion
from billing_core.usage_events.intents import intents_of, settlements_of
from billing_core.usage_events.lint import LintFinding, lint_event
from billing_core.usage_events.model import BreakdownRow, Summary
from billing_core.usage_events.selection import bounds_of, compared_with, select
from billing_core.usage_events.totals import DayTotals, Sums, add_up, by_day, parts_of
from billing_core.values.decimals import exact_sum

MOMENT = timedelta(microseconds=1)

REMEMBERED = 256
"""Answers kept in memory per kind of question; each is at most one page or one chart."""

EXPLORED = 32
"""Answers of Explore kept in memory: one has a row per user and day, if asked for that."""

READ_AT_ONCE = 20_000
"""Rows per read of many: other processes get their turn in between."""

FACET_LIMIT = 200
"""Values offered per filter; rarer ones can be searched for."""


class UsageEventsService:
    """Every question about usage events, each for a principal. Thread-safe; one per process."""

    def __init__(self, ledger: Ledger, zone: ZoneInfo, clock: Clock) -> None:
        self._ledger, self._zone, self._clock = ledger, zone, clock
        self._explorer = Explorer(ledger, zone, clock)
        self._totals = lru_cache(REMEMBERED)(self._read_totals)
        self._days = lru_cache(REMEMBERED)(self._read_days)
        self._page = lru_cache(REMEMBERED)(self._read_page)
        self._slices = lru_cache(REMEMBERED)(self._read_slices)
        self._heat = lru_cache(REMEMBERED)(self._read_heat)
        self._facet = lru_cache(REMEMBERED)(self._read_facet)
        self._explored = lru_cache(EXPLORED)(self._explorer.explore)

    def get_usage_events(self, params: GetUsageEventsParams, principal: Principal) -> UsageEventsResponse:
        """One page of usage events with exact totals over the whole filter.

        Raises BadParameter: naming the parameter, e.g. an empty window. AccessDenied: if `params.organization` names
        one outside the principal's.
        """
        selection = self._select(params, principal)
        if params.sort == "cost_usd" and not principal.sees_costs:
            raise AccessDenied(f"{principal.name} {SEES_NO_COSTS}: sort by another field than cost_usd")
        sums = self._totals(selection)
        offset = (params.page - 1) * params.limit
        table = self._page(selection, params.sort, params.order == "desc", params.limit, offset)
        total_items = sums.events
        return UsageEventsResponse(
            events=published.events(table),
            pagination=Pagination(
                page=params.page,
                limit=params.limit,
                total_items=total_items,
                total_pages=-(-total_items // params.limit),
                as_of=selection.snapshot.as_of,
            ),
            totals=sums.totals,
            frame=published.flat_frame(table),
        )

    def summary(self, params: GetUsageEventsParams, principal: Principal, compare: str | None = PREVIOUS) -> Summary:
        """Header figures of a filter's events, one point per day, beside those of what they are compared with.

        compare: `previous` (the equally long period before, if the window has a beginning), `FROM..TO`, or nothing.

        Raises BadParameter: naming the parameter.
        """
        selection = self._select(params, principal)
        days, whole = self._days(selection), self._totals(selection)
        before = compared_with(selection, compare, self._clock(), self._zone)
        if before is None:
            return Summary(whole, days, None, _same(days, whole))
        return Summary(
            whole,
            days,
            self._totals(before),
            _same(days, whole),
            (before.start, before.end),
            self._matched(self._days(before), before, selection),
        )

    def breakdown(
        self, params: GetUsageEventsParams, principal: Principal, *dimensions: str, limit: int | None = None
    ) -> list[BreakdownRow]:
        """Credits by type per value of `dimensions`, largest first.

        `model` groups by the set of models of an event (joined by ` + `), so that slices add up to the total.
        """
        for name in dimensions:
            if name not in queries.DIMENSIONS:
                raise BadParameter("dimension", name, "one of " + ", ".join(queries.DIMENSIONS))
        return list(self._slices(self._select(params, principal), dimensions, limit))

    def explore(self, params: GetUsageEventsParams, question: ExploreQuestion, principal: Principal) -> Exploration:
        """The usage of a filter's events grouped by one or two dimensions, with the totals of the same filter.

        params: The filter; its sort, order, page and limit say nothing here. A filter on a model selects whole events:
            the other models these used are groups too.

        Raises BadParameter: naming the parameter. AccessDenied: if `params.organization` names one outside the
            principal's.
        """
        if question.metric in COSTS and not principal.sees_costs:
            raise AccessDenied(f"{principal.name} {SEES_NO_COSTS}: ask for another metric than {question.metric}")
        selection = self._select(params, principal)
        return self._explored(selection, self._explorer.compared(selection, question), question)

    def by_hour_of_week(self, params: GetUsageEventsParams, principal: Principal) -> dict[tuple[int, int], Decimal]:
        """Credits per (weekday, hour) of the reporting timezone; 0 is Monday. Hours without events are absent."""
        return dict(self._heat(self._select(params, principal)))

    def facets(self, params: GetUsageEventsParams, principal: Principal, dimension: str) -> list[tuple[str, int]]:
        """Values of one dimension to filter by and how many events have each, within the window of `params` alone."""
        selection = self._select(
            GetUsageEventsParams(**{"from": params.from_, "to": params.to, "as_of": params.as_of}), principal
        )
        return list(self._facet(selection, dimension))

    def ids(self, params: GetUsageEventsParams, principal: Principal) -> list[str]:
        """The ids of every event of a filter, sorted."""
        selection = self._select(params, principal)
        return sorted(row["id"] for row in self._ledger.read_rows(queries.distinct_values(selection, "id")))

    def explain(self, event_id: str, principal: Principal) -> EventExplanation:
        """The explanation of how an event came to its credits and how far they got.

        Raises NotFound: if there is no such event, or the principal may not see it.
        """
        scope = scope_of(principal)
        found = None if "\0" in event_id else self._ledger.engine.read(queries.event(scope, event_id))
        if found is None or found.num_rows == 0:
            raise NotFound(f"event {event_id!r} is not in the ledger; pull the time it happened in, or check the id")
        stored = queries.with_utc(found).to_pylist()[0]
        revisions = self._ledger.read_rows(queries.revisions(scope, event_id))
        event = published.events(found.select(list(queries.PAGE_COLUMNS)))[0]
        engine = self._ledger.engine
        intents = intents_of(engine, event_id, principal)
        spans = self._ledger.snapshot().closed
        closed = self._ledger.read_rows(queries.closed_states(scope, event_id, spans)) if spans else []
        months = {span.seq: span.period for span in spans}
        states = [(months[row["close_seq"]], row) for row in closed]
        card = self._card(event.rate_card_version)
        settled = settlements_of(engine, event_id, principal)
        sees_costs = principal.sees_costs
        return explain(event, stored, revisions, card, intents, states, settled, with_costs=sees_costs)

    def lint(self, params: GetUsageEventsParams, principal: Principal) -> Iterator[LintFinding]:
        """Events a person should review: tokens without a price, credits the card does not give, odd latency."""
        selection = self._select(params, principal)
        for offset in range(0, self._totals(selection).events, READ_AT_ONCE):
            for row in self._ledger.read_rows(queries.in_time_order(selection, limit=READ_AT_ONCE, offset=offset)):
                yield from lint_event(row, self._card(row["rate_card_version"]))

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _select(self, params: GetUsageEventsParams, principal: Principal) -> Selection:
        return select(self._ledger, self._zone, params, principal)

    @lru_cache(64)  # noqa: B019  (one service per process; cards are immutable)
    def _card(self, version: str) -> RateCard | None:
        return None if version == LEGACY_VERSION else self._ledger.card(version)

    def _matched(self, days: tuple[DayTotals, ...], before: Selection, selection: Selection) -> tuple[DayTotals, ...]:
        """Days of an earlier window as the days of a selection that they are compared with."""
        if before.start is None or selection.start is None:
            return ()
        distance = selection.start.astimezone(self._zone).date() - before.start.astimezone(self._zone).date()
        moved = (replace(one, day=one.day + distance) for one in days)
        last = None if selection.end is None else (selection.end - MOMENT).astimezone(self._zone).date()
        return tuple(one for one in moved if last is None or one.day <= last)

    def _read_totals(self, selection: Selection) -> Sums:
        return add_up(self._ledger.read_rows(queries.totals(selection)))

    def _read_page(self, selection: Selection, sort: str, descending: bool, limit: int, offset: int) -> pa.Table:
        return self._ledger.engine.read(
            queries.page(selection, sort=sort, descending=descending, limit=limit, offset=offset)
        )

    def _read_days(self, selection: Selection) -> tuple[DayTotals, ...]:
        bounds = bounds_of(self._ledger, selection)
        return () if bounds is None else by_day(self._ledger.read_rows(queries.daily(selection, self._zone, *bounds)))

    def _read_slices(self, selection: Selection, dimensions: tuple[str, ...], limit: int | None) -> list[BreakdownRow]:
        rows = self._ledger.read_rows(queries.breakdown(selection, dimensions, limit=limit))
        return [
            BreakdownRow(tuple(_shown_value(name, row[name]) for name in dimensions), row["events"], parts_of(row))
            for row in rows
        ]

    def _read_heat(self, selection: Selection) -> dict[tuple[int, int], Decimal]:
        bounds = bounds_of(self._ledger, selection)
        if bounds is None:
            return {}
        rows = self._ledger.read_rows(queries.by_hour_of_week(selection, self._zone, *bounds))
        return {(row["weekday"], row["hour"]): row["credits_total"] for row in rows}

    def _read_facet(self, selection: Selection, dimension: str) -> list[tuple[str, int]]:
        limit = FACET_LIMIT if dimension != "model" else FACET_LIMIT * 10
        rows = self._ledger.read_rows(queries.facet(selection, dimension, limit=limit))
        if dimension != "model":
            return [(row["value"], row["events"]) for row in rows]
        counts: dict[str, int] = {}
        for row in rows:
            for name in queries.split_models(row["value"]):
                counts[name] = counts.get(name, 0) + row["events"]
        return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _shown_value(dimension: str, value: str | None) -> str | None:
    if dimension == "model":
        return " + ".join(queries.split_models(value or "")) or None
    return value


def _same(days: tuple[DayTotals, ...], whole: Sums) -> bool:
    """Whether the days add up to the whole, to the last digit."""
    added = [(day.totals.credits.total, day.totals.amount_usd) for day in days]
    return (
        exact_sum(credit for credit, _ in added) == whole.totals.credits.total
        and exact_sum(amount for _, amount in added) == whole.totals.amount_usd
        and sum(day.events for day in days) == whole.events
    )
