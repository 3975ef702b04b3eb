"""Routes of v1 outside meters: customers, products, prices, subscriptions, invoices."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from billing_core.sandbox.stripe.account import Account
from billing_core.sandbox.stripe.calls import creating, reading
from billing_core.sandbox.stripe.catalog import ACCOUNT, PRICES, PRODUCTS
from billing_core.sandbox.stripe.invoices import SandboxInvoice, invoice_object, preview_object
from billing_core.sandbox.stripe.subscriptions import STATUSES, SandboxSubscription, item_objects, subscription_object
from billing_core.sandbox.stripe.wire import Page, form, invalid, missing, page

ENDED = frozenset({"canceled", "incomplete_expired"})
INVOICE_STATUSES = frozenset({"draft", "open", "paid", "uncollectible", "void"})

Content = dict[str, Any]


async def get_account(_: Request, __: Account) -> Content:
    """Whose key it is."""
    return ACCOUNT


async def list_customers(request: Request, account: Account) -> Page:
    """Customers, optionally of one e-mail address (exact case), but for deleted ones and those on a test clock."""
    customers = [customer for id_ in account.listed_customers() if (customer := account.customer(id_)) is not None]
    email = request.query_params.get("email")
    return page(request, [customer for customer in customers if email is None or customer["email"] == email])


async def get_customer(request: Request, account: Account) -> Content:
    """One customer, a stub if it was deleted; 404 with `resource_missing` if unknown."""
    id_ = request.path_params["id"]
    customer = account.customer(id_)
    if customer is None:
        raise missing("customer", id_)
    return customer


def _catalogue(request: Request, objects: dict[str, Content], *fields: str) -> Page:
    """Entries that agree with each of `fields` the query names."""
    found = list(objects.values())
    for field in fields:
        wanted = request.query_params.get(field)
        if wanted is not None:
            found = [one for one in found if str(one[field]).lower() == wanted.lower()]
    return page(request, found)


async def list_products(request: Request, _: Account) -> Page:
    """Products."""
    return _catalogue(request, PRODUCTS, "active")


async def get_product(request: Request, _: Account) -> Content:
    """One product."""
    id_ = request.path_params["id"]
    if id_ not in PRODUCTS:
        raise missing("product", id_)
    return PRODUCTS[id_]


async def list_prices(request: Request, _: Account) -> Page:
    """Prices, optionally of one product."""
    return _catalogue(request, PRICES, "active", "product", "type")


async def get_price(request: Request, _: Account) -> Content:
    """One price."""
    id_ = request.path_params["id"]
    if id_ not in PRICES:
        raise missing("price", id_, "price")
    return PRICES[id_]


def _customer_filter(request: Request, account: Account) -> str | None:
    """The customer asked for, who must exist or have existed."""
    id_ = request.query_params.get("customer")
    if id_ is not None and account.state_of(id_) == "unknown":
        raise invalid(f"No such customer: '{id_}'", "customer", "resource_missing")
    return id_


def _shown(subscription: SandboxSubscription, account: Account) -> Content:
    invoices = account.invoices(subscription)
    return subscription_object(
        subscription, invoices[0].id if invoices else None, account.switches.subscription_items_page
    )


async def list_subscriptions(request: Request, account: Account) -> Page:
    """Subscriptions of a customer, status or price; without a status all that have not ended."""
    status, price = (request.query_params.get(name) for name in ("status", "price"))
    if status is not None and status not in STATUSES | {"all", "ended"}:
        raise invalid(f"Invalid status: must be one of {', '.join(sorted(STATUSES))}, all, or ended", "status")
    customer_id = _customer_filter(request, account)
    found = [
        subscription
        for subscription in account.subscriptions(customer_id)
        if _has_status(subscription.profile.status, status) and (price is None or price in subscription.profile.prices)
    ]
    return page(request, found, lambda subscription: _shown(subscription, account))


def _has_status(status: str, asked: str | None) -> bool:
    match asked:
        case None:
            return status != "canceled"
        case "all":
            return True
        case "ended":
            return status in ENDED
        case _:
            return status == asked


def _subscription(id_: str | None, account: Account, param: str, status: int) -> SandboxSubscription:
    """The subscription of that id; in the path an unknown one is a 404, in a parameter a 400."""
    if not id_:
        raise invalid(f"Missing required param: {param}.", param, "parameter_missing")
    subscription = account.subscription_of(f"cus_{id_.removeprefix('sub_')}")
    if subscription is None or subscription.id != id_:
        raise invalid(f"No such subscription: '{id_}'", param, "resource_missing", status=status)
    return subscription


async def get_subscription(request: Request, account: Account) -> Content:
    """One subscription."""
    return _shown(_subscription(request.path_params["id"], account, "id", 404), account)


async def list_subscription_items(request: Request, account: Account) -> Page:
    """All items of a subscription: what continues the list inside it."""
    id_ = request.query_params.get("subscription")
    return page(request, item_objects(_subscription(id_, account, "subscription", 400)))


def _invoice_content(invoice: SandboxInvoice, account: Account) -> Content:
    customer_id = invoice.subscription.customer_id
    items = account.items_on(invoice, customer_id)
    return invoice_object(invoice, account.usage(customer_id), account.now_seconds(), items)


def _preview_content(subscription: SandboxSubscription, account: Account) -> Content:
    customer_id = subscription.customer_id
    return preview_object(subscription, account.usage(customer_id), account.items_on(None, customer_id))


async def list_invoices(request: Request, account: Account) -> Page:
    """Invoices of a customer, subscription or status, newest first."""
    status, subscription_id = (request.query_params.get(name) for name in ("status", "subscription"))
    if status is not None and status not in INVOICE_STATUSES:
        raise invalid(f"Invalid status: must be one of {', '.join(sorted(INVOICE_STATUSES))}", "status")
    customer_id = _customer_filter(request, account)
    if subscription_id is not None:
        subscriptions = [_subscription(subscription_id, account, "subscription", 400)]
    else:
        subscriptions = account.subscriptions(customer_id)
    found = [
        invoice
        for subscription in subscriptions
        if subscription.number == 1
        for invoice in account.invoices(subscription)
        if status in {None, invoice.status} and customer_id in {None, subscription.customer_id}
    ]
    found.sort(key=lambda invoice: invoice.opened, reverse=True)
    return page(request, found, lambda invoice: _invoice_content(invoice, account))


def _invoice(id_: str, account: Account) -> Content:
    name, _, _ = id_.removeprefix("upcoming_").removeprefix("in_").rpartition("_")
    subscription = account.subscription_of(f"cus_{name}")
    if subscription is not None:
        if id_.startswith("upcoming_"):
            upcoming = _preview_content(subscription, account)
            if upcoming["id"] == id_:
                return upcoming
        for invoice in account.invoices(subscription):
            if invoice.id == id_:
                return _invoice_content(invoice, account)
    raise missing("invoice", id_)


async def get_invoice(request: Request, account: Account) -> Content:
    """One invoice."""
    id_ = request.path_params["id"]
    if id_.startswith("upcoming_"):
        raise missing("invoice", id_)
    return _invoice(id_, account)


async def list_invoice_lines(request: Request, account: Account) -> Page:
    """The lines of an invoice or a preview."""
    return page(request, _invoice(request.path_params["id"], account)["lines"]["data"])


async def create_preview(request: Request, account: Account) -> Content:
    """The next invoice of a subscription, or of a customer's only one."""
    given = await form(request)
    subscription_id, customer_id = given.get("subscription"), given.get("customer")
    if subscription_id is not None:
        subscription: SandboxSubscription | None = _subscription(subscription_id, account, "subscription", 400)
    elif customer_id is not None:
        if account.state_of(customer_id) == "unknown":
            raise invalid(f"No such customer: '{customer_id}'", "customer", "resource_missing")
        subscription = account.subscription_of(customer_id)
    else:
        raise invalid("You must provide one of customer, subscription or schedule.", "customer", "parameter_missing")
    if subscription is None or subscription.ended_at is not None:
        who = customer_id or subscription_id
        raise invalid(f"No upcoming invoices for customer: {who}", code="invoice_upcoming_none", status=404)
    if customer_id not in {None, subscription.customer_id}:
        raise invalid(f"The subscription {subscription_id} is not of customer {customer_id}.", "subscription")
    return _preview_content(subscription, account)


def routes() -> list[Route]:
    """The routes of this part."""
    return [
        Route("/v1/account", reading(get_account)),
        Route("/v1/customers", reading(list_customers)),
        Route("/v1/customers/{id}", reading(get_customer)),
        Route("/v1/products", reading(list_products)),
        Route("/v1/products/{id}", reading(get_product)),
        Route("/v1/prices", reading(list_prices)),
        Route("/v1/prices/{id}", reading(get_price)),
        Route("/v1/subscriptions", reading(list_subscriptions)),
        Route("/v1/subscriptions/{id}", reading(get_subscription)),
        Route("/v1/subscription_items", reading(list_subscription_items)),
        Route("/v1/invoices", reading(list_invoices)),
        Route("/v1/invoices/create_preview", creating(create_preview), methods=["POST"]),
        Route("/v1/invoices/{id}", reading(get_invoice)),
        Route("/v1/invoices/{id}/lines", reading(list_invoice_lines)),
    ]
