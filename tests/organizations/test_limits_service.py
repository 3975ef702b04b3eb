"""Plans and limits through the door: what admins see of Stripe's last word, its age, and never of others."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from billing_core.access import Principal, Role
from billing_core.errors import AccessDenied, SettingsError, UpstreamError
from billing_core.stripe.model import Subscription, SubscriptionItem
from billing_core.stripe.provider import StripeProvider
from billing_core.stripe.reading import ReadFailed
from tests.factories import EVERYONE
from tests.stripe_sync.push_world import at, use

ANALYST, FINANCE = Principal("ann", Role.ANALYST), Principal("fay", Role.FINANCE)
ONLY_A = Principal("ada", Role.ADMIN, frozenset({"org_a"}))
NOBODYS = Principal("nil", Role.ADMIN, frozenset())
MANY = 1_000


def limits(world):
    return world.service.organizations.limits


def rows(world, principal=EVERYONE):
    return {(row.organization_id, row.customer_id): row for row in limits(world).read(principal).rows}


def period_of(world, customer):
    (row,) = [row for row in limits(world).read(EVERYONE).rows if row.customer_id == customer]
    return row.period_start, row.period_end


@pytest.mark.parametrize("who", [ANALYST, FINANCE], ids=lambda who: who.name)
def test_only_admins_may_ask(world, who):
    for ask in (
        lambda: limits(world).read(who),
        lambda: limits(world).of(who, "org_a"),
        lambda: limits(world).refresh(who),
        lambda: limits(world).notices.due_notices(who),
        lambda: limits(world).notices.mark_seen(who, []),
    ):
        with pytest.raises(AccessDenied, match="this needs the admin role"):
            ask()


def test_before_stripe_was_read_everything_it_says_is_unknown(world):
    world.book(use("1", at(0)))
    found = limits(world).read(EVERYONE)
    (row,) = found.rows
    assert (row.state, row.plan, row.included, row.used, row.percent_used) == ("unknown", None, None, None, None)
    assert (found.read_at, found.problem, found.is_outdated) == (None, None, True)


def test_used_is_what_the_ledger_holds_of_the_subscriptions_own_period(world, stripe):
    limits(world).refresh(EVERYONE)
    world.book(use("1", at(0)))
    start, end = period_of(world, "cus_a")
    assert start == at(-240)
    world.book(
        use("before", start - timedelta(seconds=1), "7"),
        use("begins", start, "20.5"),
        use("ends", end - timedelta(seconds=1), "3"),
        use("next", end, "11"),
    )
    row = rows(world)["org_a", "cus_a"]
    assert (row.state, row.plan, row.included, row.used) == ("active", "Pro", 500_000, Decimal("173.5"))
    assert str(row.percent_used) == "0.03"


@pytest.mark.parametrize(
    ("profile", "state", "plan", "included", "has_period"),
    [
        ("pro", "active", "Pro", 500_000, True),
        ("free", "active", "Free", 10_000, True),
        ("past_due", "past_due", "Pro", 500_000, True),
        ("trialing", "trialing", "Pro", 500_000, True),
        ("canceled", "canceled", "Pro", None, False),
        ("unknown_price", "active", None, None, True),
        ("no_subscription", "none", None, None, False),
    ],
)
def test_the_plan_is_stripes_and_an_unknown_one_is_never_free(
    world, stripe, profile, state, plan, included, has_period
):
    stripe.switch(profiles={"cus_a": profile})
    world.book(use("1", at(0)))
    limits(world).refresh(EVERYONE)
    row = rows(world)["org_a", "cus_a"]
    assert (row.state, row.plan, row.included, row.used is not None) == (state, plan, included, has_period)


def test_limits_agree_with_the_status_of_the_customer(world):
    world.book(use("1", at(0)))
    limits(world).refresh(EVERYONE)
    status, row = world.desk.status(EVERYONE, "cus_a"), rows(world)["org_a", "cus_a"]
    assert (row.state, row.plan, row.included) == (status.state, status.plan, status.included)
    assert (row.period_start, row.period_end) == (status.period_start, status.period_end)


def test_customers_are_those_the_directory_names_and_those_events_named_within_ninety_days(world):
    world.book(
        use("now", at(0)),
        use("old", at(0) - timedelta(days=92), customer="cus_b"),
        use("bare", at(0), customer=None, organization_id="org_bare"),
        use("ancient", at(0) - timedelta(days=200), customer=None, organization_id="org_gone"),
    )
    enter(world, "org_a", "Acme", "cus_c")
    enter(world, "org_new", "New", None)
    assert set(rows(world)) == {("org_a", "cus_a"), ("org_a", "cus_c"), ("org_bare", None), ("org_new", None)}
    assert rows(world)["org_bare", None].state == "none"


def enter(world, organization, name, customer):
    with world.ledger.engine.transaction() as writer:
        (seq,) = writer.rows("SELECT count(*) + 1 FROM organization_directory")[0]
        writer.insert(
            "organization_directory",
            {
                "seq": seq,
                "organization_id": organization,
                "name": name,
                "customer_id": customer,
                "changed_at": at(0),
                "changed_by": "tester",
                "source": "page",
            },
        )


def test_organizations_that_share_a_customer_share_its_limit(world):
    world.book(use("1", at(0), "100"), use("2", at(1), "60", organization_id="org_b"))
    limits(world).refresh(EVERYONE)
    a, b = rows(world)["org_a", "cus_a"], rows(world)["org_b", "cus_a"]
    assert (a.used, a.own_used, a.shared_with) == (160, 100, ("org_b",))
    assert (b.used, b.own_used, b.shared_with) == (160, 60, ("org_a",))


# ── who sees what ────────────────────────────────────────────────────────────────────────────────


def test_a_limited_admin_gets_the_same_whether_others_share_his_customer_or_not(world):
    world.book(use("1", at(0), "100"))
    limits(world).refresh(EVERYONE)
    alone = limits(world).read(ONLY_A)
    world.book(use("2", at(1), "400000", organization_id="org_b"), use("3", at(1), "90000", organization_id=None))
    enter(world, "org_b", "Beta", "cus_a")
    shared = limits(world).read(ONLY_A)
    assert shared == alone
    (row,) = shared.rows
    assert (row.used, row.own_used, row.shared_with) == (100, 100, ())
    assert limits(world).read(NOBODYS).rows == ()


def test_a_foreign_organization_reads_like_one_that_does_not_exist(world):
    world.book(use("2", at(1), organization_id="org_b"))
    said = []
    for organization in ("org_b", "org_x"):
        with pytest.raises(AccessDenied) as refused:
            limits(world).of(ONLY_A, organization)
        said.append(str(refused.value).replace(organization, "…"))
    assert said[0] == said[1]
    assert limits(world).of(EVERYONE, "org_x") == ()
    (mine,) = limits(world).of(EVERYONE, "org_b")
    assert mine.organization_id == "org_b"


def test_why_stripe_could_not_be_read_is_told_to_those_who_may_see_everything(world, stripe):
    stripe.fault("403", path_prefix="/v1/subscriptions", times=MANY)
    with pytest.raises(UpstreamError):
        limits(world).refresh(ONLY_A)
    assert "403" in limits(world).read(EVERYONE).problem
    assert limits(world).read(ONLY_A).problem == "Stripe could not be read the last time."


# ── age ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_limited_admins_refresh_tells_nothing_of_what_followed_for_others(world):
    world.book(use("1", at(0), "490000", organization_id="org_b"))
    refreshed = limits(world).refresh(ONLY_A)
    assert (refreshed.problems, refreshed.looked.raised) == ((), 0)
    assert limits(world).notices.due_notices(EVERYONE).open  # they were raised all the same


def test_a_reading_is_outdated_after_an_hour_and_a_refresh_makes_it_new(world):
    limits(world).refresh(EVERYONE)
    first = limits(world).read(EVERYONE)
    assert not first.is_outdated
    world.wait(minutes=61)
    assert limits(world).read(EVERYONE).is_outdated
    limits(world).refresh(EVERYONE)
    second = limits(world).read(EVERYONE)
    assert not second.is_outdated
    assert second.read_at - first.read_at > timedelta(hours=1)


def test_a_period_that_ended_since_makes_the_reading_outdated_and_its_use_unknown(world, stripe):
    stripe.switch(anchors={"cus_a": int((stripe.now() - timedelta(days=20)).timestamp())})
    world.book(use("1", at(0)))
    limits(world).refresh(EVERYONE)
    _, end = period_of(world, "cus_a")
    world.wait(seconds=(end - stripe.now()).total_seconds() + 5)
    row = rows(world)["org_a", "cus_a"]
    assert (row.plan, row.included, row.period_end, row.used, row.percent_used) == ("Pro", 500_000, None, None, None)
    assert limits(world).read(EVERYONE).is_outdated
    limits(world).refresh(EVERYONE)
    row = rows(world)["org_a", "cus_a"]
    assert (row.period_start, row.used) == (end, 0)


def test_a_failed_reading_keeps_the_old_one_with_its_age_and_is_not_repeated_at_once(world, stripe):
    world.book(use("1", at(0)))
    limits(world).refresh(EVERYONE)
    before = limits(world).read(EVERYONE)
    world.wait(hours=2)
    stripe.fault("403", path_prefix="/v1/invoices", times=MANY)
    with pytest.raises(UpstreamError):
        limits(world).refresh(EVERYONE)
    after = limits(world).read(EVERYONE)
    assert (after.rows, after.read_at) == (before.rows, before.read_at)
    assert "draft invoices" in after.problem
    assert not after.is_outdated
    world.wait(minutes=11)
    assert limits(world).read(EVERYONE).is_outdated
    stripe.control("DELETE", "/_sandbox/faults")
    limits(world).refresh(EVERYONE)
    assert limits(world).read(EVERYONE).problem is None


def test_a_push_makes_the_reading_new_as_well(world):
    world.book(use("1", at(0)))
    world.push()
    found = limits(world).read(EVERYONE)
    assert (found.rows[0].plan, found.is_outdated) == ("Pro", False)


def test_a_server_without_a_list_of_subscriptions_leaves_plans_unknown_and_not_none(world, monkeypatch):
    def not_offered(*_):
        failure = ReadFailed("Stripe: reading subscriptions failed: 404")
        failure.status = 404
        raise failure

    monkeypatch.setattr(StripeProvider, "subscriptions", not_offered)
    world.book(use("1", at(0)))
    limits(world).refresh(EVERYONE)
    found = limits(world).read(EVERYONE)
    assert found.rows[0].state == "unknown"
    assert found.problem == "Stripe offered no list of subscriptions: plans are unknown."


def test_a_wrong_meter_keeps_nobody_from_seeing_plans_and_is_named(world, stripe):
    stripe.switch(meters=[{"status": "inactive"}])
    world.book(use("1", at(0)))
    assert "it is inactive" in limits(world).refresh(EVERYONE).problems[0]
    assert rows(world)["org_a", "cus_a"].plan == "Pro"


def test_the_period_is_that_of_the_item_on_the_meter_which_is_remembered_with_the_plans(world, monkeypatch):
    meter_id = world.connect(world.service.settings).preflight().id
    yearly = SubscriptionItem("si_1", "price_pro", None, None, None, at(-24 * 100), at(24 * 265))
    monthly = SubscriptionItem("si_2", "price_credits", None, None, meter_id, at(-24 * 10), at(24 * 20))
    found = Subscription("sub_1", "cus_a", "active", (yearly, monthly), at(-24 * 100), None, None, None)
    monkeypatch.setattr(StripeProvider, "subscriptions", lambda *_: [found])
    world.book(use("1", at(0)), use("long ago", at(-24 * 50), "1000"))
    limits(world).refresh(EVERYONE)
    row = rows(world)["org_a", "cus_a"]
    assert (row.period_start, row.included, row.used) == (at(-24 * 10), 500_000, 150)


def test_without_a_key_what_was_read_is_still_shown_and_a_refresh_says_what_is_missing(world):
    world.book(use("1", at(0)))
    limits(world).refresh(EVERYONE)
    world.connect = None
    world.service.close()
    from billing_core.service import BillingService
    from billing_core.settings import load_settings

    settings = load_settings({**world.environment, "STRIPE_API_KEY": ""}, env_file=None)
    world.service = BillingService(settings, clock=world.stripe.now)
    found = limits(world).read(EVERYONE)
    assert found.rows[0].plan == "Pro"
    assert (found.is_outdated, found.problem) == (False, "Stripe is not connected: STRIPE_API_KEY is not set.")
    with pytest.raises(SettingsError, match="STRIPE_API_KEY: not set"):
        limits(world).refresh(EVERYONE)


def test_looking_asks_stripe_nothing(world, stripe):
    world.book(use("1", at(0)))
    limits(world).refresh(EVERYONE)
    before = len(stripe.control("GET", "/_sandbox/requests"))
    limits(world).read(EVERYONE)
    limits(world).of(EVERYONE, "org_a")
    limits(world).notices.due_notices(EVERYONE)
    assert len(stripe.control("GET", "/_sandbox/requests")) == before
