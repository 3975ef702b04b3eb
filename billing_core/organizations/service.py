"""What admins ask about organizations. Part of `BillingService`; every call takes a `Principal` and needs an admin.

An admin limited to organizations sees those only, and nothing that lets him learn that others exist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

from billing_core.access import Principal, Role, scope_of
from billing_core.ledger import queries, statistics
from billing_core.ledger.journal import Ledger
from billing_core.ledger.queries import Selection
from billing_core.organizations.directory import Directory
from billing_core.organizations.figures import Figures, OrganizationFigures, Statistics, added
from billing_core.organizations.forecast_service import ForecastService
from billing_core.organizations.limits_service import LimitsService
from billing_core.organizations.rollup import Rows, percentile, roll_up
from billing_core.rating.card import RateCardFile
from billing_core.runtime.clock import Clock, now
from billing_core.settings import Settings
from billing_core.stripe_sync.service import StripeSyncService
from billing_core.types import PREVIOUS, GetUsageEventsParams
from billing_core.usage_events.selection import compared_with, select
from billing_core.usage_events.totals import EPOCH, add_up
from billing_core.values.decimals import EXACT
from billing_core.values.usage_frame import Window

REMEMBERED = 32
"""Answers kept per kind of question. One holds a few kilobytes per organization."""


@dataclass(frozen=True, slots=True)
class ActiveUsers:
    """How many people used an organization's applications on one day: all of them, and those never seen before."""

    day: date
    active: int
    new: int


@dataclass(frozen=True, slots=True)
class MonthRow:
    """An organization in a month (`None`: events without one): its name, who pays, its figures, and the plans of those
    customers as last read from Stripe.
    """

    organization_id: str | None
    name: str | None
    customer_ids: tuple[str, ...]
    figures: Figures
    plans: tuple[str, ...]


class OrganizationService:
    """What admins can ask about organizations. Thread-safe.

    directory: Names, and customers of organizations whose events name none.
    limits: Plans, limits and notices.
    forecasting: Forecasts and anomalies.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        cards: Callable[[], RateCardFile],
        stripe: StripeSyncService,
        clock: Clock = now,
    ) -> None:
        self._ledger = ledger
        self._zone = settings.zone
        self._clock = clock
        self.directory = Directory(ledger, settings, clock)
        self.limits = LimitsService(settings, ledger, cards, stripe, clock)
        self.forecasting = ForecastService(settings, ledger, clock, self.limits)
        self._statistics = lru_cache(REMEMBERED)(self._read_statistics)
        self._users = lru_cache(REMEMBERED)(self._read_users)

    def statistics(
        self, params: GetUsageEventsParams, principal: Principal, compare: str | None = PREVIOUS
    ) -> Statistics:
        """The figures of every organization in the window of `params`, beside those of what they are compared with: the
        equally long period before (`previous`), a window `FROM..TO`, or nothing.

        Raises AccessDenied: unless the principal is an admin, or if `params` name an organization outside theirs.
            BadParameter: naming the parameter.
        """
        principal.require(Role.ADMIN)
        selection = select(self._ledger, self._zone, params, principal)
        return self._statistics(selection, compared_with(selection, compare, self._clock(), self._zone))

    def of_month(self, window: Window, principal: Principal) -> tuple[tuple[MonthRow, ...], Figures]:
        """What finance needs of each organization in a month, largest amount first, and the sums over all of them.

        Raises AccessDenied: unless finance or an admin who may see every organization asks.
        """
        plans, names = self.limits.plans(principal), self.directory.names(principal)
        selection = Selection(scope_of(principal), self._ledger.snapshot(), window.start, window.end)
        found = self._statistics(selection, None)
        rows = [
            MonthRow(
                one.organization_id,
                names.get(one.organization_id or ""),
                one.customer_ids,
                one.now,
                tuple(sorted({plans[customer] for customer in one.customer_ids if customer in plans})),
            )
            for one in found.organizations
            if one.now.events
        ]
        rows.sort(key=lambda row: (-row.figures.amount_usd, row.organization_id is None, row.organization_id))
        return tuple(rows), found.total

    def active_users(self, params: GetUsageEventsParams, principal: Principal) -> tuple[ActiveUsers, ...]:
        """Active and new users per day that has any, oldest first."""
        principal.require(Role.ADMIN)
        return self._users(select(self._ledger, self._zone, params, principal))

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    def _read_statistics(self, selection: Selection, before: Selection | None) -> Statistics:
        now = self._figures(selection)
        then = {} if before is None else self._figures(before)
        first, days = self._days(selection)
        length = max((len(values) for values in days.values()), default=0)
        customers: dict[str | None, list[str]] = {}
        for row in self._ledger.read_rows(statistics.customers(selection)):
            customers.setdefault(row["organization_id"], []).append(row["customer_id"])
        nothing = added([], latency_p95=None)
        organizations = [
            OrganizationFigures(
                key,
                now.get(key, nothing),
                None if before is None else then.get(key, nothing),
                tuple(days.get(key, [Decimal(0)] * length)),
                tuple(sorted(customers.get(key, ()))),
            )
            for key in {**now, **then}
        ]
        organizations.sort(key=lambda one: (-one.now.credits.total, one.organization_id is None, one.organization_id))
        total = added([one.now for one in organizations], latency_p95=self._p95(selection))
        previous = None
        if before is not None:
            previous = added(list(then.values()), latency_p95=self._p95(before))
        return Statistics(
            organizations=tuple(organizations),
            total=total,
            previous_total=previous,
            previous_window=None if before is None else (before.start, before.end),
            first_day=None if first is None else first.isoformat(),
            ties_out=self._ties_out(selection, total, days),
            has_costs=selection.scope.sees_costs,
        )

    def _figures(self, selection: Selection) -> dict[str | None, Figures]:
        return roll_up(
            Rows(
                sums=self._ledger.read_rows(statistics.sums(selection)),
                counts=self._ledger.read_rows(statistics.counts(selection)),
                latency=self._ledger.read_rows(statistics.latency(selection, by_organization=True)),
                models=self._ledger.read_rows(statistics.models(selection)),
                token_classes=self._ledger.read_rows(statistics.token_classes(selection)),
            )
        )

    def _p95(self, selection: Selection) -> Decimal | None:
        return percentile(self._ledger.read_rows(statistics.latency(selection, by_organization=False))[0]["p95"])

    def _bounds(self, selection: Selection) -> tuple[datetime, datetime] | None:
        """The times of the first and the last event, or the window's own start: a quiet beginning is shown."""
        found = self._ledger.read_rows(queries.extent(selection))[0]
        if found["first"] is None:
            return None
        end = min(selection.end or self._clock(), max(self._clock(), found["last"] + timedelta(microseconds=1)))
        return selection.start or found["first"], max(end, found["last"] + timedelta(microseconds=1))

    def _days(self, selection: Selection) -> tuple[date | None, dict[str | None, list[Decimal]]]:
        """Credits per organization for each day from the first to the last; days without events are 0."""
        bounds = self._bounds(selection)
        if bounds is None:
            return None, {}
        start, end = bounds
        first = (start.astimezone(self._zone).date() - EPOCH).days
        last = ((end - timedelta(microseconds=1)).astimezone(self._zone).date() - EPOCH).days
        found: dict[str | None, list[Decimal]] = {}
        for row in self._ledger.read_rows(statistics.credits_per_day(selection, self._zone, start, end)):
            values = found.setdefault(row["organization_id"], [Decimal(0)] * (last - first + 1))
            values[row["day"] - first] = row["credits_total"]
        return EPOCH + timedelta(days=first), found

    def _ties_out(self, selection: Selection, total: Figures, days: dict[str | None, list[Decimal]]) -> bool:
        """Whether rows and days add up to what Usage Events sums over the same events."""
        whole = add_up(self._ledger.read_rows(queries.totals(selection)))
        daily = Decimal(0)
        for value in (value for values in days.values() for value in values):
            daily = EXACT.add(daily, value)
        return (
            whole.totals.credits == total.credits
            and whole.totals.amount_usd == total.amount_usd
            and whole.totals.cost_usd == total.cost_usd
            and whole.events == total.events
            and whole.unsynced_credits == total.unsynced_credits
            and daily == total.credits.total
        )

    def _read_users(self, selection: Selection) -> tuple[ActiveUsers, ...]:
        bounds = self._bounds(selection)
        if bounds is None:
            return ()
        active = self._ledger.read_rows(statistics.active_users(selection, self._zone, *bounds))
        fresh = {
            row["day"]: row["users"]
            for row in self._ledger.read_rows(statistics.new_users(selection, self._zone, *bounds))
        }
        return tuple(
            ActiveUsers(EPOCH + timedelta(days=row["day"]), row["users"], fresh.get(row["day"], 0))
            for row in sorted(active, key=lambda row: row["day"])
        )
