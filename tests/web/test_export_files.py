"""Exports over HTTP: who gets them, what is refused by name, and that nothing stays behind."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tempfile
from decimal import Decimal

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from billing_core.types import GetUsageEventsParams
from billing_core.web import wiring
from billing_core.web.export_files import export_download, job_file, job_manifest
from tests.exports.exported import asked, mixed_rows
from tests.factories import EVERYONE, ledger_at
from tests.web.client import Client, get_as

PATH = "/download/export"


@pytest.fixture
def files(demo, tmp_path, monkeypatch):
    ledger_at(wiring.settings().warehouse_path, mixed_rows(20)).engine.close()
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    routes = [
        Route(PATH, export_download),
        Route("/download/exports/{id}.manifest.json", job_manifest),
        Route("/download/exports/{id}", job_file),
    ]
    yield Client(Starlette(routes=routes))
    wiring.export_jobs().close()


def test_a_download_needs_a_session(files):
    for path in (f"{PATH}?dataset=usage-events&format=csv", "/download/exports/x", "/download/exports/x.manifest.json"):
        assert files.get(path).status_code == 401


def test_a_file_comes_with_its_length_and_hash_and_leaves_nothing_behind(files, tmp_path):
    answer = get_as(files, f"{PATH}?dataset=usage-events&format=csv&organization=org_a&from=2026-11-01", "finance")
    assert answer.status_code == 200
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["x-content-sha256"] == hashlib.sha256(answer.content).hexdigest()
    assert answer.headers["cache-control"] == "no-store"
    assert 'filename="usage-events_2026-11-01_to_now_UTC.csv"' in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    params = GetUsageEventsParams.parse({"organization": "org_a", "from": "2026-11-01"})
    shown = wiring.service().get_usage_events(params, EVERYONE)
    assert sum(Decimal(row["credits_total"]) for row in rows) == shown.totals.credits.total
    assert list((tmp_path / "temporary").iterdir()) == []


def test_the_manifest_can_be_had_alone(files):
    query = f"{PATH}?dataset=usage-events&format=json&grain=day"
    data = get_as(files, query, "finance")
    manifest = get_as(files, f"{query}&manifest=true", "finance").json()
    assert manifest["sha256"] == data.headers["x-content-sha256"]
    assert manifest["rows"] == len(data.json()["rows"])
    entries = [one["detail"] for one in wiring.service()._ledger.audit_entries() if one["action"] == "export"]
    assert len(entries) == 1  # the file's, not the manifest's


def test_options_reach_the_file(files):
    query = f"{PATH}?dataset=usage-events&format=csv&separator=semicolon&bom=true&columns=id,credits_total"
    assert get_as(files, query, "analyst").content.startswith(b"\xef\xbb\xbfid;credits_total\r\n")


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("", "dataset"),
        ("?dataset=secrets&format=csv", "dataset"),
        ("?dataset=usage-events", "format"),
        ("?dataset=usage-events&format=doc", "format"),
        ("?dataset=usage-events&format=csv&grain=year", "grain"),
        ("?dataset=usage-events&format=csv&bom=perhaps", "bom"),
        ("?dataset=usage-events&format=csv&x=1", "x"),
        ("?dataset=usage-events&format=csv&separator=%3A", "separator"),
        ("?dataset=usage-events&format=csv&format=json", "format"),
        ("?dataset=usage-events&format=csv&columns=id,nothing", "columns"),
        ("?dataset=usage-events&format=csv&timezone=Nowhere", "timezone"),
    ],
)
def test_a_bad_parameter_is_422_and_named(files, query, named):
    answer = get_as(files, PATH + query, "admin")
    assert answer.status_code == 422
    assert answer.json()["parameter"] == named


def test_analysts_are_refused_what_is_not_theirs(files):
    assert get_as(files, f"{PATH}?dataset=bundle", "analyst").status_code == 403
    assert get_as(files, f"{PATH}?dataset=bundle", "finance").status_code == 200
    limited = get_as(files, f"{PATH}?dataset=usage-events&format=json", "analyst-acme")
    allowed = get_as(files, f"{PATH}?dataset=usage-events&format=json&manifest=true", "analyst-acme").json()
    assert len(limited.json()["rows"]) == allowed["rows"] < 20


def test_the_file_of_a_background_export_is_only_for_who_started_it(files):
    gatekeeper = wiring.gatekeeper()
    finance = gatekeeper.principal(gatekeeper.sign_in("finance", "any", "127.0.0.1", lambda *_: True))
    job_id = wiring.export_jobs().start(wiring.service(), finance, asked("csv"))
    wiring.export_jobs().wait(job_id, finance, 60)
    mine = get_as(files, f"/download/exports/{job_id}", "finance")
    manifest = get_as(files, f"/download/exports/{job_id}.manifest.json", "finance")
    assert hashlib.sha256(mine.content).hexdigest() == manifest.json()["sha256"]
    assert 'filename="usage-events_all-time_UTC.csv.manifest.json"' in manifest.headers["content-disposition"]
    for path in (f"/download/exports/{job_id}", f"/download/exports/{job_id}.manifest.json"):
        theirs = get_as(files, path, "admin")
        assert theirs.status_code == 404
        assert json.loads(theirs.text)["error"].startswith("export ")
