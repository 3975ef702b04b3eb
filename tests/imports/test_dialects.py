"""CSV as spreadsheets of every country save it: read as what it was, or refused by name. Never as something else."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billing_core.imports.bounds import Unusable
from billing_core.imports.detection import NUMBERS, detect_file
from billing_core.imports.model import FileKind
from billing_core.imports.readers import batches
from billing_core.types import FLAT_FIELDS
from tests.examples import examples
from tests.imports.world import ImportWorld, line, reasons

LIKE_A_SPREADSHEET = settings(max_examples=examples(60), suppress_health_check=list(HealthCheck))
FIRST = len(FLAT_FIELDS)

decimals = st.decimals(0, 10**6, places=6).map(lambda number: f"{number.normalize():f}")
texts = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=6).map(lambda text: "x" + text)
events = st.lists(
    st.fixed_dictionaries(
        {"user_id": texts, "latency_seconds": decimals, "credits_ai_tokens": decimals, "cost_usd": decimals}
    ),
    min_size=1,
    max_size=4,
)


@st.composite
def dialects(draw):
    separator = draw(st.sampled_from([",", ";", "\t", "|"]))
    return {
        "separator": separator,
        "comma": draw(st.booleans()) and separator != ",",
        "end": draw(st.sampled_from(["\r\n", "\n", "\r", "\r\r\n"])),
        "encoding": draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"])),
        "named": draw(st.sampled_from(["", "sep={}", '"sep={}"', "SEP={}", "sep={},,"])) if separator != "," else "",
        "blank_rows": draw(st.integers(0, 2)),
        "blank_columns": draw(st.integers(0, 3)),
        "quoting": draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
    }


def saved(rows, dialect):
    """The file as a spreadsheet with these habits writes it."""
    separator, end = dialect["separator"], dialect["end"]
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=dialect["quoting"])
    blank = [""] * dialect["blank_columns"]
    if dialect["named"]:
        text.write(dialect["named"].format(separator) + end)
    writer.writerow([*FLAT_FIELDS, *blank])
    for row in rows:
        for _ in range(dialect["blank_rows"]):
            text.write(separator * FIRST + end)
        cells = {n: c.replace(".", ",") if dialect["comma"] and n in NUMBERS else c for n, c in row.items()}
        writer.writerow([*(cells[name] for name in FLAT_FIELDS), *blank])
    return text.getvalue().encode(dialect["encoding"])


def read(content):
    """The rows of a file, and what of them is refused."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "f"
        path.write_bytes(content)
        file, fault = detect_file(path)
        if fault is not None:
            raise Unusable(fault)
        rows, rejected = [], []
        for batch in batches(file, file.header):
            rejected += batch.rejected
            columns = {name: batch.columns[name].to_pylist() for name in file.header}
            rows += [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
        return rows, rejected


@LIKE_A_SPREADSHEET
@given(events, dialects())
def test_whatever_a_spreadsheet_makes_of_a_file_it_is_read_as_what_it_was(facts, dialect):
    rows = [line(f"t{number}", **one) for number, one in enumerate(facts)]
    found, rejected = read(saved(rows, dialect))
    assert rejected == []
    assert found == [{name: cell or None for name, cell in row.items()} for row in rows]


def as_number(spelt):
    """What a number with commas can be: one comma is a decimal one, unless three digits follow one to three."""
    before, comma, after = spelt.partition(",")
    if not comma:
        return spelt
    is_thousands = len(after) == 3 and len(before) <= 3 and not before.startswith("0")
    return None if "," in after or is_thousands else f"{before}.{after}"


@given(
    st.sampled_from([";", "\t", "|"]),
    st.lists(decimals | st.integers(1, 10**7).map(lambda number: f"{number:,}"), min_size=1, max_size=3),
)
def test_a_number_with_a_comma_is_read_as_its_only_meaning_or_not_at_all(separator, numbers):
    """`0,5` is a half, `1,234` alone is refused: the meaning nobody meant must not be billed."""
    spelt = [number.replace(".", ",") for number in numbers]
    lines = [["id", "timestamp", "sync_status", "cost_usd"], *(["a", "b", "c", number] for number in spelt)]
    content = "\n".join(separator.join(cells) for cells in lines).encode()
    meant = [as_number(one) for one in spelt]
    with_one_comma = [number for one, number in zip(spelt, meant, strict=True) if one.count(",") == 1]
    if with_one_comma and not any(with_one_comma):
        with pytest.raises(Unusable, match="write it with a point"):
            read(content)
        return
    for one, number, row in zip(spelt, meant, read(content)[0], strict=True):
        wanted = one.replace(",", ".") if one.count(",") == 1 else number or one
        assert row["cost_usd"] == wanted


@pytest.mark.parametrize(
    "number", ["1.234,56", "1,234.56", "1 234,5", "1\u00a0234,5", "1'234.5", "1,234,567", "€ 5", "12 %"]
)
@pytest.mark.parametrize("separator", [",", ";"])
def test_thousands_separators_are_refused_by_name(tmp_path, number, separator):
    world = ImportWorld(tmp_path)
    dialect = {
        "separator": separator,
        "comma": False,
        "end": "\n",
        "encoding": "utf-8",
        "named": "",
        "blank_rows": 0,
        "blank_columns": 0,
        "quoting": csv.QUOTE_MINIMAL,
    }
    row = line(cost_usd=number, amount_usd="0,006" if separator == ";" and "." not in number else "0.006")
    (tmp_path / "f").write_bytes(saved([row], dialect))
    plan = world.plan(tmp_path / "f")
    assert ("cost_usd" in {one.field for one in plan.rejected}, plan.can_apply) == (True, False)
    assert repr(number) in next(one.reason for one in plan.rejected if one.field == "cost_usd")


def test_a_file_that_mixes_decimal_commas_and_points_is_not_read(tmp_path):
    world = ImportWorld(tmp_path)
    rows = [line("a", cost_usd="0,01", amount_usd="0,006"), line("b")]
    text = "\n".join([";".join(FLAT_FIELDS), *(";".join(row[name] for name in FLAT_FIELDS) for row in rows)])
    (tmp_path / "f").write_text(text)
    plan = world.plan(tmp_path / "f", skip_bad_rows=True)
    assert (reasons(plan), plan.can_apply) == ([(2, "cost_usd")], False)
    assert "'0.01' stands where row 1 has '0,01'" in plan.rejected[0].reason


def test_events_of_a_european_spreadsheet_are_booked_exactly(tmp_path):
    world = ImportWorld(tmp_path)
    facts = {"cost_usd": "0,012345678901", "amount_usd": "0,006", "latency_seconds": "60,000"}
    dialect = {
        "separator": ";",
        "comma": False,
        "end": "\r",
        "encoding": "utf-8-sig",
        "named": "sep={}",
        "blank_rows": 1,
        "blank_columns": 2,
        "quoting": csv.QUOTE_MINIMAL,
    }
    (tmp_path / "f").write_bytes(saved([line(**facts)], dialect))
    assert world.bring(tmp_path / "f").outcome.new == 1
    assert (world.event().cost_usd, world.event().latency_seconds) == (Decimal("0.012345678901"), 60)


MAP = "sep=;\rorganization_id;name;customer_id;\r;;;\rorg_a;Müller;cus_a;\r"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_customer_map_of_a_european_spreadsheet_is_read_too(tmp_path, encoding):
    world = ImportWorld(tmp_path)
    (tmp_path / "f").write_bytes(MAP.encode(encoding))
    assert world.bring(tmp_path / "f").outcome.new == 1


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty: 0 rows"),
        (b"\xef\xbb\xbf", "the file is empty: 0 rows"),
        (b"\r\n;;;\r\n \r\n", "the file is empty: 0 rows"),
        (b"sep=;\r\n", "the file is empty: 0 rows"),
        ("id;timestamp;sync_status\nMüller".encode("cp1252"), "27 is 0xFC ('ü' in Windows-1252), which is not UTF-8"),
        ("id,timestamp,sync_status\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (b"sep=:\nid:timestamp:sync_status\n", "its first line says that ':' separates its cells"),
        (b"name;price\n1;2\n", "('name', 'price', told apart by ';')"),
    ],
)
def test_what_cannot_be_read_is_named_with_what_was_found(tmp_path, content, says):
    (tmp_path / "f").write_bytes(content)
    _, fault = detect_file(tmp_path / "f")
    assert says in fault


@pytest.mark.parametrize("end", ["", "\n", "\r", "\r\n;;\r\n"])
def test_a_header_alone_is_a_file_of_no_rows(tmp_path, end):
    world = ImportWorld(tmp_path)
    (tmp_path / "f").write_bytes((";".join(FLAT_FIELDS) + end).encode())
    plan = world.plan(tmp_path / "f")
    assert (plan.kind, plan.rows, plan.rejected_rows, plan.outcome.changes) == (FileKind.USAGE_EVENTS, 0, 0, 0)
