"""One cell of a CSV: quoted where it has to be, never a formula, and read back as it was."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.values.csv_cells import csv_line, neutralised, read_back

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "\nx", "\n=1", "＝1", "＋1", "－1", "＠x", "﹦1", "'=1+1", "'＝1"],
)
def test_what_looks_like_a_formula_gets_an_apostrophe(text):
    assert neutralised(text) == "'" + text


@pytest.mark.parametrize("text", ["", "a=1", "'quoted'", "1-2", " =1"])
def test_other_text_stays_as_it_is(text):
    assert neutralised(text) == text


@given(TEXT | st.text("'=+-@＝＋－＠﹣\t\r\n a"))
def test_any_text_can_be_read_back(text):
    assert read_back(neutralised(text)) == text


@given(st.lists(TEXT | st.text("'=+-@＝＋－＠﹦\t\r,;\"\n a"), min_size=2))
def test_a_line_is_one_record_with_those_cells(values):
    (cells,) = csv.reader(io.StringIO(csv_line(values), newline=""), strict=True)
    assert [read_back(cell) for cell in cells] == values
