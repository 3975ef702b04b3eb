"""Computes how large a Parquet file would unpack, from its headers, before anything is unpacked.

A few kilobytes can stand for gigabytes: pages are compressed, values are listed once and repeated, and what the footer
says of sizes is not what a reader goes by. It goes by the header of each page, so those are added up here. Headers are
Thrift in its compact protocol; of it only integers are read, the rest is stepped over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import pyarrow.parquet as pq

from billing_core.imports.bounds import LARGEST_PIECE, MOST_COLUMNS, Unusable

LARGEST_FOOTER = 16 * 1024 * 1024
"""Bytes; an event takes less than one of them."""

MOST_ELEMENTS = 1_000
"""Columns with what they consist of."""

MOST_CHUNKS = 100_000
"""Columns × row groups: a reader holds a kilobyte of each."""

LARGEST_GROUP = 320 * 1024 * 1024
"""Bytes that reading a row group may hold at once: of each column its largest page and its list of values. One of our
own exports takes at most 270 MB, where no column ever repeats a value."""

MOST_PAGES = 100_000
"""Pages of a column in a row group."""

HEADER_BYTES = (4096, 1 << 20)
"""How much of a page is read to see its header; most end within the first."""

_STRUCT = 12
_FIXED = {1: 0, 2: 0, 3: 1, 7: 8}
"""Kinds whose length is known; truth (1, 2) is in the kind itself."""

_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_VALUES_OF = {_DATA: (5, 2), _DICTIONARY: (7, 2), _DATA_V2: (8, 4)}
"""Kind of a page → the field that describes its values, and in it the field with their encoding."""

_DELTA_LENGTH = 6
_READ = {0, 2, 3, 4, 5, _DELTA_LENGTH, 8, 9}
"""Encodings. One is not read: values that continue the ones before them (7) can be a thousand times their bytes."""


class _Thrift:
    """A walk through bytes; past their end it raises `IndexError`, where they make no sense `ValueError`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def integer(self) -> int:
        number = self._unsigned()
        return number >> 1 ^ -(number & 1)

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and kind of each field of a structure; whoever asks reads or skips it before the next."""
        number = 0
        while kind := (head := self._byte()) & 15:
            number = number + (head >> 4) if head >> 4 else self.integer()
            yield number, kind

    def items(self) -> tuple[int, int]:
        """How many items a list has, and their kind."""
        head = self._byte()
        return self._possible(self._unsigned() if head >> 4 == 15 else head >> 4), head & 15

    def skip(self, kind: int, depth: int = 0) -> None:
        if depth > 32:
            raise ValueError("headers are nested too deeply")
        if kind in _FIXED:
            self.at += _FIXED[kind]
        elif kind in {4, 5, 6}:
            self._unsigned()
        elif kind == 8:
            length = self._unsigned()
            self.at += length
        elif kind in {9, 10}:
            count, inner = self.items()
            for _ in range(count):
                self._item(inner, depth)
        elif kind == 11:
            self._skip_map(depth)
        elif kind == _STRUCT:
            for _, inner in self.fields():
                self.skip(inner, depth + 1)
        else:
            raise ValueError(f"a header has a field of the kind {kind}")

    def _skip_map(self, depth: int) -> None:
        if count := self._possible(self._unsigned()):
            kinds = self._byte()
            for _ in range(count):
                self._item(kinds >> 4, depth)
                self._item(kinds & 15, depth)

    def _item(self, kind: int, depth: int) -> None:
        self.skip(3 if kind in {1, 2} else kind, depth + 1)

    def _possible(self, count: int) -> int:
        """Items take a byte at least."""
        if count > len(self._data) - self.at:
            raise IndexError
        return count

    def _byte(self) -> int:
        self.at += 1
        return self._data[self.at - 1]

    def _unsigned(self) -> int:
        number = shift = 0
        while (byte := self._byte()) > 127:
            number |= (byte & 127) << shift
            shift += 7
            if shift > 63:
                raise ValueError("a header holds a number of more than 64 bits")
        return number | byte << shift


def check_footer(file: IO[bytes]) -> None:
    """Refuse a Parquet footer that would take much more memory than it has bytes.

    Raises
    ------
    Unusable, ValueError
        It is too large; it is none.
    """
    size = file.seek(0, 2)
    file.seek(max(size - 8, 0))
    end = file.read(8)
    length = int.from_bytes(end[:4], "little")
    if end[4:] != b"PAR1" or length > size - 12:
        raise ValueError("its footer is cut off or encrypted")
    if length > LARGEST_FOOTER:
        raise Unusable(
            f"its footer has {length:,} bytes; at most {LARGEST_FOOTER:,} are read: write it with larger row groups"
        )
    file.seek(size - 8 - length)
    thrift = _Thrift(file.read(length))
    try:
        chunks = 0
        for number, kind in thrift.fields():
            if (number, kind) == (2, 9):
                _check_schema(thrift)
            elif (number, kind) == (4, 9):
                chunks = _count_chunks(thrift, chunks)
            else:
                thrift.skip(kind)
    except IndexError:
        raise ValueError("its footer ends too early") from None


def _check_schema(thrift: _Thrift) -> None:
    elements, kind = thrift.items()
    if elements > MOST_ELEMENTS:
        raise Unusable(f"has {elements:,} columns and parts of columns; at most {MOST_COLUMNS} columns are read")
    for _ in range(elements):
        thrift.skip(kind)


def _count_chunks(thrift: _Thrift, chunks: int) -> int:
    groups, kind = thrift.items()
    if kind != _STRUCT:
        raise ValueError("its row groups are none")
    for _ in range(groups):
        chunks += 1
        for number, inner in thrift.fields():
            if (number, inner) != (1, 9):
                thrift.skip(inner)
                continue
            columns, column = thrift.items()
            chunks += columns
            if chunks > MOST_CHUNKS:
                raise Unusable(
                    f"its row groups and columns are more than {MOST_CHUNKS:,}; write it with larger row groups"
                )
            for _ in range(columns):
                thrift.skip(column)
    return chunks


@dataclass(slots=True)
class _Held:
    """What reading a column of a row group takes, in bytes: at once, and for each of its values."""

    page: int = 0
    listed: int = 0
    whole: int = 0
    each: float = 0.0


@dataclass(frozen=True, slots=True)
class RowGroup:
    """How many rows of a Parquet row group may be read at once, and which of its columns list their values
    beforehand.
    """

    rows: int
    listed: tuple[str, ...]


def measured(file: IO[bytes], metadata: pq.FileMetaData, number: int, most: int) -> RowGroup:
    """How to read row group `number` (from 0) within bounded memory, at most `most` rows at once.

    Raises
    ------
    Unusable
        If it takes too much memory, however few they are.
    ValueError
        If its pages are none.
    """
    group, held, each, listed = metadata.row_group(number), 0, 0.0, []
    for place in range(group.num_columns):
        found = _pages(file, group.column(place), number)
        # Of lists nobody knows how many values a row has: their whole column counts.
        is_list = metadata.schema.column(place).max_repetition_level > 0
        held += found.listed + (found.whole if is_list else found.page)
        each += 0 if is_list else found.each
        if found.listed:
            listed.append(group.column(place).path_in_schema)
    if held > LARGEST_GROUP:
        raise Unusable(
            f"its row group {number + 1:,} takes {held:,} bytes to read; at most {LARGEST_GROUP:,} are unpacked at "
            "once: write it with smaller row groups and pages"
        )
    return RowGroup(max(min(most, int(LARGEST_PIECE / max(each, 1.0))), 1), tuple(listed))


def _pages(file: IO[bytes], chunk: pq.ColumnChunkMetaData, group: int) -> _Held:
    """Walk through the pages of a column the way a reader does."""
    at = chunk.data_page_offset
    if chunk.dictionary_page_offset and 0 < chunk.dictionary_page_offset < at:
        at = chunk.dictionary_page_offset
    end, values, found = at + chunk.total_compressed_size, 0, _Held()
    for _ in range(MOST_PAGES):
        if values >= chunk.num_values or at >= end:
            return found
        page = _page(file, at)
        if page.encoding not in _READ:
            raise Unusable(
                "has an encoding that cannot be read in bounded memory; write it with plain or dictionary encoding",
                field=chunk.path_in_schema,
            )
        at += page.header + page.compressed
        size = page.compressed + page.unpacked
        if page.kind == _DICTIONARY:
            found.listed += 3 * size + 64 * page.values  # it is held as text, as a table to look up, and as a column
            continue
        size += 4 * page.values if page.encoding == _DELTA_LENGTH else 0
        found.page = max(found.page, size)
        found.whole += size + 16 * page.values
        if page.kind in _VALUES_OF:
            found.each = max(found.each, size / max(page.values, 1))
            values += page.values
    raise Unusable(
        f"its row group {group + 1:,} has more than {MOST_PAGES:,} pages; write it with larger pages",
        field=chunk.path_in_schema,
    )


@dataclass(frozen=True, slots=True)
class _Page:
    kind: int
    header: int
    compressed: int
    unpacked: int
    values: int
    encoding: int


def _page(file: IO[bytes], at: int) -> _Page:
    for length in HEADER_BYTES:
        file.seek(at)
        data = file.read(length)
        try:
            return _page_of(data)
        except IndexError:
            if len(data) < length:
                break
    raise ValueError("a page has no readable header")


def _page_of(data: bytes) -> _Page:
    thrift = _Thrift(data)
    sizes = {1: -1, 2: -1, 3: -1}
    described = {5: (0, 0), 7: (0, 0), 8: (0, 0)}
    for number, kind in thrift.fields():
        if number in sizes and kind == 5:
            sizes[number] = thrift.integer()
        elif number in described and kind == _STRUCT:
            described[number] = _values(thrift, 4 if number == 8 else 2)
        else:
            thrift.skip(kind)
    page, unpacked, compressed = sizes.values()
    values, encoding = described[_VALUES_OF[page][0]] if page in _VALUES_OF else (0, 0)
    if min(unpacked, compressed, values) < 0:
        raise ValueError("a page says that it has less than no bytes")
    return _Page(page, thrift.at, compressed, unpacked, values, encoding)


def _values(thrift: _Thrift, place: int) -> tuple[int, int]:
    """How many values, and the encoding in field `place`."""
    found = {1: 0, place: 0}
    for number, kind in thrift.fields():
        if number in found and kind == 5:
            found[number] = thrift.integer()
        else:
            thrift.skip(kind)
    return found[1], found[place]
