"""The downloads of limits and notices: admins only, exact figures, no formula, nothing of others."""

from __future__ import annotations

import csv
import io
from datetime import timedelta

import pytest
from starlette.applications import Starlette

from billing_core.access import Principal, Role
from billing_core.ledger.stripe_snapshots import StoredObject, StripeSnapshots
from billing_core.runtime import clock
from billing_core.web import wiring
from billing_core.web.downloads import download_routes
from tests.factories import ledger_at
from tests.stripe_sync.push_world import use
from tests.web.client import Client, get_as

LIMITS, NOTICES = "/download/limits.csv", "/download/notices.csv"
NOW = clock.now().replace(microsecond=0)
START, END = NOW - timedelta(days=15), NOW + timedelta(days=15)

SUBSCRIPTION = """{"id":"sub_1","customer_id":"cus_a","status":"active","started_at":null,"ended_at":null,
"cancel_at":null,"trial_end":null,"items":[{"id":"si_1","price_id":"price_free","lookup_key":null,"product_id":null,
"meter_id":"mtr_1","period_start":"%s","period_end":"%s"}]}"""


@pytest.fixture
def files(demo):
    rows = [
        use("1", NOW - timedelta(hours=1), "9500.5", organization_id="=cmd()"),
        use("2", NOW - timedelta(hours=1), "5", organization_id="org_b"),
    ]
    ledger = ledger_at(wiring.settings().warehouse_path, rows)
    snapshots = StripeSnapshots(ledger.engine)
    content = SUBSCRIPTION % (START.isoformat(), END.isoformat())
    snapshots.store("subscription", [StoredObject("sub_1", "cus_a", content, NOW)])
    snapshots.store("picture", [StoredObject("picture", None, "{}", NOW)])
    ledger.engine.close()
    wiring.service().organizations.limits.notices.check_limits("cron")
    return Client(Starlette(routes=download_routes()))


def get(client, path, name="admin"):
    return get_as(client, path, name)


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("path", [LIMITS, NOTICES])
@pytest.mark.parametrize("name", ["analyst", "finance", "analyst-acme"])
def test_a_download_needs_a_session_of_an_admin(files, path, name):
    assert files.get(path).status_code == 401
    assert get(files, path, name).status_code == 403


def test_limits_come_with_exact_figures_and_without_formulas(files):
    evil, b = rows(get(files, LIMITS).text)
    assert evil["organization_id"] == "'=cmd()"
    assert (evil["plan"], evil["credits_included"], evil["credits_used"]) == ("Free", "10000", "9505.5")
    assert (evil["own_credits_used"], evil["percent_used"], evil["shared_with"]) == ("9500.5", "95.05", '["org_b"]')
    assert (b["own_credits_used"], b["period_end"]) == (
        "5",
        END.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    )


def test_notices_come_with_what_became_of_them(files):
    first, second = rows(get(files, NOTICES).text)
    assert [first["threshold"], second["threshold"]] == ["90", "75"]
    assert (first["credits_used"], first["webhook"], first["seen_by"]) == ("9505.5", "not_sent", "")
    assert second["webhook"] == "covered"


def test_an_admin_of_one_organization_gets_its_own_rows_made_of_its_own_events(files):
    desk = wiring.service().organizations.limits
    only_b = Principal("bea", Role.ADMIN, frozenset({"org_b"}))
    (row,) = rows(b"".join(desk.csv(only_b)).decode())
    assert (row["organization_id"], row["credits_used"], row["shared_with"]) == ("org_b", "5", "[]")
    assert rows(b"".join(desk.notices.csv(only_b)).decode()) == []
