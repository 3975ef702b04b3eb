"""Exports: every file says what the screen says, to the last digit, twice the same, and is there as a whole or not."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
from decimal import Decimal

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from billing_core.access import Principal, Role
from billing_core.errors import AccessDenied, BadParameter, NotFound, WarehouseError
from billing_core.exports import usage_source
from billing_core.exports.model import Cancelled, Dataset, Format, Grain
from billing_core.exports.running_totals import RunningTotals
from billing_core.types import FLAT_FIELDS, GetUsageEventsParams
from tests.exports.exported import FORMULA, added, asked, mixed_rows, read
from tests.factories import EVERYONE, events_table, ledger_at, service_over, usage_row

ANALYST = Principal("ann", Role.ANALYST)
LIMITED = Principal("fin", Role.FINANCE, frozenset({"org_a", "org_b"}))
FINANCE = Principal("flo", Role.FINANCE)

TABLES = (Format.CSV, Format.XLSX, Format.PARQUET, Format.JSON)

FILTERS = [
    {},
    {"from": "2026-11-03", "to": "2026-11-09T13:00"},
    {"organization": "org_a", "status": ["pending", "error"]},
    {"search": "no such thing anywhere"},
]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    path = tmp_path_factory.mktemp("mixed") / "billing.duckdb"
    service = service_over(path, mixed_rows(), BILLING_TIMEZONE="Europe/Berlin")
    yield service
    service.close()


def screen(service, principal, **params):
    return service.get_usage_events(GetUsageEventsParams.parse(params), principal)


def named(value):
    """A test's name must not hang on the order of a set: pytest-xdist refuses to run workers that disagree on it."""
    return value.name if isinstance(value, Principal) else str(value)


# ── the same figures as the screen ───────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("principal", "params"), list(zip((EVERYONE, LIMITED, ANALYST, EVERYONE), FILTERS, strict=True)), ids=named
)
@pytest.mark.parametrize("grain", Grain)
@pytest.mark.parametrize("form", TABLES)
def test_the_rows_of_a_file_add_up_to_what_the_screen_shows(service, tmp_path, form, grain, params, principal):
    result = service.exports.write(asked(form, grain=grain, **params), principal, tmp_path / "out")
    shown = screen(service, principal, **params)
    rows = read(tmp_path / "out", form)
    assert len(rows) == result.rows
    if grain is Grain.EVENT:
        assert result.rows == shown.pagination.total_items
    else:
        assert (added(rows, "events") or 0) == shown.pagination.total_items
    for name in ("ai_tokens", "compute", "storage", "total"):
        assert (added(rows, f"credits_{name}") or 0) == getattr(shown.totals.credits, name)
        assert result.totals[f"credits_{name}"] == getattr(shown.totals.credits, name)
    assert (added(rows, "amount_usd") or 0) == shown.totals.amount_usd == result.totals["amount_usd"]
    for name in ("cost_usd", "tokens_in", "tokens_out", "tokens_total"):
        assert added(rows, name) == getattr(shown.totals, name) == result.totals[name]


def test_focus_and_journal_tie_out_as_well(service, tmp_path):
    shown = screen(service, EVERYONE).totals
    service.exports.write(asked("focus"), EVERYONE, tmp_path / "focus.csv")
    rows = read(tmp_path / "focus.csv", "focus")
    assert added(rows, "BilledCost") == shown.amount_usd
    assert added(rows, "PricingQuantity") == shown.credits.total
    metadata = json.loads((tmp_path / "focus.csv.focus-metadata.json").read_text(encoding="utf-8"))
    assert [column["ColumnName"] for column in metadata["ColumnDefinition"]] == list(rows[0])
    service.exports.write(asked("focus", parquet=True), EVERYONE, tmp_path / "focus.parquet")
    assert len(pq.read_table(tmp_path / "focus.parquet")) == len(rows)
    service.exports.write(asked("journal"), EVERYONE, tmp_path / "journal.csv")
    lines = read(tmp_path / "journal.csv", "journal")
    assert added(lines, "debit") == added(lines, "credit") == shown.amount_usd
    assert {line["period"] for line in lines} == {"2026-11"}


@pytest.mark.parametrize("principal", [EVERYONE, LIMITED], ids=lambda one: one.name)
@pytest.mark.parametrize("form", TABLES)
def test_organizations_add_up_to_the_screen_and_nobodys_events_are_a_row(service, tmp_path, form, principal):
    window = {"from": "2026-11-02", "to": "2026-11-10"}
    service.exports.write(asked(form, "organizations", **window), principal, tmp_path / "out")
    rows, shown = read(tmp_path / "out", form), screen(service, principal, **window)
    assert added(rows, "credits_total") == shown.totals.credits.total
    assert added(rows, "amount_usd") == shown.totals.amount_usd
    assert added(rows, "events") == shown.pagination.total_items
    expected = ["org_a", "org_b"] if principal is LIMITED else ["org_a", "org_b", "org_c", None]
    assert [row["organization_id"] for row in rows] == expected


def test_a_file_that_does_not_add_up_is_not_left_behind(service, tmp_path, monkeypatch):
    def loses_a_row(self, table):
        original(self, table.slice(1))

    original = RunningTotals.add
    monkeypatch.setattr(usage_source.RunningTotals, "add", loses_a_row)
    with pytest.raises(WarehouseError, match=r"in the file and .* on the screen"):
        service.exports.write(asked(), EVERYONE, tmp_path / "out.csv")
    assert list(tmp_path.iterdir()) == []


# ── what is in a file ────────────────────────────────────────────────────────────────────────────


def test_json_rows_are_exactly_those_of_the_command_events(service, tmp_path):
    service.exports.write(asked("json"), EVERYONE, tmp_path / "out.json")
    document = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    shown = screen(service, EVERYONE, order="asc", limit=1000).to_json()
    assert document["rows"] == shown["events"]
    assert document["meta"]["totals"]["credits_total"] == shown["totals"]["credits"]["total"]


def test_the_csv_is_the_same_that_the_usage_page_offers(service, tmp_path):
    service.exports.write(asked(), EVERYONE, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == b"".join(service.csv(GetUsageEventsParams(), EVERYONE))


@pytest.mark.parametrize(("separator", "bom"), [(";", True), ("\t", False), ("|", True)])
def test_a_csv_for_spreadsheets_has_another_separator_and_a_byte_order_mark(service, tmp_path, separator, bom):
    service.exports.write(asked(separator=separator, bom=bom), EVERYONE, tmp_path / "a.csv")
    service.exports.write(asked(), EVERYONE, tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes().startswith(b"\xef\xbb\xbf") is bom
    assert read(tmp_path / "a.csv", "csv", separator) == read(tmp_path / "b.csv", "csv")


def test_no_cell_of_a_csv_or_a_workbook_is_a_formula(service, tmp_path):
    service.exports.write(asked("csv"), EVERYONE, tmp_path / "out.csv")
    service.exports.write(asked("xlsx"), EVERYONE, tmp_path / "out.xlsx")
    for form in ("csv", "xlsx"):
        users = {row["user_id"] for row in read(tmp_path / f"out.{form}", form)}
        assert "'" + FORMULA in users
        assert FORMULA not in users
    sheets = openpyxl.load_workbook(tmp_path / "out.xlsx")
    cells = [cell for sheet in sheets for row in sheet.iter_rows() for cell in row]
    assert not [cell for cell in cells if cell.data_type == "f" or cell.hyperlink]


def test_a_workbook_has_typed_cells_a_frozen_header_and_a_sheet_of_totals(service, tmp_path):
    result = service.exports.write(asked("xlsx"), EVERYONE, tmp_path / "out.xlsx")
    book = openpyxl.load_workbook(tmp_path / "out.xlsx")
    assert book.sheetnames == ["data", "totals", "meta"]
    data = book["data"]
    heads = [cell.value for cell in data[1]]
    times = {"timestamp": "timestamp (UTC)", "ended_at": "ended_at (UTC)", "synced_at": "synced_at (UTC)"}
    assert heads[: len(FLAT_FIELDS)] == [times.get(name, name) for name in FLAT_FIELDS]
    assert data.freeze_panes == "A2"
    assert data.auto_filter.ref is not None
    kinds = {name: cell.data_type for name, cell in zip(FLAT_FIELDS, data[3], strict=False)}
    assert (kinds["timestamp"], kinds["credits_total"], kinds["tokens_in"], kinds["id"]) == ("d", "n", "n", "s")
    said = {row[0].value: row[1].value for row in book["totals"].iter_rows(min_row=2)}
    assert said["rows"] == result.rows
    assert Decimal(str(said["credits_total"])) == result.totals["credits_total"]
    meta = {row[0].value: row[1].value for row in book["meta"].iter_rows(min_row=2)}
    assert (meta["times"], meta["timezone"], meta["dataset"]) == ("UTC", "Europe/Berlin", "usage-events")


def test_parquet_has_exact_decimals_utc_times_and_its_own_manifest(service, tmp_path):
    result = service.exports.write(asked("parquet"), EVERYONE, tmp_path / "out.parquet")
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert schema.names == list(FLAT_FIELDS)
    assert all(pa.types.is_decimal(schema.field(f"credits_{part}").type) for part in ("ai_tokens", "total"))
    assert pa.types.is_decimal(schema.field("amount_usd").type)
    assert schema.field("timestamp").type == pa.timestamp("us", tz="UTC")
    said = json.loads(schema.metadata[b"billing"])
    assert said["rows"] == result.rows
    assert said["totals"]["amount_usd"] == result.to_json()["totals"]["amount_usd"]


def test_chosen_columns_come_in_their_order(service, tmp_path):
    for form in TABLES:
        service.exports.write(asked(form, columns=("credits_total", "id")), EVERYONE, tmp_path / "out")
        rows = read(tmp_path / "out", form)
        assert set(rows[0]) == {"credits_total", "id"}
    assert service.exports.columns(asked(columns=("credits_total", "id"))) == ("credits_total", "id")


def test_days_are_days_of_the_timezone_asked_for(service, tmp_path):
    for zone, first in (("Pacific/Kiritimati", "2026-11-02"), ("America/Los_Angeles", "2026-11-01")):
        service.exports.write(asked(grain=Grain.DAY, timezone=zone), EVERYONE, tmp_path / "out.csv")
        assert min(row["day"] for row in read(tmp_path / "out.csv", "csv")) == first


def test_the_manifest_says_what_the_file_is_made_of(service, tmp_path):
    request = asked(**{"from": "2026-11-01", "to": "2026-12-01"}, organization="org_a")
    result = service.exports.write(request, EVERYONE, tmp_path / "out.csv")
    said = json.loads((tmp_path / "out.csv.manifest.json").read_text(encoding="utf-8"))
    assert said == result.to_json()
    data = (tmp_path / "out.csv").read_bytes()
    assert (said["bytes"], said["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert said["filter"] == {"organization": ["org_a"]}
    assert said["window"] == {"from": "2026-10-31T23:00:00.000Z", "to": "2026-11-30T23:00:00.000Z"}
    assert (said["timezone"], said["currency"], said["schema"]) == ("Europe/Berlin", "USD", "billing/1")
    assert said["rate_card_versions"] == ["builtin-1"]


# ── twice the same ───────────────────────────────────────────────────────────────────────────────

KINDS = [
    *((form, "usage-events") for form in Format),
    *((form, dataset) for dataset in ("organizations", "customers", "rate-card") for form in TABLES),
    (None, "bundle"),
]


@pytest.mark.parametrize(("form", "dataset"), KINDS)
def test_the_same_request_gives_the_same_bytes_with_or_without_a_file(service, tmp_path, form, dataset):
    request = asked(form, dataset)
    first = service.exports.write(request, EVERYONE, tmp_path / "one")
    again = service.exports.write(request, EVERYONE, tmp_path / "two")
    assert first.sha256 == again.sha256 == service.exports.digest(request, EVERYONE).sha256
    assert hashlib.sha256((tmp_path / "one").read_bytes()).hexdigest() == first.sha256


def test_another_process_writes_the_same_bytes(tmp_path):
    path = tmp_path / "billing.duckdb"
    service = service_over(path, mixed_rows())
    ours = {form: service.exports.digest(asked(form), EVERYONE).sha256 for form in ("csv", "xlsx", "parquet")}
    service.close()
    code = f"""
        from pathlib import Path
        from tests.factories import EVERYONE, service_over
        from tests.exports.exported import asked
        service = service_over(Path({str(path)!r}))
        for form in ("csv", "xlsx", "parquet"):
            print(form, service.exports.digest(asked(form), EVERYONE).sha256)
    """
    other = {**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7", "LC_ALL": "C"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=other).stdout
    assert dict(line.split() for line in said.splitlines()) == ours


def test_a_state_of_the_ledger_stays_as_it_was_while_more_is_booked(tmp_path):
    service = service_over(tmp_path / "billing.duckdb", mixed_rows(10))
    shown = service.exports.preview(asked(), EVERYONE)
    request = asked(as_of=shown.as_of)
    before = service.exports.digest(request, EVERYONE)
    service._ledger.book(events_table([usage_row(id="later"), usage_row(id="id-001", latency_seconds=9)]), run_id="b")
    assert service.exports.digest(request, EVERYONE).sha256 == before.sha256
    assert before.totals == shown.totals
    assert service.exports.digest(asked(), EVERYONE).rows == 11
    service.close()


# ── preview ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", Format)
def test_a_preview_counts_and_totals_what_the_file_then_has(service, tmp_path, form):
    for request in (asked(form), asked(form, search="no such thing")):
        shown = service.exports.preview(request, EVERYONE, rows=5)
        result = service.exports.write(request, EVERYONE, tmp_path / "out")
        assert (shown.total_rows, shown.totals) == (result.rows, result.totals)
        local = [name for name in shown.columns if name.endswith("(Europe/Berlin)")]
        assert bool(local) == (form is Format.CSV_EUROPE)
        assert tuple(name for name in shown.columns if name not in local) == service.exports.columns(request)
        assert len(shown.rows) == min(5, result.rows)
        if form is Format.CSV and result.rows:
            first = read(tmp_path / "out", form)[0]
            assert dict(zip(shown.columns, shown.rows[0], strict=True)) == first


# ── who may ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("dataset", [one for one in Dataset if one is not Dataset.USAGE_EVENTS])
def test_analysts_export_usage_events_only(service, tmp_path, dataset):
    form = None if dataset is Dataset.BUNDLE else "csv"
    for call in (service.exports.preview, service.exports.digest):
        with pytest.raises(AccessDenied):
            call(asked(form, dataset), ANALYST)
    with pytest.raises(AccessDenied):
        service.exports.write(asked(form, dataset), ANALYST, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_nothing_of_other_organizations_leaves(service, tmp_path):
    service.exports.write(asked(), LIMITED, tmp_path / "out.csv")
    assert {row["organization_id"] for row in read(tmp_path / "out.csv", "csv")} == {"org_a", "org_b"}
    with pytest.raises(AccessDenied):
        service.exports.write(asked(organization="org_c"), LIMITED, tmp_path / "no.csv")
    with pytest.raises(AccessDenied, match="cannot be cut"):
        service.exports.write(asked("csv", "reconciliation"), LIMITED, tmp_path / "no.csv")


def test_cost_and_margin_are_not_for_analysts(service):
    with pytest.raises(AccessDenied):
        service.exports.digest(asked("focus", internal=True), ANALYST)
    assert service.exports.digest(asked("focus", internal=True), FINANCE).rows


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (asked("focus", "organizations"), "format"),
        (asked(None), "format"),
        (asked("csv", "bundle"), "format"),
        (asked(separator=":"), "separator"),
        (asked(timezone="Mars/Olympus"), "timezone"),
        (asked(columns=("id", "nothing")), "columns"),
        (asked(columns=("id", "id")), "columns"),
        (asked("focus", grain=Grain.DAY), "grain"),
        (asked("focus", columns=("Tags",)), "columns"),
        (asked("csv", "rate-card", organization="org_a"), "organization"),
        (asked("csv", "reconciliation", **{"from": "2026-11-01"}), "to"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(service, tmp_path, request_, named):
    with pytest.raises(BadParameter) as refused:
        service.exports.write(request_, EVERYONE, tmp_path / "out")
    assert refused.value.parameter == named
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_refused_in_one_line(service, tmp_path):
    with pytest.raises(BadParameter, match="out: "):
        service.exports.write(asked(), EVERYONE, tmp_path / "nowhere" / "out.csv")


def test_nothing_reconciled_yet_is_said(service):
    with pytest.raises(NotFound, match="nothing has been reconciled"):
        service.exports.digest(asked("csv", "reconciliation"), EVERYONE)
    window = {"from": "2026-11-01", "to": "2026-11-02"}
    with pytest.raises(NotFound, match="not been reconciled yet"):
        service.exports.preview(asked("csv", "reconciliation", **window), EVERYONE)


# ── the journal of who took what ─────────────────────────────────────────────────────────────────


def test_an_export_is_audited_by_name_and_hash_and_a_digest_is_not(tmp_path):
    service = service_over(tmp_path / "billing.duckdb", mixed_rows(5))
    service.exports.digest(asked(), FINANCE)
    service.exports.preview(asked(), FINANCE)
    result = service.exports.write(asked(organization="org_a"), FINANCE, tmp_path / "mine.csv")
    entries = [one for one in service._ledger.audit_entries() if one["action"] == "export"]
    assert [one["actor"] for one in entries] == ["flo"]
    said = json.loads(entries[0]["detail"])
    assert (said["file"], said["sha256"], said["rows"]) == ("mine.csv", result.sha256, result.rows)
    assert said["filter"] == {"organization": ["org_a"]}
    assert str(tmp_path) not in entries[0]["detail"]
    service.close()


def test_a_file_that_the_audit_log_could_not_note_is_not_there_and_the_former_one_is(tmp_path, monkeypatch):
    service = service_over(tmp_path / "billing.duckdb", mixed_rows(5))
    for name in ("mine.csv", "mine.csv.manifest.json"):
        (tmp_path / name).write_text("of last month")

    def full(*_):
        raise WarehouseError("the ledger: no space left")

    monkeypatch.setattr(service._ledger, "audit", full)
    with pytest.raises(WarehouseError):
        service.exports.write(asked(), FINANCE, tmp_path / "mine.csv")
    assert {one.read_text() for one in tmp_path.glob("mine*")} == {"of last month"}
    assert not list(tmp_path.glob(".mine*"))
    service.close()


# ── names ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (asked(**{"from": "2026-10-01", "to": "2026-11-01"}), "usage-events_2026-10_Europe-Berlin.csv"),
        (asked(**{"from": "2026-01-01", "to": "2027-01-01"}), "usage-events_2026_Europe-Berlin.csv"),
        (asked(**{"from": "2026-10-05", "to": "2026-10-06"}), "usage-events_2026-10-05_Europe-Berlin.csv"),
        (
            asked(**{"from": "2026-10-01", "to": "2026-12-01"}),
            "usage-events_2026-10-01_to_2026-11-30_Europe-Berlin.csv",
        ),
        (asked(timezone="UTC", to="2026-11-01"), "usage-events_beginning_to_2026-10-31_UTC.csv"),
        (asked("xlsx", **{"from": "2026-10-01T09:30"}), "usage-events_2026-10-01T093000_until_now_Europe-Berlin.xlsx"),
        (asked("json", grain=Grain.DAY), "usage-events-by-day_all-time_Europe-Berlin.json"),
        (asked("focus", parquet=True), "usage-events-focus_all-time_Europe-Berlin.parquet"),
        (asked("journal", to="2026-11-01"), "usage-events-journal_beginning_to_2026-10-31_Europe-Berlin.csv"),
        (asked(None, "bundle"), "bundle_all-time_Europe-Berlin.zip"),
        (asked("parquet", "customers", to="2026-11-01"), "customers.parquet"),
    ],
)
def test_a_file_has_a_name_that_says_what_it_is(service, request_, name):
    assert service.exports.file_name(request_) == name


# ── stopped ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("form", [*TABLES, Format.FOCUS])
def test_a_cancelled_export_leaves_nothing_and_the_old_file_as_it_was(service, tmp_path, form):
    path = tmp_path / "out"
    path.write_text("the old file")
    seen = []
    with pytest.raises(Cancelled):
        service.exports.write(
            asked(form), EVERYONE, path, progress=seen.append, cancelled=lambda: len(seen) > 0 and seen[-1].rows > 0
        )
    assert path.read_text() == "the old file"
    assert [one.name for one in tmp_path.iterdir()] == ["out"]


def test_progress_ends_with_every_row(service, tmp_path):
    seen = []
    result = service.exports.write(asked(), EVERYONE, tmp_path / "out", progress=seen.append)
    assert (seen[-1].rows, seen[-1].total) == (result.rows, result.rows)


KILLED_WHILE_WRITING = """
    import os, signal, sys
    from pathlib import Path
    from tests.factories import EVERYONE, service_over
    from tests.exports.exported import asked
    from billing_core.exports import hashing_file
    written = hashing_file.HashingSink.write
    def write(self, data):
        written(self, data)
        if self.bytes > int(sys.argv[3]):
            self._target.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    hashing_file.HashingSink.write = write
    service = service_over(Path(sys.argv[1]))
    service.exports.write(asked(), EVERYONE, Path(sys.argv[2]))
"""


@pytest.mark.parametrize("old", [None, "the old file"])
def test_an_export_that_is_killed_leaves_no_half_file_and_the_next_one_cleans_up(tmp_path, old):
    path, ledger = tmp_path / "out" / "usage.csv", tmp_path / "billing.duckdb"
    path.parent.mkdir()
    if old is not None:
        path.write_text(old)
    ledger_at(ledger, mixed_rows()).engine.close()
    command = [sys.executable, "-c", textwrap.dedent(KILLED_WHILE_WRITING), str(ledger), str(path), "2000"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert (path.read_text() if path.exists() else None) == old
    assert [one for one in path.parent.iterdir() if one.suffix == ".part"]
    service = service_over(ledger)
    service.exports.write(asked(), EVERYONE, path)
    assert sorted(one.name for one in path.parent.iterdir()) == ["usage.csv", "usage.csv.manifest.json"]
    assert len(read(path, "csv")) == 60
    service.close()
