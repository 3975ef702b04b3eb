"""Turns whole Arrow columns into text: exact numbers, UTC times, JSON. Like `plain_decimal` and `utc_text`, for a
million values at a time. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.types import plain_decimal
from billing_core.values.decimals import to_integers

PLAIN_SCALE = 6
"""Up to so many decimal places Arrow writes a decimal without an exponent."""

LONGEST_SCALE = 18
"""Up to so many places a fraction fits into 64 bits."""

SECOND_OF_TIME = 10
"""Where Arrow's text of a time has a blank and ISO 8601 a T."""


def whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column as one array, a dictionary-encoded one decoded."""
    if isinstance(column, pa.ChunkedArray):
        array = (
            column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.nulls(0, column.type)])
        )
    else:
        array = column
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def texts(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The column as plain text; null stays null."""
    array = whole(column)
    kind = array.type
    if array.null_count == len(array):
        return pa.nulls(len(array), pa.string())
    if pa.types.is_decimal(kind):
        return plain_decimals(array)
    if pa.types.is_timestamp(kind):
        return utc_times(array)
    return array if pa.types.is_string(kind) else pc.cast(array, pa.string())


def plain_decimals(array: pa.Array) -> pa.Array:
    """Decimals as text without exponent or trailing zeros, as `plain_decimal` writes them."""
    scale = array.type.scale
    if scale <= PLAIN_SCALE:
        text = pc.cast(array, pa.string())
        return text if scale == 0 else _without_zeros(text)
    numbers = to_integers(array)
    if numbers.dtype == object or scale > LONGEST_SCALE or (len(numbers) and int(numbers.min()) == -(2**63)):
        return pa.array([None if value is None else plain_decimal(value) for value in array.to_pylist()], pa.string())
    units, fractions = np.divmod(np.abs(numbers), 10**scale)
    parts = [pc.cast(pa.array(units), pa.string()), _without_zeros(_after_the_point(fractions, scale))]
    if (numbers < 0).any():
        parts.insert(0, pc.if_else(pa.array(numbers < 0), "-", ""))
    return _null_where(array, pc.binary_join_element_wise(*parts, ""))


def _after_the_point(fractions: np.ndarray[tuple[int], np.dtype[np.int64]], scale: int) -> pa.Array:
    """`.` and exactly `scale` digits."""
    padded = pc.cast(pa.array(fractions + 10**scale), pa.string())  # a 1 and `scale` digits
    characters = np.frombuffer(padded.buffers()[2], np.uint8)[: len(padded) * (scale + 1)].copy()
    characters[:: scale + 1] = ord(".")
    return pa.StringArray.from_buffers(len(padded), padded.buffers()[1], pa.py_buffer(characters))


def _without_zeros(text: pa.Array) -> pa.Array:
    return pc.ascii_rtrim(pc.ascii_rtrim(text, "0"), ".")


def utc_times(array: pa.Array) -> pa.Array:
    """Times as ISO 8601 text in UTC with milliseconds and `Z`, as `utc_text` writes them."""
    microseconds = pc.fill_null(array.cast(pa.timestamp("us", tz=array.type.tz)).cast(pa.int64()), 0)
    milliseconds = microseconds.to_numpy(zero_copy_only=False) // 1000
    text = pc.cast(pa.array(milliseconds).cast(pa.timestamp("ms")), pa.string())
    length = len("1970-01-01 00:00:00.000")
    characters = np.frombuffer(text.buffers()[2], np.uint8)[: len(text) * length].reshape(len(text), length)
    zulu = np.empty((len(text), length + 1), np.uint8)
    zulu[:, :length] = characters
    zulu[:, SECOND_OF_TIME], zulu[:, length] = ord("T"), ord("Z")
    ends = np.arange(len(text) + 1, dtype=np.int32) * (length + 1)
    return _null_where(array, pa.StringArray.from_buffers(len(text), pa.py_buffer(ends), pa.py_buffer(zulu)))


def _null_where(array: pa.Array, text: pa.Array) -> pa.Array:
    return text if array.null_count == 0 else pc.if_else(array.is_valid(), text, pa.scalar(None, pa.string()))


def with_any_of(array: pa.Array, characters: str) -> bool:
    """Whether any text of a column contains one of these ASCII characters."""
    data, _ = _bytes(array)
    return any(ord(character) in data for character in characters)


def only_of(array: pa.Array, characters: str) -> bool:
    """Whether the texts of a column consist of these ASCII characters only."""
    data, _ = _bytes(array)
    accepted = np.zeros(256, np.bool_)
    accepted[list(characters.encode())] = True
    return not data or bool(accepted[np.frombuffer(data, np.uint8)].all())


def first_bytes(array: pa.Array) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """The first byte of every non-empty text of a column."""
    data, ends = _bytes(array)
    starts = ends[:-1][ends[1:] > ends[:-1]]
    return np.frombuffer(data, np.uint8)[starts - ends[0]] if len(starts) else np.empty(0, np.uint8)


def _bytes(array: pa.Array) -> tuple[bytes, np.ndarray[tuple[int], np.dtype[np.int32]]]:
    """The texts one after another, and where each begins and the last one ends."""
    _, ends, data = array.buffers()
    if ends is None or data is None:
        return b"", np.zeros(len(array) + 1, np.int32)
    places = np.frombuffer(ends, np.int32)[array.offset : array.offset + len(array) + 1]
    return data[int(places[0]) : int(places[-1])].to_pybytes(), places


def changed_where(array: pa.Array, mask: pa.Array, change: Callable[[str], str]) -> pa.Array:
    """The column with a function applied to the texts that `mask` is true for."""
    mask = pc.fill_null(mask, False)
    if not pc.any(mask).as_py():
        return array
    return pc.replace_with_mask(array, mask, mapped(array.filter(mask), change))


def mapped(array: pa.Array, change: Callable[[str], str]) -> pa.Array:
    """The column with a function applied to every text, once per distinct text."""
    encoded = array.dictionary_encode()
    values = pa.array([None if text is None else change(text) for text in encoded.dictionary.to_pylist()], pa.string())
    return values.take(encoded.indices)


def json_list(values: list[str]) -> str:
    """A list of texts as JSON text, as flat formats have lists."""
    return json.dumps(values, ensure_ascii=False)


_NOT_PLAIN_IN_JSON = r'["\\\x00-\x1f\x7f]'


def json_strings(array: pa.Array) -> pa.Array:
    """Texts as JSON string literals; null stays null."""
    special = pc.match_substring_regex(array, _NOT_PLAIN_IN_JSON)
    escaped = changed_where(array, special, lambda text: json.dumps(text, ensure_ascii=False)[1:-1])
    return pc.binary_join_element_wise('"', escaped, '"', "")
