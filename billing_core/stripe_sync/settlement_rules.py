"""Which events can be settled, and into what: rules of write-offs and invoice items. Pure and exact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from zoneinfo import ZoneInfo

from billing_core.ledger.schema import INVOICE_ITEM, SENT, WRITE_OFF
from billing_core.ledger.settlements import OpenEvent, SettledPart
from billing_core.types import Flag, SyncStatus, plain_decimal
from billing_core.values.decimals import EXACT, exact_sum
from billing_core.values.money import in_minor_units, money, rounding_of

CURRENCY = "usd"
"""The currency of rate cards, and so of invoice items. Nothing is converted."""


class SettlementKind(StrEnum):
    """What becomes of usage that cannot be metered: nobody pays it, or an invoice item of its own bills it."""

    WRITE_OFF = WRITE_OFF
    INVOICE_ITEM = INVOICE_ITEM


@dataclass(frozen=True, slots=True)
class PlannedSettlement:
    """One customer's month to be settled: exact sums, and `amount` in cents, rounded once (half-even)."""

    kind: SettlementKind
    customer_id: str | None
    month: str
    parts: tuple[SettledPart, ...]

    @property
    def credits(self) -> Decimal:
        """The exact credits."""
        return exact_sum(part.credits for part in self.parts)

    @property
    def amount_usd(self) -> Decimal:
        """The exact US dollars."""
        return exact_sum(part.amount_usd for part in self.parts)

    @property
    def amount(self) -> int:
        """The cents."""
        return in_minor_units(self.amount_usd, CURRENCY)

    @property
    def rounding(self) -> Decimal:
        """What rounding to cents adds, in US dollars."""
        return rounding_of(self.amount_usd, self.amount)


@dataclass(frozen=True, slots=True)
class SettlementPlan:
    """What settling some events would do.

    skipped: Event → why it is not settled.
    done_before: Those of the skipped ones that are settled already: there is nothing to do.
    problems: What kept whole customers' months from being settled, a line each.
    """

    settlements: tuple[PlannedSettlement, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    done_before: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()

    @property
    def event_ids(self) -> tuple[str, ...]:
        """The events that would be settled, each once."""
        return tuple(dict.fromkeys(part.event_id for one in self.settlements for part in one.parts))

    @property
    def credits(self) -> Decimal:
        """The exact credits of all settlements."""
        return exact_sum(one.credits for one in self.settlements)

    @property
    def amount_usd(self) -> Decimal:
        """The exact US dollars of all settlements."""
        return exact_sum(one.amount_usd for one in self.settlements)

    def without(self, left_out: PlannedSettlement, problem: str) -> SettlementPlan:
        """The plan without one customer's month, for a reason."""
        rest = tuple(one for one in self.settlements if one != left_out)
        still = {part.event_id for one in rest for part in one.parts}
        more = {part.event_id: problem for part in left_out.parts if part.event_id not in still}
        return replace(self, settlements=rest, skipped={**self.skipped, **more}, problems=(*self.problems, problem))


def plan(
    asked: Sequence[str], events: Iterable[OpenEvent], kind: SettlementKind, zone: ZoneInfo, *, busy: Mapping[str, str]
) -> SettlementPlan:
    """What settling the `asked` events does: one settlement per customer and month of `zone`.

    `busy` are events that must not be settled now → why (Stripe may count them already).
    """
    known = {one.id: one for one in events}
    skipped = {event_id: "no event has this id" for event_id in asked if event_id not in known}
    done: set[str] = set()
    grouped: dict[tuple[str | None, str], list[SettledPart]] = {}
    for event in known.values():
        why = refusal(event, kind) or busy.get(event.id)
        if why is not None:
            skipped[event.id] = why
            if is_settled(event):
                done.add(event.id)
            continue
        month = f"{event.counts_at.astimezone(zone):%Y-%m}"
        for customer, credits_ in _parts(event, kind).items():
            amount = EXACT.multiply(credits_, event.credit_price_usd)
            grouped.setdefault((customer, month), []).append(SettledPart(event.id, credits_, amount))
    made = tuple(
        PlannedSettlement(kind, customer, month, tuple(sorted(parts, key=lambda part: part.event_id)))
        for (customer, month), parts in sorted(grouped.items(), key=lambda one: (one[0][0] or "", one[0][1]))
    )
    found = SettlementPlan(made, skipped, frozenset(done))
    if kind is SettlementKind.INVOICE_ITEM:
        for one in made:
            if (problem := amount_refusal(one)) is not None:
                found = found.without(one, problem)
    return found


def is_settled(event: OpenEvent) -> bool:
    """Whether an event is settled and owes nothing more."""
    return not event.parts and bool({Flag.WRITTEN_OFF, Flag.INVOICED_SEPARATELY} & set(event.flags))


def _parts(event: OpenEvent, kind: SettlementKind) -> Mapping[str | None, Decimal]:
    """Customer → credits. An item bills who pays now; what a former customer is to get back is a credit note's."""
    if kind is SettlementKind.WRITE_OFF:
        return event.parts
    return {event.customer_id: event.parts[event.customer_id]}


def refusal(event: OpenEvent, kind: SettlementKind) -> str | None:
    """Why an event cannot be settled; `None` if it can: it owes something that no meter event can carry."""
    flags, status = set(event.flags), event.sync_status
    if Flag.LEGACY_BILLED in flags:
        return "billed by the earlier system: nothing is owed for it here"
    if event.is_billed_elsewhere:
        return "billed by the ledger it was imported from: nothing is owed for it here"
    if event.is_in_doubt:
        return "it is not known whether Stripe has it: push first"
    if is_settled(event):
        return "written off already" if Flag.WRITTEN_OFF in flags else "invoiced separately already"
    if not event.parts:
        return "nothing is owed for it"
    if status == SyncStatus.PENDING and event.cause is None:
        if Flag.CARRIED in flags:
            return "less than a whole credit so far, it waits for more usage: hold it first"
        return "it can still be sent: push, or hold it first"
    if status in SENT and event.cause is None:
        return "sent, and the difference can still be sent: push first"
    if kind is SettlementKind.INVOICE_ITEM:
        if event.customer_id is None:
            return "nobody to invoice: map its organization to a customer, or write it off"
        if event.customer_id not in event.parts:
            return "it only gives credits back: issue a credit note at Stripe, then write it off"
    return None


def amount_refusal(one: PlannedSettlement) -> str | None:
    """Why no invoice item is made of a customer's month because of its amount; `None` if one can be."""
    who = f"{one.customer_id} {one.month}"
    if one.amount_usd < 0:
        due = money(-one.amount, CURRENCY)
        return (
            f"{who}: {plain_decimal(one.amount_usd)} USD is a negative sum and no invoice item is made of it: issue a "
            f"credit note over {due} at Stripe, then write it off with the note's number as the reason"
        )
    if one.amount == 0:
        return f"{who}: {plain_decimal(one.amount_usd)} USD is less than half a cent: write it off"
    return None


def description_of(month: str, credits_: Decimal) -> str:
    """What the invoice says of an item: the same words for the same settlement, whenever it is tried."""
    return f"Usage of {month} billed separately: {plain_decimal(credits_)} credits"
