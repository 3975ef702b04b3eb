"""Which thresholds were reached, and what a notice says of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing_core.ledger.notices import Reached
from billing_core.organizations.limits import Limit
from billing_core.organizations.notices import facts_of, passed

START, END = datetime(2026, 11, 3, 8, 15, 30, tzinfo=UTC), datetime(2026, 12, 3, 8, 15, 30, tzinfo=UTC)
RAISED = datetime(2026, 11, 20, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def limit(used="950", included=1000, organization="org_a", customer="cus_a", own=None, start=START):
    amount = None if used is None else Decimal(used)
    own = amount if own is None else Decimal(own)
    return Limit(organization, customer, "Pro", "active", included, amount, own, (), start, END)


def thresholds(*limits, wanted=(75, 90, 100)):
    return [(one.customer_id, one.threshold) for one in passed(limits, wanted)]


def test_every_threshold_reached_is_named_lowest_first():
    assert thresholds(limit("950")) == [("cus_a", 75), ("cus_a", 90)]
    assert thresholds(limit("2000"), wanted=(100, 150, 250)) == [("cus_a", 100), ("cus_a", 150)]
    assert thresholds(limit("749.999999")) == []


@pytest.mark.parametrize("found", [limit(included=0), limit(included=None), limit(used=None), limit(customer=None)])
def test_nothing_is_reached_where_included_or_used_is_unknown_or_nothing(found):
    assert thresholds(found) == []


def test_a_shared_customer_is_told_of_once_with_the_organization_that_used_most():
    shared = [limit("950", organization="org_a", own="100"), limit("950", organization="org_b", own="850")]
    assert [(one.organization_id, one.threshold) for one in passed(shared, (90,))] == [("org_b", 90)]
    assert [one.organization_id for one in passed([limit(own="5", organization=None), limit(own="5")], (90,))] == [
        "org_a"
    ]


def test_a_notice_has_the_same_id_for_everybody_who_looks_and_another_in_another_period_or_plan():
    (one,) = passed([limit("900")], (90,))
    (later,) = passed([limit("990", organization="org_z")], (90,))
    (next_period,) = passed([limit("900", start=START + timedelta(days=1))], (90,))
    (upgraded,) = passed([limit("4500", included=5000)], (90,))
    assert one.id == later.id
    assert len({one.id, next_period.id, upgraded.id}) == 3
    assert one.id.startswith("limit_")


def test_programs_read_exact_numbers_as_text():
    reached = Reached("org_a", "cus_a", "Pro", 90, START, END, 500_000, Decimal("450000.100000"))
    assert facts_of(reached, "Acme") == {
        "organization_id": "org_a",
        "organization_name": "Acme",
        "customer_id": "cus_a",
        "plan": "Pro",
        "threshold": 90,
        "percent_used": "90",
        "credits": {"included": "500000", "used": "450000.1"},
        "period": {"start": "2026-11-03T08:15:30.000Z", "end": "2026-12-03T08:15:30.000Z"},
    }
