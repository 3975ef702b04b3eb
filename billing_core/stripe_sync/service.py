"""What people do with Stripe: push, view the pipeline, decide about stuck events, reconcile, view a customer's status.
Part of `BillingService`; every call takes a `Principal`.

Intents belong to customers, not to organizations, so all of this needs somebody who may see every organization.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from billing_core.access import Principal, Role
from billing_core.errors import BadParameter, NotFound, SettingsError, UpstreamError
from billing_core.ledger.journal import Ledger
from billing_core.ledger.push_log import PushLog, PushRun
from billing_core.ledger.reconciliations import keep_reconciliation, newest_reconciliation
from billing_core.ledger.settlements import Settlement, SettlementStore
from billing_core.ledger.stripe_snapshots import StoredObject, StripeSnapshots
from billing_core.ledger.sync import SyncStore
from billing_core.rating.card import RateCardFile
from billing_core.runtime.clock import Clock, now
from billing_core.runtime.locks import exclusive, is_held
from billing_core.settings import Settings
from billing_core.stripe.model import HourlySum
from billing_core.stripe_sync import pipeline as pipelines
from billing_core.stripe_sync.account_cache import AccountCache, collect_errors, keep_plans_failure, stored_snapshot
from billing_core.stripe_sync.confirmation import agreeing
from billing_core.stripe_sync.customer_status import (
    NO_SUBSCRIPTION,
    UNKNOWN,
    CustomerStatus,
    subscription_state,
    used_according_to,
)
from billing_core.stripe_sync.decisions import DecisionResult, undecidable
from billing_core.stripe_sync.pipeline import Action, Amounts, DecisionPreview, Pipeline, Problem, RetryOutlook
from billing_core.stripe_sync.read_ration import ReadRation, reads_this_month
from billing_core.stripe_sync.settlement_rules import SettlementKind
from billing_core.values.usage_frame import Window, window_in

if TYPE_CHECKING:
    from billing_core.langfuse.provider import LangfuseProvider
    from billing_core.rating.events import Policy
    from billing_core.reconcile.report import Reconciliation
    from billing_core.stripe.model import SummaryBucket
    from billing_core.stripe.provider import StripeProvider
    from billing_core.stripe_sync.push import Progress, PushResult
    from billing_core.stripe_sync.settle import SettlementResult, Settling

ConnectStripe = Callable[[Settings], "StripeProvider"]

RECONCILIATION = "reconcile"
"""What stands in place of a push's id where a reconciliation changed a status."""

T = TypeVar("T")

READERS = (Role.ADMIN, Role.FINANCE)
MINUTE = timedelta(minutes=1)
LONGEST_REASON = 300
NO_REASON = "no reason given"

NOTHING_CHOSEN = DecisionPreview(Action.RETRY, Amounts(), ())


@dataclass(frozen=True, slots=True)
class Deadline:
    """A draft invoice that finalizes soon: unsent usage of its period must be sent before."""

    customer_id: str
    finalizes_at: datetime
    read_at: datetime | None


class StripeSyncService:
    """What pages, commands and the HTTP API can do with Stripe, for one principal per call. Thread-safe."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        cards: Callable[[], RateCardFile],
        connect: ConnectStripe | None = None,
        clock: Clock = now,
        *,
        policy: Callable[[], Policy],
        connect_langfuse: Callable[[], LangfuseProvider],
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._books = SyncStore(ledger.engine)
        self._settlements = SettlementStore(ledger.engine)
        self._snapshots = StripeSnapshots(ledger.engine)
        self._cards = cards
        self._has_its_own = connect is not None
        self._connect = connect or (lambda settings: connect_stripe(settings, clock))
        self._clock = clock
        self._policy = policy
        self._connect_langfuse = connect_langfuse

    # ── push ─────────────────────────────────────────────────────────────────────────────────────

    def push(
        self,
        principal: Principal,
        *,
        dry_run: bool = False,
        progress: Progress | None = None,
        on_wait: Callable[[], None] | None = None,
    ) -> PushResult:
        """Send what is owed to Stripe; one push at a time per ledger. With `dry_run` nothing is sent or stored.

        Raises SettingsError: without a Stripe key, or if the meter or key cannot be used. UpstreamError,
        WarehouseError: if a side could not be reached; what was sent is known, the next push goes on from there.
        """
        from billing_core.stripe_sync.push import push  # brings Stripe's SDK, which nothing else needs

        _require_everything(principal, Role.ADMIN)
        log, audited = PushLog(self._ledger.engine), self._ledger.failure_audited
        with (
            closing(self._connect(self._settings)) as provider,
            exclusive(self._push_lock, on_wait=on_wait),
            nullcontext() if dry_run else audited(principal.name, "push_failed", {}, log=lambda: log.newest(1)),
        ):
            if not dry_run:
                self._ledger.claim(self._settings.mode)
            return push(
                self._ledger,
                provider,
                self._settings,
                actor=principal.name,
                clock=self._clock,
                dry_run=dry_run,
                progress=progress,
            )

    def is_pushing(self) -> bool:
        """Whether a push runs right now, in any process."""
        return is_held(self._push_lock)

    def pushes(self, principal: Principal, limit: int = 20) -> list[PushRun]:
        """The newest pushes of the push log, newest first."""
        _require_everything(principal, *READERS)
        return PushLog(self._ledger.engine).newest(limit)

    # ── the pipeline ─────────────────────────────────────────────────────────────────────────────

    @property
    def is_connected(self) -> bool:
        """Whether there is a Stripe key (or the demo's own Stripe)."""
        return self._settings.stripe_api_key is not None or self._has_its_own

    def pipeline(self, principal: Principal) -> Pipeline:
        """How many events, credits and US dollars are in each stage of the way to Stripe."""
        _require_everything(principal, *READERS)
        return pipelines.read_pipeline(self._ledger.engine, self._clock())

    def problems(self, principal: Principal) -> list[Problem]:
        """Events that are stuck on their way to Stripe, grouped by cause."""
        _require_everything(principal, *READERS)
        finals: dict[str, datetime] = {}
        for final, customer, _ in self._drafts_to_come():
            finals.setdefault(customer, final)
        return pipelines.read_problems(self._ledger.engine, self._clock(), finals)

    def next_deadline(self, principal: Principal) -> Deadline | None:
        """The draft invoice that finalizes first, as last read from Stripe."""
        _require_everything(principal, *READERS)
        return next((Deadline(customer, final, read) for final, customer, read in self._drafts_to_come()), None)

    def _drafts_to_come(self) -> list[tuple[datetime, str, datetime | None]]:
        """When drafts become final, of whom, and when that was read from Stripe; the first one first."""
        snapshot, now = stored_snapshot(self._snapshots), self._clock()
        found = [(d.finalizes_at, d.customer_id) for d in snapshot.drafts if d.finalizes_at and d.finalizes_at > now]
        return [(final, customer, snapshot.read_at) for final, customer in sorted(found)]

    def preview(
        self,
        principal: Principal,
        action: Action,
        *,
        cause: str | None = None,
        customer_ids: Sequence[str] = (),
        event_ids: Sequence[str] = (),
    ) -> DecisionPreview:
        """The events that a decision (hold, release, retry …) would change; nothing is changed."""
        _require_everything(principal, *READERS)
        return pipelines.read_choice(
            self._ledger.engine, action, cause=cause, customer_ids=customer_ids, event_ids=event_ids
        )

    def retry_outlook(self, principal: Principal, preview: DecisionPreview) -> RetryOutlook:
        """What the next push would do with the events of a retry preview, by its own planning.

        Raises SettingsError: without a Stripe key, or if the meter or key cannot be used. UpstreamError,
        WarehouseError: if a side could not be reached.
        """
        from billing_core.stripe_sync.push import outlook_of_retried  # brings Stripe's SDK, which nothing else needs

        _require_everything(principal, *READERS)
        with closing(self._connect(self._settings)) as provider:
            fates = outlook_of_retried(
                self._ledger, provider, self._settings, preview.event_ids, actor=principal.name, clock=self._clock
            )
        return pipelines.read_outlook(self._ledger.engine, fates)

    def decide(self, principal: Principal, preview: DecisionPreview, *, reason: str = "") -> int:
        """Carry out a previewed decision for those of its events that are unchanged since; returns how many.

        Raises BadParameter: if a hold gives no reason: somebody will ask for it.
        """
        _require_everything(principal, Role.ADMIN)
        reason = " ".join(reason.split())[:LONGEST_REASON]
        who, now = principal.name, self._clock()
        match preview.action:
            case Action.RETRY:
                count = self._books.retry(preview.event_ids, actor=who, now=now)
            case Action.HOLD:
                if not reason:
                    raise BadParameter("reason", reason, "a few words on why these events are held")
                count = self._books.hold(preview.event_ids, reason=reason, actor=who, now=now)
            case Action.RELEASE:
                count = self._books.release(preview.event_ids, actor=who, now=now)
        detail = {"events": count, "credits": preview.amounts.credits, "usd": preview.amounts.amount_usd}
        self._ledger.audit(who, f"sync {preview.action}", {**detail, "reason": reason, "ids": preview.event_ids[:100]})
        return count

    def decide_about(
        self, principal: Principal, action: Action, event_ids: Sequence[str], *, reason: str = "", dry_run: bool = False
    ) -> DecisionResult:
        """Hold, release or retry named events, as far as that can be done; says why not of the others."""
        _require_everything(principal, Role.ADMIN)
        if action is Action.HOLD:
            reason = reason.strip() or NO_REASON
        preview = self.preview(principal, action, event_ids=event_ids) if event_ids else NOTHING_CHOSEN
        facts = self._settlements.facts(event_ids)
        skipped, done = undecidable(action, event_ids, set(preview.event_ids), facts)
        count = len(preview.event_ids)
        if count and not dry_run:
            count = self.decide(principal, preview, reason=reason)
        return DecisionResult(action, dry_run, count, preview.amounts.credits, skipped, done)

    # ── settlements ──────────────────────────────────────────────────────────────────────────────

    def causes(self, principal: Principal) -> frozenset[str]:
        """The causes for which events are, or can be, stuck: what the filter `cause` takes."""
        _require_everything(principal, *READERS)
        return frozenset({*pipelines.ADVICE, "rejected", *(problem.cause for problem in self.problems(principal))})

    def settle(
        self,
        principal: Principal,
        event_ids: Sequence[str],
        kind: SettlementKind,
        *,
        reason: str = "",
        dry_run: bool = False,
        on_wait: Callable[[], None] | None = None,
    ) -> SettlementResult:
        """Write usage off that can no longer be metered, or put it on an invoice as one item per customer and month.

        Raises BadParameter: without a reason. SettingsError: without a Stripe key, for invoice items. UpstreamError: if
        Stripe could not be asked beforehand; then nothing was settled.
        """
        from billing_core.stripe_sync.settle import as_result

        _require_everything(principal, Role.ADMIN)
        text = _reason(reason, "why this usage is settled") if not dry_run else reason
        with self._settling(principal, kind is SettlementKind.INVOICE_ITEM, on_wait) as run:
            if dry_run:
                return as_result(run.plan(event_ids, kind), kind, is_dry_run=True)
            self._ledger.claim(self._settings.mode)
            return run.settle(event_ids, kind, text)

    def take_back(self, principal: Principal, settlement_id: str, *, reason: str) -> tuple[Settlement, str | None]:
        """Take a settlement back, so that its events stand as before it; returns it, and why it stays if it does.

        Raises BadParameter: without a reason. NotFound: if there is none of that id. SettingsError, UpstreamError: as
        `settle`, for invoice items.
        """
        _require_everything(principal, Role.ADMIN)
        text = _reason(reason, "why this settlement is taken back")
        is_item = self.settlement(principal, settlement_id).kind == SettlementKind.INVOICE_ITEM
        with self._settling(principal, is_item, None) as run:
            return run.take_back(settlement_id, text)

    def settlements(self, principal: Principal) -> list[Settlement]:
        """Every settlement there ever was, newest first."""
        _require_everything(principal, *READERS)
        return self._settlements.all()

    def settlement(self, principal: Principal, settlement_id: str) -> Settlement:
        """One settlement. Raises NotFound: if there is none of that id."""
        _require_everything(principal, *READERS)
        found = self._settlements.get(settlement_id)
        if found is None:
            raise NotFound(f"settlement {settlement_id!r}: there is none of this id; `settle --list` names them")
        return found

    def settlement_document(self, settlement: Settlement) -> dict[str, Any]:
        """A settlement as JSON, with the events it settles."""
        return {**settlement.to_json(), "event_ids": self._settlements.event_ids(settlement.id)}

    @contextmanager
    def _settling(self, principal: Principal, is_item: bool, on_wait: Callable[[], None] | None) -> Iterator[Settling]:
        """Settlements of this ledger while nobody pushes, connected to Stripe for invoice items."""
        from billing_core.stripe_sync.settle import Settling

        with ExitStack() as stack:
            provider = stack.enter_context(closing(self._connect(self._settings))) if is_item else None
            stack.enter_context(exclusive(self._push_lock, on_wait=on_wait))
            run = Settling(self._ledger, self._settings, actor=principal.name, clock=self._clock, provider=provider)
            yield stack.enter_context(closing(run))

    # ── reconciliation ───────────────────────────────────────────────────────────────────────────

    def reconcile(
        self,
        principal: Principal,
        start: datetime,
        end: datetime,
        *,
        only_differences: bool = False,
        progress: Callable[[float, str], None] | None = None,
    ) -> Reconciliation:
        """Compare Langfuse (read anew), ledger, what was sent and Stripe in `[start, end)`, widened to whole UTC hours.

        Times without an offset are in the reporting timezone. Books that cannot be read are unknown in the rows
        and named in `problems`. Stripe's sums, read anyway, also confirm what they agree with.
        """
        from billing_core.reconcile.run import reconcile

        _require_everything(principal, *READERS)
        window = window_in(self._settings.zone, start, end)
        with ExitStack() as open_ones:
            open_ones.enter_context(self._ledger.failure_audited(principal.name, "reconcile_failed", {}))
            problems: list[str] = []
            langfuse = collect_errors(problems, lambda: open_ones.enter_context(closing(self._connect_langfuse())))
            stripe = meter_id = None
            hours: dict[str, list[SummaryBucket]] = {}
            if self.is_connected:
                provider = open_ones.enter_context(self._connected(looks=True))
                meter = collect_errors(problems, provider.preflight)
                if meter is not None:
                    self._settle_rejections(provider, problems)
                    stripe, meter_id = provider, meter.id
            else:
                problems.append("Stripe is not connected: STRIPE_API_KEY is not set")
            found = reconcile(
                self._ledger,
                self._cards(),
                self._policy(),
                window,
                langfuse=langfuse,
                spool=self._spool,
                stripe=stripe,
                meter_id=meter_id,
                clock=self._clock,
                progress=progress,
                on_sums_read=hours.__setitem__,
            )
            if stripe is not None:
                self._confirm_by_sums(stripe, found.window, hours)
        found = replace(found, problems=(*dict.fromkeys((*problems, *found.problems)),))
        document = json.dumps(found.to_json())
        keep_reconciliation(
            self._ledger.engine,
            actor=principal.name,
            now=self._clock(),
            start=found.window.start,
            end=found.window.end,
            result=document,
        )
        detail = {
            "from": found.window.start,
            "to": found.window.end,
            "rows": len(found.rows),
            "unexplained_credits": found.unexplained_credits,
            "sha256": hashlib.sha256(document.encode()).hexdigest(),
        }
        self._ledger.audit(principal.name, "reconcile", detail)
        return found.only_differences() if only_differences else found

    def last_reconciliation(self, principal: Principal) -> Reconciliation | None:
        """The newest reconciliation anybody made; `None` before the first."""
        from billing_core.reconcile.report import Reconciliation

        _require_everything(principal, *READERS)
        document = newest_reconciliation(self._ledger.engine.rows)
        return None if document is None else Reconciliation.from_json(json.loads(document))

    def _settle_rejections(self, provider: StripeProvider, problems: list[str]) -> None:
        """Rejections Stripe decided on since the last push explain differences."""
        reads = AccountCache(self._books, provider, self._clock)
        found = collect_errors(problems, lambda: reads.error_reports(self._clock()))
        if found is not None:
            answers, unnamed = found
            self._books.settle(answers, push_id=RECONCILIATION)
            problems += unnamed

    def _confirm_by_sums(
        self, provider: StripeProvider, window: Window, hours: Mapping[str, Sequence[SummaryBucket]]
    ) -> None:
        reads = AccountCache(self._books, provider, self._clock)
        for customer, counted in hours.items():
            buckets = [HourlySum(row.start, row.value) for row in counted]
            reads.keep_summary(customer, window.start, window.end, buckets)
            rows = self._books.intents_at(customer, window.start, window.end)
            self._books.confirm(agreeing(rows, buckets), at=self._clock(), push_id=RECONCILIATION)

    # ── customers ────────────────────────────────────────────────────────────────────────────────

    def status(self, principal: Principal, customer_id: str) -> CustomerStatus:
        """Plan, subscription, period and upcoming invoice of a customer, read from Stripe now.

        A failed read comes back as `unknown`, with what was known last and when.

        Raises SettingsError: without a Stripe key. NotFound: if Stripe knows no such customer.
        """
        _require_everything(principal, *READERS)
        with self._connected() as provider:
            try:
                status = self._read_status(provider, customer_id)
            except UpstreamError as error:
                return self._last_status(customer_id, str(error))
        content = msgspec.json.encode(status).decode()
        stored = StoredObject(customer_id, customer_id, content, self._clock())
        self._snapshots.store("status", [stored], only_customer=customer_id)
        return status

    def last_status(self, principal: Principal, customer_id: str) -> CustomerStatus | None:
        """The status of a customer as last read, without asking Stripe; `None` if it never was."""
        _require_everything(principal, *READERS)
        kept = self._snapshots.read("status", customer_id)
        return msgspec.json.decode(kept[0].content, type=CustomerStatus) if kept else None

    def read_plans(self, principal: Principal) -> tuple[str, ...]:
        """Read customers, subscriptions and draft invoices of the whole account anew and store them; returns what could
        not be read.

        Nothing of them is returned: `organizations.limits` shows each admin what concerns theirs. Returns what could
        not be read, in words.

        Raises SettingsError: without a Stripe key. UpstreamError: if subscriptions or drafts could not be read; what
        was read before stays, and why is remembered too.
        """
        principal.require(Role.ADMIN)
        self._ledger.claim(self._settings.mode)
        problems: list[str] = []
        try:
            with self._connected() as provider:
                reads = AccountCache(self._books, provider, self._clock)
                meter = collect_errors(problems, provider.preflight)
                if meter is not None:
                    reads.keep_meter(meter.id, meter.livemode)
                _, more = reads.snapshot(fresh=timedelta(0))
        except (SettingsError, UpstreamError) as error:
            keep_plans_failure(self._snapshots, str(error), self._clock())
            raise
        return (*problems, *more)

    def _read_status(self, provider: StripeProvider, customer_id: str) -> CustomerStatus:
        meter_id, problem = None, None
        try:
            meter_id = provider.preflight().id
        except SettingsError as error:
            problem = str(error)  # a wrong meter keeps nobody from seeing the subscription
        standing = subscription_state(provider.subscriptions(customer_id), meter_id, self._cards().plans)
        now = self._clock()
        if standing is None:
            if (customer := provider.customer(customer_id)) is not None and customer.is_deleted:
                problem = f"the customer {customer_id} was deleted at Stripe"
            return CustomerStatus(customer_id, NO_SUBSCRIPTION, None, None, None, None, None, None, now, problem)
        plan, start, end = standing.plan, standing.period_start, standing.period_end
        upcoming, why = _or_none(lambda: provider.upcoming(customer_id, standing.subscription.id))
        used = None if upcoming is None else used_according_to(upcoming, standing.metered_prices)
        if used is None and meter_id is not None and start is not None:
            used, second = _or_none(lambda: _counted(provider, meter_id, customer_id, start, min(end or now, now)))
            why = why or second
        return CustomerStatus(
            customer_id,
            standing.subscription.status,
            None if plan is None else plan.name,
            None if plan is None else plan.credits_per_month,
            used,
            start,
            end,
            upcoming,
            now,
            problem or why,
        )

    def _last_status(self, customer_id: str, problem: str) -> CustomerStatus:
        kept = self._snapshots.read("status", customer_id)
        if not kept:
            return CustomerStatus(customer_id, UNKNOWN, None, None, None, None, None, None, None, problem)
        return replace(msgspec.json.decode(kept[0].content, type=CustomerStatus), state=UNKNOWN, problem=problem)

    def reads_this_month(self, principal: Principal) -> int:
        """GETs made to Stripe over this ledger since the month began (UTC); `read_ration` has the limits."""
        _require_everything(principal, *READERS)
        return reads_this_month(self._snapshots, self._clock())

    # ── inside ───────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _connected(self, *, looks: bool = False) -> Iterator[StripeProvider]:
        """Stripe, with every read counted; `looks`: they are looks at customers' sums."""
        with closing(self._connect(self._settings)) as provider:
            ration = ReadRation(self._snapshots, provider, self._clock)
            try:
                yield provider
            finally:
                ration.count_sum_reads(provider.calls if looks else 0)
                ration.write_down()

    @property
    def _push_lock(self) -> Path:
        return self._beside("push")

    @property
    def _spool(self) -> Path:
        """Of its own: a pull that was stopped must not take a reconciliation's pages for its own."""
        return self._beside("reconcile-spool")

    def _beside(self, suffix: str) -> Path:
        path = self._settings.warehouse_path
        return path.with_name(f"{path.name}.{suffix}")


def connect_stripe(settings: Settings, clock: Clock = now) -> StripeProvider:
    """A provider of the Stripe account the settings name."""
    from billing_core.stripe.provider import StripeProvider

    return StripeProvider.from_settings(settings, clock=clock)


def _reason(text: str, what: str) -> str:
    """A reason as it is kept.

    Raises BadParameter: if there is none.
    """
    if not (reason := " ".join(text.split())[:LONGEST_REASON]):
        raise BadParameter("reason", text, f"a few words on {what}")
    return reason


def _require_everything(principal: Principal, *roles: Role) -> None:
    principal.require(*roles)
    principal.require_everything("this concerns customers of all of them")


def _or_none(read: Callable[[], Any]) -> tuple[Any, str | None]:
    """A part of an answer that may be missing, with why."""
    try:
        return read(), None
    except (UpstreamError, NotFound) as error:
        return None, str(error)


def _counted(provider: StripeProvider, meter_id: str, customer_id: str, start: datetime, end: datetime) -> Any:
    """Credits Stripe counts in a period, cut to whole minutes as its sums want it."""
    first = start.replace(second=0, microsecond=0)
    last = max(end.replace(second=0, microsecond=0), first + MINUTE)
    return sum((row.value for row in provider.summaries(meter_id, customer_id, first, last, None)), start=0)
