"""Traces that are gone at Langfuse, of a ledger with closed months, corrections, late usage and undone imports."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from billing_core.exports.model import Dataset, ExportRequest, Format
from billing_core.types import GetUsageEventsParams
from tests.factories import EVERYONE
from tests.langfuse.fake import PUBLIC_KEY, SECRET_KEY, FakeLangfuse, observation
from tests.lived_in import FINANCE, NOW, copied, service_at

FLAG = "missing_at_source"
START = datetime(2026, 8, 31, 22, tzinfo=UTC)
CLOSED = ("2026-09", "2026-10")
IMPORTED = {"oct-earlier", "oct-brought"}
"""What a file brought: nobody knows whether this Langfuse ever had it."""


@pytest.fixture
def langfuse():
    server = FakeLangfuse()
    server.project = {"id": "project", "name": "Shop"}
    yield server
    server.close()


@pytest.fixture
def service(langfuse, tmp_path, tmp_path_factory):
    keys = {"LANGFUSE_PUBLIC_KEY": PUBLIC_KEY, "LANGFUSE_SECRET_KEY": SECRET_KEY, "LANGFUSE_HOST": langfuse.url}
    service = service_at(copied(tmp_path_factory, tmp_path), **keys)
    yield service
    service.close()


def pull(service):
    return service.pull(EVERYONE, start=START, end=NOW).to_json()


def shown(service, **asked):
    """Every row people see, told apart by what it counts."""
    page = service.get_usage_events(GetUsageEventsParams.parse({"limit": 1000, **asked}), EVERYONE)
    return {(one.id, one.timestamp, one.credits.total, one.sync_status): set(one.flags) for one in page.events}


def truth(service):
    """Event → credits, status and marks in the ledger itself, whatever months are closed."""
    rows = service._ledger.engine.rows("SELECT id, credits_total, sync_status, marks FROM events")
    return {event: (amount, status, FLAG in (marks or "").split(",")) for event, amount, status, marks in rows}


def holding(*traces, moment="2026-11-03T12:00:00.000Z"):
    used = {"projectId": "project", "metadata": {"customerId": "cus_a", "organizationId": "org_acme", "storageGb": 1}}
    return [observation("o", trace, moment, moment, **used) for trace in traces]


def test_when_everything_is_gone_it_is_marked_counted_and_explained_and_nothing_is_taken_back(service, tmp_path):
    before, totals = truth(service), service.get_usage_events(GetUsageEventsParams(), EVERYONE).totals
    closed = {month: shown(service, **{"from": f"{month}-01", "to": f"{month}-30"}) for month in CLOSED}
    coverage = service._ledger.engine.rows("SELECT * FROM coverage ORDER BY ALL")
    result = pull(service)

    after = truth(service)
    asked_for = {event for event in before if event not in IMPORTED}
    assert {event for event, (_, _, is_marked) in after.items() if is_marked} == asked_for
    assert result[FLAG] == len(asked_for)
    assert (result["rejected"], result["events_changed"]) == ([], 0)
    assert {event: values[:2] for event, values in after.items()} == {e: v[:2] for e, v in before.items()}
    assert service._ledger.engine.rows("SELECT * FROM coverage ORDER BY ALL") == coverage
    assert service.get_usage_events(GetUsageEventsParams(), EVERYONE).totals == totals

    # What was closed stays as it was, mark included; open months show it.
    for month in CLOSED:
        assert shown(service, **{"from": f"{month}-01", "to": f"{month}-30"}) == closed[month]
        assert service.months.verify(month, FINANCE).differences == ()
    assert all(FLAG in flags for flags in shown(service, **{"from": "2026-11-12"}).values())

    # A second pull says the same and writes nothing; an export of ours brings nothing new.
    version = service.version()
    assert pull(service)[FLAG] == result[FLAG]
    assert service.version() == version
    export = ExportRequest(Dataset.USAGE_EVENTS, Format.CSV, GetUsageEventsParams.parse({"from": "2026-11-12"}))
    service.exports.write(export, EVERYONE, tmp_path / "f.csv")
    assert service.imports.plan(tmp_path / "f.csv", EVERYONE).outcome.changes == 0

    # Reconciliation names the cause with what is missing, and nothing of it is unexplained.
    compared = service.stripe.reconcile(EVERYONE, START, NOW).to_json()
    missing: Counter[str] = Counter()
    for row in compared["rows"]:
        assert Decimal(row["langfuse_credits"]) == 0
        for cause in row["causes"]:
            if cause["cause"] == FLAG:
                missing[row["customer_id"]] += Decimal(cause["credits"])
                assert set(cause["event_ids"]) <= asked_for
    owners = dict(service._ledger.engine.rows("SELECT id, customer_id FROM events"))
    booked: Counter[str] = Counter()
    for event in asked_for:
        if owners[event] is not None:
            booked[owners[event]] -= before[event][0]
    assert {one: amount for one, amount in missing.items() if one} == {c: n for c, n in booked.items() if n}
    assert compared["unexplained_credits"] is None  # Stripe is not connected here, so what it holds is not known


def test_what_comes_back_loses_the_mark_and_only_that(service, langfuse):
    pull(service)
    marked = {event for event, (_, _, is_marked) in truth(service).items() if is_marked}
    langfuse.rows = holding("nov-3", "sep-1", "oct-late")
    result = pull(service)
    assert {event for event, (_, _, is_marked) in truth(service).items() if is_marked} == marked - {
        "nov-3",
        "sep-1",
        "oct-late",
    }
    assert result[FLAG] == len(marked) - 3
    for month in CLOSED:
        assert service.months.verify(month, FINANCE).differences == ()
    langfuse.rows = []
    assert pull(service)[FLAG] == len(marked)
