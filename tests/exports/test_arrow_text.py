"""Columns as text say what one value at a time says, whatever the values are."""

import json
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.exports.arrow_text import json_strings, only_of, plain_decimals, texts, utc_times
from billing_core.types import plain_decimal, utc_text
from billing_core.values.decimals import EXACT

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def decimals(precision, places):
    digits = st.integers(-(10**precision - 1), 10**precision - 1)
    return st.none() | digits.map(lambda number: EXACT.scaleb(Decimal(number), -places))


@pytest.mark.parametrize(("precision", "places"), [(18, 6), (24, 12), (18, 12), (38, 18), (38, 0), (38, 20)])
def test_decimals_are_plain_and_exact(precision, places):
    @given(st.lists(decimals(precision, places)), st.integers(0, 3))
    def holds(values, start):
        column = pa.array(values, pa.decimal128(precision, places)).slice(start)
        expected = [None if value is None else plain_decimal(value) for value in values[start:]]
        assert plain_decimals(column).to_pylist() == [_zero(text) for text in expected]

    holds()


def _zero(text):
    """Zero has no sign."""
    return "0" if text == "-0" else text


@given(st.lists(st.none() | st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1))), st.integers(0, 3))
def test_times_are_utc_with_milliseconds(values, start):
    aware = [None if value is None else value.replace(tzinfo=UTC) for value in values]
    column = pa.array(aware, pa.timestamp("us", tz="UTC")).slice(start)
    assert utc_times(column).to_pylist() == [None if value is None else utc_text(value) for value in aware[start:]]


@given(st.lists(st.none() | TEXT), st.integers(0, 3))
def test_texts_are_json(values, start):
    found = json_strings(pa.array(values, pa.string()).slice(start)).to_pylist()
    assert [None if text is None else json.loads(text) for text in found] == values[start:]


@given(st.lists(st.none() | st.text("ab~é", max_size=3)), st.integers(0, 3))
def test_a_column_is_only_of_characters_or_one_of_its_texts_has_another(values, start):
    column = pa.array(values, pa.string()).slice(start)
    assert only_of(column, "ab~") == all(set(text or "") <= set("ab~") for text in values[start:])


@pytest.mark.parametrize("kind", [pa.decimal128(24, 12), pa.timestamp("us", tz="UTC"), pa.string(), pa.int64()])
def test_a_column_that_says_nothing_is_empty_text_of_the_same_length(kind):
    assert texts(pa.nulls(3, kind)) == pa.nulls(3, pa.string())
    assert texts(pa.nulls(0, kind)) == pa.nulls(0, pa.string())
