"""The downloads of manifests and of the audit log: who may, exactly what was hashed, and calm refusals."""

from __future__ import annotations

import csv
import hashlib
import io
from datetime import UTC, datetime

import pytest
from starlette.applications import Starlette

from billing_core.web import wiring
from billing_core.web.downloads import download_routes
from tests.factories import ledger_at
from tests.month_close.world import FINANCE, Books, trace
from tests.web.client import Client, get_as

MANIFEST, AUDIT = "/download/manifest/2026-10.json", "/download/audit.csv"


@pytest.fixture
def files(demo):
    ledger_at(wiring.settings().warehouse_path, [trace("a1")]).engine.close()
    return Client(Starlette(routes=download_routes()))


@pytest.fixture
def closed(files):
    months = wiring.service().months
    months._stripe, months._clock = Books(wiring.service()._ledger), lambda: datetime(2026, 11, 3, 9, tzinfo=UTC)
    assert months.close("2026-10", FINANCE, accept=["unsent"], reason="agreed").ok
    return files


@pytest.mark.parametrize("name", ["finance", "admin"])
def test_the_manifest_is_exactly_the_text_that_was_hashed(closed, name):
    answer = get_as(closed, MANIFEST, name)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-disposition"] == 'attachment; filename="close-2026-10.json"'
    assert answer.headers["cache-control"] == "no-store"
    ((sha256,),) = wiring.service()._ledger.engine.rows("SELECT sha256 FROM closes")
    assert hashlib.sha256(answer.content).hexdigest() == sha256
    assert answer.json()["exceptions"][0]["reason"] == "agreed"


def test_a_manifest_is_for_finance_and_admins_who_signed_in(closed):
    assert closed.get(MANIFEST).status_code == 401
    refused = get_as(closed, MANIFEST, "analyst")
    assert refused.status_code == 403
    assert "this needs the finance or admin role" in refused.json()["error"]


@pytest.mark.parametrize(
    ("period", "status"), [("2026-09", 404), ("2026-13", 422), ("x%0d%0aSet-Cookie:%20a", 422), ("%22", 422)]
)
def test_what_is_no_closed_month_is_refused_with_a_sentence(files, period, status):
    answer = get_as(files, f"/download/manifest/{period}.json", "admin")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["error"]
    assert "set-cookie" not in answer.headers


# ── the audit log ────────────────────────────────────────────────────────────────────────────────


def entries(answer) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(answer.text)))


def test_the_audit_log_comes_with_the_filters_of_its_view(files):
    for who, what in (("fay", "close"), ("ada", "import"), ("ada", "push"), ("ada", "close")):
        wiring.service().audit(who, what, {"note": f"=cmd() by {who}"})
    answer = get_as(files, f"{AUDIT}?actor=ada&action=close&action=import&search=CMD", "admin")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert [(one["actor"], one["action"]) for one in entries(answer)] == [("ada", "import"), ("ada", "close")]
    assert all(len(one["hash"]) == 64 for one in entries(answer))


def test_times_cut_the_log_in_the_reporting_timezone_unless_they_say_otherwise(files):
    assert entries(get_as(files, f"{AUDIT}?to=2020-01-01", "admin")) == []
    assert len(entries(get_as(files, f"{AUDIT}?from=2020-01-01T00:00:00Z", "admin"))) >= 1


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("from=yesterday", "from"),
        ("from=1&from=2", "from"),
        ("page=2", "page"),
        ("from=2026-02-01&to=2026-01-01", "to"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(files, query, parameter):
    answer = get_as(files, f"{AUDIT}?{query}", "admin")
    assert answer.status_code == 422
    assert answer.json()["parameter"] == parameter


@pytest.mark.parametrize(("name", "status"), [(None, 401), ("analyst", 403), ("finance", 403)])
def test_the_audit_log_is_for_admins(files, name, status):
    answer = files.get(AUDIT) if name is None else get_as(files, AUDIT, name)
    assert answer.status_code == status
    assert "actor" not in answer.text
