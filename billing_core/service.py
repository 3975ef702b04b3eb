"""BillingService: the one door for pages, command line and HTTP API. Every call takes a `Principal`.

What people do with a noun is in its room's `service.py`; this joins them over one ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from billing_core.access import Principal
from billing_core.alerts.service import AlertService
from billing_core.alerts.watch import Watcher
from billing_core.audit.service import AuditService
from billing_core.exports.service import ExportService
from billing_core.imports.service import ImportService
from billing_core.ingest.pull import FIRST_PULL_DAYS, PullResult
from billing_core.ingest.service import ConnectLangfuse, Freshness, Progress, PullService
from billing_core.ledger.active_cards import ActiveCards
from billing_core.ledger.directory import mapped_customers
from billing_core.ledger.duckdb_engine import DuckDBEngine
from billing_core.ledger.engine import Engine
from billing_core.ledger.journal import Ledger, PullRun
from billing_core.month_close.service import MonthCloseService
from billing_core.organizations.service import OrganizationService
from billing_core.rating.card import RateCardFile, load_rate_cards
from billing_core.rating.events import Policy
from billing_core.rerating.service import ReratingService
from billing_core.runtime.clock import Clock, now
from billing_core.saved_views.service import SavedViewService
from billing_core.settings import Settings
from billing_core.stripe_sync.service import ConnectStripe, StripeSyncService
from billing_core.types import PREVIOUS, GetUsageEventsParams, UsageEventsResponse
from billing_core.usage_events.explain import EventExplanation
from billing_core.usage_events.explore_model import Exploration, ExploreQuestion
from billing_core.usage_events.lint import LintFinding
from billing_core.usage_events.model import BreakdownRow, Summary
from billing_core.usage_events.service import UsageEventsService

if TYPE_CHECKING:
    from billing_core.backups.backup import BackedUp
    from billing_core.langfuse.provider import LangfuseProvider


class BillingService:
    """Everything pages, commands and the HTTP API can ask, each call with a `Principal`. Thread-safe."""

    def __init__(
        self,
        settings: Settings,
        *,
        engine: Engine | None = None,
        connect: ConnectLangfuse | None = None,
        connect_stripe: ConnectStripe | None = None,
        clock: Clock = now,
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._ledger = Ledger(engine or DuckDBEngine(settings.warehouse_path, clock=clock))
        self._connect = connect or (lambda settings, cards: _connect_langfuse(settings, cards, clock))
        self._cards = ActiveCards(self._ledger, load_rate_cards(settings.rate_card)).current
        self.stripe = StripeSyncService(
            settings,
            self._ledger,
            self._cards,
            connect_stripe,
            clock,
            policy=lambda: self._policy,
            connect_langfuse=lambda: self._connect(settings, self._cards()),
        )
        self.organizations = OrganizationService(settings, self._ledger, self._cards, self.stripe, clock)
        self.exports = ExportService(settings, self._ledger, self._cards, self.stripe, clock)
        self.months = MonthCloseService(settings, self._ledger, self.stripe, self.exports, clock)
        self.rerating = ReratingService(settings, self._ledger, self.organizations.limits, lambda: self._policy)
        self.imports = ImportService(
            settings, self._ledger, self._cards, self.organizations.directory, lambda: self._policy, clock
        )
        self.trail = AuditService(self._ledger, settings.zone)
        self.views = SavedViewService(self._ledger, clock)
        self.events = UsageEventsService(self._ledger, settings.zone, clock)
        self.pulls = PullService(
            settings, self._ledger, self._cards, lambda: self._policy, self._connect, self._after_pull, clock
        )
        watcher = Watcher(settings, self._ledger, self.events, self.organizations, self.stripe, self.pulls, clock)
        self.alerts = AlertService(settings, self._ledger, watcher, clock)

    @classmethod
    def from_settings(
        cls, settings: Settings, *, connect: ConnectLangfuse | None = None, connect_stripe: ConnectStripe | None = None
    ) -> BillingService:
        """The service over the ledger the settings name; `connect` and `connect_stripe` make its providers."""
        return cls(settings, connect=connect, connect_stripe=connect_stripe)

    def now(self) -> datetime:
        """The present time (aware UTC) that everything shown is relative to."""
        return self._clock()

    def close(self) -> None:
        """Close the ledger file; the next use opens it again."""
        self._ledger.engine.close()

    def ready(self) -> None:
        """Check that the ledger answers; raises `WarehouseError` saying why if it does not."""
        self._ledger.version()

    def version(self) -> int:
        """Booking number of the newest change; views made from it are current while it stays."""
        return self._ledger.version()

    def rate_cards(self) -> RateCardFile:
        """The rate cards in use: those of the card file, and imported ones."""
        return self._cards()

    # ── usage events ─────────────────────────────────────────────────────────────────────────────

    def get_usage_events(self, params: GetUsageEventsParams, principal: Principal) -> UsageEventsResponse:
        """One page of usage events with exact totals over the whole filter."""
        return self.events.get_usage_events(params, principal)

    def summary(self, params: GetUsageEventsParams, principal: Principal, compare: str | None = PREVIOUS) -> Summary:
        """Header figures of a filter's events, one point per day, beside those of what they are compared with."""
        return self.events.summary(params, principal, compare)

    def breakdown(
        self, params: GetUsageEventsParams, principal: Principal, *dimensions: str, limit: int | None = None
    ) -> list[BreakdownRow]:
        """Credits by type per value of `dimensions`, largest first."""
        return self.events.breakdown(params, principal, *dimensions, limit=limit)

    def explore(self, params: GetUsageEventsParams, question: ExploreQuestion, principal: Principal) -> Exploration:
        """Usage grouped by any one or two dimensions, in periods, beside an earlier window (`usage_events.explore`)."""
        return self.events.explore(params, question, principal)

    def by_hour_of_week(self, params: GetUsageEventsParams, principal: Principal) -> dict[tuple[int, int], Decimal]:
        """Credits per (weekday, hour) of the reporting timezone; 0 is Monday. Hours without events are absent."""
        return self.events.by_hour_of_week(params, principal)

    def facets(self, params: GetUsageEventsParams, principal: Principal, dimension: str) -> list[tuple[str, int]]:
        """Values of one dimension to filter by and how many events have each, within the window of `params` alone."""
        return self.events.facets(params, principal, dimension)

    def event_ids(self, params: GetUsageEventsParams, principal: Principal) -> list[str]:
        """The ids of every event of a filter, sorted."""
        return self.events.ids(params, principal)

    def explain(self, event_id: str, principal: Principal) -> EventExplanation:
        """How an event came to its credits and how far they got; `NotFound` if the principal may not see it."""
        return self.events.explain(event_id, principal)

    def csv(self, params: GetUsageEventsParams, principal: Principal) -> Iterator[bytes]:
        """Every event of the filter as CSV, in time order, in pieces; access is checked before the first one."""
        return self.exports.usage_csv(params, principal)

    def lint(self, params: GetUsageEventsParams, principal: Principal) -> Iterator[LintFinding]:
        """Events a person should look at: tokens without a price, credits the card does not give, odd latency."""
        return self.events.lint(params, principal)

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
        """Read Langfuse into the ledger; without a window incrementally. One pull at a time per ledger."""
        return self.pulls.pull(
            principal, start=start, end=end, first_days=first_days, progress=progress, on_wait=on_wait
        )

    def freshness(self) -> Freshness:
        """When Langfuse was last read to the end, whether a pull runs now, and what is missing if one failed."""
        return self.pulls.freshness()

    # ── journal ──────────────────────────────────────────────────────────────────────────────────

    def audit(self, actor: str, action: str, detail: dict[str, Any]) -> None:
        """Append an entry to the audit log."""
        self._ledger.audit(actor, action, detail)

    def runs(self, limit: int = 20) -> list[PullRun]:
        """The newest pulls of the run log, newest first."""
        return self._ledger.last_runs(limit)

    def check_mode(self) -> None:
        """Refuse to show a ledger that was filled in the other mode (demo or live): demo passwords are public.

        Raises SettingsError: if the ledger was bound to the other mode.
        """
        kind = self._ledger.kind()
        if kind is not None and kind is not self.settings.mode:
            self._ledger.claim(self.settings.mode)

    def back_up(self, path: Path, principal: Principal) -> BackedUp:
        """Write ledger, accounts, tokens and sessions into one archive, while everything runs (`backups.backup`)."""
        from billing_core.backups.backup import back_up

        return back_up(self.settings, self._ledger, principal, path, self._clock())

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _after_pull(self, principal: Principal) -> None:
        """Deliver notices of reached limits and alerts; what goes wrong there is logged, the pull does not fail."""
        self.organizations.limits.notices.check_limits_quietly(principal.name)
        self.alerts.check_quietly(principal.name)

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


def _connect_langfuse(settings: Settings, cards: RateCardFile, clock: Clock) -> LangfuseProvider:
    from billing_core.langfuse.provider import LangfuseProvider  # only pulls need its HTTP stack

    return LangfuseProvider.from_settings(settings, cards.metadata, clock)
