"""Settles usage that can no longer be metered, and takes settlements back. The service calls it, under the push's lock.

What makes it safe to kill anywhere is the order: a settlement is committed as `sending` before Stripe is asked for its
invoice item, and as `taking_back` before Stripe is asked to delete it. Whatever stays so is decided by the next
settlement or push, from the customer's items at Stripe.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from billing_core.errors import NotFound, SettingsError, UpstreamError
from billing_core.ledger import sent_elsewhere as known
from billing_core.ledger.journal import Ledger
from billing_core.ledger.push_log import PushLog
from billing_core.ledger.sent_elsewhere import Difference, DifferingHour
from billing_core.ledger.settlements import OpenEvent, Settlement, SettlementStore
from billing_core.ledger.sync import SyncStore
from billing_core.runtime.clock import Clock
from billing_core.settings import Settings
from billing_core.stripe.invoice_items import (
    DRAFT,
    MONTH,
    NOT_FOUND,
    InvoiceItem,
    InvoiceItems,
    ItemOutcome,
    ItemRequest,
)
from billing_core.stripe.model import OutcomeKind
from billing_core.stripe.provider import StripeProvider
from billing_core.stripe.reading import ReadFailed
from billing_core.stripe_sync import settlement_rules as rules
from billing_core.stripe_sync.account_cache import AccountCache
from billing_core.stripe_sync.confirmation import SETTLED_AFTER
from billing_core.stripe_sync.sent_elsewhere import MEMORY, PAGE, Owed, differences, events_to_keep_back
from billing_core.stripe_sync.settlement_rules import CURRENCY, PlannedSettlement, SettlementKind, SettlementPlan
from billing_core.types import plain_decimal, utc_text
from billing_core.values.decimals import exact_sum
from billing_core.values.money import from_minor_units, money
from billing_core.values.usage_frame import HOUR, Window, hour_of, month_window

ATTEMPTS = 3
"""How often write-offs are planned anew because the ledger changed meanwhile."""

VOID_INVOICE = "void"
LOOK_AGAIN = timedelta(hours=20)
LOOKS = 20
"""Invoice items looked at after a push, to see whether their invoice is final."""

CHANGED = "it changed while it was being settled: settle again"


@dataclass(frozen=True, slots=True)
class ItemLine:
    """One invoice item as the command and the page show it; `id` is null before Stripe has it."""

    customer_id: str
    month: str
    id: str | None
    settlement: str | None
    events: int
    credits: Decimal
    amount_usd: Decimal
    amount: int
    currency: str
    state: str

    def to_json(self) -> dict[str, Any]:
        """The item as CONTRACT section 3 names it, and what it is made of; `amount` in minor units of `currency`."""
        exact = from_minor_units(self.amount, self.currency)
        return {
            "customer_id": self.customer_id,
            "id": self.id,
            "amount": self.amount,
            "currency": self.currency,
            "month": self.month,
            "settlement": self.settlement,
            "events": self.events,
            "credits": plain_decimal(self.credits),
            "amount_usd": plain_decimal(self.amount_usd),
            "rounding": plain_decimal(exact - self.amount_usd) if self.currency == CURRENCY else None,
            "state": self.state,
        }


@dataclass(frozen=True, slots=True)
class SettlementResult:
    """What settling did, or would do.

    settlements: Ids of the settlements made.
    skipped: Event → why it was not settled; those of `done_before` were settled already.
    problems: One line for each customer's month that was not settled, and for what is not known.
    out_of_reach: Why Stripe could not be reached, or refuses the key.
    """

    kind: SettlementKind
    is_dry_run: bool = False
    event_ids: tuple[str, ...] = ()
    credits: Decimal = Decimal(0)
    amount_usd: Decimal = Decimal(0)
    items: tuple[ItemLine, ...] = ()
    settlements: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    done_before: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()
    out_of_reach: str | None = None

    @property
    def has_failures(self) -> bool:
        """Whether something asked for was not settled, and is not settled already."""
        return bool(self.problems or self.skipped.keys() - self.done_before)

    def to_json(self) -> dict[str, Any]:
        """The published document (CONTRACT section 3, `settle`)."""
        return {
            "as": self.kind.value.replace("_", "-"),
            "dry_run": self.is_dry_run,
            "events": len(self.event_ids),
            "credits": plain_decimal(self.credits),
            "amount_usd": plain_decimal(self.amount_usd),
            "invoice_items": [item.to_json() for item in self.items],
            "settlements": list(self.settlements),
            "skipped": [{"id": event_id, "reason": reason} for event_id, reason in sorted(self.skipped.items())],
            "problems": list(self.problems),
        }


@dataclass(frozen=True, slots=True)
class Resolved:
    """What became of invoice items whose outcome was not known: lines of those that failed, or still are not known."""

    problems: tuple[str, ...] = ()
    unknown: int = 0
    out_of_reach: str | None = None


class Settling:
    """Settlements over one ledger. Without a `provider` only write-offs can be made and taken back."""

    def __init__(
        self, ledger: Ledger, settings: Settings, *, actor: str, clock: Clock, provider: StripeProvider | None = None
    ) -> None:
        self._ledger = ledger
        self._store = SettlementStore(ledger.engine)
        self._settings = settings
        self._actor = actor
        self._clock = clock
        self._provider = provider
        self._items: InvoiceItems | None = None if provider is None else provider.invoice_items()
        self._reads = None if provider is None else AccountCache(SyncStore(ledger.engine), provider, clock)

    def close(self) -> None:
        """Count the reads made from Stripe."""
        if self._reads is not None:
            self._reads.ration.write_down()

    # ── what would be done ───────────────────────────────────────────────────────────────────────

    def plan(self, asked: Sequence[str], kind: SettlementKind, *, keep: bool = False) -> SettlementPlan:
        """What settling these events would do, by what the ledger, and for invoice items Stripe, say now.

        Raises UpstreamError: if Stripe could not be asked what it counts, or who the customers are.
        """
        return self._planned(asked, kind, keep=keep)[0]

    def _planned(
        self, asked: Sequence[str], kind: SettlementKind, *, keep: bool
    ) -> tuple[SettlementPlan, dict[str, OpenEvent]]:
        asked = list(dict.fromkeys(asked))
        events = self._store.facts(asked)
        busy: Mapping[str, str] = {}
        if kind is SettlementKind.INVOICE_ITEM:
            busy = self._counted_already([one for one in events if rules.refusal(one, kind) is None], keep=keep)
        made = rules.plan(asked, events, kind, self._settings.zone, busy=busy)
        if kind is SettlementKind.INVOICE_ITEM:
            made = self._payable(made)
        return made, {one.id: one for one in events}

    def _counted_already(self, events: Iterable[OpenEvent], *, keep: bool) -> dict[str, str]:
        """Events that the meter may count already, each with both figures: an invoice item would bill them twice."""
        by_customer: dict[str, list[Owed]] = {}
        for event in events:
            if event.customer_id is not None and event.parts[event.customer_id] > 0:
                one = Owed(event.id, event.customer_id, hour_of(event.timestamp), event.parts[event.customer_id])
                by_customer.setdefault(event.customer_id, []).append(one)
        if not by_customer:
            return {}
        reads, meter_id = self._meter(keep=keep)
        before = known.found_before(self._ledger.engine)
        found: dict[str, str] = {}
        open_ones = [one.difference for one in before if not one.is_decided]
        for customer, owed in by_customer.items():
            hours = {*(one.hour for one in owed), *(one.hour for one in open_ones if one.customer_id == customer)}
            excess = self._excess(reads, meter_id, customer, hours)
            new = [DifferingHour(one, self._clock(), is_decided=False) for one in excess]
            for event_id, difference in events_to_keep_back(owed, new, {}).items():
                found[event_id] = _counted(difference)
        return found

    def _meter(self, *, keep: bool) -> tuple[AccountCache, str]:
        assert self._reads is not None  # noqa: S101  -- the service connects for invoice items
        meter_id, livemode = self._reads.meter(keep=keep)
        PushLog(self._ledger.engine).bind(meter_id, livemode, keep=keep)
        return self._reads, meter_id

    def _excess(
        self, reads: AccountCache, meter_id: str, customer: str, hours: Iterable[datetime]
    ) -> Iterator[Difference]:
        """Hours in which Stripe counts more than this ledger sent there."""
        recent = self._clock() - SETTLED_AFTER
        for window in _windows(hours):
            try:
                counted = reads.sums(meter_id, customer, window.start, window.end)
            except NotFound:
                return  # said when the customer is looked at
            billed = known.billed_by_hour(self._ledger.engine, customer, window, recent=recent)
            yield from (one for one in differences(customer, counted, billed, ()) if one.credits > 0)

    def _payable(self, made: SettlementPlan) -> SettlementPlan:
        """The plan without customers that cannot be invoiced in US dollars."""
        assert self._provider is not None  # noqa: S101
        assert self._items is not None  # noqa: S101
        refused: dict[str, str | None] = {}
        for one in made.settlements:
            customer_id = one.customer_id or ""
            if customer_id not in refused:
                refused[customer_id] = None
                try:
                    customer = self._provider.customer(customer_id)
                except ReadFailed as error:
                    if error.status != NOT_FOUND:
                        raise
                    continue  # not offered: its own refusal follows
                if customer is None:
                    refused[customer_id] = "Stripe does not know the customer"
                elif customer.is_deleted:
                    refused[customer_id] = "the customer was deleted at Stripe: write it off"
                elif customer.currency not in {None, CURRENCY}:
                    currency = (customer.currency or "").upper()
                    refused[customer_id] = (
                        f"the customer pays in {currency} and usage is rated in USD, which is not converted: invoice "
                        "it by hand, then write it off with the invoice's number as the reason"
                    )
            why = refused[customer_id] or self._known_elsewhere(one)
            if why is not None:
                made = made.without(one, f"{customer_id} {one.month}: {why}")
        return made

    def _known_elsewhere(self, one: PlannedSettlement) -> str | None:
        """Why a customer's month may be invoiced already: by a copy of this ledger that was lost, or restored."""
        assert self._items is not None  # noqa: S101
        month = month_window(one.month, self._settings.zone)
        try:
            found = self._items.of_settlements(one.customer_id, since=month.start)
        except ReadFailed as error:
            if error.status != NOT_FOUND:
                raise
            return None  # not offered
        items = [item for item in found if item.metadata.get(MONTH) == one.month]
        ours = self._store.known([item.settlement or "" for item in items])
        other = next((item for item in items if item.settlement not in ours), None)
        if other is None:
            return None
        return (
            f"Stripe has the invoice item {other.id} over {money(other.amount, other.currency)} for this month, which "
            "this ledger does not know: another copy of it made it. Delete it at Stripe, or write these events off"
        )

    # ── settling ─────────────────────────────────────────────────────────────────────────────────

    def settle(self, asked: Sequence[str], kind: SettlementKind, reason: str) -> SettlementResult:
        """Settle events; what is left open by an earlier run is decided first.

        Raises UpstreamError: if Stripe could not be asked beforehand; then nothing was settled.
        """
        if kind is SettlementKind.WRITE_OFF:
            return self._write_off(asked, reason)
        self._meter(keep=True)  # of the account that earlier pushes went to: in another one nothing would be found
        before = self.resolve()
        if before.out_of_reach is not None:
            raise UpstreamError(before.out_of_reach)
        made, events = self._planned(asked, kind, keep=True)
        result = SettlementResult(
            kind, skipped=made.skipped, done_before=made.done_before, problems=(*before.problems, *made.problems)
        )
        for planned in made.settlements:
            if result.out_of_reach is not None:
                result = _left_out(result, planned, result.out_of_reach)
                continue
            result = self._invoice(planned, events, reason, result)
        return result

    def _write_off(self, asked: Sequence[str], reason: str) -> SettlementResult:
        kind = SettlementKind.WRITE_OFF
        for _ in range(ATTEMPTS):
            made, events = self._planned(asked, kind, keep=True)
            new = [self._new(planned, reason) for planned in made.settlements]
            expected = [events[event_id] for event_id in made.event_ids]
            pairs = [(one, planned.parts) for one, planned in zip(new, made.settlements, strict=True)]
            if not new or self._store.write_down(pairs, expected):
                return replace(as_result(made, kind), settlements=tuple(one.id for one in new))
        skipped = {**made.skipped, **dict.fromkeys(made.event_ids, CHANGED)}
        return SettlementResult(kind, skipped=skipped, done_before=made.done_before)

    def _invoice(
        self, planned: PlannedSettlement, events: Mapping[str, OpenEvent], reason: str, result: SettlementResult
    ) -> SettlementResult:
        """One invoice item: written down, created, and its answer written down."""
        assert self._items is not None  # noqa: S101
        settlement = self._new(planned, reason)
        expected = [events[part.event_id] for part in planned.parts]
        if not self._store.write_down([(settlement, planned.parts)], expected):
            return _left_out(result, planned, CHANGED)
        outcome = self._items.create(self._request(settlement))
        problem = self._note(settlement, outcome)
        who = f"{settlement.customer_id} {settlement.month}"
        if outcome.kind in {OutcomeKind.REJECTED, OutcomeKind.REFUSED}:
            result = _left_out(result, planned, f"{who}: {problem}")
            return result if outcome.kind is OutcomeKind.REJECTED else replace(result, out_of_reach=problem)
        item = outcome.item
        line = _line(planned, settlement.id, item, "sending" if item is None else "settled")
        result = replace(
            result,
            event_ids=(*result.event_ids, *(part.event_id for part in planned.parts)),
            credits=exact_sum((result.credits, planned.credits)),
            amount_usd=exact_sum((result.amount_usd, planned.amount_usd)),
            items=(*result.items, line),
            settlements=(*result.settlements, settlement.id),
        )
        return result if problem is None else replace(result, out_of_reach=f"{who}: {problem}")

    def _new(self, planned: PlannedSettlement, reason: str) -> Settlement:
        is_item, now = planned.kind is SettlementKind.INVOICE_ITEM, self._clock()
        id_ = f"set_{uuid.uuid4().hex[:20]}"
        return Settlement(
            id_,
            planned.kind.value,
            planned.customer_id,
            planned.month,
            self._settings.timezone,
            "sending" if is_item else "settled",
            f"billing-{id_}",
            planned.credits,
            planned.amount_usd,
            planned.amount if is_item else None,
            CURRENCY if is_item else None,
            None,
            None,
            None,
            reason,
            self._actor,
            now,
            unknown_since=now if is_item else None,
        )

    def _request(self, settlement: Settlement) -> ItemRequest:
        """The item of a settlement: from what is written down alone, so that every try sends the same bytes."""
        month = month_window(settlement.month, ZoneInfo(settlement.timezone))
        return ItemRequest(
            key=settlement.idempotency_key,
            settlement=settlement.id,
            customer_id=settlement.customer_id or "",
            amount=settlement.amount or 0,
            currency=settlement.currency or CURRENCY,
            description=rules.description_of(settlement.month, settlement.credits),
            month=settlement.month,
            start=month.start,
            end=month.end,
            metadata={"billing_credits": plain_decimal(settlement.credits)},
            made_at=settlement.made_at,
        )

    def _note(self, settlement: Settlement, outcome: ItemOutcome) -> str | None:
        """Write down what became of an item; returns why there is none, or why that is not known."""
        now = self._clock()
        if outcome.kind is OutcomeKind.ACCEPTED and outcome.item is not None:
            item = outcome.item
            self._store.answered(
                settlement.id,
                state="settled",
                item_id=item.id,
                amount=item.amount,
                currency=item.currency,
                invoice_id=item.invoice_id,
                answered_at=now,
                unknown_since=None,
                request_id=outcome.request_id,
            )
            return None
        reason = outcome.reason or "no reason given"
        if outcome.kind is OutcomeKind.UNKNOWN:
            return (
                f"it is not known whether Stripe has the invoice item ({reason}); the next settlement or push finds out"
            )
        says = f"Stripe refused the invoice item: {reason}"
        self._store.undo(settlement, state="refused", actor=self._actor, reason="", now=now, answer=says)
        return says

    # ── what an earlier run left open ────────────────────────────────────────────────────────────

    def resolve(self) -> Resolved:
        """Decide settlements whose invoice item may or may not be at Stripe; each stays so if Stripe cannot say."""
        problems: list[str] = []
        unknown, out_of_reach = 0, None
        for settlement in self._store.in_doubt():
            outcome, problem = self._decided(settlement)
            if problem is not None:
                problems.append(f"{settlement.customer_id} {settlement.month}: {problem}")
                unknown += outcome.kind is OutcomeKind.UNKNOWN
                if outcome.kind in {OutcomeKind.UNKNOWN, OutcomeKind.REFUSED}:
                    out_of_reach = problems[-1]
        return Resolved(tuple(problems), unknown, out_of_reach)

    def _decided(self, settlement: Settlement) -> tuple[ItemOutcome, str | None]:
        assert self._items is not None  # noqa: S101
        if settlement.state == "taking_back":
            return self._delete(settlement)
        request = self._request(settlement)
        try:
            found = self._items.find(request)
        except UpstreamError as error:
            is_offered = not isinstance(error, ReadFailed) or error.status != NOT_FOUND
            if is_offered or self._clock() - settlement.made_at > MEMORY:
                outcome = ItemOutcome(OutcomeKind.UNKNOWN, None, str(error))
            else:
                outcome = self._items.create(request)
        else:
            outcome = self._items.create(request) if found is None else ItemOutcome(OutcomeKind.ACCEPTED, found)
        if outcome.kind is OutcomeKind.REFUSED:  # not this time; an earlier try may have arrived
            outcome = replace(outcome, kind=OutcomeKind.UNKNOWN)
        return outcome, self._note(settlement, outcome)

    def refresh(self) -> tuple[int, tuple[str, ...]]:
        """Look whether the invoices of items are final by now: how many are, and what is wrong with others."""
        assert self._items is not None  # noqa: S101
        now, confirmed, problems = self._clock(), 0, []
        for settlement in self._store.unconfirmed(now - LOOK_AGAIN, LOOKS):
            try:
                item = self._items.get(settlement.item_id or "")
                status = (
                    None if item is None or item.invoice_id is None else self._items.invoice_status(item.invoice_id)
                )
            except (NotFound, UpstreamError) as error:
                problems.append(str(error))
                break
            if item is None:
                problems.append(
                    f"the invoice item {settlement.item_id} of {settlement.customer_id} is gone at Stripe, which "
                    f"nobody here took back: `settle --take-back {settlement.id}` to settle its usage otherwise"
                )
                self._store.answered(settlement.id, checked_at=now)
                continue
            is_final = status not in {None, DRAFT, VOID_INVOICE}
            confirmed += is_final
            state = {"state": "confirmed"} if is_final else {}
            self._store.answered(
                settlement.id, checked_at=now, invoice_id=item.invoice_id, invoice_status=status, **state
            )
        return confirmed, tuple(problems)

    # ── taking back ──────────────────────────────────────────────────────────────────────────────

    def take_back(self, settlement_id: str, reason: str) -> tuple[Settlement, str | None]:
        """Take a settlement back: its events stand as before. Returns it, and why it stays if it does.

        Raises NotFound: if there is none of that id. UpstreamError: if Stripe could not be reached, or refused the key.
        """
        settlement = self._store.get(settlement_id)
        if settlement is None:
            raise NotFound(f"settlement {settlement_id!r}: there is none of this id; `settle --list` names them")
        if not settlement.counts:
            return settlement, None
        if settlement.kind == SettlementKind.WRITE_OFF:
            now = self._clock()
            self._store.undo(settlement, state="taken_back", actor=self._actor, reason=reason, now=now)
            return self._again(settlement), None
        if self._items is None:
            raise SettingsError("STRIPE_API_KEY: not set; taking an invoice item back needs it")
        self._meter(keep=False)  # in another account the item would seem to be gone
        if settlement.state == "sending":
            outcome, problem = self._decided(settlement)
            if outcome.kind is OutcomeKind.UNKNOWN:
                raise UpstreamError(f"{settlement.customer_id} {settlement.month}: {problem}")
            settlement = self._again(settlement)
            if not settlement.counts:
                return settlement, None
        if settlement.state != "taking_back":
            status = self._invoice_status(settlement)
            now = self._clock()
            if status == VOID_INVOICE:  # it bills nothing, and what is on it cannot be deleted
                self._store.undo(settlement, state="taken_back", actor=self._actor, reason=reason, now=now)
                return self._again(settlement), None
            if status not in {None, DRAFT}:
                settlement = self._again(settlement)
                return settlement, (
                    f"the invoice item {settlement.item_id} cannot be taken back: its invoice {settlement.invoice_id} "
                    f"is {status}; issue a credit note at Stripe"
                )
            self._store.begin_taking_back(settlement, actor=self._actor, reason=reason, now=now)
        outcome, problem = self._delete(self._again(settlement))
        if outcome.kind in {OutcomeKind.UNKNOWN, OutcomeKind.REFUSED}:
            raise UpstreamError(f"{settlement.customer_id} {settlement.month}: {problem}")
        return self._again(settlement), problem

    def _again(self, settlement: Settlement) -> Settlement:
        return self._store.get(settlement.id) or settlement

    def _invoice_status(self, settlement: Settlement) -> str | None:
        """The status of the invoice that an item is on; `None` while it is on none, or gone."""
        assert self._items is not None  # noqa: S101
        item = self._items.get(settlement.item_id or "")
        if item is None or item.invoice_id is None:
            return None
        status = self._items.invoice_status(item.invoice_id)
        self._store.answered(settlement.id, invoice_id=item.invoice_id, invoice_status=status, checked_at=self._clock())
        return status

    def _delete(self, settlement: Settlement) -> tuple[ItemOutcome, str | None]:
        """Delete the item of a settlement that is being taken back; returns why it stays, or what is not known."""
        assert self._items is not None  # noqa: S101
        outcome = self._items.delete(settlement.item_id or "")
        if outcome.kind is OutcomeKind.ACCEPTED:
            by, why = settlement.taken_back_by or self._actor, settlement.taken_back_reason or ""
            self._store.undo(settlement, state="taken_back", actor=by, reason=why, now=self._clock())
            return outcome, None
        if outcome.kind is OutcomeKind.UNKNOWN:
            return outcome, (
                f"it is not known whether the invoice item {settlement.item_id} was deleted ({outcome.reason}); the "
                "next settlement or push finds out"
            )
        self._store.cannot_take_back(settlement, state="settled", answer=outcome.reason)
        return outcome, f"Stripe did not delete the invoice item {settlement.item_id}: {outcome.reason}"


def as_result(made: SettlementPlan, kind: SettlementKind, *, is_dry_run: bool = False) -> SettlementResult:
    """A plan as the result it would have."""
    items = [_line(one, None, None, "planned") for one in made.settlements if kind is SettlementKind.INVOICE_ITEM]
    return SettlementResult(
        kind,
        is_dry_run,
        made.event_ids,
        made.credits,
        made.amount_usd,
        tuple(items),
        (),
        made.skipped,
        made.done_before,
        made.problems,
    )


def _windows(hours: Iterable[datetime]) -> Iterator[Window]:
    """Windows that hold all of some hours, each of which one read brings."""
    rest = sorted(hours)
    while rest:
        inside = [hour for hour in rest if hour < rest[0] + PAGE]
        yield Window(rest[0], inside[-1] + HOUR)
        rest = rest[len(inside) :]


def _counted(difference: Difference) -> str:
    return (
        f"the meter may count it already: Stripe counts {plain_decimal(difference.counted)} credits of "
        f"{difference.customer_id} in the hour from {utc_text(difference.hour)}, of which "
        f"{plain_decimal(difference.delivered)} are known to this ledger; write it off if that is so"
    )


def _line(planned: PlannedSettlement, settlement: str | None, item: InvoiceItem | None, state: str) -> ItemLine:
    return ItemLine(
        planned.customer_id or "",
        planned.month,
        None if item is None else item.id,
        settlement,
        len(planned.parts),
        planned.credits,
        planned.amount_usd,
        planned.amount if item is None else item.amount,
        CURRENCY if item is None else item.currency,
        state,
    )


def _left_out(result: SettlementResult, planned: PlannedSettlement, problem: str) -> SettlementResult:
    """The result when a customer's month was not settled."""
    more = {part.event_id: problem for part in planned.parts}
    return replace(result, skipped={**result.skipped, **more}, problems=(*result.problems, problem))
