"""Rows of hostile and broken files: refused with the row and why, and never held in memory whole."""

from __future__ import annotations

import json
import resource
import time
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.imports import readers as import_rows
from billing_core.imports.bounds import LARGEST_PIECE, Unusable
from billing_core.imports.detection import detect_file
from billing_core.imports.readers import batches, json_header
from billing_core.types import FLAT_FIELDS
from billing_core.values.csv_cells import csv_line
from tests.imports.world import as_csv, as_json, line

HEADER = "id,timestamp,sync_status\n"


def text(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return detect_file(path)[0]


def read(file, header=None):
    """Columns of all rows, and the rows that have another shape."""
    header = header or file.header
    columns = {name: [] for name in header}
    rejected, numbers = [], []
    for batch in batches(file, header):
        numbers += batch.numbers
        rejected += [(one.row, one.field) for one in batch.rejected]
        for name in header:
            columns[name] += batch.columns[name].to_pylist()
    return columns, numbers, rejected


def broken(file):
    """Row, field and reason of where a file ends to be one."""
    with pytest.raises(Unusable) as caught:
        read(file, file.header or json_header(file))
    return caught.value.row, caught.value.field, caught.value.reason


def test_rows_are_numbered_from_the_first_one_with_data_and_blank_lines_do_not_count(tmp_path):
    file = text(tmp_path / "f", HEADER + "a,x,y\r\n\r\nb,x,y\n")
    columns, numbers, _ = read(file)
    assert columns["id"] == ["a", "b"]
    assert numbers == [1, 2]


def test_a_row_with_too_few_or_too_many_cells_is_named_and_the_others_are_read(tmp_path):
    columns, _, rejected = read(text(tmp_path / "f", HEADER + "a,x,y\nb,x\nc,x,y,z\nd,x,y\n"))
    assert columns["id"] == ["a", "d"]
    assert rejected == [(2, "row"), (3, "row")]


def test_cells_hold_what_they_held_before_they_were_neutralised(tmp_path):
    file = text(tmp_path / "f", HEADER + "'=1+1,'@x,''-1\n'plain,=raw,\n")
    assert read(file)[0] == {"id": ["=1+1", "'plain"], "timestamp": ["@x", "=raw"], "sync_status": ["'-1", None]}


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")), min_size=3, max_size=3))
def test_any_text_comes_back_from_a_csv_file(tmp_path_factory, cells):
    path = tmp_path_factory.mktemp("csv") / "f"
    path.write_bytes((csv_line(["id", "timestamp", "sync_status"]) + csv_line(["x", *cells[1:]])).encode())
    columns, _, _ = read(detect_file(path)[0])
    assert [columns["timestamp"], columns["sync_status"]] == [[cell or None] for cell in cells[1:]]


@pytest.mark.parametrize(
    ("content", "row", "says"),
    [
        (HEADER + 'a,"never closed\nb,x,y\n', 1, "never closed"),
        (HEADER + 'a,x,y\nb,"x"z,y\n', 2, "is not valid CSV from here on"),
        (HEADER + "a,x,y\n" + "b," + "x" * 200_000 + ",y\n", 2, "more than 100,000 characters"),
        (HEADER + "x" * 3_000_000, 1, "more than 2,000,000 characters"),
        (HEADER + "a," + '"x\n",' * 900_000, 1, "more than 2,000,000 characters"),
    ],
)
def test_broken_csv_is_refused_with_the_row_it_breaks_in(tmp_path, content, row, says):
    found = broken(text(tmp_path / "f", content))
    assert found[0] == row
    assert says in found[2]


def test_json_rows_have_nested_or_flat_credits_and_exact_numbers(tmp_path):
    nested = {"id": "a", "sync_status": "pending", "credits": {"total": 1.5}, "models": ["m"], "timestamp": None}
    file = as_json(tmp_path / "f", [nested])
    header = json_header(detect_file(file)[0])
    assert header == ("id", "sync_status", "credits_total", "models", "timestamp")
    columns, _, _ = read(detect_file(file)[0], header)
    assert columns["credits_total"] == ["1.5"]
    assert columns["models"] == ['["m"]']
    assert columns["timestamp"] == [None]


def test_json_numbers_never_become_binary_floats(tmp_path):
    content = (
        '{"meta": {}, "rows": [{"id": "a", "sync_status": "x", "timestamp": 0.1000000000000000055511151231257827}]}'
    )
    file = text(tmp_path / "f", content)
    assert read(file, json_header(file))[0]["timestamp"] == ["0.1000000000000000055511151231257827"]


def test_json_rows_of_other_names_are_named(tmp_path):
    rows = [line("a"), {**line("b"), "secret": "x"}, {k: v for k, v in line("c").items() if k != "user_id"}, 7]
    file = detect_file(as_json(tmp_path / "f", rows))[0]
    assert read(file, json_header(file))[2] == [(2, "'secret'"), (3, "user_id"), (4, "row")]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ('[{"id": "a", "sync_status": NaN}]', "NaN is not a JSON number"),
        ('[{"id": "a", "sync_status": -Infinity}]', "-Infinity is not a JSON number"),
        ('[{"id": "a", "id": "b", "sync_status": "x"}]', "occurs twice"),
        ('[{"id": "a", "sync_status": ' + "[" * 100_000 + "]" * 100_000 + "}]", "nested too deeply"),
        ('[{"id": "a", "sync_status": "x"}, {"id": "b", "sync', "cut off or damaged"),
        ('[{"id": "a", "sync_status": "x"}', "the file ends"),
        ('[{"id": "a", "sync_status": "x"} {"id": "b"}]', "where one of , ] is expected"),
        ('[{"id": "a", "sync_status": "' + "x" * 3_000_000 + '"}]', "more than 2,000,000 characters"),
        ('[{"id": ' + "9" * 5000 + ', "sync_status": "x"}]', "cut off or damaged"),
    ],
)
def test_broken_json_is_refused(tmp_path, rows, says):
    content = '{"meta": {"dataset": "usage-events"}, "rows": ' + rows + ("}" if rows.endswith("]") else "")
    assert says in broken(text(tmp_path / "f", content))[2]


def test_json_whose_first_row_has_no_names_is_not_taken_for_empty(tmp_path):
    file = text(tmp_path / "f", '{"meta": {"dataset": "usage-events"}, "rows": [{}, {"id": "a"}]}')
    with pytest.raises(Unusable, match="an object without names"):
        json_header(file)


def test_json_that_goes_on_after_its_end_is_refused(tmp_path):
    content = '{"meta": {"dataset": "usage-events"}, "rows": [{"id": "a", "sync_status": "x"}]} and more'
    file = text(tmp_path / "f", content)
    with pytest.raises(Unusable, match="goes on after its end"):
        read(file, json_header(file))


def test_half_characters_that_json_can_spell_are_refused(tmp_path):
    rows = [line("a"), line("b", user_id="\ud800")]
    file = detect_file(as_json(tmp_path / "f", rows))[0]
    assert read(file, json_header(file))[2] == [(2, "user_id")]


def test_json_above_the_limit_is_refused_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(import_rows, "LARGEST_JSON", 1000)
    file = detect_file(as_json(tmp_path / "f", [line()] * 3))[0]
    with pytest.raises(Unusable, match=r"read up to 1,000: export as Parquet or CSV instead"):
        json_header(file)


def test_a_json_file_is_never_held_whole(tmp_path):
    """Forty megabytes, of which at most a few pieces are in memory."""
    file = detect_file(as_json(tmp_path / "f", [line(f"trace-{n}") for n in range(40_000)]))[0]
    header = json_header(file)
    tracemalloc.start()
    count = 0
    for batch in batches(file, header, rows=500):
        count += len(batch.numbers)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 40_000
    assert file.bytes > 30_000_000
    assert peak < 12_000_000


def test_parquet_columns_are_text_whatever_their_type(tmp_path):
    from datetime import UTC, datetime
    from decimal import Decimal

    table = pa.table(
        {
            "id": pa.array(["a"]).dictionary_encode(),
            "timestamp": pa.array([datetime(2026, 11, 1, 12, tzinfo=UTC)], pa.timestamp("ns", tz="Europe/Berlin")),
            "sync_status": pa.array(["x"], pa.large_string()),
            "credits_total": pa.array([Decimal("0.000001")], pa.decimal128(18, 6)),
            "tokens_in": pa.array([5], pa.int16()),
            "has_error": pa.array([True]),
            "models": pa.array([["m"]]),
        }
    )
    pq.write_table(table, tmp_path / "f")
    columns, _, _ = read(detect_file(tmp_path / "f")[0])
    assert {name: values[0] for name, values in columns.items()} == {
        "id": "a",
        "timestamp": "2026-11-01 12:00:00.000000Z",
        "sync_status": "x",
        "credits_total": "0.000001",
        "tokens_in": "5",
        "has_error": "true",
        "models": '["m"]',
    }


def test_parquet_with_binary_floats_for_money_is_refused(tmp_path):
    pq.write_table(pa.table({"id": ["a"], "sync_status": ["x"], "credits_total": [0.1]}), tmp_path / "f")
    assert broken(detect_file(tmp_path / "f")[0])[1:] == (
        "credits_total",
        "holds binary floating point numbers (double), which are not exact; expected DECIMAL or text",
    )


def test_parquet_whose_text_is_no_utf8_is_refused(tmp_path):
    bad = pa.array([b"\xff"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"id": bad, "sync_status": ["x"], "timestamp": ["y"]}), tmp_path / "f")
    assert "damaged" in broken(detect_file(tmp_path / "f")[0])[2]


def test_parquet_damaged_inside_is_refused(tmp_path):
    header = list(FLAT_FIELDS)
    rows = [line(f"trace-{n}") for n in range(2000)]
    pq.write_table(pa.table({n: [r[n] for r in rows] for n in header}), tmp_path / "f", compression="gzip")
    content = bytearray((tmp_path / "f").read_bytes())
    content[200:400] = b"\xff" * 200
    (tmp_path / "f").write_bytes(content)
    assert "damaged" in broken(detect_file(tmp_path / "f")[0])[2]


def test_reading_a_large_csv_takes_no_more_memory_than_a_small_one(tmp_path):
    file = detect_file(as_csv(tmp_path / "f", [line(f"trace-{n}") for n in range(60_000)]))[0]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert sum(len(batch.numbers) for batch in batches(file, file.header, rows=1000)) == 60_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000  # kilobytes


@pytest.mark.parametrize("write", [as_csv, as_json])
def test_rows_of_long_cells_are_read_fewer_at_a_time(tmp_path, write):
    rows = [line(f"trace-{n}", user_id="x" * 90_000, session_id="y" * 90_000) for n in range(250)]
    path = write(tmp_path / "f", rows)
    file = detect_file(path)[0]
    found = [
        (len(batch.numbers), sum(column.nbytes for column in batch.columns.values()))
        for batch in batches(file, file.header or json_header(file))
    ]
    assert sum(count for count, _ in found) == 250
    assert max(size for _, size in found) < LARGEST_PIECE + 1_000_000


def test_a_key_that_is_there_twice_among_very_many_is_found_at_once(tmp_path):
    names = ", ".join(f'"{n}": 1' for n in [*range(150_000), 149_999])
    file = text(tmp_path / "f", '{"meta": {"dataset": "usage-events"}, "rows": [{' + names + "}]}")
    began = time.monotonic()
    assert "the key '149999' occurs twice" in broken(file)[2]
    assert time.monotonic() - began < 20


def test_more_names_than_any_table_has_are_not_read(tmp_path):
    names = [f"column_{n}" for n in range(300)]
    header = ",".join(["id", "timestamp", *names])
    assert "has 302 columns; at most 200 are read" in look_at(tmp_path / "f", header + "\n")
    row = {"id": "a", "sync_status": "x", **dict.fromkeys(names, 1)}
    with pytest.raises(Unusable, match="has 302 names; at most 200"):
        json_header(detect_file(as_json(tmp_path / "g", [row]))[0])
    beside = json.dumps({"meta": {"dataset": "usage-events"}, "rows": [], **dict.fromkeys(names, 1)})
    with pytest.raises(Unusable, match="has more than 200 keys beside its rows"):
        json_header(text(tmp_path / "h", beside))


def look_at(path, content):
    path.write_text(content)
    return detect_file(path)[1]


def test_keys_of_json_are_those_of_the_first_row(tmp_path):
    (tmp_path / "f").write_text(json.dumps({"meta": {"dataset": "usage-events"}, "rows": []}))
    assert json_header(detect_file(tmp_path / "f")[0]) == ()
