"""The downloads of the Organization Stats page: admins only, exact figures, the rows and order of the page."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from decimal import Decimal

import pytest
from starlette.applications import Starlette

from billing_core.types import GetUsageEventsParams
from billing_core.web import wiring
from billing_core.web.downloads import download_routes
from tests.factories import EVERYONE, NOON, ledger_at, usage_row
from tests.web.client import Client, get_as

TABLE, MAP, ANOMALIES = "/download/organizations.csv", "/download/organization-map.csv", "/download/anomalies.csv"
ROWS = [
    usage_row(id="a", organization_id="=cmd()"),
    usage_row(id="b", organization_id="org_b", timestamp=NOON + timedelta(days=1), storage_gb=Decimal("0.5")),
    usage_row(id="n", organization_id=None, cost_usd=None),
]


@pytest.fixture
def files(demo):
    ledger_at(wiring.settings().warehouse_path, ROWS).engine.close()
    return Client(Starlette(routes=download_routes()))


def get(client: Client, path: str, name: str = "admin"):
    return get_as(client, path, name)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("path", [TABLE, MAP, ANOMALIES])
@pytest.mark.parametrize("name", ["analyst", "finance", "analyst-acme"])
def test_a_download_needs_a_session_of_an_admin(files, path, name):
    assert files.get(path).status_code == 401
    refused = get(files, path, name)
    assert refused.status_code == 403
    assert "needs the admin role" in refused.json()["error"]


def test_organizations_come_with_exact_figures_that_add_up_to_usage_events(files):
    found = rows(get(files, TABLE).text)
    usage = wiring.service().get_usage_events(GetUsageEventsParams(), EVERYONE)
    assert [row["organization_id"] for row in found] == ["org_b", "'=cmd()", ""]
    assert sum(Decimal(row["credits_total"]) for row in found) == usage.totals.credits.total == Decimal(700)
    assert found[2]["cost_usd"] == ""  # unknown


def test_the_file_has_the_search_and_the_order_of_the_page(files):
    ascending = rows(get(files, f"{TABLE}?sort=credits_total&order=asc").text)
    assert ascending[-1]["organization_id"] == "org_b"
    assert [row["organization_id"] for row in rows(get(files, f"{TABLE}?find=ORG_B").text)] == ["org_b"]
    one_day = f"{TABLE}?from=2026-11-01T00:00:00Z&to=2026-11-02T00:00:00Z"
    assert "org_b" not in {row["organization_id"] for row in rows(get(files, one_day).text)}


def test_the_file_has_what_the_page_compares_with(files):
    asked = f"{TABLE}?from=2026-11-02T00:00:00Z&to=2026-11-03T00:00:00Z"
    before = {one["organization_id"]: one["previous_credits_total"] for one in rows(get(files, asked).text)}
    assert before["'=cmd()"] == "150"
    other = rows(get(files, f"{asked}&compare=2026-10-01..2026-10-02").text)
    assert {one["previous_credits_total"] for one in other} == {"0"}
    assert {one["previous_credits_total"] for one in rows(get(files, f"{asked}&compare=nothing").text)} == {""}


@pytest.mark.parametrize("query", ["compare=yesterday", "sort=nonsense", "order=up", "from=yesterday"])
def test_a_wrong_parameter_is_named(files, query):
    refused = get(files, f"{TABLE}?{query}")
    assert refused.status_code == 422
    assert refused.json()["parameter"] == query.split("=")[0]


def test_anomalies_come_as_a_file_even_if_there_are_none(files):
    answer = get(files, ANOMALIES)
    assert answer.status_code == 200
    assert answer.text.startswith("organization_id,day,")


def test_days_without_an_offset_are_days_of_the_reporting_timezone(files):
    assert get(files, f"{ANOMALIES}?from=2026-10-01&to=2026-11-20").status_code == 200


def test_anomalies_refuse_a_filter_that_they_do_not_have(files):
    refused = get(files, f"{ANOMALIES}?customer=cus_a")
    assert (refused.status_code, refused.json()["parameter"]) == (422, "customer")


def test_the_map_comes_in_the_form_of_an_import(files):
    assert get(files, MAP).text.splitlines()[0].lstrip("\ufeff") == "organization_id,name,customer_id"
