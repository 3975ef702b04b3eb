"""Bookings of a month in cents, as bookkeeping software takes them: debit equals credit, and each customer's receivable
is what their invoice says. Pure.

Per month: a receivable per customer, the revenue of each kind of credits, and one line for what rounding to cents
leaves over. What a customer need not pay (written off) is booked back from their receivable.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final, Literal

from billing_core.values.decimals import EXACT, exact_sum
from billing_core.values.money import from_minor_units, in_minor_units

CURRENCY = "usd"
Kind = Literal["ai_tokens", "compute", "storage"]
KINDS: Final[tuple[Kind, ...]] = ("ai_tokens", "compute", "storage")
WORDS = {
    "ai_tokens": "AI tokens",
    "compute": "Compute",
    "storage": "Storage",
    "rounding": "Rounding to cents",
    "write_off": "Written off",
}

Entry = Literal["receivable", "rounding", "write_off"] | Kind
"""Which of the journal's accounts a line is booked on."""


@dataclass(frozen=True, slots=True)
class Posting:
    """One line of a booking: US dollars with two decimals, above 0 a debit, below 0 a credit; never 0.

    posted_on: The last day of the month, or of the window if that ends before.
    reference: The same in every run, such as `2026-10/cus_a`.
    """

    period: str
    posted_on: date
    entry: Entry
    customer_id: str | None
    text: str
    reference: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Bookings:
    """The bookings of some months, and the exact US dollars of usage without a customer, which they leave out."""

    postings: tuple[Posting, ...]
    without_customer: Decimal
    exact: Decimal
    """What the booked usage comes to before rounding to cents; written off usage is in it."""

    @property
    def debits(self) -> Decimal:
        """The sum of the debits, which is that of the credits."""
        return exact_sum(one.amount for one in self.postings if one.amount > 0)

    def on(self, entry: Entry) -> Decimal:
        """The balance of an account: above 0 a debit."""
        return exact_sum(one.amount for one in self.postings if one.entry == entry)


def cents(amount: Decimal) -> Decimal:
    """US dollars rounded half-even to whole cents."""
    return from_minor_units(in_minor_units(amount, CURRENCY), CURRENCY)


@dataclass(frozen=True, slots=True)
class WriteOff:
    """What was written off of a customer's usage of a month (`2026-10`), in exact US dollars; times are aware UTC."""

    customer_id: str
    month: str
    amount_usd: Decimal
    made_at: datetime
    taken_back_at: datetime | None


@dataclass(frozen=True, slots=True)
class InvoicedItem:
    """An invoice item of its own for a customer's usage of a month: exact US dollars, and the cents on the invoice."""

    customer_id: str
    month: str
    exact: Decimal
    amount: int
    made_at: datetime
    taken_back_at: datetime | None

    @property
    def on_invoice(self) -> Decimal:
        """The US dollars on the invoice."""
        return from_minor_units(self.amount, CURRENCY)


ClosedAt = Mapping[str, datetime]
"""Month → when it was closed, of closes in force."""


def _is_late(month: str, at: datetime, closed_at: ClosedAt) -> bool:
    """Whether something about a month happened after its close, so that its bookings do not know it."""
    close = closed_at.get(month)
    return close is not None and close < at


def written_off_in(
    start: datetime, end: datetime, inside: Iterable[WriteOff], everywhere: Iterable[WriteOff], closed_at: ClosedAt
) -> dict[str, Decimal]:
    """Exact US dollars per customer that the bookings of `[start, end)` take off, or put back on (below 0).

    A write-off is booked with its usage (`inside` are those of usage in the window); if that month was closed before,
    when it was made: a closed month's bookings never change. The same goes for taking it back.
    """
    found: dict[str, Decimal] = {}

    def book(one: WriteOff, *, is_inside: bool) -> None:
        for at, amount in ((one.made_at, one.amount_usd), (one.taken_back_at, one.amount_usd.copy_negate())):
            if at is None or _is_late(one.month, at, closed_at) == is_inside:
                continue
            if is_inside or start <= at < end:
                found[one.customer_id] = EXACT.add(found.get(one.customer_id, Decimal(0)), amount)

    for one in inside:
        book(one, is_inside=True)
    for one in everywhere:
        book(one, is_inside=False)
    return {customer: amount for customer, amount in found.items() if amount}


def invoiced_in(items: Iterable[InvoicedItem], closed_at: ClosedAt) -> list[InvoicedItem]:
    """The invoice items that the bookings of their usage's month know: of a closed month those there when it closed."""
    return [
        one
        for one in items
        if not _is_late(one.month, one.made_at, closed_at)
        and (one.taken_back_at is None or _is_late(one.month, one.taken_back_at, closed_at))
    ]


def month_bookings(
    period: str,
    posted_on: date,
    sums: Iterable[Mapping[str, Any]],
    written_off: Mapping[str, Decimal],
    items: Iterable[InvoicedItem] = (),
) -> Bookings:
    """The bookings of one month.

    sums: Rows with `customer_id`, `credit_price_usd` and the credits of each kind; any number per customer.
    written_off: Customer → exact US dollars that they need not pay: see `written_off_in`.
    items: What of `sums` stands on an invoice as an item of its own, rounded by itself: see `invoiced_in`.
    """
    separate: dict[str, list[InvoicedItem]] = {}
    for item in items:
        separate.setdefault(item.customer_id, []).append(item)
    owed: dict[str, Decimal] = {}
    earned = dict.fromkeys(KINDS, Decimal(0))
    nobodys = Decimal(0)
    for row in sums:
        parts = {kind: EXACT.multiply(row[f"credits_{kind}"] or 0, row["credit_price_usd"]) for kind in KINDS}
        whole = EXACT.add(EXACT.add(parts["ai_tokens"], parts["compute"]), parts["storage"])
        customer = row["customer_id"]
        if not customer:
            nobodys = EXACT.add(nobodys, whole)
            continue
        owed[customer] = EXACT.add(owed.get(customer, Decimal(0)), whole)
        for kind, part in parts.items():
            earned[kind] = EXACT.add(earned[kind], part)

    found: list[Posting] = []

    def post(entry: Entry, customer: str | None, text: str, amount: Decimal) -> None:
        if amount:
            name = f"{period}/{customer or entry}" + ("/written-off" if entry == "write_off" else "")
            found.append(Posting(period, posted_on, entry, customer, text, name, amount))

    for customer in sorted(owed.keys() | written_off):
        back = cents(written_off.get(customer, Decimal(0)))
        # Rounded as on the invoice: what the meter bills once, and each item of its own.
        apart = separate.get(customer, ())
        elsewhere = exact_sum((written_off.get(customer, Decimal(0)), *(item.exact for item in apart)))
        metered = cents(EXACT.subtract(owed.get(customer, Decimal(0)), elsewhere))
        due = exact_sum((metered, *(item.on_invoice for item in apart)))
        post("receivable", customer, f"Usage {period}, {customer}", due)
        post("write_off", customer, f"{WORDS['write_off']} {period}, {customer}", back)
    for kind in KINDS:
        post(kind, None, f"{WORDS[kind]} {period}", -cents(earned[kind]))
    difference = exact_sum(one.amount for one in found)
    post("rounding", None, f"{WORDS['rounding']} {period}", -difference)
    return Bookings(tuple(found), nobodys, exact_sum(owed.values()))


def together(months: Sequence[Bookings]) -> Bookings:
    """The bookings of several months as one."""
    return Bookings(
        tuple(posting for month in months for posting in month.postings),
        exact_sum(month.without_customer for month in months),
        exact_sum(month.exact for month in months),
    )
