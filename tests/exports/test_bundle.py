"""The bundle: everything, described by a manifest that is right to the byte."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zipfile
from decimal import Decimal

import pyarrow.parquet as pq
import pytest

from billing_core.access import Principal, Role
from billing_core.exports.flat_schema import EXTRA_SCHEMA
from billing_core.types import FLAT_FIELDS
from tests.exports.exported import asked, mixed_rows
from tests.factories import EVERYONE, service_over

LIMITED = Principal("fin", Role.FINANCE, frozenset({"org_a"}))


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    service = service_over(tmp_path_factory.mktemp("bundle") / "billing.duckdb", mixed_rows(20))
    yield service
    service.close()


def opened(service, tmp_path, principal=EVERYONE, **params):
    result = service.exports.write(asked(None, "bundle", **params), principal, tmp_path / "bundle.zip")
    return result, zipfile.ZipFile(tmp_path / "bundle.zip")


def test_the_manifest_names_every_member_with_its_size_hash_rows_and_totals(service, tmp_path):
    result, archive = opened(service, tmp_path)
    assert archive.testzip() is None
    manifest = json.loads(archive.read("manifest.json"))
    names = [member["file"] for member in manifest["members"]]
    assert names == [
        "usage-events.csv",
        "usage-events.parquet",
        "organizations.csv",
        "customers.csv",
        "rate-card.json",
        "closes.json",
    ]
    assert sorted(archive.namelist()) == sorted([*names, "manifest.json"])
    for member in manifest["members"]:
        data = archive.read(member["file"])
        assert (member["bytes"], member["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    by_name = {member["file"]: member for member in manifest["members"]}
    rows = list(csv.DictReader(io.StringIO(archive.read("usage-events.csv").decode(), newline="")))
    assert len(rows) == by_name["usage-events.csv"]["rows"] == result.rows == 20
    total = sum(Decimal(row["credits_total"]) for row in rows)
    assert total == Decimal(by_name["usage-events.csv"]["totals"]["credits_total"]) == result.totals["credits_total"]
    assert manifest["totals"] == by_name["organizations.csv"]["totals"]


def test_its_parquet_has_what_an_import_needs_beside_the_published_columns(service, tmp_path):
    _, archive = opened(service, tmp_path)
    table = pq.read_table(io.BytesIO(archive.read("usage-events.parquet")))
    assert table.column_names == [*FLAT_FIELDS, *EXTRA_SCHEMA.names]
    first = table.to_pylist()[1]
    assert json.loads(first["usage"]) == [
        {
            "model": "claude-sonnet-5",
            "input": 10,
            "output": 1,
            "cache_read": 0,
            "cache_write": 0,
            "reasoning": 0,
            "other": 0,
            "cost_usd": "0.010000000000",
        }
    ]
    assert first["observations"] == 3


def test_members_have_no_time_of_their_own(service, tmp_path):
    _, archive = opened(service, tmp_path)
    assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_who_may_see_some_organizations_gets_those_and_is_told_what_is_left_out(service, tmp_path):
    _, archive = opened(service, tmp_path, LIMITED)
    manifest = json.loads(archive.read("manifest.json"))
    assert not {"closes.json", "reconciliation.json"} & set(archive.namelist())
    assert "closes.json" in manifest["left_out"][0]
    assert b"org_b" not in archive.read("usage-events.csv") + archive.read("organizations.csv")


def test_a_filter_holds_for_the_members_that_it_can_choose_rows_of(service, tmp_path):
    result, archive = opened(service, tmp_path, organization="org_a", environment="production")
    rows = list(csv.DictReader(io.StringIO(archive.read("usage-events.csv").decode(), newline="")))
    assert {(row["organization_id"], row["environment"]) for row in rows} == {("org_a", "production")}
    assert len(rows) == result.rows
    assert archive.read("customers.csv").decode().split() == ["organization_id,name,customer_id", "org_a,,"]


def test_a_preview_lists_the_files(service):
    shown = service.exports.preview(asked(None, "bundle"), EVERYONE)
    assert shown.columns == ("file", "rows")
    assert shown.rows[0] == ("usage-events.csv", "20")
    assert shown.total_rows == 20
