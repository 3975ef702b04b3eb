"""A time in a file is the instant it says, or is refused: never another one."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.exports.model import Dataset, ExportRequest
from billing_core.imports.times import Unclear, instant_of
from billing_core.types import FLAT_FIELDS
from tests.factories import EVERYONE, usage_row
from tests.imports.world import ImportWorld, as_csv, line, reasons

ZONES = st.sampled_from(
    ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Cairo"]
).map(ZoneInfo)
INSTANTS = st.datetimes(datetime(2001, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC))
FORMS = st.sampled_from(["%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d %H:%M:%S,%f", "%Y%m%dT%H%M%S.%f"])


@given(INSTANTS, ZONES, FORMS)
def test_a_wall_clock_time_is_its_instant_or_the_clock_showed_it_twice(instant, zone, form):
    local = instant.astimezone(zone)
    is_twice = local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()
    if is_twice:
        with pytest.raises(Unclear, match="occurs twice"):
            instant_of(local.strftime(form), zone)
    else:
        assert instant_of(local.strftime(form), zone) == instant


@given(INSTANTS, FORMS)
def test_a_wall_clock_time_of_no_timezone_is_never_an_instant(instant, form):
    with pytest.raises(Unclear, match="--timezone"):
        instant_of(instant.strftime(form), None)


@given(INSTANTS, ZONES, ZONES, st.sampled_from(["Z", " UTC", "GMT"]))
def test_an_offset_counts_whatever_timezone_is_named(instant, zone, named, utc):
    assert instant_of(instant.astimezone(zone).isoformat(), named) == instant
    assert instant_of(instant.strftime("%Y-%m-%d %H:%M:%S.%f") + utc, named) == instant


@pytest.mark.parametrize(
    ("text", "zone", "says"),
    [
        ("2026-10-25T02:30:00", "Europe/Berlin", "2026-10-25T02:30:00+02:00 or 2026-10-25T02:30:00+01:00"),
        ("2026-03-29T02:30:00", "Europe/Berlin", "does not exist in Europe/Berlin"),
        ("2026-10-04T02:15:00", "Australia/Lord_Howe", "does not exist"),
        ("2011-12-30T12:00:00", "Pacific/Apia", "does not exist"),
    ],
)
def test_hours_that_are_there_twice_or_never_are_named(text, zone, says):
    with pytest.raises(Unclear) as caught:
        instant_of(text, ZoneInfo(zone))
    assert says in str(caught.value)


@pytest.mark.parametrize("text", ["", "noon", "01.11.2026 12:00", "11/1/2026 12:00", "46327.5", "1762000000000"])
def test_other_texts_are_no_times(text):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        instant_of(text, ZoneInfo("UTC"))
    assert not isinstance(caught.value, Unclear)


NOON = datetime(2026, 11, 1, 12)
KINDS = [pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("ms"), pa.timestamp("s")]


def parquet_with(path, kind, **options):
    """One event whose times are of this type."""
    columns = {name: pa.array([line()[name] or None], pa.string()) for name in FLAT_FIELDS}
    for name, at in (("timestamp", NOON), ("ended_at", NOON + timedelta(minutes=1))):
        columns[name] = pa.array([at], pa.timestamp("us", tz=kind.tz)).cast(kind)
    pq.write_table(pa.table(columns), path, **options)
    return path


@pytest.mark.parametrize("options", [{}, {"use_deprecated_int96_timestamps": True}])
@pytest.mark.parametrize("kind", KINDS)
def test_parquet_times_that_are_not_adjusted_to_utc_are_refused_unless_their_timezone_is_named(tmp_path, kind, options):
    world = ImportWorld(tmp_path)
    path = parquet_with(tmp_path / "f", kind, **options)
    plan = world.plan(path)
    assert reasons(plan) == [(1, "timestamp"), (1, "ended_at")]
    assert "--timezone" in plan.rejected[0].reason
    world.desk.apply(world.plan(path, timezone="America/New_York"), EVERYONE)
    assert world.event().timestamp == NOON.replace(tzinfo=UTC) + timedelta(hours=5)


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_parquet_times_that_are_instants_stay_what_they_are(tmp_path, zone):
    world = ImportWorld(tmp_path)
    world.bring(parquet_with(tmp_path / "f", pa.timestamp("ns", tz=zone)), timezone="America/New_York")
    assert world.event().timestamp == NOON.replace(tzinfo=UTC)


def audited_import(world):
    return json.loads(next(e["detail"] for e in world.ledger.audit_entries() if e["action"] == "import"))


def test_the_timezone_an_import_was_told_stands_in_its_history_and_in_the_audit_log(tmp_path):
    world = ImportWorld(tmp_path)
    bare = line(timestamp="2026-11-01T12:00:00", ended_at="2026-11-01T12:01:00")
    path = as_csv(tmp_path / "f", [bare])
    world.bring(path, timezone="America/New_York")
    assert world.event().timestamp == datetime(2026, 11, 1, 17, tzinfo=UTC)
    detail = audited_import(world)
    assert (detail["timezone"], detail["without_offset"]) == ("America/New_York", 2)
    [record] = world.desk.imports(EVERYONE)
    assert (record.timezone, record.to_json()["timezone"]) == ("America/New_York", "America/New_York")


def test_an_import_that_was_told_no_timezone_names_none(tmp_path):
    world = ImportWorld(tmp_path)
    world.bring_lines(line())
    assert "timezone" not in audited_import(world)
    assert world.desk.imports(EVERYONE)[0].timezone is None


def test_a_bundle_hands_the_timezone_to_the_files_in_it(tmp_path):
    there = ImportWorld(tmp_path, [usage_row()], "there")
    there.service.exports.write(ExportRequest(Dataset.BUNDLE, None), EVERYONE, tmp_path / "b.zip")
    here = ImportWorld(tmp_path, (), "here")
    here.bring(tmp_path / "b.zip", timezone="Asia/Tokyo")
    assert audited_import(here)["timezone"] == "Asia/Tokyo"


@pytest.mark.parametrize("heading", ["timestamp (UTC)", "timestamp(UTC)", "timestamp (utc)", "timestamp\u00a0(UTC)"])
def test_a_heading_that_says_utc_is_understood_however_it_was_typed(tmp_path, heading):
    world = ImportWorld(tmp_path)
    bare = {**line(ended_at="2026-11-01T12:01:00Z"), heading: "2026-11-01T12:00:00"}
    path = as_csv(tmp_path / "f", [bare], header=[heading if name == "timestamp" else name for name in FLAT_FIELDS])
    world.bring(path)
    assert world.event().timestamp == NOON.replace(tzinfo=UTC)


def test_a_file_with_both_headings_of_a_time_is_refused(tmp_path):
    """Which of the two counts is not guessed."""
    world = ImportWorld(tmp_path)
    both = {**line(), "timestamp (UTC)": "2026-11-02T12:00:00"}
    plan = world.plan(as_csv(tmp_path / "f", [both], header=[*FLAT_FIELDS, "timestamp (UTC)"]))
    assert [(one.row, one.field) for one in plan.rejected] == [(0, "timestamp")]
    assert plan.can_apply is False
