"""A cache, in the ledger, of what was read from Stripe and when: reads are rationed, and an outage must not look like
"no plan" or 0 (Stripe notes, facts 1, 2 and 10).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeVar

import msgspec

from billing_core.errors import NotFound, SettingsError, UpstreamError
from billing_core.ledger.push_log import PushLog
from billing_core.ledger.stripe_snapshots import StoredObject, StripeSnapshots
from billing_core.ledger.sync import IntentUpdate, SyncStore
from billing_core.runtime.clock import Clock
from billing_core.stripe.delivery import METER_GONE_CODES
from billing_core.stripe.model import Customer, ErrorReport, HourlySum, Invoice, Subscription
from billing_core.stripe.periods import BillingCalendar, calendar_of
from billing_core.stripe.provider import StripeProvider
from billing_core.stripe.reading import ReadFailed
from billing_core.stripe_sync.confirmation import resolve
from billing_core.stripe_sync.read_ration import ReadRation
from billing_core.values.usage_frame import HOUR, Window, hour_of, whole_hours

FRESH = timedelta(minutes=1)
"""For previews. A push that sends reads anew: a period may have been ended by hand a moment ago."""

BETWEEN_READS = timedelta(hours=1)
"""Between two looks at a customer's sums that can wait, and between two other reads while they are spared."""

GUARDING = 0.5
"""Share of a day's looks that looks before sending may use; the others confirm what was sent."""

KEPT_REPORTS = 5_000
HTTP_NOT_FOUND = 404
REPORTS_OVERLAP = timedelta(hours=1)
FIRST_REPORTS = timedelta(days=30)
"""The events feed is eventually consistent, and ends after 30 days."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AccountSnapshot:
    """Customers, subscriptions and draft invoices as they were at `read_at`; `None` customers: could not be read.

    `knows_subscriptions` is false where the server offered no list of them: having none then says nothing. `asked` are
    customers that Stripe's lists leave out and that were asked for by themselves.
    """

    customers: tuple[Customer, ...] | None = None
    subscriptions: tuple[Subscription, ...] = ()
    drafts: tuple[Invoice, ...] = ()
    read_at: datetime | None = None
    knows_subscriptions: bool = True
    asked: tuple[str, ...] = ()

    def calendars(self, customers: Iterable[str], meter_id: str, now: datetime) -> Mapping[str, BillingCalendar]:
        """The billing periods of some customers, by customer id."""
        wanted = set(customers)
        subscriptions = _by_customer(self.subscriptions, wanted)
        drafts = _by_customer(self.drafts, wanted)
        return {c: calendar_of(subscriptions.get(c, ()), drafts.get(c, ()), meter_id, now) for c in wanted}


@dataclass(frozen=True, slots=True)
class KeptSnapshot:
    """What the ledger stores about an account snapshot beside its lists of customers, subscriptions and drafts."""

    knows_subscriptions: bool = True
    asked: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeptMeter:
    """What is stored about the meter beside its id; `account` tells whether key and address are the same."""

    livemode: bool | None = None
    account: str | None = None


@dataclass(frozen=True, slots=True)
class KeptSummary:
    """Stripe's hourly sums (credits) of one customer as last read; hours without a sum counted nothing."""

    start: datetime
    end: datetime
    buckets: tuple[HourlySum, ...]


def _by_customer(rows: Iterable[T], wanted: set[str]) -> dict[str, tuple[T, ...]]:
    found: dict[str, tuple[T, ...]] = {}
    for row in rows:
        customer = row.customer_id  # type: ignore[attr-defined]
        if customer in wanted:
            found[customer] = (*found.get(customer, ()), row)
    return found


class AccountCache:
    """Reads from Stripe that are stored in the ledger, so that pages and pushes need few of them."""

    def __init__(self, books: SyncStore, provider: StripeProvider, clock: Clock) -> None:
        self._books = books
        self._snapshots = StripeSnapshots(books.engine)
        self._provider = provider
        self._clock = clock
        self.ration = ReadRation(self._snapshots, provider, clock)

    def meter(self, *, keep: bool = True) -> tuple[str, bool | None]:
        """Id and live mode of the meter credits go to, checked at Stripe, or up to an hour old while reads are
        rationed.

        Raises SettingsError, UpstreamError: as `StripeProvider.preflight` does.
        """
        kept = self._snapshots.read("meter")
        if kept and self.is_spared(kept[0].read_at):
            found = msgspec.json.decode(kept[0].content, type=KeptMeter)
            if found.account is not None and found.account == self._provider.account:
                return kept[0].id, found.livemode
        meter = self._provider.preflight()
        if keep:
            self.keep_meter(meter.id, meter.livemode)
        return meter.id, meter.livemode

    def is_spared(self, read_at: datetime) -> bool:
        """Whether what was read at a time need not be read anew: reads are rationed, and it was within the hour."""
        return self._clock() - read_at < BETWEEN_READS and self.ration.is_tight()

    def snapshot(
        self, *, fresh: timedelta, keep: bool = True, of: Collection[str] = ()
    ) -> tuple[AccountSnapshot, tuple[str, ...]]:
        """A snapshot of Stripe's customers, subscriptions and draft invoices; and why some could not be read. `keep`:
        remember it.

        What was read within `fresh`, or within the hour while reads are spared, is not read again, unless a billing
        period has ended since. Of customers `of` that Stripe's lists leave out, as those on a test clock, subscriptions
        and drafts are asked for by customer.

        Raises UpstreamError: if subscriptions or draft invoices cannot be read: without billing periods nothing may be
        sent, and without drafts late usage would pass for too late.
        """
        kept = stored_snapshot(self._snapshots)
        now = self._clock()
        is_recent = kept.read_at is not None and (now - kept.read_at < fresh or self.is_spared(kept.read_at))
        if is_recent and not period_ended(kept, now) and not self._unlisted(kept, of):
            return kept, ()
        problems: list[str] = []
        subscriptions = self._if_offered(problems, lambda: tuple(self._provider.subscriptions()))
        drafts = self._if_offered(problems, lambda: tuple(self._provider.invoices("draft")))
        customers = collect_errors(problems, lambda: tuple(self._provider.customers()))
        asked = (
            self._unlisted(AccountSnapshot(customers, subscriptions or ()), of) if subscriptions is not None else set()
        )
        for customer_id in sorted(asked):
            with suppress(NotFound):
                subscriptions = (*(subscriptions or ()), *self._provider.subscriptions(customer_id))
                drafts = (*(drafts or ()), *map(_on_test_clock, self._provider.invoices("draft", customer_id)))
        if keep:
            self._keep("subscription", subscriptions or (), now)
            self._keep("draft", drafts or (), now)
            if customers is not None:
                self._keep("customer", customers, now)
            content = msgspec.json.encode(KeptSnapshot(subscriptions is not None, tuple(sorted(asked)))).decode()
            self._snapshots.store("picture", [StoredObject("picture", None, content, now)])
        snapshot = AccountSnapshot(
            customers or kept.customers, subscriptions or (), drafts or (), now, subscriptions is not None, tuple(asked)
        )
        return snapshot, tuple(problems)

    def _unlisted(self, snapshot: AccountSnapshot, of: Collection[str]) -> set[str]:
        """Customers that no list names. In live mode there are no test clocks, and every customer is listed."""
        if self._provider.is_live or not of or snapshot.customers is None:
            return set()
        listed = {customer.id for customer in snapshot.customers}
        return set(of) - listed - {found.customer_id for found in snapshot.subscriptions} - set(snapshot.asked)

    def keep_meter(self, meter_id: str, livemode: bool | None = None) -> None:
        """Store which meter credits go to: stored subscriptions can only be understood with it."""
        content = msgspec.json.encode(KeptMeter(livemode, self._provider.account)).decode()
        self._snapshots.store("meter", [StoredObject(meter_id, None, content, self._clock())])

    def _if_offered(self, problems: list[str], read: Callable[[], tuple[T, ...]]) -> tuple[T, ...] | None:
        """A list; `None` where the server has no such address, which Stripe itself always has."""
        try:
            return read()
        except ReadFailed as error:
            if error.status != HTTP_NOT_FOUND:
                raise
            problems.append(str(error))
            return None

    def _keep(self, kind: str, rows: Iterable[Customer | Subscription | Invoice], now: datetime) -> None:
        self._snapshots.store(
            kind,
            [StoredObject(row.id or "", _customer_of(row), msgspec.json.encode(row).decode(), now) for row in rows],
        )

    def may_read_reports(self) -> bool:
        """Whether Stripe's error reports may be read now: once an hour while reads are rationed."""
        last = self._snapshots.read("reports_read")
        return not last or not self.is_spared(last[0].read_at)

    def error_reports(self, now: datetime) -> tuple[list[IntentUpdate], tuple[str, ...]]:
        """Updates for intents that Stripe rejected after accepting them, from its error reports; every report is
        stored.

        Beside them, in words, what new reports count and do not name: they hold samples only.
        """
        last = self._snapshots.read("reports_read")
        since = now - FIRST_REPORTS if not last else last[0].read_at - REPORTS_OVERLAP
        reports = self._provider.error_reports(since)
        known = {row.id for row in self._snapshots.read("error_report")}
        fresh = [report for report in reports if report.id not in known]
        kept = self._snapshots.read("error_report")[-KEPT_REPORTS:]
        # Also those read before: whoever read them may have died before the intents were settled.
        told = [*(msgspec.json.decode(row.content, type=ErrorReport) for row in kept), *fresh]
        states = self._books.states_of({i for report in told for error in report.errors for i in error.identifiers})
        self._snapshots.store(
            "error_report",
            [*kept, *(StoredObject(r.id, None, msgspec.json.encode(r).decode(), r.created) for r in fresh)],
        )
        self._snapshots.store("reports_read", [StoredObject("cursor", None, "{}", now)])
        answers = {
            identifier: IntentUpdate(
                identifier,
                "void" if error.code in METER_GONE_CODES else "rejected",
                report.created,
                text=f"Stripe rejected it after accepting it ({error.code}): {error.message}",
                code=error.code,
            )
            for report in told
            for error in report.errors
            for identifier in error.identifiers
            if states.get(identifier) not in {None, "rejected", "void"}
        }
        return list(answers.values()), tuple(text for report in fresh for text in _unnamed(report))

    def buckets(self, meter_id: str, customer_id: str, start: datetime, end: datetime) -> list[HourlySum]:
        """Stripe's sums (credits) of a customer per UTC hour, ends widened to whole ones, read now and stored."""
        hours = whole_hours(Window(start, end))
        try:
            buckets = [HourlySum(*row) for row in self.sums(meter_id, customer_id, hours.start, hours.end).items()]
        except NotFound:
            buckets = []
        self.keep_summary(customer_id, hours.start, hours.end, buckets)
        return buckets

    def sums(self, meter_id: str, customer_id: str, start: datetime, end: datetime) -> dict[datetime, Decimal]:
        """Stripe's sums (credits) of a customer per UTC hour of `[start, end)`, counted in the ration, not stored."""
        before = self._provider.calls
        try:
            rows = self._provider.summaries(meter_id, customer_id, start, end, "hour")
        finally:
            self.ration.count_sum_reads(self._provider.calls - before)
        return {row.start: row.value for row in rows}

    def may_check_before_sending(self) -> bool:
        """Whether the ration allows a read of sums before sending that the push could do without."""
        return self.ration.may_read_sums(GUARDING)

    def keep_summary(self, customer_id: str, start: datetime, end: datetime, buckets: Iterable[HourlySum]) -> None:
        """Store a customer's hourly sums of `[start, end)` in place of those read before."""
        content = msgspec.json.encode(KeptSummary(start, end, tuple(buckets))).decode()
        stored = StoredObject(customer_id, customer_id, content, self._clock())
        self._snapshots.store("summary", [stored], only_customer=customer_id)

    def keep_failure(self, customer_id: str) -> None:
        """Store that a customer's sums could not be read now: others come first next time."""
        stored = StoredObject(customer_id, customer_id, "{}", self._clock())
        self._snapshots.store("summary_failed", [stored], only_customer=customer_id)

    def resolve_unknown(
        self, meter_id: str, *, older_than: datetime
    ) -> tuple[list[IntentUpdate], tuple[str, ...], dict[str, list[HourlySum]]]:
        """Updates of intents of unknown outcome too old to repeat, by Stripe's sums; and the sums read."""
        answers: list[IntentUpdate] = []
        problems: list[str] = []
        read: dict[str, list[HourlySum]] = {}
        read_at = self._sums_read_at()
        for customer, first, last in self._books.unknown_customers(older_than):
            if customer in read_at and self._clock() - read_at[customer] < BETWEEN_READS:
                continue
            try:
                buckets = self.buckets(meter_id, customer, first, last + timedelta(seconds=1))
            except UpstreamError as error:
                problems.append(str(error))
                self.keep_failure(customer)
                continue
            rows = self._books.intents_at(customer, hour_of(first), hour_of(last) + HOUR)
            answers += resolve(rows, buckets, older_than=older_than, now=self._clock())
            read[customer] = buckets
        return answers, tuple(problems), read

    def customers_to_read(self, waiting: Iterable[str]) -> Iterator[str]:
        """Customers whose sums may be read, longest unread first: an hour apart, within the day's ration."""
        read_at, now = self._sums_read_at(), self._clock()
        due = [c for c in waiting if c not in read_at or now - read_at[c] >= BETWEEN_READS]
        for customer in sorted(due, key=lambda customer: (customer in read_at, read_at.get(customer), customer)):
            if not self.ration.may_read_sums():
                break
            yield customer

    def _sums_read_at(self) -> dict[str, datetime]:
        """Customer → when its sums were read last, or could not be."""
        found: dict[str, datetime] = {}
        for row in [*self._snapshots.read("summary"), *self._snapshots.read("summary_failed")]:
            found[row.id] = max(row.read_at, found.get(row.id, row.read_at))
        return found


def _on_test_clock(draft: Invoice) -> Invoice:
    """A test clock moves only when somebody advances it: what is a draft takes usage, whatever time it is here."""
    return replace(draft, finalizes_at=None)


def collect_errors(problems: list[str], read: Callable[[], T]) -> T | None:
    """The result of a read from Stripe; `None` if it failed, and then the reason is appended to `problems`."""
    try:
        return read()
    except (UpstreamError, SettingsError) as error:
        problems.append(str(error))
        return None


def stored_snapshot(snapshots: StripeSnapshots) -> AccountSnapshot:
    """The snapshot of Stripe's account that was stored last, however old it is; an empty one before the first."""
    read = snapshots.read("picture")
    if not read:
        return AccountSnapshot()
    about = msgspec.json.decode(read[0].content, type=KeptSnapshot)
    return AccountSnapshot(
        tuple(msgspec.json.decode(row.content, type=Customer) for row in snapshots.read("customer")),
        tuple(msgspec.json.decode(row.content, type=Subscription) for row in snapshots.read("subscription")),
        tuple(msgspec.json.decode(row.content, type=Invoice) for row in snapshots.read("draft")),
        read[0].read_at,
        about.knows_subscriptions,
        about.asked,
    )


def snapshot_read_at(snapshots: StripeSnapshots) -> datetime | None:
    """When the stored snapshot of Stripe's account was read (aware UTC); `None` before the first."""
    read = snapshots.read("picture")
    return read[0].read_at if read else None


def known_meter(snapshots: StripeSnapshots) -> str | None:
    """Id of the meter credits go to: as last read, else the one the ledger is bound to."""
    read = snapshots.read("meter")
    return read[0].id if read else PushLog(snapshots.engine).bound_meter()


PLANS_FAILED = "plans_failed"


def keep_plans_failure(snapshots: StripeSnapshots, problem: str, now: datetime) -> None:
    """Store why the last read of subscription plans failed."""
    snapshots.store(PLANS_FAILED, [StoredObject("plans", None, problem, now)])


def last_plans_failure(snapshots: StripeSnapshots) -> tuple[str, datetime] | None:
    """Why subscription plans could not be read at the last failure, and when; a newer snapshot outdates it."""
    kept = snapshots.read(PLANS_FAILED)
    return (kept[0].content, kept[0].read_at) if kept else None


def _unnamed(report: ErrorReport) -> Iterator[str]:
    for error in report.errors:
        if error.count > len(error.identifiers):
            yield (
                f"Stripe rejected {error.count:,} meter events after accepting them ({error.code}) and names "
                f"{len(error.identifiers):,} of them; `reconcile` finds the others"
            )


def _customer_of(row: Customer | Subscription | Invoice) -> str:
    return row.id if isinstance(row, Customer) else row.customer_id


def period_ended(snapshot: AccountSnapshot, now: datetime) -> bool:
    """Whether a billing period, or the time a draft invoice takes usage, has ended since a snapshot was read."""
    ends = [item.period_end for s in snapshot.subscriptions for item in s.items]
    ends += [draft.finalizes_at for draft in snapshot.drafts]
    return any(snapshot.read_at < end <= now for end in ends if end is not None and snapshot.read_at is not None)
