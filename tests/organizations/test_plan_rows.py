"""Whose plan it is, in which period, and whose credits count: rows per organization and customer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from billing_core.organizations.plan_rows import CustomerPlan, limits_of, plans_of
from billing_core.rating.card import Plan
from billing_core.stripe.model import Subscription, SubscriptionItem

NOW = datetime(2026, 11, 20, tzinfo=UTC)
START, END = datetime(2026, 11, 3, 8, 15, 30, tzinfo=UTC), datetime(2026, 12, 3, 8, 15, 30, tzinfo=UTC)
PLANS = (
    Plan(name="Free", credits_per_month=10_000, stripe_price_ids=("price_free",)),
    Plan(name="Pro", credits_per_month=500_000, stripe_price_ids=("price_pro",)),
)
PRO = CustomerPlan("Pro", "active", 500_000, START, END)
NONE = CustomerPlan(None, "none")


def item(price="price_pro", meter="mtr_1", start=START, end=END):
    return SubscriptionItem(f"si_{price}", price, None, None, meter, start, end)


def subscription(*items, status="active", ended_at=None, id_="sub_1"):
    return Subscription(id_, "cus_a", status, items or (item(),), START, ended_at, None, None)


def plan(*subscriptions, meter="mtr_1", now=NOW):
    return plans_of(subscriptions, meter, PLANS, now)["cus_a"]


def test_plan_state_credits_and_period_come_from_the_subscription():
    assert plan(subscription()) == PRO


def test_the_period_is_that_of_the_metered_item_and_the_plan_that_of_any_known_price():
    year = item("price_pro", None, START - timedelta(days=200), START + timedelta(days=165))
    assert plan(subscription(year, item("price_credits"))) == PRO


def test_an_unknown_price_is_an_unknown_plan_with_a_period():
    assert plan(subscription(item("price_new"))) == CustomerPlan(None, "active", None, START, END)


def test_a_subscription_that_ended_includes_nothing_any_more():
    assert plan(subscription(status="canceled", ended_at=START)) == CustomerPlan("Pro", "canceled")


def test_a_period_that_was_over_before_now_is_not_the_current_one():
    assert plan(subscription(), now=END) == CustomerPlan("Pro", "active", 500_000)
    assert plan(subscription(), now=END - timedelta(microseconds=1)) == PRO
    assert plan(subscription(), now=START) == PRO
    assert plan(subscription(), now=START - timedelta(microseconds=1)) == CustomerPlan("Pro", "active", 500_000)


def test_what_a_year_includes_is_not_known_from_credits_per_month():
    year_end = START + timedelta(days=365)
    assert plan(subscription(item(end=year_end))) == CustomerPlan("Pro", "active", None, START, year_end)


def test_a_live_subscription_counts_before_one_that_ended():
    gone = subscription(item("price_free"), status="canceled", ended_at=START, id_="sub_0")
    assert plan(gone, subscription()) == PRO


def rows(pairs, plans=None, absent=NONE):
    return limits_of({pair: Decimal(used) for pair, used in pairs.items()}, plans or {"cus_a": PRO}, absent)


def test_a_row_per_organization_and_customer_with_the_whole_and_the_own_part_of_a_shared_one():
    a, b, nobody = rows({("org_a", "cus_a"): "100", ("org_b", "cus_a"): "25.5", (None, "cus_a"): "1"})
    assert (a.used, a.own_used, a.shared_with) == (Decimal("126.5"), 100, ("org_b",))
    assert (b.used, b.own_used, b.shared_with) == (Decimal("126.5"), Decimal("25.5"), ("org_a",))
    assert (nobody.organization_id, nobody.own_used, nobody.shared_with) == (None, 1, ("org_a", "org_b"))


def test_an_organization_without_any_customer_is_a_row_without_one():
    (row,) = rows({("org_a", None): "0"})
    assert (row.organization_id, row.customer_id, row.state, row.used, row.included) == (
        "org_a",
        None,
        "none",
        None,
        None,
    )


def test_events_without_a_customer_make_no_second_row_of_an_organization_that_has_one():
    (row,) = rows({("org_a", None): "50", ("org_a", "cus_a"): "100"})
    assert (row.customer_id, row.used) == ("cus_a", 100)


def test_events_of_nobody_for_nobody_are_no_row():
    assert rows({(None, None): "5"}) == []


def test_without_a_period_what_was_used_in_it_is_unknown_and_not_0():
    (row,) = rows({("org_a", "cus_a"): "0"}, {"cus_a": CustomerPlan("Pro", "active", 500_000)})
    assert (row.used, row.own_used, row.percent_used) == (None, None, None)


def test_a_customer_stripe_was_never_asked_about_is_unknown_and_not_without_a_subscription():
    (row,) = rows({("org_a", "cus_z"): "0"}, absent=CustomerPlan(None, "unknown"))
    assert (row.state, row.plan, row.used) == ("unknown", None, None)


names = st.sampled_from(["a", "b", "c", None])


@given(st.dictionaries(st.tuples(names, names), st.integers(0, 10**9).map(lambda n: Decimal(n).scaleb(-6))))
def test_the_parts_of_a_customer_always_add_up_to_the_whole(pairs):
    plans = dict.fromkeys("abc", PRO)
    found = limits_of(pairs, plans, NONE)
    for customer in "abc":
        mine = [row for row in found if row.customer_id == customer]
        assert {row.used for row in mine} <= {sum(row.own_used for row in mine)}
    assert len({(row.organization_id, row.customer_id) for row in found}) == len(found)
    assert {row.organization_id for row in found} - {None} == {organization for organization, _ in pairs} - {None}
