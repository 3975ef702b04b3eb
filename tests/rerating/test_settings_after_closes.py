"""`rerate --settings` over a ledger with closed months: what is closed stays, and the preview is what is booked."""

from __future__ import annotations

import shutil
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from billing_core.rating.events import Policy
from billing_core.types import GetUsageEventsParams
from tests.factories import EVERYONE
from tests.lived_in import FINANCE, service_at, template

CLOSED = {"2026-09": {"from": "2026-09-01", "to": "2026-10-01"}, "2026-10": {"from": "2026-10-01", "to": "2026-11-01"}}
OPEN = {"from": "2026-11-01", "to": "2026-12-01"}

HOME = Policy(None, False, ("langfuse-*",), {})
POLICIES = {
    "as it was": HOME,
    "override": Policy("cus_c", True, ("langfuse-*",), {}),
    "default customer": Policy("cus_c", False, ("langfuse-*",), {}),
    "nothing is billed": Policy(None, False, ("*",), {}),
    "everything is billed": Policy("cus_b", False, (), {}),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return template(tmp_path_factory)


def rows(service, window):
    asked = GetUsageEventsParams.parse({**window, "sort": "timestamp", "order": "asc", "limit": 1000})
    return service.get_usage_events(asked, EVERYONE).events


def shown(service):
    """Of each closed month what is shown, downloaded and proven."""
    return {
        period: (
            rows(service, window),
            b"".join(service.csv(GetUsageEventsParams.parse(window), EVERYONE)),
            service.months.verify(period, FINANCE).differences,
        )
        for period, window in CLOSED.items()
    }


def by_customer(events):
    sums = defaultdict(Decimal)
    for event in events:
        sums[event.customer_id] += event.credits.total
    return {customer: total for customer, total in sums.items() if total}


def under(service, policy):
    """Let these settings be in force."""
    service.rerating._policy = lambda: policy
    return service.rerating


def statuses(service):
    return dict(service._ledger.engine.rows("SELECT id, sync_status FROM events"))


@pytest.mark.parametrize(
    "names",
    [("override", "as it was"), ("nothing is billed", "as it was"), ("everything is billed",), ("default customer",)],
    ids="-".join,
)
def test_the_preview_is_what_is_booked_closed_months_stay_and_the_difference_counts_in_the_open_one(made, names):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "billing.duckdb"
        shutil.copyfile(made, path)
        service = service_at(path)
        try:
            closed = shown(service)
            for name in names:
                before, open_before = by_customer(rows(service, {})), by_customer(rows(service, OPEN))
                sent = {one for one, status in statuses(service).items() if status in {"processed", "confirmed"}}
                foretold = under(service, POLICIES[name]).under_settings(EVERYONE)
                booked = under(service, POLICIES[name]).apply_settings(EVERYONE)
                assert (booked.customers, booked.organizations) == (foretold.customers, foretold.organizations)
                assert {r.customer_id: r.old for r in foretold.customers if r.old} == before
                after, open_after = by_customer(rows(service, {})), by_customer(rows(service, OPEN))
                assert {r.customer_id: r.new for r in foretold.customers if r.new} == after
                for customer in {*before, *after}:  # all of the difference counts in the open month
                    assert after.get(customer, 0) - before.get(customer, 0) == (
                        open_after.get(customer, 0) - open_before.get(customer, 0)
                    )
                assert shown(service) == closed
                assert {one for one in sent if statuses(service)[one] not in {"processed", "confirmed"}} == set()
                again = under(service, POLICIES[name]).under_settings(EVERYONE)
                assert (again.events_changed, again.to_send.events) == (0, 0)
        finally:
            service.close()
