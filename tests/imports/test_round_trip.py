"""Export, an empty ledger, import: identical events, statuses and totals. And back again: nothing changes."""

from __future__ import annotations

import csv
import io
import re
from datetime import timedelta
from decimal import Decimal
from tempfile import TemporaryDirectory

import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openpyxl.utils.escape import unescape

from billing_core.exports.model import TABLES, Dataset, ExportRequest, Format
from billing_core.imports.model import ImportOutcome
from billing_core.ledger.sync_queries import candidates
from billing_core.types import FLAT_FIELDS, SyncStatus
from tests.examples import examples
from tests.exports.exported import mixed_rows
from tests.factories import EVERYONE, NOON, model_usage, usage_row
from tests.imports.world import NOW, ImportWorld, as_csv, line, reasons
from tests.month_close.world import MonthWorld, trace

text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\x1f"), max_size=12)
named = st.none() | text
tokens = st.none() | st.integers(0, 10**9)


def money(places):
    return st.none() | st.decimals(0, 10**4, places=places, allow_nan=False, allow_infinity=False)


@st.composite
def usage(draw):
    """Anything a pull may have booked."""
    facts = {
        name: draw(named)
        for name in (
            "organization_id",
            "customer_id",
            "user_id",
            "session_id",
            "chatflow_id",
            "chatflow_name",
            "environment",
        )
    }
    models = sorted(draw(st.sets(text.filter(bool), max_size=3)))
    facts["environment"] = draw(st.sampled_from(["langfuse-evals", "sdk-experiment"]) | named)
    used = [draw(st.integers(0, 10**6)) for _ in models]  # every token of a model is in the sum (`langfuse.amounts`)
    counts = {name: draw(tokens) for name in ("tokens_in", "tokens_out")} | {"tokens_total": sum(used) or None}
    return {
        **facts,
        **counts,
        "models": models,
        "usage": [model_usage(m, cost_usd=None, input=n) for m, n in zip(models, used, strict=True)],
        "timestamp": NOON + timedelta(microseconds=draw(st.integers(0, 10**12))),
        "latency_seconds": Decimal(draw(st.integers(0, 10**9))) / 10**6,
        "storage_gb": draw(money(12)),
        "cost_usd": draw(money(12)),
        "observations": draw(st.integers(0, 99)),
        "has_error": draw(st.booleans()),
        "problems": draw(st.lists(st.sampled_from(["odd", "odder"]), max_size=2, unique=True)),
        "ai_credentials_ownership": draw(st.sampled_from([None, "user", "User", "platform"])),
        "legacy_status": draw(st.sampled_from([None, None, "processed"])),
        "legacy_total": draw(money(6)),
        "bad_usage": draw(st.booleans()),
        "trace_base": draw(st.sampled_from([None, "http://langfuse.test/project/p/traces/"])),
    }


ledgers = st.lists(st.tuples(text.filter(bool), usage()), max_size=5, unique_by=lambda one: one[0])
states = st.tuples(
    st.sampled_from(list(SyncStatus)),
    named,
    named,
    st.none() | st.integers(0, 10**6).map(lambda n: NOON + timedelta(milliseconds=n)),
    st.sampled_from(["", "carried", "changed_after_sending", "carried,changed_after_sending"]),
)


def booked_with(folder, name, rows, states):
    """A ledger whose events got as far as `states` say, where that is possible."""
    world = ImportWorld(folder, [usage_row(id=event_id, **facts) for event_id, facts in rows], name)
    world.now = NOW + timedelta(days=30)
    with world.ledger.engine.transaction() as writer:
        for (event_id, _), (status, error, identifier, synced_at, marks) in zip(rows, states, strict=False):
            writer.rows(
                """UPDATE events SET sync_status = CASE WHEN ? = 'excluded' AND credits_total <> 0 THEN sync_status
                   ELSE ? END, sync_error = ?, meter_event_identifier = ?, synced_at = ?, marks = ? WHERE id = ?""",
                [status.value, status.value, error, identifier, synced_at, marks, event_id],
            )
        writer.advance("test")
    return world


def in_text(published):
    """As far as a CSV file can tell: no text is empty text."""
    if isinstance(published, dict):
        return {name: in_text(value) for name, value in published.items()}
    if isinstance(published, list):
        return [in_text(value) for value in published]
    return None if published == "" else published


def exported(world, form, path):
    dataset = Dataset.BUNDLE if form is None else Dataset.USAGE_EVENTS
    world.service.exports.write(ExportRequest(dataset, form), EVERYONE, path)
    return path


@settings(max_examples=examples(12), suppress_health_check=list(HealthCheck))
@given(ledgers, st.lists(states, max_size=5), st.sampled_from([*TABLES, None]))
def test_any_ledger_comes_back_identical_from_an_empty_one_and_unchanged_into_itself(rows, states, form):
    from pathlib import Path

    with TemporaryDirectory() as name:
        folder = Path(name)
        there = booked_with(folder, "there", rows, states)
        here = ImportWorld(folder, (), "here")
        here.now = there.now
        path = exported(there, form, folder / "exported")
        result = here.bring(path)
        assert result.plan.rejected == ()
        same = in_text if form in {Format.CSV, Format.CSV_EUROPE, Format.XLSX} else lambda published: published
        assert same(here.published()) == same(there.published())
        before = there.content("audit", "imports")
        assert there.bring(path).outcome.changes == 0
        assert there.content("audit", "imports") == before
        assert here.bring(path).import_ids == ()
        here.service.close()
        there.service.close()


@pytest.mark.parametrize("form", [*TABLES, None])
def test_a_ledger_with_something_of_everything_round_trips(tmp_path, form):
    there = ImportWorld(tmp_path, mixed_rows(), "there")
    here = ImportWorld(tmp_path, (), "here")
    path = exported(there, form, tmp_path / "exported")
    assert here.bring(path).plan.rejected_rows == 0
    assert here.published() == there.published()
    assert there.bring(path).outcome == ImportOutcome(0, 0, here.plan(path).outcome.unchanged)


@pytest.mark.parametrize(("separator", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-16"), ("|", "utf-8")])
def test_a_file_that_a_spreadsheet_saved_again_round_trips(tmp_path, separator, encoding):
    there = ImportWorld(tmp_path, mixed_rows(), "there")
    here = ImportWorld(tmp_path, (), "here")
    saved = io.StringIO(newline="")
    with there.export().open(encoding="utf-8", newline="") as file:
        csv.writer(saved, delimiter=separator, quoting=csv.QUOTE_ALL).writerows(csv.reader(file))
    (tmp_path / "saved").write_bytes(saved.getvalue().encode(encoding))
    here.bring(tmp_path / "saved")
    assert here.published() == there.published()


def shown_in(cell, decimal_mark):
    """What a spreadsheet shows of a cell, which is what it saves as CSV."""
    value = cell.value
    if cell.is_date:
        text = f"{value:%Y-%m-%d %H:%M:%S.}{value.microsecond // 1000:03}"
        return (text + "Z" if cell.number_format.endswith('"Z"') else text).replace(".", decimal_mark)
    if isinstance(value, (int, float)):
        places = len(cell.number_format.partition(".")[2])
        text = f"{Decimal(f'{value:.15g}'):.{places}f}"
        text = text if places == 0 else text.rstrip("0") + ("0" if text.rstrip("0").endswith(".") else "")
        return text.replace(".", decimal_mark)
    return "" if value is None else unescape(str(value))


@pytest.mark.parametrize(("separator", "mark", "end"), [(",", ".", "\r\n"), (";", ",", "\n"), ("\t", ",", "\r")])
def test_a_workbook_that_is_saved_as_csv_moves_no_event_and_no_amount(tmp_path, separator, mark, end):
    there = ImportWorld(tmp_path, mixed_rows(), "there")
    sheet = openpyxl.load_workbook(exported(there, Format.XLSX, tmp_path / "f.xlsx"))["data"]
    with (tmp_path / "saved").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file, delimiter=separator, lineterminator=end)
        writer.writerows([shown_in(cell, mark) for cell in row] for row in sheet.iter_rows())
    for zone in ("America/New_York", "Asia/Tokyo"):
        here = ImportWorld(tmp_path, (), zone.replace("/", "-"), BILLING_TIMEZONE=zone)
        assert here.bring(tmp_path / "saved").plan.rejected == ()
        assert here.published() == there.published()


def test_a_workbook_that_a_spreadsheet_saved_again_round_trips(tmp_path):
    """With shared texts instead of texts in place, and cells of other forms."""
    there = ImportWorld(tmp_path, mixed_rows(), "there")
    here = ImportWorld(tmp_path, (), "here", BILLING_TIMEZONE="America/New_York")
    openpyxl.load_workbook(exported(there, Format.XLSX, tmp_path / "f.xlsx")).save(tmp_path / "again.xlsx")
    assert here.bring(tmp_path / "again.xlsx").plan.rejected == ()
    assert here.published() == there.published()
    assert there.bring(tmp_path / "again.xlsx").outcome.changes == 0


@pytest.mark.parametrize("heads", ["as exported", "flat names"])
@pytest.mark.parametrize("form", ["workbook", "csv with Z", "csv without"])
def test_a_workbook_comes_back_under_both_headings(tmp_path, heads, form):
    """`timestamp (UTC)` as exported, `timestamp` as the other formats and other programs call it."""
    there = ImportWorld(tmp_path, mixed_rows(), "there")
    book = openpyxl.load_workbook(exported(there, Format.XLSX, tmp_path / "f.xlsx"))
    sheet, path = book["data"], tmp_path / "again"
    if heads == "flat names":
        for cell in sheet[1]:
            cell.value = cell.value.removesuffix(" (UTC)")
    if form == "workbook":
        book.save(path)
    else:
        rows = [[shown_in(cell, ".") for cell in row] for row in sheet.iter_rows()]
        if form == "csv without":
            rows = [[re.sub(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+)Z$", r"\1", text) for text in row] for row in rows]
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    here = ImportWorld(tmp_path, (), "here", BILLING_TIMEZONE="America/New_York")
    if (heads, form) == ("flat names", "csv without"):
        assert {field for _, field in reasons(here.plan(path))} <= {"timestamp", "ended_at", "synced_at"}
        assert here.plan(path).without_offset > 0
        here.bring(path, timezone="UTC")
    else:
        assert here.bring(path).plan.rejected == ()
    assert here.published() == there.published()
    assert there.plan(path, timezone="UTC").outcome.changes == 0


def test_what_is_exported_of_closed_months_is_in_an_empty_ledger_what_it_is_now(tmp_path):
    """A closed month, a change and an event that came late: three rows for one event, one for the other."""
    there = MonthWorld(tmp_path / "there.duckdb", [trace("same"), trace("grown")])
    there.close()
    there.now += timedelta(hours=1)
    there.book(
        trace("grown", tokens_in=900, tokens_total=1300, usage=[model_usage(input=900, output=400)]), trace("late")
    )
    path = tmp_path / "exported.csv"
    there.service.exports.write(ExportRequest(Dataset.USAGE_EVENTS, Format.CSV), EVERYONE, path)
    assert sum("grown" in row for row in path.read_text().splitlines()) == 3
    here = ImportWorld(tmp_path, (), "here")
    here.now = NOW + timedelta(days=1000)
    result = here.bring(path)
    assert (result.plan.rejected, result.outcome.new) == ((), 3)
    then = {e["id"]: e["credits"]["total"] for e in here.published()["events"]}
    assert then == {"same": "150", "grown": "180", "late": "150"}
    assert here.published()["totals"] == there.service.get_usage_events(_everything(), EVERYONE).to_json()["totals"]
    before = there.shown({})
    again = there.service.imports.plan(path, EVERYONE)
    assert again.outcome == ImportOutcome(0, 0, 3)
    assert there.shown({}) == before


def test_events_of_closed_months_that_a_file_brings_count_in_the_open_one(tmp_path):
    world = MonthWorld(tmp_path / "a.duckdb", [trace("a")])
    source = ImportWorld(tmp_path, [trace("a", user_id="x"), trace("b")], "source")
    world.close()
    frozen = world.shown({"from": "2026-10-01", "to": "2026-11-01"})
    world.now = NOW
    plan = world.service.imports.plan(source.export(), EVERYONE)
    assert any("2 new or changed events lie in closed months" in warning for warning in plan.warnings)
    result = world.service.imports.apply(plan, EVERYONE)
    assert world.shown({"from": "2026-10-01", "to": "2026-11-01"}) == frozen
    assert sorted({row[0] for row in world.shown({"from": "2026-11-01"})}) == ["a", "b"]
    world.service.imports.undo(result.import_ids[0], EVERYONE)
    assert world.shown({"from": "2026-11-01"}) == []
    assert world.shown({"from": "2026-10-01", "to": "2026-11-01"}) == frozen


def test_nothing_of_a_round_trip_is_sent_that_was_sent_before(tmp_path):
    rows = [(f"e{n}", {}) for n in range(6)]
    sent = [
        (SyncStatus.PROCESSED, None, "usage_1", NOON, "changed_after_sending"),
        (SyncStatus.CONFIRMED, None, "usage_1", NOON, ""),
        (SyncStatus.SENDING, None, "usage_2", None, ""),
    ]
    there = booked_with(tmp_path, "there", rows, sent)
    here = ImportWorld(tmp_path, (), "here")
    here.now = there.now
    here.bring(there.export())
    ids = here.ledger.engine.read(candidates(there.now))["id"].to_pylist()
    assert sorted(ids) == ["e3", "e4", "e5"]


def _everything():
    from billing_core.types import GetUsageEventsParams

    return GetUsageEventsParams()


LINES = [
    {
        "model": None,
        "name": 'agent "run", é',
        "type": "AGENT",
        "level": "DEFAULT",
        "key": None,
        "quantity": None,
        "cost_usd": Decimal("0.000000000001"),
        "repeats": True,
        "unpriced": False,
    },
    {
        "model": "gpt-5",
        "name": None,
        "type": None,
        "level": None,
        "key": "prompt_tokens",
        "quantity": 600,
        "cost_usd": None,
        "repeats": False,
        "unpriced": True,
    },
    {
        "model": "gpt-5",
        "name": None,
        "type": None,
        "level": None,
        "key": "",
        "quantity": 400,
        "cost_usd": None,
        "repeats": False,
        "unpriced": True,
    },
]


def test_a_bundle_carries_what_rating_by_observation_key_and_active_time_needs(tmp_path):
    rows = [
        usage_row(id="known", usage_lines=LINES, active_seconds=Decimal("4.25")),
        usage_row(id="nothing", usage_lines=[], usage=[], active_seconds=Decimal(0), tokens_total=None),
        usage_row(id="unknown"),
    ]
    there = ImportWorld(tmp_path, rows, "there")
    here = ImportWorld(tmp_path, (), "here")
    assert here.bring(exported(there, None, tmp_path / "exported")).plan.rejected_rows == 0
    found = [
        world.service._ledger.engine.rows("SELECT id, usage_lines, active_seconds FROM events ORDER BY id")
        for world in (there, here)
    ]
    assert (
        found[0]
        == found[1]
        == [("known", LINES, Decimal("4.25")), ("nothing", [], Decimal(0)), ("unknown", None, None)]
    )


def test_a_file_without_them_leaves_what_the_ledger_knows(tmp_path):
    world = ImportWorld(tmp_path, [usage_row(id="known", usage_lines=LINES, active_seconds=Decimal("4.25"))], "there")
    path = exported(world, Format.CSV, tmp_path / "exported")
    text = path.read_text(encoding="utf-8-sig")
    path.write_text(text.replace("Support", "Sales"), encoding="utf-8")
    assert world.bring(path).outcome.changed == 1
    assert world.service._ledger.engine.rows("SELECT usage_lines, active_seconds FROM events") == [
        (LINES, Decimal("4.25"))
    ]


@pytest.mark.parametrize("cell", ["{", "[1]", '[{"model": "x"}]', "many"])
def test_lines_that_cannot_be_read_are_named(tmp_path, cell):
    world = ImportWorld(tmp_path, (), "here")
    path = as_csv(tmp_path / "events.csv", [line(usage_lines=cell)], header=(*FLAT_FIELDS, "usage_lines"))
    plan = world.plan(path)
    assert [(one.row, one.field) for one in plan.rejected] == [(1, "usage_lines")]
