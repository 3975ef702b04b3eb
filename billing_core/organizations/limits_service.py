"""Plans and limits of organizations, for admins. Part of `BillingService.organizations`.

What Stripe says of subscriptions is remembered in the ledger and shown with its age; nothing here waits for Stripe but
`refresh`. An admin limited to organizations gets figures made of those organizations' events alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any

from billing_core.access import Principal, Role, Scope, scope_of
from billing_core.errors import UpstreamError
from billing_core.ledger import period_usage
from billing_core.ledger.directory import DirectoryStore, names_in
from billing_core.ledger.journal import Ledger
from billing_core.ledger.queries import Selection, Snapshot
from billing_core.ledger.stripe_snapshots import StripeSnapshots
from billing_core.organizations.limits import Limit
from billing_core.organizations.limits_csv import limits_csv
from billing_core.organizations.notices_service import NoticeRun, NoticeService
from billing_core.organizations.plan_rows import CustomerPlan, Pairs, limits_of, plans_of
from billing_core.rating.card import RateCardFile
from billing_core.runtime.clock import Clock, now
from billing_core.settings import Settings
from billing_core.stripe_sync.account_cache import (
    AccountSnapshot,
    known_meter,
    last_plans_failure,
    period_ended,
    snapshot_read_at,
    stored_snapshot,
)
from billing_core.stripe_sync.customer_status import NO_SUBSCRIPTION, UNKNOWN
from billing_core.stripe_sync.service import StripeSyncService
from billing_core.values.decimals import EXACT

NAMED_WITHIN = timedelta(days=90)
"""A customer that an organization's events have not named for longer is not its customer any more."""

OUTDATED_AFTER = timedelta(hours=1)
"""Older readings of Stripe are taken anew when somebody looks."""

CALM_AFTER_FAILURE = timedelta(minutes=10)
"""Nobody asks again by themselves this soon after a reading failed."""

REMEMBERED = 16

FAILED = "Stripe could not be read the last time."
"""For people who see some organizations only: the reason itself may name others."""

Periods = tuple[tuple[str, datetime, datetime], ...]


@dataclass(frozen=True, slots=True)
class LimitsReading:
    """The limits of every organization the reader may see, and how current they are.

    `read_at` is when Stripe was read, `None` before the first time; `problem` says in a sentence what is wrong with
    that. `is_outdated` says that a refresh is due, and may be started without being asked for.
    """

    rows: tuple[Limit, ...]
    read_at: datetime | None
    problem: str | None
    is_outdated: bool


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The result of reading plans from Stripe anew; `problems` are the parts that could not be read."""

    problems: tuple[str, ...]
    looked: NoticeRun


class LimitsService:
    """What admins can do with plans and limits, for one principal per call. Thread-safe.

    notices: What follows from limits that are reached.
    """

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        cards: Callable[[], RateCardFile],
        stripe_desk: StripeSyncService,
        clock: Clock = now,
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._ledger = ledger
        self._cards = cards
        self._stripe = stripe_desk
        self._clock = clock
        self._snapshots = StripeSnapshots(ledger.engine)
        self._directory = DirectoryStore(ledger.engine)
        self._snapshot = lru_cache(1)(self._read_snapshot)
        self._usage = lru_cache(REMEMBERED)(self._read_usage)
        self.notices = NoticeService(settings, ledger, self._limits, self._clock, pause=pause)

    def read(self, principal: Principal) -> LimitsReading:
        """The limits of every organization the principal may see, by organization and customer.

        Raises AccessDenied: unless the principal is an admin.
        """
        principal.require(Role.ADMIN)
        snapshot = self._last_snapshot()
        return LimitsReading(
            rows=tuple(self._limits(scope_of(principal))),
            read_at=None if snapshot is None else snapshot.read_at,
            problem=self._problem_with(snapshot, principal),
            is_outdated=self._is_outdated(snapshot, self._clock()),
        )

    def of(self, principal: Principal, organization_id: str) -> tuple[Limit, ...]:
        """The limits of one organization; none if nothing is known of it.

        Raises AccessDenied: unless the principal is an admin who may see it.
        """
        principal.require(Role.ADMIN)
        principal.require_organization(organization_id)
        return tuple(row for row in self._limits(scope_of(principal)) if row.organization_id == organization_id)

    def csv(self, principal: Principal) -> Iterator[bytes]:
        """The limits as CSV, for whoever may `read`."""
        rows = self.read(principal).rows
        return limits_csv(rows, names_in(self._directory.newest()), self._clock())

    def refresh(self, principal: Principal) -> Refreshed:
        """Read plans from Stripe anew, and raise the notices of limits reached.

        An admin limited to organizations does not learn what followed for others, nor Stripe's words, which may name
        them.

        Raises SettingsError: without a Stripe key. UpstreamError: if Stripe could not be read: what was read before
        stays, with its age.
        """
        sees_everything = principal.organizations is None
        try:
            problems = self._stripe.read_plans(principal)
        except UpstreamError:
            if sees_everything:
                raise
            raise UpstreamError(FAILED) from None
        looked = self.notices.check_limits_quietly(principal.name)
        return Refreshed(problems, looked) if sees_everything else Refreshed((), NoticeRun())

    # ── what Stripe said ─────────────────────────────────────────────────────────────────────────

    def _last_snapshot(self) -> AccountSnapshot | None:
        at = snapshot_read_at(self._snapshots)
        return None if at is None else self._snapshot(at)

    def _read_snapshot(self, _at: datetime) -> AccountSnapshot:
        return stored_snapshot(self._snapshots)

    def _is_outdated(self, snapshot: AccountSnapshot | None, now: datetime) -> bool:
        if not self._stripe.is_connected:
            return False
        failure = last_plans_failure(self._snapshots)
        if failure is not None and now - failure[1] < CALM_AFTER_FAILURE:
            return False
        if snapshot is None or snapshot.read_at is None:
            return True
        return now - snapshot.read_at >= OUTDATED_AFTER or period_ended(snapshot, now)

    def _problem_with(self, snapshot: AccountSnapshot | None, principal: Principal) -> str | None:
        failure = last_plans_failure(self._snapshots)
        if failure is not None and (snapshot is None or snapshot.read_at is None or failure[1] > snapshot.read_at):
            return failure[0] if principal.organizations is None else FAILED
        if not self._stripe.is_connected:
            return "Stripe is not connected: STRIPE_API_KEY is not set."
        if snapshot is not None and not snapshot.knows_subscriptions:
            return "Stripe offered no list of subscriptions: plans are unknown."
        return None

    # ── limits ───────────────────────────────────────────────────────────────────────────────────

    def plans(self, principal: Principal) -> dict[str, str]:
        """Customer → the name of their plan, as last read from Stripe.

        Raises AccessDenied: unless finance or an admin who may see every organization asks.
        """
        principal.require(Role.FINANCE, Role.ADMIN)
        principal.require_everything("customers belong to all of them")
        snapshot = self._last_snapshot()
        subscriptions = () if snapshot is None else snapshot.subscriptions
        found = plans_of(subscriptions, known_meter(self._snapshots), self._cards().plans, self._clock())
        return {customer: plan.name for customer, plan in found.items() if plan.name is not None}

    def _limits(self, scope: Scope) -> list[Limit]:
        now, snapshot = self._clock(), self._last_snapshot()
        subscriptions = () if snapshot is None else snapshot.subscriptions
        plans = plans_of(subscriptions, known_meter(self._snapshots), self._cards().plans, now)
        periods = tuple((c, p.start, p.end) for c, p in sorted(plans.items()) if p.start is not None and p.end)
        named_since = (now - NAMED_WITHIN).replace(hour=0, minute=0, second=0, microsecond=0)
        version = self._ledger.version()
        start = min([named_since, *(start for _, start, _ in periods)])
        pairs = self._usage(Selection(scope, Snapshot(version, version), start=start), periods, named_since)
        is_known = snapshot is not None and snapshot.knows_subscriptions
        absent = CustomerPlan(None, NO_SUBSCRIPTION if is_known else UNKNOWN)
        return limits_of(self._with_directory(pairs, scope), plans, absent)

    def _with_directory(self, pairs: Pairs, scope: Scope) -> Pairs:
        """With the customers of the directory, and its organizations whose events are older."""
        found = dict(pairs)
        for organization, row in self._directory.newest().items():
            line = row.after
            if scope.holds(organization) and (line.name or line.customer_id):
                found.setdefault((organization, line.customer_id), Decimal(0))
        return found

    def _read_usage(self, selection: Selection, periods: Periods, named_since: datetime) -> Pairs:
        """What the events of the selection say of organizations and customers that belong together."""
        expression = period_usage.customers_and_usage(selection, named_since)
        given = {period_usage.GIVEN: period_usage.periods_table(periods)}
        found: dict[tuple[str | None, str | None], Decimal] = {}
        rows: list[dict[str, Any]] = self._ledger.engine.read(expression, given).to_pylist()
        for row in rows:
            if row["is_named"] or row["used"]:
                pair = (row["organization_id"] or None, row["customer_id"] or None)
                found[pair] = EXACT.add(found.get(pair, Decimal(0)), row["used"] or Decimal(0))
        return found
