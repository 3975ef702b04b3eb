from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
import stripe

from billing_core.sandbox.stripe.subscriptions import edge, period_at
from tests.sandbox.stripe_world import ACME, CUSTOMERS, GLOBEX, World, unix

ANCHOR = unix("2026-01-15T08:30:17")
EDGE = unix("2026-11-15T08:30:17")
NEXT_EDGE = unix("2026-12-15T08:30:17")


@pytest.fixture
def world():
    """Noon of 20 November 2026; Acme's periods begin on the 15th at 08:30:17."""
    made = World()
    made.switch(anchors={ACME: ANCHOR})
    return made


def at(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def subscriptions(world, **parameters):
    return list(world.stripe.v1.subscriptions.list(parameters).auto_paging_iter())


def of(world, name, status="all"):
    (found,) = subscriptions(world, customer=CUSTOMERS[name], status=status)
    return found


# customers


def test_customers_are_found_by_exact_address_only(world):
    customers = world.stripe.v1.customers
    assert [customer.id for customer in customers.list({"email": "billing@acme.example"}).data] == [ACME]
    assert customers.list({"email": "Billing@acme.example"}).data == []


def test_a_deleted_customer_is_a_stub_and_not_listed(world):
    world.switch(deleted_customers=[ACME])
    stub = world.stripe.v1.customers.retrieve(ACME)
    assert stub.to_dict() == {"id": ACME, "object": "customer", "deleted": True}
    assert ACME not in {customer.id for customer in world.stripe.v1.customers.list({"limit": 100}).data}
    assert subscriptions(world, customer=ACME, status="all") == []


def test_pages_go_on_by_id_and_refuse_one_they_do_not_hold(world):
    customers = world.stripe.v1.customers
    assert (len(customers.list().data), customers.list().has_more) == (10, True)
    assert len(list(customers.list({"limit": 3}).auto_paging_iter())) == len(CUSTOMERS)
    with pytest.raises(stripe.InvalidRequestError, match="No such object"):
        customers.list({"starting_after": "cus_gone"})
    with pytest.raises(stripe.InvalidRequestError, match="between 1 and 100"):
        customers.list({"limit": 0})


def test_every_answer_has_a_request_id(world):
    assert world.stripe.v1.customers.list().last_response.headers["request-id"].startswith("req_")
    assert world.refusal("one", customer="cus_gone").request_id.startswith("req_")


def test_the_key_tells_whose_it_is(world):
    assert world.stripe.v1.accounts.retrieve_current().id == "acct_sandbox"


# products and prices


def test_the_metered_price_names_its_meter(world):
    price = world.stripe.v1.prices.retrieve("price_credits")
    assert (price.recurring.usage_type, price.recurring.meter) == ("metered", "mtr_test_sandbox")
    assert (price.unit_amount, price.unit_amount_decimal) == (None, Decimal("0.004"))


def test_prices_and_products_are_listed(world):
    prices = {price.id: price.product for price in world.stripe.v1.prices.list().data}
    assert prices == {
        "price_free": "prod_free",
        "price_pro": "prod_pro",
        "price_enterprise_2025": "prod_enterprise",
        "price_credits": "prod_credits",
    }
    assert {product.name for product in world.stripe.v1.products.list().data} == {
        "Free",
        "Pro",
        "Enterprise 2025",
        "Credits",
    }
    (price,) = world.stripe.v1.prices.list({"product": "prod_pro", "expand": ["data.product"]}).data
    assert price.product.name == "Pro"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/customers/x",
        "/v1/prices/x",
        "/v1/products/x",
        "/v1/subscriptions/x",
        "/v1/invoices/x",
        "/v1/billing/meters/x",
    ],
)
def test_an_unknown_id_is_a_404_with_resource_missing(world, path):
    answer = world.http("GET", path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "resource_missing")


# subscriptions


def test_the_demonstration_has_one_of_each_kind(world):
    found = {
        name: (of(world, name).status, [item.price.id for item in of(world, name)["items"].data])
        for name in CUSTOMERS
        if name != "Oscorp"
    }
    pro = ["price_pro", "price_credits"]
    assert found == {
        "Acme": ("active", pro),
        "Globex": ("active", pro),
        "Initech": ("active", pro),
        "Umbrella": ("past_due", pro),
        "Hooli": ("trialing", pro),
        "Stark": ("active", ["price_free", "price_credits"]),
        "Wayne": ("active", pro),
        "Wonka": ("active", ["price_enterprise_2025", "price_credits"]),
        "Tyrell": ("active", ["price_pro"]),
        "Cyberdyne": ("canceled", pro),
    }
    assert subscriptions(world, customer=CUSTOMERS["Oscorp"], status="all") == []


def test_without_a_status_canceled_ones_are_left_out(world):
    statuses = {one.status for one in subscriptions(world)}
    assert statuses == {"active", "past_due", "trialing"}
    assert {one.status for one in subscriptions(world, status="all")} == statuses | {"canceled"}
    assert [one.status for one in subscriptions(world, status="ended")] == ["canceled"]
    assert [one.customer for one in subscriptions(world, status="past_due")] == [CUSTOMERS["Umbrella"]]


def test_subscriptions_are_found_by_price_and_page_by_page(world):
    assert [one.customer for one in subscriptions(world, price="price_free")] == [CUSTOMERS["Stark"]]
    assert len(subscriptions(world, status="all", limit=3)) == 10


def test_an_unknown_customer_or_status_is_a_400(world):
    for parameters, param in (({"customer": "cus_gone"}, "customer"), ({"status": "happy"}, "status")):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            subscriptions(world, **parameters)
        assert (refused.value.http_status, refused.value.param) == (400, param)


def test_periods_are_on_the_items_only(world):
    subscription = of(world, "Acme")
    assert "current_period_start" not in subscription
    assert "current_period_end" not in subscription
    for item in subscription["items"].data:
        assert (item.current_period_start, item.current_period_end) == (EDGE, NEXT_EDGE)


def test_only_licensed_items_have_a_quantity(world):
    licensed, metered = of(world, "Acme")["items"].data
    assert licensed.quantity == 1
    assert "quantity" not in metered


def test_a_second_decides_which_period_it_is(world):
    world.now = at("2026-12-15T08:30:16")
    assert of(world, "Acme")["items"].data[0].current_period_end == NEXT_EDGE
    world.wait(seconds=1)
    assert of(world, "Acme")["items"].data[0].current_period_start == NEXT_EDGE


def test_every_customer_has_an_edge_of_its_own_off_the_hour(world):
    world.switch(anchors={})
    starts = [one["items"].data[0].current_period_start for one in subscriptions(world, status="all")]
    assert len({start % 86_400 for start in starts}) == len(starts)
    assert all(start % 3600 for start in starts)


def test_months_without_the_day_end_earlier_and_the_day_comes_back():
    anchor = unix("2026-01-31T10:00:01")
    assert [edge(anchor, months) for months in (1, 2, 3)] == [
        unix("2026-02-28T10:00:01"),
        unix("2026-03-31T10:00:01"),
        unix("2026-04-30T10:00:01"),
    ]
    period = period_at(anchor, unix("2026-03-30T00:00:00"))
    assert (period.number, period.start, period.end) == (1, unix("2026-02-28T10:00:01"), unix("2026-03-31T10:00:01"))


def test_a_canceled_subscription_ended_with_its_period_some_days_ago(world):
    canceled = of(world, "Cyberdyne")
    now = unix("2026-11-20T12:00")
    assert 3 * 86_400 <= now - canceled.ended_at < 35 * 86_400
    assert {item.current_period_end for item in canceled["items"].data} == {canceled.ended_at}
    assert canceled.canceled_at == canceled.ended_at


def test_a_trial_goes_on(world):
    trial = of(world, "Hooli")
    assert trial.trial_start <= unix("2026-11-20T12:00") < trial.trial_end
    assert {item.current_period_end for item in trial["items"].data} == {trial.trial_end}


def test_equal_clocks_give_equal_subscriptions(world):
    other = World()
    other.switch(anchors={ACME: ANCHOR})
    assert [one.to_dict() for one in subscriptions(world)] == [one.to_dict() for one in subscriptions(other)]


def test_items_beyond_the_first_page_are_read_from_their_own_list(world):
    world.switch(subscription_items_page=1)
    items = of(world, "Acme")["items"]
    assert (len(items.data), items.has_more) == (1, True)
    assert [item.price.id for item in items.auto_paging_iter()] == ["price_pro", "price_credits"]


def test_a_profile_can_be_switched(world):
    world.switch(profiles={ACME: "past_due", GLOBEX: "no_subscription"})
    assert of(world, "Acme").status == "past_due"
    assert subscriptions(world, customer=GLOBEX, status="all") == []
    answer = world.http("PATCH", "/_sandbox/stripe", json={"profiles": {ACME: "platinum"}})
    assert answer.status_code == 400


def test_ids_can_be_expanded(world):
    (found,) = world.stripe.v1.subscriptions.list({"customer": ACME, "expand": ["data.customer"]}).data
    assert (found.customer.id, found.customer.name) == (ACME, "Acme")
    one = world.stripe.v1.subscriptions.retrieve(found.id, {"expand": ["items.data.price.product"]})
    assert [item.price.product.name for item in one["items"].data] == ["Pro", "Credits"]
    assert of(world, "Acme").customer == ACME


# the next invoice


def preview(world, **parameters):
    return world.stripe.v1.invoices.create_preview(parameters or {"customer": ACME})


def test_a_preview_has_the_usage_of_this_period_and_the_fee_of_the_next(world):
    world.send("before", "1000", timestamp=EDGE - 1)
    world.send("first", "250000", timestamp=EDGE)
    world.send("then", "0.5", timestamp=EDGE + 86_400)
    invoice = preview(world)
    usage, fee = invoice.lines.data
    assert (usage.quantity, usage.quantity_decimal, usage.amount) == (250_000, Decimal("250000.5"), 1000)
    assert (usage.period.start, usage.period.end) == (EDGE, NEXT_EDGE)
    assert (usage.pricing.price_details.price, usage.pricing.unit_amount_decimal) == ("price_credits", Decimal("0.004"))
    assert (fee.amount, fee.pricing.price_details.price, fee.period.start) == (2000, "price_pro", NEXT_EDGE)
    assert (invoice.amount_due, invoice.total, invoice.currency, invoice.status) == (3000, 3000, "usd", "draft")
    assert (invoice.period_start, invoice.period_end) == (EDGE, NEXT_EDGE)
    assert invoice.parent.subscription_details.subscription == of(world, "Acme").id
    assert usage.parent.subscription_item_details.subscription_item == of(world, "Acme")["items"].data[1].id


def test_a_preview_can_be_asked_for_by_subscription(world):
    id_ = of(world, "Acme").id
    assert preview(world, subscription=id_).to_dict() == preview(world).to_dict()
    assert [line.amount for line in world.stripe.v1.invoices.line_items.list(preview(world).id).data] == [0, 2000]


def test_a_total_below_zero_is_billed_as_zero(world):
    world.send("one", "-500", timestamp=EDGE)
    usage = preview(world).lines.data[0]
    assert (usage.quantity_decimal, usage.amount) == (0, 0)


def test_a_preview_lags_like_summaries(world):
    world.switch(summary_lag_seconds=60)
    world.send("one", "250000", timestamp=EDGE)
    assert preview(world).lines.data[0].amount == 0
    world.wait(seconds=60)
    assert preview(world).lines.data[0].amount == 1000


def test_usage_of_a_customer_without_a_metered_item_is_on_no_invoice(world):
    tyrell = CUSTOMERS["Tyrell"]
    world.send("one", "250000", tyrell)
    assert world.used(tyrell) == 250_000
    assert [line.pricing.price_details.price for line in preview(world, customer=tyrell).lines.data] == ["price_pro"]


def test_usage_in_a_trial_is_free(world):
    hooli = CUSTOMERS["Hooli"]
    world.send("one", "250000", hooli)
    assert [line.amount for line in preview(world, customer=hooli).lines.data] == [0, 2000]


@pytest.mark.parametrize("name", ["Cyberdyne", "Oscorp"])
def test_who_has_no_subscription_has_no_next_invoice(world, name):
    with pytest.raises(stripe.InvalidRequestError) as none:
        preview(world, customer=CUSTOMERS[name])
    assert (none.value.http_status, none.value.code) == (404, "invoice_upcoming_none")


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"customer": "cus_gone"}, "customer"),
        ({"subscription": "sub_gone"}, "subscription"),
        ({"currency": "usd"}, "customer"),
    ],
)
def test_a_preview_of_nobody_is_a_400(world, parameters, param):
    with pytest.raises(stripe.InvalidRequestError) as refused:
        preview(world, **parameters)
    assert (refused.value.http_status, refused.value.param) == (400, param)


# invoices


def invoices(world, **parameters):
    return list(world.stripe.v1.invoices.list(parameters or {"customer": ACME}).auto_paging_iter())


def test_an_invoice_is_a_draft_for_an_hour_then_open_then_paid(world):
    seen = []
    for moment in ("12-15T08:30:16", "12-15T08:30:17", "12-15T09:30:16", "12-15T09:30:17", "12-15T10:30:17"):
        world.now = at(f"2026-{moment}")
        newest = invoices(world)[0]
        seen.append((newest.status, newest.period_end == NEXT_EDGE, newest.automatically_finalizes_at))
    assert seen == [
        ("paid", False, None),
        ("draft", True, NEXT_EDGE + 3600),
        ("draft", True, NEXT_EDGE + 3600),
        ("open", True, None),
        ("paid", True, None),
    ]


def test_an_invoice_bills_the_usage_of_the_period_that_ended(world):
    world.send("within", "250000", timestamp=EDGE)
    world.now = at("2026-12-15T08:31")
    world.send("next", "777", timestamp=NEXT_EDGE)
    usage, fee = invoices(world)[0].lines.data
    assert (usage.quantity_decimal, usage.period.start, usage.period.end) == (250_000, EDGE, NEXT_EDGE)
    assert (fee.amount, fee.period.start) == (2000, NEXT_EDGE)


def test_late_usage_is_billed_while_the_invoice_is_a_draft_and_never_after(world):
    world.now = at("2026-12-15T09:30:00")
    world.send("just in time", "250000", timestamp=EDGE)
    world.wait(seconds=18)
    world.send("too late", "250000", timestamp=EDGE)
    (newest, *_) = invoices(world)
    assert (newest.status, newest.lines.data[0].quantity_decimal) == ("open", 250_000)
    assert world.used(start="2026-11-15", end="2026-11-16") == 500_000


def test_cancelling_usage_of_a_final_invoice_changes_nothing_on_it(world):
    world.now = at("2026-12-15T08:00")
    world.send("one", "250000")
    world.now = at("2026-12-15T12:00")
    cancel = {"event_name": "credits", "type": "cancel", "cancel": {"identifier": "one"}}
    world.stripe.v1.billing.meter_event_adjustments.create(cancel)
    assert invoices(world)[0].lines.data[0].quantity_decimal == 250_000
    assert world.used(start="2026-12-15", end="2026-12-16") == 0


def test_a_past_due_customers_last_invoice_stays_open(world):
    newest, *others = invoices(world, customer=CUSTOMERS["Umbrella"])
    assert (newest.status, newest.amount_remaining == newest.amount_due > 0) == ("open", True)
    assert newest.attempt_count >= 1
    assert newest.next_payment_attempt > unix("2026-11-20T12:00")
    assert {invoice.status for invoice in others} == {"paid"}


def test_a_cancellation_bills_the_last_usage_and_no_more_fees(world):
    (newest, *_) = invoices(world, customer=CUSTOMERS["Cyberdyne"])
    assert newest.period_end == of(world, "Cyberdyne").ended_at
    assert [line.pricing.price_details.price for line in newest.lines.data] == ["price_credits"]


def test_the_first_invoice_bills_the_first_fee(world):
    first = invoices(world)[-1]
    assert (first.billing_reason, first.status, first.created, first.amount_paid) == (
        "subscription_create",
        "paid",
        ANCHOR,
        2000,
    )


def test_invoices_are_found_by_status_and_subscription_newest_first(world):
    found = invoices(world, limit=50)
    assert [invoice.created for invoice in found] == sorted((invoice.created for invoice in found), reverse=True)
    assert [invoice.customer for invoice in invoices(world, status="open")] == [CUSTOMERS["Umbrella"]]
    id_ = of(world, "Acme").id
    assert len(invoices(world, subscription=id_)) == 11
    assert {invoice.customer for invoice in invoices(world, subscription=id_)} == {ACME}
    assert invoices(world, subscription=id_, customer=GLOBEX) == []
    assert world.stripe.v1.subscriptions.retrieve(id_).latest_invoice == invoices(world)[0].id


def test_one_invoice_and_its_lines_can_be_read(world):
    newest = invoices(world)[0]
    assert world.stripe.v1.invoices.retrieve(newest.id).to_dict() == newest.to_dict()
    lines = world.stripe.v1.invoices.line_items.list(newest.id, {"limit": 1})
    assert [line.id for line in lines.auto_paging_iter()] == [line.id for line in newest.lines.data]
