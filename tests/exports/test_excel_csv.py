"""CSV as spreadsheets in Europe open it: sums are sums, times are local and say of where, nothing exact is lost."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.exports.excel_csv import local_name, local_times
from billing_core.exports.model import Dataset, ExportRequest, Format
from billing_core.types import GetUsageEventsParams
from tests.factories import EVERYONE
from tests.lived_in import ZONE, copied, service_at

zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe"])
instants = st.datetimes(datetime(1990, 1, 1), datetime(2037, 1, 1), timezones=st.just(UTC))


@given(times=st.lists(st.none() | instants, max_size=6), zone=zones)
def test_times_are_those_of_the_clocks_there(times, zone):
    found = local_times(pa.array(times, pa.timestamp("us", tz="UTC")), ZoneInfo(zone)).to_pylist()
    expected = [None if at is None else f"{at.astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M:%S}" for at in times]
    assert found == expected


@pytest.fixture(scope="module")
def lived_in(tmp_path_factory):
    service = service_at(copied(tmp_path_factory, tmp_path_factory.mktemp("asked")))
    yield service
    service.close()


def test_a_spreadsheet_adds_up_what_the_screen_shows(lived_in, tmp_path):
    asked = ExportRequest(Dataset.USAGE_EVENTS, Format.CSV_EUROPE)
    result = lived_in.exports.write(asked, EVERYONE, tmp_path / "events.csv")
    data = (tmp_path / "events.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig")), delimiter=";"))
    shown = lived_in.get_usage_events(GetUsageEventsParams(), EVERYONE).totals
    assert not any("." in row["amount_usd"] or "." in row["credits_total"] for row in rows)
    assert sum(Decimal(row["amount_usd"].replace(",", ".")) for row in rows) == shown.amount_usd
    assert sum(Decimal(row["credits_total"].replace(",", ".")) for row in rows) == shown.credits.total
    assert result.rows == len(rows)
    for row in rows:
        at = datetime.fromisoformat(row["timestamp"]).astimezone(ZoneInfo(ZONE))
        assert row[f"timestamp ({ZONE})"] == f"{at:%Y-%m-%d %H:%M:%S}"


def test_the_preview_shows_what_the_file_holds_and_columns_are_chosen_by_their_names(lived_in):
    asked = ExportRequest(Dataset.USAGE_EVENTS, Format.CSV_EUROPE, columns=("id", "timestamp", "credits_total"))
    preview = lived_in.exports.preview(asked, EVERYONE, rows=3)
    assert preview.columns == ("id", "timestamp", f"timestamp ({ZONE})", "credits_total")
    assert lived_in.exports.columns(asked) == ("id", "timestamp", "credits_total")


def test_local_times_of_utc_are_not_taken_for_the_times_themselves():
    assert local_name("timestamp", ZoneInfo("UTC")) == "timestamp (Etc/UTC)"
    assert local_name("timestamp", ZoneInfo("Europe/Berlin")) == "timestamp (Europe/Berlin)"
