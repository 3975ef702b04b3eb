"""Converts exact decimals between Arrow columns and integer arrays.

Money is computed on scaled integers: an Arrow `decimal128(p, s)` value is its integer times 10⁻ˢ. NumPy's
int64 is used while every product provably fits, Python integers otherwise: never a float.
"""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

EXACT = Context(prec=76, traps=[Inexact, InvalidOperation, Overflow])
"""For sums and products of money: Python's default context would quietly round at 28 digits, this one refuses."""


def exact_sum(values: Iterable[Decimal]) -> Decimal:
    """The exact sum; 0 of nothing."""
    return reduce(EXACT.add, values, Decimal(0))


Integers = npt.NDArray[Any]
"""An array of exact integers: dtype int64, or object holding Python ints."""

_SAFE = 2**62


def to_integers(column: pa.Array | pa.ChunkedArray) -> Integers:
    """The unscaled integers of a decimal128 or integer column; nulls become 0 (mask them yourself)."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_integer(array.type):
        values: Integers = array.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        return values
    words = np.frombuffer(array.buffers()[1], dtype=np.int64)[2 * array.offset : 2 * (array.offset + len(array))]
    low, high = words[0::2], words[1::2]
    if array.null_count:
        valid = array.is_valid().to_numpy(zero_copy_only=False)
        low, high = np.where(valid, low, 0), np.where(valid, high, 0)
    if np.array_equal(high, low >> 63):
        return low.copy()
    wide: Integers = high.astype(object) * 2**64 + low.view(np.uint64).astype(object)
    return wide


def from_integers(values: Integers, kind: pa.Decimal128Type, mask: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """A decimal column from unscaled int64 integers; `mask` is true where the value is null."""
    low = values.astype(np.int64)
    words = np.empty(2 * len(low), dtype=np.int64)
    words[0::2], words[1::2] = low, low >> 63
    validity = None if mask is None else pa.array(~mask).buffers()[1]
    return pa.Array.from_buffers(kind, len(low), [validity, pa.py_buffer(words)])


def multiply(values: Integers, factor: int) -> Integers:
    """Integers times a factor, exact whatever the size."""
    if values.dtype != object and len(values) and int(np.abs(values).max()) * abs(factor) >= _SAFE:
        values = values.astype(object)
    product: Integers = values * factor
    return product


def round_half_even(values: Integers, factor: Fraction) -> Integers:
    """Integers times a factor, rounded once to whole numbers, ties to even."""
    numerator = multiply(values, factor.numerator)
    divisor = factor.denominator
    if numerator.dtype != object and divisor >= _SAFE // 2:
        numerator = numerator.astype(object)
    quotient, rest = numerator // divisor, numerator % divisor
    up = (2 * rest > divisor) | ((2 * rest == divisor) & (quotient % 2 == 1))
    rounded: Integers = quotient + up.astype(quotient.dtype)
    return rounded
