"""One push: unsent, settled credits → Stripe meter events, exactly once. The service calls it.

The order is what makes it safe to kill anywhere: intents with frozen identifier, value, timestamp and customer
are committed; then, before a batch of calls, that they are about to be tried; then the answers. An intent
without an answer is sent again with the same bytes while Stripe still recognises a repetition; after that its
fate is read from Stripe's summary, never guessed (Stripe notes, section 9).
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.errors import BillingError, UpstreamError
from billing_core.ledger.directory import follow
from billing_core.ledger.engine import Writer
from billing_core.ledger.holds import retry_events
from billing_core.ledger.journal import Ledger
from billing_core.ledger.push_log import PushLog
from billing_core.ledger.schema import DUPLICATE
from billing_core.ledger.sent_elsewhere import Difference, KeepBack, decided_events
from billing_core.ledger.stripe_snapshots import StripeSnapshots
from billing_core.ledger.sync import Candidates, IntentUpdate, PlannedPush, SyncStore
from billing_core.rating.events import Policy
from billing_core.runtime.clock import Clock
from billing_core.settings import Settings
from billing_core.stripe import intents as planning
from billing_core.stripe.delivery import IDEMPOTENCY_ERROR, METER_GONE, METER_GONE_SAYS
from billing_core.stripe.model import HourlySum, MeterEvent, OutcomeKind, SendOutcome, Sink
from billing_core.stripe.provider import MISSING, StripeProvider
from billing_core.stripe_sync import sent_elsewhere
from billing_core.stripe_sync.account_cache import FRESH, AccountCache, AccountSnapshot
from billing_core.stripe_sync.confirmation import ValueMismatch, agreeing, judge_duplicates
from billing_core.stripe_sync.invoiced_elsewhere import invoiced_elsewhere
from billing_core.stripe_sync.langfuse_scores import write_back
from billing_core.stripe_sync.pipeline import WOULD_BE_SENT, WOULD_WAIT, PushOutlook
from billing_core.stripe_sync.read_ration import reads_this_month
from billing_core.stripe_sync.sent_elsewhere import ClearedToSend
from billing_core.stripe_sync.settle import Settling
from billing_core.types import Flag, plain_decimal, utc_text
from billing_core.values.usage_frame import HOUR, hour_of

RESEND_WITHIN = timedelta(hours=20)
"""Stripe recognises a repeated identifier for at least 24 hours after it first got it; this leaves a margin."""

READ_AGAIN = timedelta(minutes=5)
"""How old the billing periods may be when usage is sent: half of what is left before an invoice is final."""

BATCH = 512
"""Intents whose attempt is committed together; a kill leaves at most so many to be sent again."""

Progress = Callable[["PushProgress"], None]


GIVE_UP_AFTER = 3
"""Customers whose sums cannot be read, until Stripe counts as out of reach for this time."""


@dataclass(frozen=True, slots=True)
class PushProgress:
    """Progress of a push: intents answered of all, credits delivered so far."""

    done: int
    total: int
    credits_sent: int
    doing: str


@dataclass(frozen=True, slots=True)
class PushResult:
    """The result of a push: counts are intents, `held` and `newly_held` events, `credits_sent` whole credits.

    `held` are all events that a rule or a person keeps back by now, as the pipeline's stage `held` counts them, and the
    `held_corrections`, whose events were sent and of which a difference may not be. `newly_held` of all these were not
    held before.

    `credits_sent` are those this run learned to be delivered, repetitions of an earlier run's calls included, so
    that it adds up over runs. `waiting` intents were written down and not tried. `requests` are those a dry run
    would make. `problems` are things that could not be read, in words; they stop nothing. `reads_this_month` are the
    GETs made over this ledger since the month began (UTC).
    """

    is_dry_run: bool = False
    intents: int = 0
    sent: int = 0
    duplicates: int = 0
    rejected: int = 0
    held: int = 0
    newly_held: int = 0
    held_corrections: int = 0
    unknown: int = 0
    waiting: int = 0
    confirmed: int = 0
    credits_sent: int = 0
    reads_this_month: int = 0
    requests: tuple[Mapping[str, Any], ...] = ()
    failures: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The published document (CONTRACT section 3, `push`)."""
        document = {
            "intents": self.intents,
            "sent": self.sent,
            "duplicates": self.duplicates,
            "rejected": self.rejected,
            "held": self.held,
            "newly_held": self.newly_held,
            "held_corrections": self.held_corrections,
            "unknown": self.unknown,
            "waiting": self.waiting,
            "confirmed": self.confirmed,
            "credits_sent": plain_decimal(Decimal(self.credits_sent)),
            "reads_this_month": self.reads_this_month,
            "failures": list(self.failures),
            "problems": list(self.problems),
        }
        if self.is_dry_run:
            document |= {"dry_run": True, "requests": list(self.requests)}
        return document


class _Preparation(NamedTuple):
    """The meter, the billing periods and where usage may be sent to, as Stripe and the ledger have them now."""

    meter_id: str
    livemode: bool | None
    snapshot: AccountSnapshot
    problems: tuple[str, ...]
    cleared: ClearedToSend


class _Push:
    """One run; see `push`."""

    def __init__(
        self,
        ledger: Ledger,
        provider: StripeProvider,
        settings: Settings,
        *,
        actor: str,
        clock: Clock,
        progress: Progress | None,
    ) -> None:
        self._books = SyncStore(ledger.engine)
        self._snapshots = StripeSnapshots(ledger.engine)
        self._log = PushLog(ledger.engine)
        self._ledger = ledger
        self._provider = provider
        self._settings = settings
        self._actor = actor
        self._clock = clock
        self._progress = progress
        self._reads = AccountCache(self._books, provider, clock)
        self._settling = Settling(ledger, settings, actor=actor, clock=clock, provider=provider)
        self._id = uuid.uuid4().hex
        self._customers: set[str] | None = None
        self._is_meter_gone = False
        self._retried: tuple[str, ...] = ()
        self._counts: Counter[str] = Counter()
        self._said: dict[str, dict[str, None]] = {"failures": {}, "problems": {}}

    @property
    def _result(self) -> PushResult:
        found: dict[str, Any] = {**self._counts, **{name: tuple(texts) for name, texts in self._said.items()}}
        return PushResult(**found)

    def preview(self) -> PushResult:
        """Everything but writing and sending."""
        found = self._read_account()
        waiting = self._books.open_intents()
        frozen, fresh, held = self._freeze(found, keep=False)
        sink = self._sink()
        try:
            ready = self._cleared(self._resendable(waiting, found.snapshot, found.meter_id), found.cleared)
            events = [*self._events(ready), *self._events(fresh)]
            requests = tuple(sink.request_of(event) for event in events)
        finally:
            sink.close()
        return PushResult(
            is_dry_run=True,
            intents=len(events),
            held=held,
            newly_held=frozen.newly_held,
            held_corrections=frozen.held_corrections,
            waiting=len(events),
            unknown=waiting.num_rows - (len(events) - fresh.num_rows),
            requests=requests,
            failures=frozen.named,
            problems=(*found.problems, *dict.fromkeys(found.cleared.unread.values())),
            reads_this_month=reads_this_month(self._snapshots, self._clock()),
        )

    def fates(self, event_ids: Sequence[str]) -> dict[str, PushOutlook]:
        """See `outlook_of_retried`."""
        self._retried = tuple(event_ids)
        found = self._read_account()
        if found.cleared.unread:
            raise UpstreamError(_unread(found.cleared.unread))
        planned: list[tuple[Candidates, planning.PushPlan]] = []
        self._freeze(found, keep=False, seen=lambda *made: planned.append(made))
        return _fates(self._retried, *planned[-1], found.cleared.keep_back.reasons)

    def _read_account(self) -> _Preparation:
        """What a push that stores nothing plans from."""
        meter_id, livemode = self._reads.meter(keep=False)
        self._log.bind(meter_id, livemode, keep=False)
        snapshot, problems = self._snapshot(FRESH, keep=False)
        return _Preparation(meter_id, livemode, snapshot, problems, self._clear(meter_id, keep=False))

    def run(self) -> PushResult:
        """See `push`."""
        meter_id, livemode = self._reads.meter()
        self._log.bind(meter_id, livemode, keep=True)
        self._log.start(self._id, actor=self._actor, now=self._clock())
        cleared = ClearedToSend()
        try:
            if self._read_error_reports():  # without them a sum may lack what counts as delivered here
                self._resolve(meter_id)
            self._resolve_items()
            with self._ledger.engine.transaction() as writer:
                self._follow_map(writer)  # first: what came back may be owed by another customer by now
            if self._books.anything_to_send(self._settled_before()):
                snapshot, problems = self._snapshot(READ_AGAIN)
                self._note(problems=problems)
                cleared = self._clear(meter_id, keep=True)
                self._withdraw(snapshot, meter_id)
                found = _Preparation(meter_id, livemode, snapshot, problems, cleared)
                frozen, _, held = self._freeze(found, keep=True)
                self._note_held(frozen, held)
                waiting = self._books.open_intents()
                ready = self._resendable(waiting, snapshot, meter_id)
                self._note_stuck(_doubtful(waiting) - _doubtful(ready))
                self._send(self._cleared(ready, cleared), meter_id)
            else:
                frozen, held = self._books.hold_hopeless(now=self._clock(), push_id=self._id)
                self._note_held(frozen, held)
            self._judge_duplicates(meter_id)
            self._confirm(meter_id)
            self._confirm_items()
            self._write_back()
            if cleared.unread:
                raise UpstreamError(_unread(cleared.unread))
        except BaseException as error:
            reason = str(error) if isinstance(error, BillingError) else f"stopped by {type(error).__name__}"
            self._end("failed", reason)
            raise
        self._end("done", None)
        return self._result

    # ── before sending ───────────────────────────────────────────────────────────────────────────

    def _settled_before(self) -> datetime:
        return self._clock() - timedelta(minutes=self._settings.settle_minutes)

    def _clear(self, meter_id: str, *, keep: bool) -> ClearedToSend:
        """Where usage may be sent to, as far as Stripe's sums and this ledger's memory tell."""
        settled = self._settled_before()
        given = self._books.candidates(settled, prepare=self._prepare)
        engine = self._ledger.engine
        found = sent_elsewhere.clear_to_send(
            engine,
            given,
            partial(self._reads.sums, meter_id),
            now=self._clock(),
            may_ask=self._reads.may_check_before_sending,
        )
        invoiced = invoiced_elsewhere(
            engine,
            self._provider.invoice_items(),
            self._reads,
            given.events,
            decided_events(engine),
            zone=self._settings.zone,
            clock=self._clock,
            keep=keep,
        )
        kept = replace(found.keep_back, reasons={**invoiced, **found.keep_back.reasons})
        return replace(found, keep_back=kept)

    def _cleared(self, ready: pa.Table, cleared: ClearedToSend) -> pa.Table:
        """Without intents of an earlier push that carry usage into hours whose sums could not be read."""
        keep = (
            [
                row["unknown_since"] is not None
                or row["customer_id"] not in cleared.unread
                or (row["customer_id"], hour_of(row["stamp"].replace(tzinfo=UTC))) in cleared.places
                for row in ready.select(["customer_id", "stamp", "unknown_since"]).to_pylist()
            ]
            if cleared.unread
            else [True] * ready.num_rows
        )
        withdrawn = pc.is_in(ready["identifier"], pa.array(list(cleared.keep_back.withdrawn), pa.string()))
        return ready.filter(pc.and_(pa.array(keep, pa.bool_()), pc.invert(withdrawn)))

    def _freeze(
        self, found: _Preparation, *, keep: bool, seen: Callable[[Candidates, planning.PushPlan], None] | None = None
    ) -> tuple[PlannedPush, pa.Table, int]:
        now, settled = self._clock(), self._settled_before()
        environment = {True: "live", False: "test", None: "unknown"}[found.livemode]
        rules = planning.PlanningRules(
            self._settings.stripe_meter_event_name, environment, self._settings.push_granularity, now
        )

        def make(given: Candidates) -> planning.PushPlan:
            events = found.cleared.sendable(given, now)
            customers = pc.unique(events["customer_id"]).to_pylist()
            customers += pc.unique(given.covered["customer_id"]).to_pylist()
            calendars = found.snapshot.calendars({c for c in customers if c is not None}, found.meter_id, now)
            free = replace(rules, taken=given.taken)
            made = planning.plan(events, given.covered, given.carried, calendars, given.revisions, free)
            if seen is not None:
                seen(given, made)
            return made

        return self._books.freeze(
            make,
            settled_before=settled,
            push_id=self._id,
            now=now,
            keep=keep,
            prepare=self._prepare,
            keep_back=found.cleared.keep_back,
        )

    def _snapshot(self, fresh: timedelta, *, keep: bool = True) -> tuple[AccountSnapshot, tuple[str, ...]]:
        """Billing periods, also of those customers of this push that Stripe's lists leave out."""
        if self._customers is None:
            self._customers = set() if self._provider.is_live else self._books.customers_of_a_push()
        return self._reads.snapshot(fresh=fresh, keep=keep, of=self._customers)

    def _prepare(self, writer: Writer) -> None:
        if self._retried:
            retry_events(writer, self._retried, actor=self._actor, now=self._clock())
        self._follow_map(writer)

    def _follow_map(self, writer: Writer) -> None:
        """What came back unsent since the organization map was changed goes to whom it names now."""
        policy = Policy(self._settings.default_customer_id, self._settings.override_customer_id)
        follow(writer, policy, actor="push", run_id=self._id, now=self._clock())

    def _read_error_reports(self) -> bool:
        """Rejections Stripe decided on later. Not readable: said, tried again next time, and `False`."""
        if not self._reads.may_read_reports():
            return False
        try:
            rejected, unnamed = self._reads.error_reports(self._clock())
        except UpstreamError as error:
            self._note(problems=(str(error),))
            return False
        self._books.settle(rejected, push_id=self._id)
        failures = tuple(f"{a.identifier}: {a.text}" for a in rejected)
        self._note(rejected=len(rejected), failures=failures, problems=unnamed)
        return True

    def _resolve(self, meter_id: str) -> None:
        """Intents tried too long ago to be repeated: did they arrive?"""
        now = self._clock()
        answers, problems, read = self._reads.resolve_unknown(meter_id, older_than=now - RESEND_WITHIN)
        self._books.settle(answers, push_id=self._id)
        for customer, buckets in read.items():
            self._confirm_read(customer, buckets)
        arrived = {a.identifier for a in answers if a.state == "accepted"}
        self._note(problems=problems, duplicates=len(arrived), intents=len(arrived))
        self._note(credits_sent=self._books.values_of(arrived))

    def _resolve_items(self) -> None:
        """Invoice items whose outcome an earlier settlement left open: the usage they bill must not be metered."""
        found = self._settling.resolve()
        self._note(unknown=found.unknown, problems=found.problems)

    def _confirm_items(self) -> None:
        """Invoice items whose invoice is final by now."""
        if not self._reads.ration.is_tight():
            self._note(problems=self._settling.refresh()[1])

    def _confirm_read(self, customer: str, buckets: Sequence[HourlySum]) -> None:
        """What sums that were read anyway agree with."""
        if buckets:
            hours = [bucket.start for bucket in buckets]
            rows = self._books.intents_at(customer, min(hours), max(hours) + HOUR)
            confirmed = self._books.confirm(agreeing(rows, buckets), at=self._clock(), push_id=self._id)
            self._note(confirmed=confirmed)

    def _withdraw(self, snapshot: AccountSnapshot, meter_id: str) -> None:
        """Intents written down and never tried that are too late by now: their events are planned anew, and held."""
        now, waiting = self._clock(), self._books.open_intents()
        late = self._too_late(waiting.filter(pc.is_null(waiting["unknown_since"])), snapshot, meter_id)
        answers = [
            IntentUpdate(identifier, "void", now, text=f"withdrawn before it was tried: {why}")
            for identifier, why in late.items()
        ]
        self._books.settle(answers, push_id=self._id)

    def _resendable(self, waiting: pa.Table, snapshot: AccountSnapshot, meter_id: str) -> pa.Table:
        """Intents that may be sent: in time, and never tried or so lately that Stripe would recognise them.

        One that was tried in time and is too late by now waits for Stripe's sum: if it never arrived, sending it
        now would put it on no invoice.
        """
        oldest = (self._clock() - RESEND_WITHIN).replace(tzinfo=None)
        forgotten = pc.fill_null(
            pc.less(waiting["unknown_since"], pa.scalar(oldest, waiting["unknown_since"].type)), False
        )
        late = self._too_late(waiting, snapshot, meter_id)
        is_there = pc.fill_null(pc.equal(waiting["code"], DUPLICATE), False)  # its value is what is doubtful
        return waiting.filter(
            pc.invert(
                pc.or_(pc.or_(forgotten, is_there), pc.is_in(waiting["identifier"], pa.array(list(late), pa.string())))
            )
        )

    def _too_late(self, waiting: pa.Table, snapshot: AccountSnapshot, meter_id: str) -> dict[str, str]:
        """Intents that Stripe would not take, or not bill, any more → why."""
        now, late = self._clock(), {}
        calendars = snapshot.calendars(set(waiting["customer_id"].to_pylist()), meter_id, now)
        for row in waiting.select(["identifier", "customer_id", "stamp"]).to_pylist():
            calendar, stamp = calendars.get(row["customer_id"]), row["stamp"].replace(tzinfo=UTC)
            why = "too old to be sent" if stamp < now - planning.OLDEST else calendar and calendar.closed(stamp)
            if why:
                late[row["identifier"]] = why
        return late

    def _note_held(self, frozen: PlannedPush, held: int) -> None:
        corrections = frozen.held_corrections
        self._note(held=held, newly_held=frozen.newly_held, held_corrections=corrections, failures=frozen.named)

    def _note_stuck(self, count: int) -> None:
        """Intents that only Stripe's sums can tell about: not sent again, and said until they are resolved."""
        if count:
            text = f"{count:,} meter events were tried too long ago to be sent again, and Stripe's sums do not show yet"
            self._note(unknown=count, problems=(f"{text} whether they arrived; see `reconcile`",))

    # ── sending ──────────────────────────────────────────────────────────────────────────────────

    def _send(self, waiting: pa.Table, meter_id: str) -> None:
        total = waiting.num_rows
        sink, done = self._sink(), 0
        self._note(intents=total)
        try:
            for planned in _mixed(waiting):
                # A push may take hours: identifiers are forgotten and invoices become final meanwhile.
                snapshot, problems = self._snapshot(READ_AGAIN)
                batch = self._resendable(planned, snapshot, meter_id)
                self._note(problems=problems)
                if not batch.num_rows:
                    continue
                before, tried_at = {row["identifier"]: row for row in batch.to_pylist()}, self._clock()
                self._books.mark_attempt(list(before), at=tried_at)
                answers, is_over = [], False
                try:
                    for outcome in sink.send(list(self._events(batch))):
                        row = before.pop(outcome.identifier)
                        answers.append(self._judge(outcome, row, tried_at))
                        is_over |= outcome.kind is OutcomeKind.REFUSED and outcome.tries == 0
                        done += 1
                        self._report(done, total)
                finally:
                    self._books.settle(self._withdrawn_if_gone(answers), push_id=self._id)
                if is_over:
                    break
        finally:
            sink.close()
        self._note(waiting=total - done)
        if self._is_meter_gone:
            self._leave_pending()

    def _withdrawn_if_gone(self, answers: list[IntentUpdate]) -> list[IntentUpdate]:
        """Without an active meter nothing arrived that was refused: its usage is pending again."""
        if not self._is_meter_gone:
            return answers
        return [replace(answer, state="void") if answer.state == "open" else answer for answer in answers]

    def _leave_pending(self) -> None:
        """Withdraw what was not tried, and say once why: it is planned anew when there is a meter again."""
        waiting = self._books.open_intents()
        untried = waiting.filter(pc.is_null(waiting["unknown_since"]))["identifier"].to_pylist()
        now = self._clock()
        self._books.settle([IntentUpdate(one, "void", now, text=METER_GONE_SAYS) for one in untried], push_id=self._id)
        said = self._said["problems"]
        for text in [text for text in said if METER_GONE_SAYS in text]:
            del said[text]
        text = (
            f"STRIPE_METER_EVENT_NAME: {METER_GONE_SAYS} {self._settings.stripe_meter_event_name!r} any more. "
            f"{self._counts['waiting']:,} meter events were not sent and their usage waits as pending: "
            "activate the meter, or name another one, and push again"
        )
        self._note(problems=(text,))

    def _judge(self, outcome: SendOutcome, row: Mapping[str, Any], tried_at: datetime) -> IntentUpdate:
        """The answer to store, counted. An outcome is unknown since before the first call that may have arrived."""
        attempts = row["attempts"] + outcome.tries
        unknown_since = None if row["unknown_since"] is None else row["unknown_since"].replace(tzinfo=UTC)
        state, text = "accepted", outcome.reason
        self._is_meter_gone |= outcome.code == METER_GONE
        kind = outcome.kind
        if outcome.code == MISSING and self._is_nobody(row["customer_id"]):
            kind, unknown_since = OutcomeKind.REJECTED, None  # no earlier try can have arrived either
        match kind:
            case OutcomeKind.ACCEPTED:
                self._note(sent=1, credits_sent=row["value"])
            case OutcomeKind.DUPLICATE if unknown_since is None and not outcome.after_doubt:
                # Somebody else sent it, maybe with another value: the hour's sum will tell.
                state, unknown_since = "sending", tried_at
                text = "Stripe had a meter event under this identifier before it was sent from here"
                return IntentUpdate(
                    outcome.identifier,
                    state,
                    outcome.answered_at,
                    attempts,
                    text,
                    DUPLICATE,
                    outcome.request_id,
                    unknown_since,
                )
            case OutcomeKind.DUPLICATE:
                self._note(duplicates=1, credits_sent=row["value"])
            case OutcomeKind.REJECTED if unknown_since is not None and outcome.code != IDEMPOTENCY_ERROR:
                # Too old by now, say, or the customer is gone: that says nothing about the try before.
                state = "sending"
                text = f"{outcome.reason}; an earlier try may have arrived, which Stripe's sum will show"
                self._note(unknown=1, problems=(text,))
            case OutcomeKind.REJECTED:
                state, text = "rejected", rejection(outcome.code, outcome.reason)
                failure = f"{row['customer_id']} {utc_text(row['stamp'].replace(tzinfo=UTC))}: {text}"
                self._note(rejected=1, failures=(failure,))
                unknown_since = None
            case OutcomeKind.REFUSED:
                state = "open" if unknown_since is None else "sending"
                self._note(waiting=1, problems=(outcome.reason or "Stripe refused",))
            case OutcomeKind.UNKNOWN:
                state, unknown_since = "sending", unknown_since or tried_at
                self._note(unknown=1, problems=(outcome.reason or "no answer",))
        if state == "accepted":
            unknown_since = None
        return IntentUpdate(
            outcome.identifier,
            state,
            outcome.answered_at,
            attempts,
            text,
            outcome.code,
            outcome.request_id,
            unknown_since,
        )

    def _is_nobody(self, customer_id: str) -> bool:
        """Whether Stripe says it never knew the customer; one that was deleted it did know."""
        try:
            return self._provider.customer(customer_id) is None
        except UpstreamError:
            return False

    def _events(self, rows: pa.Table) -> Iterator[MeterEvent]:
        for row in rows.select(["identifier", "event_name", "customer_id", "value", "stamp"]).to_pylist():
            row["timestamp"] = row.pop("stamp").replace(tzinfo=UTC)
            yield MeterEvent(**row)

    def _sink(self) -> Sink:
        return self._provider.sink(self._settings.stripe_meter_api)

    # ── afterwards ───────────────────────────────────────────────────────────────────────────────

    def _judge_duplicates(self, meter_id: str) -> None:
        """Of intents that Stripe had before they were tried from here: is it the same value?"""
        for customer, first, last in self._books.doubtful_duplicates():
            try:
                buckets = self._reads.buckets(meter_id, customer, first, last + timedelta(seconds=1))
            except UpstreamError as error:
                self._note(problems=(str(error),))
                buckets = None
            rows = self._books.intents_at(customer, hour_of(first), hour_of(last) + HOUR)
            same, other = ([], []) if buckets is None else judge_duplicates(rows, buckets, now=self._clock())
            self._books.settle(same, push_id=self._id)
            self._note(duplicates=len(same), credits_sent=self._books.values_of(a.identifier for a in same))
            self._confirm_read(customer, buckets or ())
            for hour in other:
                self._keep_back_other(customer, hour)
            told = {a.identifier for a in same} | {identifier for hour in other for identifier in hour.identifiers}
            open_ones = [r for r in rows if r["state"] == "sending" and r["code"] == DUPLICATE]
            for row in open_ones:
                if row["identifier"] not in told:
                    text = (
                        f"{customer} {utc_text(row['stamp'])}: Stripe had a meter event under its identifier before "
                        f"{row['value']:,} credits were sent from here, and its sum does not tell yet how many"
                    )
                    self._note(unknown=1, problems=(text,))

    def _keep_back_other(self, customer: str, hour: ValueMismatch) -> None:
        """What Stripe has under identifiers of ours is something else: what was to be sent waits for a decision."""
        now, shown = self._clock(), f"{hour.hour:%Y-%m-%d %H:%M} UTC"
        text = (
            f"never arrived: Stripe had a meter event under this identifier before; it counts {hour.counted:,} credits "
            f"in the hour from {shown}, of which {hour.delivered:,} are known to this ledger"
        )
        answers = [IntentUpdate(identifier, "void", now, text=text, code=DUPLICATE) for identifier in hour.identifiers]
        found = Difference(customer, hour.hour, hour.counted, hour.delivered)
        if not found.credits:  # nothing of it counts: the next push sends it under an identifier of its own
            self._books.settle(answers, push_id=self._id)
            return
        covered = self._books.events_of(hour.identifiers).values()
        reasons = {event_id: sent_elsewhere.reason_of(found) for ids in covered for event_id in ids}
        frozen = self._books.keep_back(answers, KeepBack(reasons, (found,)), now=now, push_id=self._id)
        self._note(held=frozen.newly_held, newly_held=frozen.newly_held, failures=frozen.named)

    def _confirm(self, meter_id: str) -> None:
        confirmed, problems = _confirm_delivered(
            self._books, self._reads, meter_id, now=self._clock(), push_id=self._id
        )
        self._note(confirmed=confirmed, problems=problems)

    def _write_back(self) -> None:
        """Tell Langfuse, where that is wanted; a failure there stops nothing."""
        written = write_back(self._ledger.engine, self._settings, now=self._clock())
        if written.problem is not None:
            self._note(problems=(written.problem,))

    def _report(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(PushProgress(done, total, self._counts["credits_sent"], "sending"))

    def _note(self, **more: Any) -> None:
        """Add to the result: numbers are added up, texts kept once."""
        for name, value in more.items():
            if isinstance(value, int):
                self._counts[name] += value
            else:
                self._said[name].update(dict.fromkeys(value))

    def _end(self, outcome: str, error: str | None) -> None:
        self._reads.ration.write_down()
        self._counts["reads_this_month"] = reads_this_month(self._snapshots, self._clock())
        document = self._result.to_json()
        self._log.end(self._id, now=self._clock(), outcome=outcome, result=json.dumps(document), error=error)
        written = self._books.identifiers_of(self._id)
        digest = hashlib.sha256("\n".join(written).encode()).hexdigest()
        detail = {"push": self._id, "outcome": outcome, "error": error, "sha256": digest, **document}
        self._ledger.audit(self._actor, "push", detail)


def push(
    ledger: Ledger,
    provider: StripeProvider,
    settings: Settings,
    *,
    actor: str,
    clock: Clock,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> PushResult:
    """Send the credits that are owed to Stripe; the caller makes sure that only one push runs at a time. The caller
    makes sure that only one push runs at a time.

    Raises SettingsError: if the meter or key cannot be used, or belong to another account than earlier pushes went to.
    UpstreamError: if Stripe cannot be reached, or the billing periods cannot be read.
    """
    one = _Push(ledger, provider, settings, actor=actor, clock=clock, progress=progress)
    return one.preview() if dry_run else one.run()


def _unread(unread: Mapping[str, str]) -> str:
    """Why nothing was sent for some customers, in one line."""
    customers = ", ".join(sorted(unread)[:3]) + (" and others" if len(unread) > 3 else "")
    return (
        f"nothing was sent for {customers} into hours that Stripe may count already: {next(iter(unread.values()))}; "
        "push again when Stripe answers"
    )


def outlook_of_retried(
    ledger: Ledger, provider: StripeProvider, settings: Settings, event_ids: Sequence[str], *, actor: str, clock: Clock
) -> dict[str, PushOutlook]:
    """What the next push would do with each event if it were retried now, by a push's own planning; nothing is changed.

    Raises SettingsError: if the meter or key cannot be used. UpstreamError: if Stripe cannot be reached.
    """
    return _Push(ledger, provider, settings, actor=actor, clock=clock, progress=None).fates(event_ids)


def _fates(
    ids: Sequence[str], given: Candidates, plan: planning.PushPlan, kept_back: Mapping[str, str]
) -> dict[str, PushOutlook]:
    wanted, owed, covered = set(ids), Counter[str](), Counter[str]()
    rows = planning.owed(given.events, given.covered)[0]
    for event_id, delta in zip(rows["id"].to_pylist(), rows["delta"].to_pylist(), strict=True):
        owed[event_id] += delta
    for event_id, credits_ in zip(
        plan.coverage["event_id"].to_pylist(), plan.coverage["credits"].to_pylist(), strict=True
    ):
        covered[event_id] += round(credits_ * planning.UNIT)
    causes = {hold.event_id: hold.cause for hold in plan.holds} | dict.fromkeys(kept_back, Flag.SENT_ELSEWHERE.value)
    return {
        event_id: PushOutlook(
            causes.get(event_id, WOULD_BE_SENT if event_id in covered else WOULD_WAIT),
            Decimal(covered[event_id] if event_id in covered else owed[event_id]) / planning.UNIT,
        )
        for event_id in wanted
    }


def _doubtful(intents: pa.Table) -> int:
    """How many were tried with an outcome nobody knows."""
    tried = pc.and_(pc.is_valid(intents["unknown_since"]), pc.fill_null(pc.not_equal(intents["code"], DUPLICATE), True))
    return int(pc.sum(tried).as_py() or 0)


def rejection(code: str | None, reason: str | None) -> str:
    """The reason Stripe will never take a meter event, in one line."""
    return f"Stripe rejected it: {reason or code or 'no reason given'}"


def _mixed(waiting: pa.Table) -> Iterator[pa.Table]:
    """Batches that hold as many customers as possible: calls for one customer follow each other."""
    if not waiting.num_rows:
        return
    codes = waiting["customer_id"].combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    by_customer = np.argsort(codes, kind="stable")
    sorted_codes = codes[by_customer]
    starts = np.flatnonzero(np.append([True], sorted_codes[1:] != sorted_codes[:-1]))
    turns = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
    order = by_customer[np.argsort(turns, kind="stable")]
    for first in range(0, len(order), BATCH):
        yield waiting.take(pa.array(order[first : first + BATCH]))


def _confirm_delivered(
    books: SyncStore, reads: AccountCache, meter_id: str, *, now: datetime, push_id: str
) -> tuple[int, tuple[str, ...]]:
    """Read summaries of customers with unconfirmed intents, as far as the ration goes: (confirmed, what failed)."""
    waiting = {customer: (first, last) for customer, first, last in books.unconfirmed_customers()}
    confirmed, problems = 0, []
    for customer in reads.customers_to_read(waiting):
        first, last = waiting[customer]
        try:
            buckets = reads.buckets(meter_id, customer, first, last + timedelta(seconds=1))
        except UpstreamError as error:
            problems.append(str(error))
            reads.keep_failure(customer)
            if len(problems) == GIVE_UP_AFTER:
                break
            continue
        rows = books.intents_at(customer, hour_of(first), hour_of(last) + HOUR)
        confirmed += books.confirm(agreeing(rows, buckets), at=now, push_id=push_id)
    return confirmed, tuple(problems)
