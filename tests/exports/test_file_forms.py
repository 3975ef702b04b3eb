"""CSV and XLSX hold any text, and exact numbers; what they cannot hold is refused."""

import csv
import io
import json
from decimal import Decimal

import openpyxl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl.utils.escape import unescape

from billing_core.errors import BadParameter
from billing_core.exports.csv_file import SEPARATORS, write_csv
from billing_core.exports.flat_schema import AMOUNT, JSON_TEXT, field
from billing_core.exports.hashing_file import HashingSink
from billing_core.exports.json_file import write_json
from billing_core.exports.source import RowSource
from billing_core.exports.xlsx_file import MOST_ROWS, write_xlsx
from billing_core.values.csv_cells import neutralised, read_back
from tests.examples import examples

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(
    "'=+-@＝＋－＠﹢\t\r,;|\"\n _x0A", max_size=8
)


def written(write, schema, rows, **more):
    """The bytes of a file with these rows."""
    table = pa.Table.from_pylist(rows, schema=schema)
    source = RowSource(schema, table.num_rows, {}, {}, lambda: iter((table,)))
    target = io.BytesIO()
    if write is write_csv:
        write_csv(HashingSink(target), source, source.tables(), **more)
    else:
        write(HashingSink(target), source, source.tables(), {"rows": table.num_rows})
    return target.getvalue()


TWO_TEXTS = pa.schema([field("a", pa.string()), field("b", pa.string())])


@given(st.lists(st.fixed_dictionaries({"a": TEXT, "b": TEXT})), st.sampled_from(SEPARATORS))
def test_any_text_comes_back_from_a_csv_and_no_cell_is_a_formula(rows, separator):
    data = written(write_csv, TWO_TEXTS, rows, separator=separator)
    found = list(csv.DictReader(io.StringIO(data.decode(), newline=""), delimiter=separator, strict=True))
    assert [{name: read_back(cell) for name, cell in row.items()} for row in found] == rows
    assert [row["a"] for row in found] == [neutralised(row["a"]) for row in rows]


@settings(max_examples=examples(25))
@given(st.lists(st.fixed_dictionaries({"a": TEXT, "b": TEXT}), max_size=5))
def test_any_text_comes_back_from_a_workbook_and_no_cell_is_a_formula(rows):
    book = openpyxl.load_workbook(io.BytesIO(written(write_xlsx, TWO_TEXTS, rows)))
    for number, row in enumerate(rows, start=2):
        for column, name in enumerate("ab", start=1):
            cell = book["data"].cell(number, column)
            assert cell.data_type in {"s", "n"}
            text = cell.value or ""
            assert (unescape(text) if "_x" in text else text) == neutralised(row[name])


NUMBERS = pa.schema([field("n", AMOUNT), field("m", pa.decimal128(18, 6)), field("t", pa.int64())])
numbers = st.fixed_dictionaries(
    {
        "n": st.none() | st.decimals(-(10**12), 10**12, places=18) | st.decimals(0, 1000, places=12),
        "m": st.none() | st.decimals(0, 10**11, places=6),
        "t": st.none() | st.integers(0, 10**17),
    }
)


@settings(max_examples=examples(40))
@given(st.lists(numbers.filter(lambda row: row["n"] is not None), min_size=1, max_size=4))
def test_every_number_of_a_workbook_is_a_number_and_a_further_column_has_the_digits_it_lacks(rows):
    sheet = openpyxl.load_workbook(io.BytesIO(written(write_xlsx, NUMBERS, rows)))["data"]
    head, *lines = sheet.iter_rows()
    names = [cell.value for cell in head]
    assert names[:3] == ["n", "m", "t"]
    for row, line in zip(rows, lines, strict=True):
        cells = dict(zip(names, line, strict=True))
        for name, number in row.items():
            cell, exact = cells[name], cells.get(f"{name}_exact")
            if number is None:
                assert (cell.value, exact and exact.value) == (None, None)
                continue
            assert cell.data_type == "n"
            assert float(cell.value) == pytest.approx(float(number), rel=1e-15)
            digits = exact.value if exact is not None and exact.value is not None else str(cell.value)
            assert Decimal(digits) == number
            assert exact is None or exact.value is None or exact.data_type == "s"


def test_a_spreadsheet_adds_amounts_up_to_the_total_shown():
    """Of a credit price with twelve places, of which most amounts have more digits than a cell."""
    amounts = [Decimal(n * 7919 + 13) / 7 // Decimal("0.000001") * Decimal("0.000001") for n in range(40)]
    rows = [{"n": amount * Decimal("0.000043216789"), "m": amount, "t": None} for amount in amounts]
    total = sum((row["n"] for row in rows), Decimal(0))
    table = pa.Table.from_pylist(rows, schema=NUMBERS)
    source = RowSource(NUMBERS, table.num_rows, {"n": total}, {}, lambda: iter((table,)))
    target = io.BytesIO()
    write_xlsx(HashingSink(target), source, source.tables(), {"rows": table.num_rows})
    book = openpyxl.load_workbook(target)
    cells = [row[0].value for row in book["data"].iter_rows(min_row=2)]
    assert {type(cell) for cell in cells} <= {int, float}
    shown = {row[0].value: row for row in book["totals"].iter_rows(min_row=2)}["n"]
    assert sum(cells) == pytest.approx(shown[1].value, rel=1e-14)
    assert (type(shown[1].value), Decimal(shown[2].value)) == (float, total)


def test_a_workbook_of_too_many_rows_is_refused_with_what_to_do():
    source = RowSource(TWO_TEXTS, MOST_ROWS + 1, {}, {}, lambda: iter(()))
    with pytest.raises(BadParameter, match="choose csv or parquet"):
        write_xlsx(HashingSink(), source, source.tables(), {"rows": source.rows})


def test_a_text_longer_than_a_cell_is_refused_not_cut():
    with pytest.raises(BadParameter, match="32,767"):
        written(write_xlsx, TWO_TEXTS, [{"a": "x" * 32_768, "b": ""}])


def test_credits_are_nested_in_json_wherever_they_stand():
    schema = pa.schema(
        [
            field("credits_total", pa.decimal128(18, 6)),
            field("models", pa.string(), JSON_TEXT),
            field("credits_storage", pa.decimal128(18, 6)),
            field("n", pa.int64()),
        ]
    )
    row = {"credits_total": Decimal("1.5"), "models": '["a"]', "credits_storage": Decimal(0), "n": None}
    document = json.loads(written(write_json, schema, [row, row]))
    expected = {"credits": {"total": "1.5", "storage": "0"}, "models": ["a"], "n": None}
    assert document == {"meta": {"rows": 2}, "rows": [expected, expected]}
    assert json.loads(written(write_json, schema, []))["rows"] == []
