"""The organization map as a download: who gets it, and that it is what an import reads."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette

from billing_core.access import Principal, Role
from billing_core.organizations.directory_file import Change
from billing_core.web import wiring
from billing_core.web.downloads import download_routes
from tests.factories import EVERYONE, ledger_at, usage_row
from tests.web.client import Client, get_as

PATH = "/download/organization-map.csv"


@pytest.fixture
def files(demo):
    rows = [usage_row(), usage_row(id="trace-2", organization_id="org_b")]
    ledger_at(wiring.settings().warehouse_path, rows).engine.close()
    directory = wiring.service().organizations.directory
    directory.apply(EVERYONE, directory.preview(EVERYONE, [Change("org_a", "=Acme, Inc.", "cus_a")]))
    return Client(Starlette(routes=download_routes()))


def get(client: Client, name: str):
    return get_as(client, PATH, name)


def test_the_map_needs_a_signed_in_admin(files):
    assert files.get(PATH).status_code == 401
    for name in ("analyst", "finance"):
        refused = get(files, name)
        assert refused.status_code == 403
        assert "needs the admin role" in refused.json()["error"]


def test_the_map_comes_in_the_form_of_an_import(files):
    answer = get(files, "admin")
    assert answer.headers["content-disposition"] == 'attachment; filename="organization-map.csv"'
    assert answer.text == 'organization_id,name,customer_id\r\norg_b,,\r\norg_a,"\'=Acme, Inc.",cus_a\r\n'
    parsed = wiring.service().organizations.directory.parse_import(answer.content)
    assert parsed.changes == (Change("org_b"), Change("org_a", "=Acme, Inc.", "cus_a"))


def test_an_admin_limited_to_organizations_gets_those_only(files, monkeypatch):
    limited = Principal("admin-a", Role.ADMIN, frozenset({"org_b"}))
    monkeypatch.setattr(type(wiring.gatekeeper()), "principal", lambda *_: limited)
    assert get(files, "admin").text == "organization_id,name,customer_id\r\norg_b,,\r\n"
