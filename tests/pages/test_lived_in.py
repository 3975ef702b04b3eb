"""Every page and every part of it opens over a ledger that was lived in, and over an empty one, for every role."""

from __future__ import annotations

import pytest

from billing_core.ledger.duckdb_engine import DuckDBEngine
from billing_core.web import wiring
from components.organizations.query import OrganizationView
from components.shared.navigation import DESTINATIONS
from tests.factories import ledger_at
from tests.lived_in import copied
from tests.pages.opening import opened_at

VIEWS = [
    *(("organization_stats.py", "admin", {"view": view.value}) for view in OrganizationView),
    ("organization_stats.py", "admin", {"organization": "org_acme"}),
    *((page.file, role.value, {}) for page in DESTINATIONS[2:] for role in sorted(page.roles)),
    ("export_import.py", "admin", {"view": "import"}),
    ("export_import.py", "analyst-acme", {}),
    *(
        ("usage_events.py", who, {"sort": sort, "order": "asc", "period": "all"})
        for who in ("analyst", "analyst-acme")
        for sort in ("credits_total", "amount_usd")
    ),
]


@pytest.fixture(params=["empty", "lived in"])
def ledger(demo, request, tmp_path_factory):
    path = wiring.settings().warehouse_path
    if request.param == "empty":
        ledger_at(path).engine.close()
    else:
        engine = DuckDBEngine(copied(tmp_path_factory, path.parent))
        engine.rows("UPDATE meta SET value = 'demo' WHERE name = 'mode'")  # the pages' users are those of the demo
        engine.close()


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(("page", "who", "query"), VIEWS, ids=[" ".join([p, w, *q.values()]) for p, w, q in VIEWS])
def test_a_page_opens(page, who, query):
    run = opened_at(who, page, **query)
    assert not run.error, [one.value for one in run.error]
    assert run.main
