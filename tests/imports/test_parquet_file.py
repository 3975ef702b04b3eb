"""Parquet files of a few kilobytes that stand for gigabytes: refused, or read in the memory that any file takes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from billing_core.exports.event_slices import SLICE_ROWS
from billing_core.exports.flat_schema import EXTRA_SCHEMA, FLAT_SCHEMA
from billing_core.exports.hashing_file import HashingSink
from billing_core.exports.parquet_file import write_parquet
from billing_core.exports.source import RowSource
from billing_core.imports.bounds import Unusable
from billing_core.imports.detection import detect_file
from billing_core.imports.parquet_child import listed_columns
from billing_core.imports.parquet_file import pieces
from billing_core.imports.readers import batches
from billing_core.types import FLAT_FIELDS
from tests.imports.read_in_process import ROOT, read_apart
from tests.imports.world import line

BOUND = 1_150
"""Megabytes: what the process that reads the file may take, and its own code."""

TEXTS = ("user_id", "session_id", "chatflow_id", "chatflow_name", "environment", "sync_error", "organization_id")

PLAIN = pa.schema([(name, pa.string()) for name in FLAT_FIELDS])


def repeated(value, rows):
    """A column of one value, as it is in memory once."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value], pa.string()))


def events(rows=1, **columns):
    return pa.table({name: columns.get(name, repeated(line()[name], rows)) for name in FLAT_FIELDS})


def nothing_but_lists(values):
    return pa.ListArray.from_arrays(pa.array([0, values], pa.int32()), pa.nulls(values, pa.string()))


def written(path, table, **how):
    pq.write_table(table, path, **{"compression": "zstd", **how})
    assert path.stat().st_size < 400_000
    return path


def plainly(path, size, rows):
    """Texts that stand there as often as they occur, in one page."""
    column = pa.array(["x" * size] * rows)
    return written(path, events(rows, user_id=column).cast(PLAIN), use_dictionary=False, data_page_size=1 << 30)


@pytest.mark.parametrize(
    ("columns", "rows", "says"),
    [
        ({"user_id": repeated("x" * 1_000_000, 20_000)}, 20_000, "user_id: has a cell of more than 100,000 characters"),
        (dict.fromkeys(TEXTS, repeated("x" * 99_000, 20_000)), 20_000, "unpacks to more than 134,217,728 bytes"),
        ({"user_id": repeated("x" * 99_000, 900)}, 900, "user_id: has 99,000 characters; at most 10,000"),
        (dict.fromkeys(TEXTS[:5], nothing_but_lists(30_000_000)), 1, "takes more than 1,024 MB of memory to read"),
        ({"models": nothing_but_lists(5_000_000)}, 1, "models: has lists of more than 16,777,216 bytes"),
    ],
)
def test_what_is_repeated_is_not_unpacked(tmp_path, columns, rows, says):
    reason, megabytes = read_apart(written(tmp_path / "f", events(rows, **columns)))
    assert says in reason
    assert megabytes < BOUND


@pytest.mark.parametrize(
    ("size", "rows", "says"),
    [
        (50_000_000, 1, "user_id: has a cell of more than 100,000"),
        (90_000, 1_000, "user_id: has 90,000 characters; at most 10,000"),
    ],
)
def test_what_is_compressed_is_not_unpacked_beyond_what_memory_is_for(tmp_path, size, rows, says):
    reason, megabytes = read_apart(plainly(tmp_path / "f", size, rows))
    assert says in reason
    assert megabytes < BOUND


def test_few_rows_of_long_texts_are_read_a_few_at_a_time_and_none_is_lost(tmp_path):
    ids = [f"trace-{n}" for n in range(3_000)]
    path = written(tmp_path / "f", events(3_000, id=pa.array(ids), user_id=repeated("x" * 9_000, 3_000)))
    found = list(batches(detect_file(path)[0], FLAT_FIELDS))
    assert [one for batch in found for one in batch.columns["id"].to_pylist()] == ids
    assert [one for batch in found for one in batch.numbers] == list(range(1, 3_001))
    assert max(sum(column.nbytes for column in batch.columns.values()) for batch in found) < 20_000_000


def test_a_column_whose_values_are_too_many_to_list_is_not_read_as_a_list_of_them(tmp_path):
    ids = pc.binary_join_element_wise("trace-of-some-length", pa.array(range(100_000)).cast(pa.string()), "-")
    pq.write_table(pa.table({"id": ids, "user_id": repeated("x" * 500_000, 100_000)}), tmp_path / "f")
    assert listed_columns(pq.read_metadata(tmp_path / "f")) == ["user_id"]


def test_an_export_of_ours_is_read_even_if_no_column_ever_repeats_a_value(tmp_path):
    """Lists of values are what a reader holds; they are longest where they help least."""
    numbers = pa.array(range(SLICE_ROWS))
    schema = pa.schema([*FLAT_SCHEMA, *EXTRA_SCHEMA])

    def different(field):
        if pa.types.is_string(field.type):
            return pc.binary_join_element_wise(field.name[:2], numbers.cast(pa.string()), "")
        kind = field.type
        if pa.types.is_decimal(kind):
            return numbers.cast(pa.decimal128(19, 0)).cast(pa.decimal128(38, kind.scale)).cast(kind)
        return pc.equal(numbers, 0) if pa.types.is_boolean(kind) else numbers.cast(kind)

    table = pa.Table.from_arrays([different(field) for field in schema], schema=schema)
    source = RowSource(schema, SLICE_ROWS, {}, {}, lambda: iter((table,)))
    with (tmp_path / "f").open("w+b") as file:
        write_parquet(HashingSink(file), source, [table], {})
        file.flush()
    assert sum(len(columns["id"]) for _, columns in pieces(tmp_path / "f", 20_000)) == SLICE_ROWS


def test_a_process_that_is_stopped_while_it_reads_is_said_to_be(tmp_path, monkeypatch):
    stopped = tmp_path / "python"
    stopped.write_text("#!/bin/sh\nkill -9 $$\n")
    stopped.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(stopped))
    with pytest.raises(Unusable, match=r"ended the process that reads it \(code -9\): it is damaged, or takes more"):
        list(pieces(written(tmp_path / "f", events()), 1000))


def test_the_process_that_reads_ends_when_nobody_wants_its_rows_any_more(tmp_path):
    path = written(tmp_path / "f", events(20_000))
    command = [sys.executable, "-m", "billing_core.imports.parquet_child", str(path), "1000"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout.read(1)
        process.stdout.close()
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("kind", "encoding"),
    [
        (pa.string(), "PLAIN"),
        (pa.large_string(), "DELTA_LENGTH_BYTE_ARRAY"),
        (pa.string_view(), "DELTA_BYTE_ARRAY"),
        (pa.binary(), "DELTA_LENGTH_BYTE_ARRAY"),
    ],
)
def test_text_is_read_however_others_write_it(tmp_path, kind, encoding):
    table = events(3).cast(PLAIN).cast(pa.schema([(name, kind) for name in FLAT_FIELDS]))
    path = written(tmp_path / "f", table, use_dictionary=False, column_encoding=dict.fromkeys(FLAT_FIELDS, encoding))
    [batch] = batches(detect_file(path)[0], FLAT_FIELDS)
    assert batch.columns["user_id"].to_pylist() == ["user-1"] * 3


def test_values_of_a_megabyte_each_are_refused_by_their_type(tmp_path):
    wide = pa.array([b"x" * 1_000_000] * 200, pa.binary(1_000_000))
    path = written(tmp_path / "f", events(200, user_id=wide))
    with pytest.raises(Unusable, match="values of 1,000,000 bytes"):
        list(batches(detect_file(path)[0], FLAT_FIELDS))


def test_very_many_columns_or_row_groups_are_refused_before_they_are_looked_at(tmp_path):
    pq.write_table(pa.table({f"c{n}": [1] for n in range(2_000)}), tmp_path / "f")
    assert "has 2,000 columns; at most 200 are read" in detect_file(tmp_path / "f")[1]
    group = b"\x19\xfc\xa0\xf7\x36" + b"\x26\x00\x00" * 900_000 + b"\x16\x00\x16\x00\x00"
    footer = b"\x49\x4c" + group * 4 + b"\x00"
    (tmp_path / "g").write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    assert "takes more than 1,024 MB of memory to read" in detect_file(tmp_path / "g")[1]


@pytest.mark.parametrize("footer", [b"", b"\x49\xff", b"\x29\xfc\xff\xff\xff\xff\x0f", b"\x19" * 200, b"\xff" * 50])
def test_a_footer_that_makes_no_sense_is_said_to_be_damaged(tmp_path, footer):
    (tmp_path / "f").write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    assert "is not a complete Parquet file" in detect_file(tmp_path / "f")[1]
