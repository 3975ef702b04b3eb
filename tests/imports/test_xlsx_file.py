"""Workbooks of strangers: read as what they show, or refused by name, in memory that they do not decide about."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import openpyxl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing_core.errors import BadParameter
from billing_core.exports.model import Dataset, ExportRequest, Format
from billing_core.imports.bounds import Unusable
from billing_core.imports.detection import Form, detect_file
from billing_core.imports.model import FileKind
from billing_core.imports.readers import batches
from billing_core.types import FLAT_FIELDS
from tests.examples import examples
from tests.factories import EVERYONE, NOON
from tests.imports.world import ImportWorld, booked, line, reasons

HEADER = ("id", "timestamp", "sync_status", "user_id", "cost_usd")
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def inline(*texts):
    """A row of texts."""
    return "<row>" + "".join(f'<c t="inlineStr"><is><t>{text}</t></is></c>' for text in texts) + "</row>"


def workbook(path, rows, *, texts=None, styles="", first="", sheet_name="data", packing=zipfile.ZIP_DEFLATED, more=()):
    """A workbook made by hand: `rows` are the XML of its sheet."""
    parts = {
        "[Content_Types].xml": "<Types/>",
        "_rels/.rels": f'<Relationships><Relationship Id="r" Type="{RELATIONS}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{MAIN}" xmlns:r="{RELATIONS}"><workbookPr {first}/><sheets>'
        f'<sheet name="{sheet_name}" r:id="r1"/></sheets></workbook>',
        "xl/_rels/workbook.xml.rels": f'<Relationships><Relationship Id="r1" Type="{RELATIONS}/worksheet" '
        f'Target="worksheets/sheet1.xml"/><Relationship Id="r2" Type="{RELATIONS}/sharedStrings" '
        f'Target="/xl/sharedStrings.xml"/><Relationship Id="r3" Type="{RELATIONS}/styles" Target="styles.xml"/>'
        "</Relationships>",
        "xl/styles.xml": f'<styleSheet xmlns="{MAIN}">{styles}</styleSheet>',
        "xl/sharedStrings.xml": f'<sst xmlns="{MAIN}">{"" if texts is None else texts}</sst>',
        "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{MAIN}"><sheetData>{rows}</sheetData></worksheet>',
        **dict(more),
    }
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, text in parts.items():
            archive.writestr(name, text)
    return path


def read(path):
    """Rows by name, and what of them is refused; `Unusable` if the file is none."""
    file, fault = detect_file(path)
    if fault is not None:
        raise Unusable(fault)
    rows, rejected = [], []
    for batch in batches(file, file.header):
        rejected += [(one.row, one.field, one.reason) for one in batch.rejected]
        rows += [{name: batch.columns[name][at].as_py() for name in file.header} for at in range(len(batch.numbers))]
    return rows, rejected


def fault_of(path):
    with pytest.raises(Unusable) as caught:
        read(path)
    return caught.value.reason


# ── what cells mean ──────────────────────────────────────────────────────────────────────────────


def test_a_workbook_is_told_by_its_content_and_its_sheet_data_is_read(tmp_path):
    book = openpyxl.Workbook()
    book.active.title = "notes"
    book.active.append(["nothing", "of", "interest"])
    book.create_sheet("Data").append(HEADER)
    book.save(tmp_path / "f.csv")
    file, fault = detect_file(tmp_path / "f.csv")
    assert (file.form, file.kind, file.header, fault) == (Form.XLSX, FileKind.USAGE_EVENTS, HEADER, None)


def test_without_a_sheet_data_the_first_one_is_read_and_blank_rows_and_columns_are_nothing(tmp_path):
    book = openpyxl.Workbook()
    for row in ([], [*HEADER, None, " "], ["a", "x", "y"], [None, " "], ["b", "x", "y", None, None, None, "out"]):
        book.active.append(row)
    book.save(tmp_path / "f")
    rows, rejected = read(tmp_path / "f")
    assert [row["id"] for row in rows] == ["a"]
    assert rejected == [(3, "row", "has 7 cells where the header has 5")]


def test_cells_of_every_kind_are_read_as_a_spreadsheet_shows_them(tmp_path):
    texts = "<si><t>a</t></si><si><r><t>Mü</t></r><r><t>ller</t></r><rPh><t>x</t></rPh></si><si><t>'=1_x000D_2</t></si>"
    cells = (
        '<c t="s"><v>1</v></c><c t="b"><v>1</v></c><c t="str"><f>A1</f><v>made</v></c><c t="s"><v>2</v></c>'
        "<c><v>4.3216788999999997E-5</v></c>"
    )
    path = workbook(tmp_path / "f", inline(*HEADER) + f"<row>{cells}</row>", texts=texts)
    assert read(path)[0] == [
        {"id": "Müller", "timestamp": "true", "sync_status": "made", "user_id": "=1\r2", "cost_usd": "4.3216789e-05"}
    ]


STYLES = (
    '<numFmts><numFmt numFmtId="170" formatCode="yyyy\\-mm\\-dd&quot;T&quot;"/></numFmts><cellXfs>'
    '<xf numFmtId="0"/><xf numFmtId="170"/><xf numFmtId="22"/></cellXfs>'
)


@pytest.mark.parametrize(("first", "serial"), [("", 46327.5), ('date1904="1"', 44865.5)])
@pytest.mark.parametrize("style", [1, 2])
def test_dates_are_times_without_an_offset_unless_the_heading_says_utc(tmp_path, first, serial, style):
    cells = f'<row><c t="inlineStr"><is><t>a</t></is></c><c s="{style}"><v>{serial}</v></c></row>'
    plain = workbook(tmp_path / "a", inline(*HEADER) + cells, styles=STYLES, first=first)
    assert read(plain)[0][0]["timestamp"] == "2026-11-01T12:00:00.000"
    heads = ("id", "timestamp (UTC)", *HEADER[2:])
    utc = workbook(tmp_path / "b", inline(*heads) + cells, styles=STYLES, first=first)
    assert read(utc)[0][0]["timestamp"] == "2026-11-01T12:00:00.000Z"


@settings(max_examples=examples(30))
@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)))
def test_a_date_cell_is_the_millisecond_it_was_written_as(moment):
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    book = openpyxl.Workbook()
    book.active.append(HEADER)
    book.active.append(["a", moment])
    with TemporaryDirectory() as folder:
        book.save(Path(folder) / "f")
        assert datetime.fromisoformat(read(Path(folder) / "f")[0][0]["timestamp"]) == moment


def test_the_dates_of_a_workbook_that_says_nothing_of_their_timezone_need_it_named(tmp_path):
    world = ImportWorld(tmp_path, BILLING_TIMEZONE="Europe/Berlin")
    book = openpyxl.Workbook()
    book.active.append(FLAT_FIELDS)
    times = {"timestamp": datetime(2026, 11, 1, 7), "ended_at": datetime(2026, 11, 1, 7, 1)}
    book.active.append([times.get(name, cell) for name, cell in line().items()])
    book.save(tmp_path / "f")
    plan = world.plan(tmp_path / "f")
    assert (reasons(plan), plan.without_offset) == ([(1, "timestamp"), (1, "ended_at")], 2)
    world.desk.apply(world.plan(tmp_path / "f", timezone="America/New_York"), EVERYONE)
    assert world.event().timestamp == NOON


def test_what_a_spreadsheet_could_not_keep_is_named(tmp_path):
    cells = '<c t="inlineStr"><is><t>{}</t></is></c><c/><c/>{}'
    rows = [
        cells.format("a", "<c><v>12345678901234567</v></c>"),
        cells.format("b", '<c t="e"><v>#N/A</v></c>'),
        cells.format("c", '<c t="inlineStr"><is><t>_xD800_</t></is></c>'),
        cells.format("d", "<c><v>1234567</v></c>"),
    ]
    path = workbook(tmp_path / "f", inline(*HEADER) + "".join(f"<row>{row}</row>" for row in rows))
    found, rejected = read(path)
    assert [(row["id"], row["user_id"]) for row in found] == [("d", "1234567")]
    assert [one[:2] for one in rejected] == [(1, "user_id"), (2, "user_id"), (3, "user_id")]
    assert "a spreadsheet keeps 15 digits" in rejected[0][2]
    assert "holds the error '#N/A'" in rejected[1][2]


def test_an_amount_that_was_changed_beside_its_exact_text_is_refused(tmp_path):
    world = ImportWorld(tmp_path, [booked("a", cost_usd=Decimal("123456.012345678901"))])
    world.service.exports.write(ExportRequest(Dataset.USAGE_EVENTS, Format.XLSX), EVERYONE, tmp_path / "f.xlsx")
    book = openpyxl.load_workbook(tmp_path / "f.xlsx")
    heads = [cell.value for cell in book["data"][1]]
    book["data"].cell(2, heads.index("cost_usd") + 1).value = 7
    book.save(tmp_path / "g.xlsx")
    assert world.bring(tmp_path / "f.xlsx").outcome.changes == 0
    plan = world.plan(tmp_path / "g.xlsx")
    assert reasons(plan) == [(1, "cost_usd")]
    assert "cost_usd_exact says '123456.012345678901': change both, or empty that cell" in plan.rejected[0].reason


# ── hostile and broken ───────────────────────────────────────────────────────────────────────────

BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'
BIG = 40_000_000


@pytest.mark.parametrize(
    ("rows", "options", "says"),
    [
        (inline(*HEADER) + "<row>" + "<c><v>1</v></c>" * 300 + "</row>", {}, "more than 200 columns"),
        (inline(*HEADER) + inline("x" * 200_000), {}, "a cell of more than 100,000 characters"),
        (inline(*HEADER) + inline(*["x" * 90_000] * 30), {}, "more than 2,000,000 characters"),
        (inline(*HEADER) + '<row><c t="s"><v>7</v></c></row>', {}, "it has no text 7"),
        (inline(*HEADER) + '<row><c t="s"><v>-1</v></c></row>', {}, "is not a row, text or style number"),
        (inline(*HEADER) + '<row r="1"><c><v>1</v></c></row>', {}, "row 1 follows row 1"),
        (inline(*HEADER) + '<row r="9999999"><c><v>1</v></c></row>', {}, "row 9,999,999 follows"),
        (inline(*HEADER) + '<row><c r="B2"><v>1</v></c><c r="A2"><v>1</v></c></row>', {}, "cells out of order"),
        (inline(*HEADER) + '<row><c r="?"><v>1</v></c></row>', {}, "is not a cell"),
        (inline(*HEADER) + "<row><c>", {}, "is a damaged workbook"),
        (inline(*HEADER) + "<!--" + "x" * 3_000_000 + "-->", {}, "a tag of more than 1,048,576 bytes"),
        (inline(*HEADER) + "<a>" * 100, {}, "nested too deeply"),
        ("", {}, "its sheet is empty: 0 rows"),
        (inline("name", "price"), {}, "its columns ('name', 'price') are none that can be imported"),
        (inline(*HEADER), {"packing": zipfile.ZIP_LZMA}, "uses an unsupported compression"),
        (inline(*HEADER), {"more": {"xl/workbook.xml": BOMB + "<workbook/>"}}, "declares a document type"),
        (inline(*HEADER), {"more": {"xl/worksheets/sheet1.xml": BOMB + "<a>&b;</a>"}}, "declares a document type"),
        (inline(*HEADER), {"more": {"xl/workbook.xml": "<workbook/>"}}, "is a workbook without sheets"),
        (inline(*HEADER), {"more": {"xl/styles.xml": "<a/>" * 2_000_000}}, "which no workbook of a table does"),
        (inline(*HEADER) + " " * BIG, {}, "which no workbook of a table does"),
        (inline(*HEADER), {"more": {f"xl/part{n}": "" for n in range(2_100)}}, "at most 2,000"),
        (
            inline(*HEADER),
            {
                "more": {
                    "_rels/.rels": f'<Relationships><Relationship Type="{RELATIONS}/officeDocument" '
                    'Target="xl/workbook.bin"/></Relationships>'
                }
            },
            "binary workbook",
        ),
    ],
)
def test_what_no_spreadsheet_writes_is_refused_by_name(tmp_path, rows, options, says):
    assert says in fault_of(workbook(tmp_path / "f", rows, **options))


def test_other_spreadsheets_are_named(tmp_path):
    (tmp_path / "f").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    assert "Excel 97–2003 workbook, or one with a password" in fault_of(tmp_path / "f")
    with zipfile.ZipFile(tmp_path / "g", "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
    assert "OpenDocument" in fault_of(tmp_path / "g")


@pytest.mark.parametrize("what", ["rows", "junk", "texts", "repeated"])
def test_memory_does_not_grow_with_what_a_small_file_unpacks_to(tmp_path, what):
    rows, texts = inline(*HEADER), ""
    if what == "rows":
        rows += "<row/>" * 150_000
    elif what == "junk":
        rows += ("<row/>" + "<x y='1'/>" * 20) * 5_000
    elif what == "texts":
        texts = "<si><t/></si>" * 100_000
        rows += '<row><c t="s"><v>7</v></c></row>'
    else:
        texts = f"<si><t>{'x' * 90_000}</t></si>"
        rows += ("<row>" + '<c t="s"><v>0</v></c>' * 5 + "</row>") * 150
    path = workbook(tmp_path / "f", rows, texts=texts, packing=zipfile.ZIP_STORED)
    read(workbook(tmp_path / "small", inline(*HEADER) + inline("a")))  # whatever is imported late is there
    file, _ = detect_file(path)
    tracemalloc.start()
    for _ in batches(file, file.header):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (40_000_000 if what == "repeated" else 4_000_000)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    world = ImportWorld(folder, [booked(f"t{n}") for n in range(3)])
    world.service.exports.write(ExportRequest(Dataset.USAGE_EVENTS, Format.XLSX), EVERYONE, folder / "f.xlsx")
    with zipfile.ZipFile(folder / "f.xlsx") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@settings(max_examples=examples(80), suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_workbook_with_any_part_changed_is_read_or_refused_and_never_breaks(exported, data):
    name = data.draw(st.sampled_from(sorted(exported)))
    content = bytearray(exported[name])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 30))] = data.draw(
            st.binary(max_size=6)
            | st.sampled_from([b"</row>", b"<c>", b'r="ZZZ9"', b"&amp;", b"-1", b"1E999", b"_x0000_"])
        )
    with TemporaryDirectory() as folder:
        with zipfile.ZipFile(Path(folder) / "f", "w") as archive:
            for one, kept in exported.items():
                archive.writestr(one, bytes(content) if one == name else kept)
        with suppress(Unusable):
            assert len(read(Path(folder) / "f")[0]) <= 3


@settings(max_examples=examples(60), suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_workbook_that_is_cut_off_or_damaged_is_read_or_refused(exported, data):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for one, kept in exported.items():
            archive.writestr(one, kept)
    content = bytearray(target.getvalue())
    content[data.draw(st.integers(4, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    content = content[: data.draw(st.integers(4, len(content)))]
    with TemporaryDirectory() as folder:
        (Path(folder) / "f").write_bytes(content)
        with suppress(Unusable, BadParameter):
            read(Path(folder) / "f")
