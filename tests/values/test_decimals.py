from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from billing_core.values.decimals import EXACT, from_integers, multiply, round_half_even, to_integers

WIDE = pa.decimal128(38, 12)


@given(st.lists(st.none() | st.decimals(-(10**20), 10**20, places=12), max_size=20), st.integers(0, 5))
def test_a_decimal_column_becomes_its_unscaled_integers(values, skipped):
    column = pa.array(values, WIDE)[skipped:]
    expected = [0 if v is None else int(v.scaleb(12, EXACT)) for v in values[skipped:]]
    assert to_integers(column).tolist() == expected


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_integers_come_back_as_the_same_decimals(values):
    column = from_integers(np.array(values, dtype=np.int64), pa.decimal128(38, 6))
    assert column.to_pylist() == [Decimal(v).scaleb(-6, EXACT) for v in values]


def test_masked_integers_are_null():
    column = from_integers(np.array([1, 2]), pa.decimal128(18, 0), np.array([False, True]))
    assert column.to_pylist() == [Decimal(1), None]


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=10), st.integers(-(10**15), 10**15))
def test_products_beyond_64_bits_stay_exact(values, factor):
    assert multiply(np.array(values, dtype=np.int64), factor).tolist() == [v * factor for v in values]


@given(st.integers(-(10**17), 10**17), st.fractions(0, 10**6))
def test_rounding_agrees_with_decimal_half_even(value, factor):
    exact = Fraction(value) * factor
    below = exact.numerator // exact.denominator
    rest = exact - below
    expected = below + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and below % 2 == 1))
    assert round_half_even(np.array([value], dtype=np.int64), factor).tolist() == [expected]


def test_a_tie_goes_to_the_even_neighbour():
    halves = np.array([1, 3, 5, -1], dtype=np.int64)
    by_decimal = [int((Decimal(int(v)) / 2).quantize(Decimal(1), ROUND_HALF_EVEN)) for v in halves]
    assert round_half_even(halves, Fraction(1, 2)).tolist() == by_decimal == [0, 2, 2, 0]
