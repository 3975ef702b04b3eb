"""Invoice items at Stripe: created once for one key, found again by the settlement they name, deleted.

An item is pending until the customer's next invoice takes it. Stripe remembers an idempotency key for a day; whether an
item was created is therefore looked up in the customer's items, whose list is never behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from billing_core.errors import NotFound, UpstreamError
from billing_core.runtime.pacing import Pace
from billing_core.stripe.answer import StripeResponse
from billing_core.stripe.delivery import IDEMPOTENCY_ERROR, UNDECIDED, key_of_try, try_until_known
from billing_core.stripe.limits import RetryLimits
from billing_core.stripe.model import OutcomeKind
from billing_core.stripe.reading import JsonReader, ReadFailed
from billing_core.stripe.run import SendRun
from billing_core.stripe.wire import Connection

PATH = "/v1/invoiceitems"
SETTLEMENT = "billing_settlement"
"""Metadata key that names the settlement an item is for."""
MONTH = "billing_month"

DRAFT = "draft"
MARGIN = timedelta(days=1)
"""By how much the clocks here and at Stripe may differ."""

NOT_FOUND = 404
MISSING = "resource_missing"


@dataclass(frozen=True, slots=True)
class InvoiceItem:
    """An invoice item; `amount` in minor units of `currency`, `invoice_id` once an invoice took it."""

    id: str
    customer_id: str
    amount: int
    currency: str
    invoice_id: str | None
    metadata: Mapping[str, str]
    created: datetime | None = None

    @property
    def settlement(self) -> str | None:
        """The settlement it is for."""
        return self.metadata.get(SETTLEMENT)


@dataclass(frozen=True, slots=True)
class ItemRequest:
    """An invoice item to create: the same bytes whenever it is tried. `amount` in minor units, `[start, end)` aware."""

    key: str
    settlement: str
    customer_id: str
    amount: int
    currency: str
    description: str
    month: str
    start: datetime
    end: datetime
    metadata: Mapping[str, str]
    made_at: datetime

    def body(self) -> dict[str, Any]:
        """The form fields; currency apart, tax and discounts are as the account and customer have them."""
        return {
            "customer": self.customer_id,
            "amount": self.amount,
            "currency": self.currency,
            "description": self.description,
            "period": {"start": int(self.start.timestamp()), "end": int(self.end.timestamp()) - 1},
            "metadata": {SETTLEMENT: self.settlement, MONTH: self.month, **self.metadata},
        }


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """How a call about an invoice item ended; `item` is what Stripe has, `None` if it has none or nobody knows."""

    kind: OutcomeKind
    item: InvoiceItem | None = None
    reason: str | None = None
    request_id: str | None = None


class _Found(Exception):
    """The item is there although the call that created it got no good answer."""

    def __init__(self, item: InvoiceItem) -> None:
        super().__init__()
        self.item = item


class InvoiceItems:
    """The invoice items of a Stripe account."""

    def __init__(self, connection: Connection, reader: JsonReader, pace: Pace, patience: RetryLimits) -> None:
        self._connection = connection
        self._reader = reader
        self._pace = pace
        self._patience = patience

    def create(self, request: ItemRequest) -> ItemOutcome:
        """Create an item unless it is there already; never two of one request."""
        created: list[InvoiceItem] = []

        def call(generation: int) -> StripeResponse:
            if generation > 1 and (found := self.find(request)) is not None:
                raise _Found(found)  # the key answers with a stored failure for ever
            key = key_of_try(request.key, generation)
            return self._connection.call("post", PATH, request.body(), idempotency_key=key)

        def is_receipt(answer: StripeResponse) -> bool:
            raw = {} if answer.document is None or answer.error else answer.document
            usual = {"customer": request.customer_id, "amount": request.amount, "currency": request.currency}
            item = _item({**usual, "metadata": {SETTLEMENT: request.settlement}, **raw})
            is_ours = item is not None and item.settlement == request.settlement
            if item is None or not is_ours or raw.get("object", "invoiceitem") != "invoiceitem":
                return False
            created.append(item)
            return True

        try:
            ending = try_until_known(call, is_receipt, run=SendRun(), pace=self._pace, patience=self._patience)
            if ending.kind is OutcomeKind.ACCEPTED:
                return ItemOutcome(OutcomeKind.ACCEPTED, created[-1], None, ending.request_id)
            is_certain = not ending.after_doubt and ending.code != IDEMPOTENCY_ERROR
            if ending.kind is OutcomeKind.REFUSED or (ending.kind is OutcomeKind.REJECTED and is_certain):
                return ItemOutcome(ending.kind, None, ending.reason, ending.request_id)
            found = self.find(request)
        except _Found as there:
            return ItemOutcome(OutcomeKind.ACCEPTED, there.item)
        except UpstreamError as error:
            return ItemOutcome(OutcomeKind.UNKNOWN, None, str(error))
        if found is not None:
            return ItemOutcome(OutcomeKind.ACCEPTED, found, None, ending.request_id)
        kind = OutcomeKind.REJECTED if _is_refusal(ending.status) else OutcomeKind.UNKNOWN
        return ItemOutcome(kind, None, ending.reason, ending.request_id)

    def find(self, request: ItemRequest) -> InvoiceItem | None:
        """The item of a request, if Stripe has it. Raises UpstreamError: if that could not be read."""
        items = self.of_settlements(request.customer_id, since=request.made_at - MARGIN)
        return next((item for item in items if item.settlement == request.settlement), None)

    def of_settlements(self, customer_id: str | None, *, since: datetime) -> list[InvoiceItem]:
        """Items created since a time for settlements, of whatever ledger, of one customer or all. None of a customer
        Stripe does not know.

        Raises UpstreamError: if they could not be read.
        """
        named = {} if customer_id is None else {"customer": customer_id}
        what = "invoice items" if customer_id is None else f"the invoice items of {customer_id!r}"
        params = {**named, "created": {"gte": int(since.timestamp())}}
        try:
            rows = list(self._reader.pages(what, PATH, params))
        except ReadFailed as error:
            if customer_id is not None and error.code == MISSING:
                return []
            raise
        return [item for row in rows if (item := _item(row)) is not None and item.settlement is not None]

    def get(self, item_id: str) -> InvoiceItem | None:
        """One item; `None` if it was deleted. Raises UpstreamError: if it could not be read."""
        try:
            raw = self._reader.one(f"the invoice item {item_id!r}", f"{PATH}/{quote(item_id, safe='')}")
        except ReadFailed as error:
            if error.status == NOT_FOUND and error.code == MISSING:
                return None
            raise
        if raw.get("deleted") is True:
            return None
        if (item := _item(raw)) is None:
            raise UpstreamError(f"Stripe: reading the invoice item {item_id!r} failed: it is not shaped as documented")
        return item

    def invoice_status(self, invoice_id: str) -> str:
        """The status of an invoice. Raises NotFound, UpstreamError: if it could not be read."""
        what = f"the invoice {invoice_id!r}"
        try:
            raw = self._reader.one(what, f"/v1/invoices/{quote(invoice_id, safe='')}")
        except ReadFailed as error:
            if error.status == NOT_FOUND and error.code == MISSING:
                raise NotFound(f"{what}: Stripe does not know it") from None
            raise
        return str(raw.get("status"))

    def delete(self, item_id: str) -> ItemOutcome:
        """Delete an item that no final invoice has; one that is gone already counts as deleted (`ACCEPTED`)."""
        path = f"{PATH}/{quote(item_id, safe='')}"

        def is_receipt(answer: StripeResponse) -> bool:
            return (answer.document or {}).get("deleted") is True

        ending = try_until_known(
            lambda _: self._connection.call("delete", path, {}),
            is_receipt,
            run=SendRun(),
            pace=self._pace,
            patience=self._patience,
        )
        if ending.status == NOT_FOUND and ending.code == MISSING:
            return ItemOutcome(OutcomeKind.ACCEPTED, None, None, ending.request_id)
        kind = ending.kind
        if kind is OutcomeKind.UNKNOWN and _is_refusal(ending.status):
            kind = OutcomeKind.REJECTED  # after a try without an answer: that it is still there is what it says
        return ItemOutcome(kind, None, ending.reason, ending.request_id)


def _is_refusal(status: int | None) -> bool:
    """Whether a status says for certain that nothing was done, and not only that it is not decided yet."""
    return status is not None and 400 <= status < 500 and status not in UNDECIDED | {401, 403, 429}


def _item(raw: Mapping[str, Any]) -> InvoiceItem | None:
    """An item from Stripe's JSON; `None` if it has not the fields that matter."""
    id_, customer, amount, currency = (raw.get(name) for name in ("id", "customer", "amount", "currency"))
    invoice, metadata = raw.get("invoice"), raw.get("metadata")
    customer = customer.get("id") if isinstance(customer, dict) else customer
    invoice = invoice.get("id") if isinstance(invoice, dict) else invoice
    if not isinstance(id_, str) or not isinstance(customer, str) or not isinstance(currency, str):
        return None
    if not isinstance(amount, int) or isinstance(amount, bool):
        return None
    named = {str(k): str(v) for k, v in metadata.items()} if isinstance(metadata, dict) else {}
    date = raw.get("date")
    created = datetime.fromtimestamp(date, UTC) if isinstance(date, int) else None
    return InvoiceItem(id_, customer, amount, currency, invoice if isinstance(invoice, str) else None, named, created)
