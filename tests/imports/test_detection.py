"""What a file is, by its content, and why it cannot be used."""

from __future__ import annotations

import struct
import tracemalloc
import zipfile
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from billing_core.errors import BadParameter
from billing_core.imports.detection import Form, detect_file
from billing_core.imports.model import FileKind
from billing_core.types import FLAT_FIELDS
from tests.imports.world import as_csv, as_json, as_parquet, line

CARD = "id: acme\neffective_from: 2026-11-01\ncredit_price_usd: 0.00004\nai: {rates: []}\n"


def seen(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return detect_file(path)


def test_the_name_says_nothing_of_what_a_file_is(tmp_path):
    path = as_csv(tmp_path / "holiday.jpg", [line()])
    file, fault = detect_file(path, name="../../etc/passwd\n")
    assert (file.kind, file.form, fault) == (FileKind.USAGE_EVENTS, Form.DELIMITED, None)
    assert file.name == "passwd?"
    assert file.sha256 == sha256(path.read_bytes()).hexdigest()
    assert file.bytes == path.stat().st_size


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_separators_and_byte_order_marks_are_understood(tmp_path, separator, encoding):
    file, fault = detect_file(as_csv(tmp_path / "f", [line()], separator=separator, encoding=encoding))
    assert (file.separator, file.header, fault) == (separator, FLAT_FIELDS, None)


def test_json_and_parquet_are_recognised(tmp_path):
    assert detect_file(as_json(tmp_path / "a", [line()]))[0].kind is FileKind.USAGE_EVENTS
    assert detect_file(as_json(tmp_path / "b", [line()], meta={}))[0].kind is FileKind.USAGE_EVENTS
    assert detect_file(as_json(tmp_path / "c", [], meta={"dataset": "usage-events"}))[0].kind is FileKind.USAGE_EVENTS
    assert detect_file(as_parquet(tmp_path / "d", [line()]))[0].kind is FileKind.USAGE_EVENTS


def test_rate_cards_and_maps_are_recognised(tmp_path):
    assert seen(tmp_path / "a", CARD)[0].kind is FileKind.RATE_CARD
    assert seen(tmp_path / "b", "# our prices\n\ncards:\n  - id: acme\n")[0].kind is FileKind.RATE_CARD
    assert seen(tmp_path / "c", '{"cards": [], "plans": []}')[0].kind is FileKind.RATE_CARD
    assert seen(tmp_path / "d", "id,effective_from,credit_price_usd\n")[0].kind is FileKind.RATE_CARD
    assert seen(tmp_path / "e", "organization_id;customer_id\norg_a;cus_a\n")[0].kind is FileKind.CUSTOMERS


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "the file is empty"),
        ("hello\nworld\n", "none that can be imported"),
        ("day,organization_id,events\n", "grain event"),
        ("day,organization_id,sync_status,events,credits_total,amount_usd\n", "grain event"),
        ('[{"id": 1}]', "is a JSON list"),
        ('{"hello": "world"}', "JSON of another kind"),
        (
            "id,timestamp,sync_status\nM\xfcller".encode("latin-1"),
            "byte 27 is 0xFC ('ü' in Windows-1252), which is not UTF-8",
        ),
        (b"\xef\xbb\xbfid,timestamp,sync_status\n\xff", "byte 29 is 0xFF"),
        (b"\xff\xfe" + "id\ud800x".encode("utf-16-le", "surrogatepass"), "not UTF-16"),
        (b"PAR1 and nothing else", "not a complete Parquet file"),
        (b"PK\x03\x04 and nothing else", "damaged zip"),
    ],
)
def test_what_cannot_be_imported_is_said_with_what_can(tmp_path, content, says):
    _, fault = seen(tmp_path / "f", content)
    assert says in fault


def test_the_first_bad_byte_is_found_wherever_it_is(tmp_path):
    _, fault = seen(tmp_path / "f", b"id,timestamp,sync_status\n" + "ä".encode() * 2_000_000 + b"\xc3")
    assert "byte 4,000,026 is 0xC3" in fault


def test_a_parquet_file_that_is_cut_off_is_refused(tmp_path):
    whole = as_parquet(tmp_path / "whole", [line()]).read_bytes()
    _, fault = seen(tmp_path / "cut", whole[:-20])
    assert "not a complete Parquet file" in fault


def test_a_table_of_something_else_is_refused(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "f")
    assert "none that can be imported" in detect_file(tmp_path / "f")[1]


def test_a_zip_of_very_many_files_or_with_a_very_long_list_of_them_is_not_opened(tmp_path):
    with zipfile.ZipFile(tmp_path / "f", "w") as archive:
        for number in range(20_000):
            archive.writestr(f"file-{number}", "")
    fault = detect_file(tmp_path / "f")[1]
    assert "its list of files has 1,108,890 bytes; one that can be imported has at most 1,048,576" in fault
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 50_000_000, 4, 0)
    (tmp_path / "g").write_bytes(b"PK\3\4" + bytes(50_000_000) + end)
    tracemalloc.start()
    assert "its list of files has 50,000,000 bytes" in detect_file(tmp_path / "g")[1]
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_first_line_without_end_is_not_read_whole(tmp_path):
    assert "does not end" in seen(tmp_path / "f", "x" * 3_000_000)[1]


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadParameter, match=r"file: 'absent\.csv' is not accepted; .*No such file"):
        detect_file(tmp_path / "absent.csv")


@pytest.mark.parametrize("path", ["/dev/zero", "/"])
def test_what_has_no_end_or_is_no_file_is_not_read(path):
    with pytest.raises(BadParameter, match="a file; this is a folder, a device or a pipe"):
        detect_file(Path(path))
