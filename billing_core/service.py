"""BillingService: the one door for pages, command line and HTTP API. Every call takes a `Principal`.

Answers about a state of the ledger never change (history is append-only), so they are remembered per
`Selection`, which holds the scope, the filters and the booking number: nobody is served another's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache, reduce
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from billing_core.access import Principal, scope_of
from billing_core.audit.service import AuditDesk
from billing_core.errors import BadParameter, NotFound
from billing_core.exports.csv_file import csv_header, csv_pieces
from billing_core.exports.service import ExportDesk
from billing_core.exports.usage_source import Usage, by_event
from billing_core.imports.service import ImportDesk
from billing_core.ingest.pull import FIRST_PULL_DAYS, PullResult, incremental_window, pull, within_retention
from billing_core.ledger import queries
from billing_core.ledger.active_cards import CardBook
from billing_core.ledger.directory import mapped_customers
from billing_core.ledger.duckdb_engine import DuckDBEngine
from billing_core.ledger.engine import Engine
from billing_core.ledger.journal import Ledger, Run
from billing_core.ledger.queries import Selection
from billing_core.month_close.service import MonthsDesk
from billing_core.organizations.service import OrganizationDesk
from billing_core.rating.card import LEGACY_VERSION, RateCard, RateCardFile, load_rate_cards
from billing_core.rating.events import Policy
from billing_core.rerating.service import RerateDesk
from billing_core.runtime.clock import Clock, now
from billing_core.runtime.locks import exclusive, is_held
from billing_core.settings import Settings
from billing_core.stripe_sync.service import ConnectStripe, StripeDesk
from billing_core.types import Credits, GetUsageEventsParams, Pagination, UsageEventsResponse
from billing_core.usage_events import rows as published
from billing_core.usage_events.explain import Passport, explain
from billing_core.usage_events.lint import Finding, lint_event
from billing_core.usage_events.selection import period_before, select
from billing_core.usage_events.totals import DayTotals, Sums, add_up, by_day, parts_of
from billing_core.values.decimals import EXACT
from billing_core.values.usage_frame import PullProgress, window_in

if TYPE_CHECKING:
    from billing_core.backups.backup import BackedUp
    from billing_core.langfuse.provider import LangfuseProvider

__all__ = ["BillingService", "DayTotals", "Freshness", "Slice", "Summary", "Sums"]

REMEMBERED = 256
"""Answers kept in memory per kind of question; each is at most one page or one chart."""

CSV_ROWS = 20_000
"""Rows per read while a CSV streams: other processes get their turn in between."""

FACET_LIMIT = 200
"""Values offered per filter; rarer ones can be searched for."""

Progress = Callable[[PullProgress], None]
Connect = Callable[[Settings, RateCardFile], "LangfuseProvider"]


@dataclass(frozen=True, slots=True)
class Summary:
    """Header figures of a selection; `previous` is the equally long period before, if the window is bounded.

    `ties_out` says whether the days, which charts draw, add up to the sums over the rows, which the table shows.
    """

    totals: Sums
    days: tuple[DayTotals, ...]
    previous: Sums | None
    ties_out: bool


@dataclass(frozen=True, slots=True)
class Slice:
    """Credits of one combination of breakdown values (`None`: unknown)."""

    values: tuple[str | None, ...]
    events: int
    credits: Credits


@dataclass(frozen=True, slots=True)
class Freshness:
    """How current the ledger is. `problem` says in a sentence why the data may be partial."""

    last_success: Run | None
    running: bool
    problem: str | None


class BillingService:
    """See the module. Thread-safe; one per process."""

    def __init__(
        self,
        settings: Settings,
        *,
        engine: Engine | None = None,
        connect: Connect | None = None,
        connect_stripe: ConnectStripe | None = None,
        clock: Clock = now,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._ledger = Ledger(engine or DuckDBEngine(settings.warehouse_path, clock=clock))
        self._connect = connect or (lambda settings, cards: _connect_langfuse(settings, cards, clock))
        self._cards = CardBook(self._ledger, load_rate_cards(settings.rate_card)).current
        self.stripe = StripeDesk(
            settings, self._ledger, self._cards, connect_stripe, clock,
            policy=lambda: self._policy, connect_langfuse=lambda: self._connect(settings, self._cards()),
        )  # fmt: skip
        self.organizations = OrganizationDesk(settings, self._ledger, self._cards, self.stripe, clock)
        self.exports = ExportDesk(settings, self._ledger, self._cards, self.stripe, clock)
        self.months = MonthsDesk(settings, self._ledger, self.stripe, self.exports, clock)
        self.rerating = RerateDesk(settings, self._ledger, self.organizations.limits, lambda: self._policy)
        self.imports = ImportDesk(
            settings, self._ledger, self._cards, self.organizations.directory, lambda: self._policy, clock
        )
        self.trail = AuditDesk(self._ledger, settings.zone)
        self._totals = lru_cache(REMEMBERED)(self._read_totals)
        self._days = lru_cache(REMEMBERED)(self._read_days)
        self._page = lru_cache(REMEMBERED)(self._read_page)
        self._slices = lru_cache(REMEMBERED)(self._read_slices)
        self._heat = lru_cache(REMEMBERED)(self._read_heat)
        self._facet = lru_cache(REMEMBERED)(self._read_facet)

    @classmethod
    def from_settings(
        cls, settings: Settings, *, connect: Connect | None = None, connect_stripe: ConnectStripe | None = None
    ) -> BillingService:
        """The service over the warehouse the settings name; the others make the providers it reads and sends to."""
        return cls(settings, connect=connect, connect_stripe=connect_stripe)

    def now(self) -> datetime:
        """The present, for whatever is shown of it."""
        return self._clock()

    def close(self) -> None:
        """Let go of the warehouse file."""
        self._ledger.engine.close()

    def ready(self) -> None:
        """Return if the warehouse answers; raise `WarehouseError` saying why if it does not."""
        self._ledger.version()

    def version(self) -> int:
        """Booking number of the newest change; views made from it are current while it stays."""
        return self._ledger.version()

    def rate_cards(self) -> RateCardFile:
        """The cards that apply: those of the file, and imported ones."""
        return self._cards()

    # ── usage events ─────────────────────────────────────────────────────────────────────────────

    def get_usage_events(self, params: GetUsageEventsParams, principal: Principal) -> UsageEventsResponse:
        """One page of usage events with exact totals over the whole filter.

        Raises
        ------
        BadParameter
            Naming the parameter, e.g. an empty window.
        AccessDenied
            If `params.organization` names one outside the principal's.
        """
        selection = self._select(params, principal)
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

    def summary(self, params: GetUsageEventsParams, principal: Principal) -> Summary:
        """Header figures, one point per day, and the previous equal period for comparison."""
        selection = self._select(params, principal)
        days, whole = self._days(selection), self._totals(selection)
        before = period_before(selection, self._clock())
        previous = None if before is None else self._totals(before)
        return Summary(whole, days, previous, _same(days, whole))

    def breakdown(
        self, params: GetUsageEventsParams, principal: Principal, *dimensions: str, limit: int | None = None
    ) -> list[Slice]:
        """Credits by type per value of `dimensions`, largest first.

        `model` groups by the set of models of an event (joined by ` + `), so that slices add up to the total.
        """
        for name in dimensions:
            if name not in queries.DIMENSIONS:
                raise BadParameter("dimension", name, "one of " + ", ".join(queries.DIMENSIONS))
        return list(self._slices(self._select(params, principal), dimensions, limit))

    def by_hour_of_week(self, params: GetUsageEventsParams, principal: Principal) -> dict[tuple[int, int], Decimal]:
        """Credits per (weekday, hour) of the reporting timezone; 0 is Monday. Hours without events are absent."""
        return dict(self._heat(self._select(params, principal)))

    def facets(self, params: GetUsageEventsParams, principal: Principal, dimension: str) -> list[tuple[str, int]]:
        """Values to filter by and how many events have them, within the window of `params` alone."""
        selection = self._select(
            GetUsageEventsParams(**{"from": params.from_, "to": params.to, "as_of": params.as_of}), principal
        )
        return list(self._facet(selection, dimension))

    def explain(self, event_id: str, principal: Principal) -> Passport:
        """An event's passport.

        Raises
        ------
        NotFound
            If there is no such event, or the principal may not see it.
        """
        scope = scope_of(principal)
        found = None if "\0" in event_id else self._ledger.engine.read(queries.event(scope, event_id))
        if found is None or found.num_rows == 0:
            raise NotFound(f"event {event_id!r} is not in the ledger; pull the time it happened in, or check the id")
        stored = queries.with_utc(found).to_pylist()[0]
        revisions = self._ledger.read_rows(queries.revisions(scope, event_id))
        event = published.events(found.select(list(queries.PAGE_COLUMNS)))[0]
        intents = self.stripe.intents_of(event_id, principal)
        spans = self._ledger.snapshot().closed
        closed = self._ledger.read_rows(queries.closed_states(scope, event_id, spans)) if spans else []
        months = {span.seq: span.period for span in spans}
        states = [(months[row["close_seq"]], row) for row in closed]
        return explain(event, stored, revisions, self._card(event.rate_card_version), intents, states)

    def csv(self, params: GetUsageEventsParams, principal: Principal) -> Iterator[bytes]:
        """Every event of the filter as CSV, in time order, in pieces; access is checked before the first one."""
        source = by_event(Usage.of(self._ledger, self._select(params, principal), self.settings.zone, {}))
        return chain((csv_header(source.names),), csv_pieces(source.tables()))

    def lint(self, params: GetUsageEventsParams, principal: Principal) -> Iterator[Finding]:
        """Events a person should look at: tokens without a price, credits the card does not give, odd latency."""
        selection = self._select(params, principal)
        expression = queries.selected(selection).order_by("timestamp", "id")
        for offset in range(0, self._totals(selection).events, CSV_ROWS):
            for row in self._ledger.read_rows(expression.limit(CSV_ROWS, offset=offset)):
                yield from lint_event(row, self._card(row["rate_card_version"]))

    # ── pulling ──────────────────────────────────────────────────────────────────────────────────

    def pull(
        self,
        principal: Principal,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        first_days: int = FIRST_PULL_DAYS,
        progress: Progress | None = None,
        on_wait: Callable[[], None] | None = None,
    ) -> PullResult:
        """Read Langfuse into the ledger; without a window incrementally. One pull at a time per ledger.

        The first incremental pull reads the last `first_days` days. Afterwards notices of reached limits are raised
        and delivered; what goes wrong there is logged and does not make the pull fail.

        Raises
        ------
        UpstreamError, WarehouseError
            If a side could not be reached; what was booked stays, the next pull goes on from there.
        """
        if start is None and end is not None:
            raise BadParameter("from", None, "a time, when --to is given")
        provider = self._connect(self.settings, self._cards())
        try:
            with exclusive(self._pull_lock, on_wait=on_wait):
                self._ledger.claim(self.settings.mode)
                result = self._pull(provider, principal, start, end, first_days, progress)
        finally:
            provider.close()
        self.organizations.limits.notices.look_calmly(principal.name)
        return result

    def _pull(
        self,
        provider: LangfuseProvider,
        principal: Principal,
        start: datetime | None,
        end: datetime | None,
        first_days: int,
        progress: Progress | None,
    ) -> PullResult:
        now = self._clock()
        covered = None
        if start is None:
            covered = self._ledger.covered_until()
            lookback = timedelta(hours=self.settings.lookback_hours)
            window = incremental_window(covered, now=now, lookback=lookback, first_days=first_days)
            window = within_retention(window, provider.project().retention_days, now=now)
        else:
            window = window_in(self.settings.zone, start, end or now)
        return pull(
            provider,
            self._ledger,
            self._cards(),
            self._policy,
            window,
            actor=principal.name,
            spool=self._spool,
            incremental=start is None,
            ended_since=None if covered is None else window.start,
            progress=progress,
        )

    def freshness(self) -> Freshness:
        """When Langfuse was last read to the end, whether a pull runs now, and what is missing if one failed."""
        runs = self._ledger.last_runs()
        running = is_held(self._pull_lock)
        success = next((run for run in runs if run.outcome in {"done", "partial"}), None)
        return Freshness(success, running, _problem(runs, running))

    # ── journal ──────────────────────────────────────────────────────────────────────────────────

    def audit(self, actor: str, action: str, detail: dict[str, Any]) -> None:
        """Append to the audit log."""
        self._ledger.audit(actor, action, detail)

    def runs(self, limit: int = 20) -> list[Run]:
        """The run log, newest first."""
        return self._ledger.last_runs(limit)

    def check_mode(self) -> None:
        """Refuse to show a ledger of the other mode: demo passwords are public.

        Raises
        ------
        SettingsError
            If the ledger was bound to the other mode.
        """
        kind = self._ledger.kind()
        if kind is not None and kind is not self.settings.mode:
            self._ledger.claim(self.settings.mode)

    def back_up(self, path: Path, principal: Principal) -> BackedUp:
        """Write books, accounts, tokens and sessions into one archive, while everything runs; see `backups.backup`."""
        from billing_core.backups.backup import back_up

        return back_up(self.settings, self._ledger, principal, path, self._clock())

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    @property
    def _pull_lock(self) -> Path:
        path = self.settings.warehouse_path
        return path.with_name(path.name + ".pull")

    @property
    def _spool(self) -> Path:
        path = self.settings.warehouse_path
        return path.with_name(path.name + ".spool")

    @property
    def _policy(self) -> Policy:
        """Who pays and what is not billed, by settings, card file and organization directory as they are now."""
        s = self.settings
        return Policy(
            s.default_customer_id,
            s.override_customer_id,
            s.langfuse_excluded_environments,
            mapped_customers(self._ledger.engine.rows),
            self._cards().metadata,
        )

    def _select(self, params: GetUsageEventsParams, principal: Principal) -> Selection:
        return select(self._ledger, self.settings.zone, params, principal)

    @lru_cache(64)  # noqa: B019  (one service per process; cards are immutable)
    def _card(self, version: str) -> RateCard | None:
        return None if version == LEGACY_VERSION else self._ledger.card(version)

    def _read_totals(self, selection: Selection) -> Sums:
        return add_up(self._ledger.read_rows(queries.totals(selection)))

    def _read_page(self, selection: Selection, sort: str, descending: bool, limit: int, offset: int) -> pa.Table:
        return self._ledger.engine.read(
            queries.page(selection, sort=sort, descending=descending, limit=limit, offset=offset)
        )

    def _bounds(self, selection: Selection) -> tuple[datetime, datetime] | None:
        """Times that contain every event of the selection: its window, or what the ledger holds."""
        if selection.start is not None and selection.end is not None:
            return selection.start, selection.end
        found = self._ledger.read_rows(queries.extent(selection))[0]
        if found["first"] is None:
            return None
        return found["first"], found["last"] + timedelta(microseconds=1)

    def _read_days(self, selection: Selection) -> tuple[DayTotals, ...]:
        bounds = self._bounds(selection)
        return (
            ()
            if bounds is None
            else by_day(self._ledger.read_rows(queries.daily(selection, self.settings.zone, *bounds)))
        )

    def _read_slices(self, selection: Selection, dimensions: tuple[str, ...], limit: int | None) -> list[Slice]:
        rows = self._ledger.read_rows(queries.breakdown(selection, dimensions, limit=limit))
        return [
            Slice(tuple(_shown_value(name, row[name]) for name in dimensions), row["events"], parts_of(row))
            for row in rows
        ]

    def _read_heat(self, selection: Selection) -> dict[tuple[int, int], Decimal]:
        bounds = self._bounds(selection)
        if bounds is None:
            return {}
        rows = self._ledger.read_rows(queries.by_hour_of_week(selection, self.settings.zone, *bounds))
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


def _connect_langfuse(settings: Settings, cards: RateCardFile, clock: Clock) -> LangfuseProvider:
    from billing_core.langfuse.provider import LangfuseProvider  # only pulls need its HTTP stack

    return LangfuseProvider.from_settings(settings, cards.metadata, clock)


def _shown_value(dimension: str, value: str | None) -> str | None:
    if dimension == "model":
        return " + ".join(queries.split_models(value or "")) or None
    return value


def _same(days: tuple[DayTotals, ...], whole: Sums) -> bool:
    """Whether the days add up to the whole, to the last digit."""
    added = [(day.totals.credits.total, day.totals.amount_usd) for day in days]
    return (
        reduce(EXACT.add, (credit for credit, _ in added), Decimal(0)) == whole.totals.credits.total
        and reduce(EXACT.add, (amount for _, amount in added), Decimal(0)) == whole.totals.amount_usd
        and sum(day.events for day in days) == whole.events
    )


def _problem(runs: list[Run], running: bool) -> str | None:
    """Why the newest run leaves the ledger incomplete, if it does."""
    if not runs:
        return None
    newest = runs[0]
    if newest.outcome == "failed":
        return newest.error or "it failed"
    if newest.outcome == "running" and not running:
        return "it was stopped before it finished"
    if newest.outcome == "partial":
        return f"{newest.rejected:,} rows could not be read"
    return None
