"""Invoice items: amounts that wait for a customer's next invoice, and where they land."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from billing_core.sandbox.stripe.account import Account
from billing_core.sandbox.stripe.calls import creating, deleting, reading
from billing_core.sandbox.stripe.events import InvoiceItem
from billing_core.sandbox.stripe.invoices import item_object
from billing_core.sandbox.stripe.wire import Page, form, invalid, missing, page

Content = dict[str, Any]

LONGEST_METADATA = 500


async def create_item(request: Request, account: Account) -> Content:
    """Write an amount down for a customer's next invoice."""
    given = await form(request)
    customer = given.get("customer")
    if not isinstance(customer, str) or not customer:
        raise invalid("Missing required param: customer.", "customer", "parameter_missing")
    if account.state_of(customer) != "known":
        raise invalid(f"No such customer: '{customer}'", "customer", "resource_missing")
    currency, now = str(given.get("currency", "")), account.now_seconds()
    has = account.currency_of(customer)
    if currency != has:
        raise invalid(
            "You cannot combine currencies on a single customer. This customer has an active subscription, "
            f"subscription schedule, discount, quote, or invoice item with currency {has}"
        )
    period = given.get("period", {})
    start, end = (int(period.get(name, now)) if isinstance(period, dict) else now for name in ("start", "end"))
    item = InvoiceItem(
        id=f"ii_test_{len(account.book.items) + 1:06d}",
        customer=customer,
        amount=_amount(given.get("amount")),
        currency=currency,
        description=given.get("description"),
        metadata=_metadata(given.get("metadata", {})),
        start=start,
        end=end,
        created=now,
    )
    account.book.add_item(item)
    return item_object(item, None)


def _amount(text: object) -> int:
    try:
        return int(str(text))
    except ValueError:
        raise invalid(f"Invalid integer: {text}", "amount", "parameter_invalid_integer") from None


def _metadata(given: object) -> dict[str, str]:
    if not isinstance(given, Mapping) or any(len(value) > LONGEST_METADATA for value in given.values()):
        raise invalid(f"Metadata values can have up to {LONGEST_METADATA} characters.", "metadata")
    return dict(given)


async def list_items(request: Request, account: Account) -> Page:
    """Items, newest first: of a customer, since a time (`created[gte]`), those that wait (`pending`)."""
    query = request.query_params
    customer, since, pending = query.get("customer"), query.get("created[gte]"), query.get("pending")
    if customer is not None and account.state_of(customer) == "unknown":
        raise invalid(f"No such customer: '{customer}'", "customer", "resource_missing")
    found = [
        item
        for item in reversed(account.book.items.values())
        if not item.is_deleted
        and customer in {None, item.customer}
        and (since is None or item.created >= int(since))
        and (pending is None or (account.invoice_of(item) is None) == (pending == "true"))
    ]
    return page(request, found, lambda item: _shown(item, account))


def _shown(item: InvoiceItem, account: Account) -> Content:
    invoice = account.invoice_of(item)
    return item_object(item, None if invoice is None else invoice.id)


def _item(request: Request, account: Account) -> InvoiceItem:
    item = account.book.items.get(request.path_params["id"])
    if item is None or item.is_deleted:
        raise missing("invoiceitem", request.path_params["id"])
    return item


async def get_item(request: Request, account: Account) -> Content:
    """One item; a deleted one is a 404."""
    return _shown(_item(request, account), account)


async def delete_item(request: Request, account: Account) -> Content:
    """Delete an item that waits, or whose invoice is a draft."""
    item = _item(request, account)
    invoice = account.invoice_of(item)
    if invoice is not None and invoice.status != "draft":
        raise invalid("You can only delete invoice items that are pending or attached to a draft invoice.")
    account.book.add_item(msgspec.structs.replace(item, is_deleted=True))
    return {"id": item.id, "object": "invoiceitem", "deleted": True}


def routes() -> list[Route]:
    """The routes of this part."""
    return [
        Route("/v1/invoiceitems", reading(list_items), methods=["GET"]),
        Route("/v1/invoiceitems", creating(create_item), methods=["POST"]),
        Route("/v1/invoiceitems/{id}", reading(get_item), methods=["GET"]),
        Route("/v1/invoiceitems/{id}", deleting(delete_item), methods=["DELETE"]),
    ]
