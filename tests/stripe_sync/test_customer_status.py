"""What is shown of one customer: what Stripe says, and never a guess."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from billing_core.rating.card import Plan
from billing_core.stripe.model import Invoice, InvoiceLine, Subscription, SubscriptionItem
from billing_core.stripe_sync.customer_status import CustomerStatus, plan_of, used_according_to

PLANS = (
    Plan(name="Free", credits_per_month=10_000, stripe_price_ids=("price_free",)),
    Plan(name="Pro", credits_per_month=500_000, stripe_price_ids=("price_pro", "price_pro_old")),
)
START, END = datetime(2026, 11, 3, 8, 15, 30, tzinfo=UTC), datetime(2026, 12, 3, 8, 15, 30, tzinfo=UTC)


def subscription(*prices):
    items = tuple(SubscriptionItem(f"si_{p}", p, None, None, None, START, END) for p in prices)
    return Subscription("sub_1", "cus_a", "active", items, START, None, None, None)


def invoice(*lines):
    found = tuple(InvoiceLine("Credits", price, quantity, 6, START, END) for price, quantity in lines)
    return Invoice(None, "cus_a", "sub_1", "draft", 2006, "usd", START, END, None, found)


def status(**changes):
    facts = {
        "customer_id": "cus_a",
        "state": "active",
        "plan": "Pro",
        "included": 500_000,
        "used": Decimal("1500.25"),
        "period_start": START,
        "period_end": END,
        "upcoming": invoice(),
        "read_at": START,
        **changes,
    }
    return CustomerStatus(**facts)


def test_the_plan_is_that_of_any_item_whose_price_the_card_names():
    assert plan_of(subscription("price_credits", "price_pro_old"), PLANS).name == "Pro"
    assert plan_of(subscription("price_free"), PLANS).name == "Free"


def test_checklist_status_an_unknown_price_is_no_plan_and_not_the_free_one():
    assert plan_of(subscription("price_enterprise"), PLANS) is None
    assert plan_of(subscription(), PLANS) is None


def test_used_credits_are_the_exact_quantities_of_the_metered_lines():
    found = invoice(("price_credits", Decimal("1500.25")), ("price_pro", Decimal(1)), ("price_credits", Decimal("0.5")))
    assert used_according_to(found, ["price_credits"]) == Decimal("1500.75")


def test_without_a_metered_line_the_used_credits_are_unknown_and_not_0():
    assert used_according_to(invoice(("price_pro", Decimal(1))), ["price_credits"]) is None
    assert used_according_to(invoice(("price_credits", None)), ["price_credits"]) is None
    assert used_according_to(invoice(("price_credits", Decimal(0))), ["price_credits"]) == 0


def test_the_document_has_the_published_keys_and_exact_values():
    assert status().to_json() == {
        "customer_id": "cus_a",
        "state": "active",
        "plan": "Pro",
        "period": {"start": "2026-11-03T08:15:30.000Z", "end": "2026-12-03T08:15:30.000Z"},
        "credits": {"included": "500000", "used": "1500.25"},
        "upcoming_invoice": {"amount_due": 2006, "currency": "usd"},
        "read_at": "2026-11-03T08:15:30.000Z",
        "problem": None,
    }


def test_what_is_unknown_is_null_and_never_0():
    nothing = dict.fromkeys(("plan", "included", "used", "period_start", "period_end", "upcoming", "read_at"))
    assert status(state="unknown", problem="Stripe: no answer", **nothing).to_json() == {
        "customer_id": "cus_a",
        "state": "unknown",
        "plan": None,
        "period": {"start": None, "end": None},
        "credits": {"included": None, "used": None},
        "upcoming_invoice": None,
        "read_at": None,
        "problem": "Stripe: no answer",
    }
