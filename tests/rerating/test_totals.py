"""Adding up a re-rating: exact, whatever the slices; who crosses a limit, and of whom nothing is known."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.organizations.limits import Limit
from billing_core.rerating.rules import CardCalendar, rerate
from billing_core.rerating.totals import RerateTotals, crossings, current_periods, unknown_plans
from tests.factories import CARD, NOON, usage_row
from tests.rerating.world import DEAR, as_stored, card, only

PERIOD = (NOON, NOON + timedelta(days=30))
CENT = card("cent", credit_price_usd="0.01")


def limit(customer="cus_a", *, included=1000, used="900", state="active", sharing=("org_a",), period=PERIOD):
    used = None if used is None else Decimal(used)
    start, end = (None, None) if used is None else period
    return Limit("org_a", customer, "Pro", state, included, used, used, sharing, start, end)


def tally(events, rate_card=DEAR, periods=None, cuts=()):
    total = RerateTotals(periods or {})
    edges = [0, *sorted(cuts), events.num_rows]
    for start, end in pairwise(edges):
        part = events[start:end]
        total.add(part, rerate(part, CardCalendar.of(only(rate_card)), {CARD.id: CARD}.get))
    return total


def everything(total):
    names = ("events", "changed", "customers", "organizations", "to_send", "not_rerated", "card_versions")
    return {name: getattr(total, name) for name in names} | {"in_period": dict(total.in_period)}


def test_an_organization_has_old_new_and_the_difference_in_credits_and_usd():
    rows = [usage_row(id="1"), usage_row(id="2", organization_id="org_b"), usage_row(id="3", organization_id=None)]
    found = tally(as_stored(rows), CENT).organizations
    assert [row.organization_id for row in found] == ["org_a", "org_b", None]
    assert found[0].to_json() == {
        "organization_id": "org_a",
        "events": 1,
        "events_changed": 1,
        "old": "150",
        "new": "150",
        "delta": "0",
        "old_usd": "0.006",
        "new_usd": "1.5",
        "delta_usd": "1.494",
    }


def test_the_largest_difference_comes_first_up_or_down():
    rows = [usage_row(id="1"), *(usage_row(id=str(n), organization_id="org_b") for n in (2, 3))]
    assert [row.organization_id for row in tally(as_stored(rows)).organizations] == ["org_b", "org_a"]


def test_what_is_not_rerated_stands_in_old_and_new_alike_so_that_they_add_up_to_what_is_shown():
    rows = [usage_row(id="1"), usage_row(id="2", legacy_status="processed", legacy_total=Decimal(7))]
    total = tally(as_stored(rows))
    (row,) = total.organizations
    assert (row.events, row.events_changed, row.old, row.new) == (2, 1, Decimal(157), Decimal(257))
    assert {reason.value: count for reason, count in total.not_rerated.items()} == {"legacy_billed": 1}
    assert [version.to_json() for version in total.card_versions] == [
        {"version": "builtin-1", "old_events": 1, "new_events": 0},
        {"version": "dear", "old_events": 0, "new_events": 1},
        {"version": "legacy", "old_events": 1, "new_events": 1},
    ]


@pytest.mark.parametrize("status", ["sending", "processed", "confirmed"])
def test_only_differences_of_what_was_sent_are_to_be_sent(status):
    events = as_stored([usage_row(id=str(n), customer_id=f"cus_{n % 2}") for n in range(3)])
    column = events.schema.get_field_index("sync_status")
    events = events.set_column(column, "sync_status", [[status, "pending", status]])
    assert tally(events).to_send.to_json() == {"events": 2, "credits": "200", "customers": 1}
    assert tally(events, CARD).to_send.to_json() == {"events": 0, "credits": "0", "customers": 0}
    assert tally(events, CENT).to_send.to_json() == {"events": 0, "credits": "0", "customers": 0}


def test_only_what_began_inside_a_customers_period_counts_towards_its_limit():
    start, end = PERIOD
    times = [start - timedelta(microseconds=1), start, end - timedelta(microseconds=1), end]
    rows = [usage_row(id=str(n), timestamp=time, ended_at=time) for n, time in enumerate(times)]
    rows += [usage_row(id="other", customer_id="cus_b"), usage_row(id="nobody", customer_id=None)]
    total = tally(as_stored(rows), periods={"cus_a": PERIOD})
    assert dict(total.in_period) == {"cus_a": Decimal(200)}
    assert total.customers == {"cus_a", "cus_b"}


ROWS = st.lists(
    st.builds(
        lambda n, organization, customer, day, legacy, environment: usage_row(
            id=n.hex,
            organization_id=organization,
            customer_id=customer,
            timestamp=NOON + timedelta(days=day),
            legacy_status=legacy,
            environment=environment,
        ),
        st.uuids(),
        st.sampled_from([None, "org_a", "org_b"]),
        st.sampled_from([None, "cus_a", "cus_b"]),
        st.integers(-1, 31),
        st.sampled_from([None, "processed"]),
        st.sampled_from(["production", "sdk-experiment"]),
    ),
    max_size=8,
)
SOME_CARD = st.sampled_from([CARD, DEAR, CENT, card("cheap", margin="0.123456", compute={"credits_per_minute": "0.7"})])


@given(rows=ROWS, rate_card=SOME_CARD)
def test_the_difference_is_new_less_old_for_each_and_in_sum(rows, rate_card):
    events = as_stored(rows)
    rerated = rerate(events, CardCalendar.of(only(rate_card)), {CARD.id: CARD}.get)
    total = tally(events, rate_card)

    def of(table, organization):
        return [
            (amount, price)
            for amount, price, one in zip(
                table["credits_total"].to_pylist(),
                table["credit_price_usd"].to_pylist(),
                events["organization_id"].to_pylist(),
                strict=True,
            )
            if one == organization
        ]

    for row in total.organizations:
        old, new = of(events, row.organization_id), of(rerated, row.organization_id)
        assert (row.events, row.delta) == (len(old), sum(c for c, _ in new) - sum(c for c, _ in old))
        assert row.delta_usd == sum(c * p for c, p in new) - sum(c * p for c, p in old)
    assert sum(row.events for row in total.organizations) == total.events == len(rows)
    assert sum(row.delta for row in total.organizations) == (
        sum(rerated["credits_total"].to_pylist()) - sum(events["credits_total"].to_pylist())
    )


@given(rows=ROWS, rate_card=SOME_CARD, data=st.data())
def test_it_comes_to_the_same_in_whatever_slices(rows, rate_card, data):
    events = as_stored(rows)
    cuts = data.draw(st.lists(st.integers(0, len(rows)), max_size=3))
    periods = {"cus_a": PERIOD}
    assert everything(tally(events, rate_card, periods, cuts)) == everything(tally(events, rate_card, periods))


# ── limits ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("used", "delta", "direction"),
    [
        ("900", "100", "up"),
        ("900", "99.999999", None),
        ("1000", "-0.000001", "down"),
        ("1000", "-0", None),
        ("1500", "-600", "down"),
        ("1500", "-500", None),
        ("2000", "9000", None),
        ("0", "5000", "up"),
    ],
)
def test_a_limit_is_crossed_when_all_of_it_is_reached_before_or_after_but_not_both(used, delta, direction):
    found = crossings([limit(used=used)], {"cus_a": Decimal(delta)})
    assert [one.direction for one in found] == ([] if direction is None else [direction])


def test_a_customer_that_several_organizations_share_crosses_once_and_names_them():
    shared = limit(sharing=("org_a", "org_b"))
    (found,) = crossings([shared, shared], {"cus_a": Decimal(250)})
    assert found.to_json() == {
        "customer_id": "cus_a",
        "organizations": ["org_a", "org_b"],
        "plan": "Pro",
        "included": 1000,
        "old_used": "900",
        "new_used": "1150",
        "crosses": "up",
        "period": {"start": "2026-11-01T12:00:00.000Z", "end": "2026-12-01T12:00:00.000Z"},
    }


@pytest.mark.parametrize(
    "row", [limit(included=None), limit(used=None), limit(included=0), limit(customer=None), limit(customer="cus_b")]
)
def test_nobody_crosses_a_limit_that_is_not_known(row):
    assert crossings([row], {"cus_a": Decimal(10**6)}) == ()


def test_periods_are_those_that_run_now():
    assert current_periods([limit(), limit("cus_b", used=None), limit(None)]) == {"cus_a": PERIOD}


def test_unknown_plans_are_counted_and_no_plan_is_not_unknown():
    rows = [
        limit("known"),
        limit("unread", state="unknown", included=None, used=None),
        limit("yearly", included=None),
        limit("without", state="none", included=None, used=None),
    ]
    differ = {"known", "unread", "yearly", "without", "long ago"}
    assert unknown_plans(rows, differ, was_read=True) == 2
    assert unknown_plans(rows, differ - {"unread"}, was_read=True) == 1
    assert unknown_plans([], differ, was_read=False) == 5
