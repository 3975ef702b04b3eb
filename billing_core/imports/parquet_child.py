"""Reads a Parquet file in a process of its own, whose memory is limited, and writes it as columns of text.

    python -m billing_core.imports.parquet_child PATH ROWS

writes an Arrow stream of record batches with at most ROWS rows (0: only the names of its columns). A file that cannot
be read ends it with exit code 2 and row, column and reason as JSON on standard error. A few kilobytes of Parquet can
stand for gigabytes, and only the operating system sees to it that they are not unpacked.

Texts are read as lists of different values and places in them, so that one that is repeated is held once; they are
measured there, and written out in pieces that stay small.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from billing_core.imports.bounds import (
    LARGEST_CELL,
    LARGEST_PIECE,
    MOST_COLUMNS,
    MOST_MEMORY,
    PARQUET_LIMITS,
    TOO_LARGE,
    Unusable,
)

Integers: TypeAlias = npt.NDArray[np.int64]

_TEXTS = (
    pa.types.is_string,
    pa.types.is_large_string,
    pa.types.is_string_view,
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_binary_view,
)

LONGEST_FIXED = 64
"""Bytes of a value of fixed width; a decimal has at most 32."""

LONGEST_LIST = 2 * 1024 * 1024
"""Bytes. Writers list the values of a column up to one megabyte, roughly."""

MOST_TIMES = 1_000
"""A file may unpack to so many times its bytes. Exports do so ten times; without a bound, a small one takes hours."""

FREE = 128 * 1024 * 1024
"""Bytes up to which the ratio says nothing."""


def main(path: str, rows: int) -> None:
    """Write the file to standard output; it ends early when nobody reads that any more."""
    _limit_memory()
    first = 1
    try:
        with pq.ParquetFile(path, **PARQUET_LIMITS) as table:
            metadata, schema, columns = table.metadata, table.schema, table.schema_arrow
        if len(schema) > MOST_COLUMNS:
            raise Unusable(f"has {len(schema):,} columns; at most {MOST_COLUMNS} are read")
        texts = pa.schema([(name, pa.string()) for name in columns.names])
        with pa.ipc.new_stream(sys.stdout.buffer, texts) as stream:
            if rows:
                _check_types(schema, columns)
                for piece in _pieces(path, metadata, rows):
                    cells = [_as_text(name, column) for name, column in zip(texts.names, piece.columns, strict=True)]
                    stream.write_batch(pa.record_batch(cells, schema=texts))
                    first += piece.num_rows
        sys.stdout.flush()
    except Unusable as fault:
        _end(fault.row or first, fault.field, fault.reason)
    except MemoryError:
        _end(first, "file", TOO_LARGE)
    except BrokenPipeError:  # what is left in the buffer has nobody to go to when the interpreter ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (pa.ArrowException, OSError, ValueError) as error:
        said = " ".join(str(error).split())[:120]
        if "bad_alloc" in said:  # the footer's reader wraps it
            _end(first, "file", TOO_LARGE)
        reason = f"cannot be read from here on ({said}): the file is damaged"
        _end(first, "file", reason if rows else f"is not a complete Parquet file ({said}); export or copy it again")


def _limit_memory() -> None:
    """Where the operating system has no such limit, there is none."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))


def _end(row: int, field: str, reason: str) -> None:
    """Row 1 is the whole file: nothing was read before."""
    sys.stderr.write(json.dumps([row if row > 1 else 0, field, reason]))
    sys.exit(2)


def listed_columns(metadata: pq.FileMetaData) -> list[str]:
    """The columns that are read as lists of values: those whose bytes are a list and places in it, in every row group.

    A writer gives up listing when there are many values. Arrow would go on, and keep every value it ever saw.
    """
    plain: set[str] = set()
    found: set[str] = set()
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for chunk in map(group.column, range(group.num_columns)):
            is_listed = (
                chunk.has_dictionary_page and chunk.total_uncompressed_size < 4 * chunk.num_values + LONGEST_LIST
            )
            (found if is_listed else plain).add(chunk.path_in_schema)
    return sorted(found - plain)


def _pieces(path: str, metadata: pq.FileMetaData, rows: int) -> Iterator[pa.RecordBatch]:
    """The rows, as many at once as stay small as text."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    most, unpacked, first = max(Path(path).stat().st_size * MOST_TIMES, FREE), 0, 1
    with pq.ParquetFile(
        path,
        metadata=metadata,
        read_dictionary=listed_columns(metadata),
        buffer_size=1 << 16,
        pre_buffer=False,
        **PARQUET_LIMITS,
    ) as table:
        for number, group in enumerate(groups):
            fitting = LARGEST_PIECE * group.num_rows // max(group.total_byte_size, 1)
            for batch in table.iter_batches(max(min(rows, fitting), 1), [number], use_threads=False):
                _check_texts(batch, first)
                ends = _ends(batch)
                unpacked += int(ends[-1]) if len(ends) else 0
                if unpacked > most:
                    raise Unusable(f"unpacks to more than {most:,} bytes, which no export of its size does")
                yield from _small(batch, ends)
                first += batch.num_rows


def _check_types(schema: pq.ParquetSchema, columns: pa.Schema) -> None:
    """Refuse by its type what cannot be text, or not in bounded memory."""
    for place in range(len(schema)):
        leaf = schema.column(place)
        if leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type == "DECIMAL":
            raise _wrong_type(leaf.path, "decimals of any length")
        if leaf.physical_type == "FIXED_LEN_BYTE_ARRAY" and leaf.length > LONGEST_FIXED:
            raise _wrong_type(leaf.path, f"values of {leaf.length:,} bytes")
    for field in columns:
        kind = field.type
        if pa.types.is_floating(kind) and field.name != "latency_seconds":
            raise Unusable(
                f"holds binary floating point numbers ({kind}), which are not exact; expected DECIMAL or text",
                field=field.name,
            )


def _wrong_type(name: str, kind: str) -> Unusable:
    return Unusable(f"has the type {kind}; expected text, numbers, DECIMAL or times", field=name)


def _check_texts(batch: pa.RecordBatch, first: int) -> None:
    """Refuse what is no UTF-8, longer than a cell may be, or a few lists of very many values."""
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_nested(column.type) and _bytes(column) > LARGEST_PIECE:
            raise Unusable(f"has lists of more than {LARGEST_PIECE:,} bytes", row=first, field=name)
        if not _is_text(column):
            continue
        texts = _values(column).cast(pa.string())
        texts.validate(full=True)  # Parquet's text may be no UTF-8
        is_long = pc.greater(pc.utf8_length(texts), LARGEST_CELL)
        if pc.any(is_long).as_py() and (place := pc.index(_each(column, is_long), True).as_py()) >= 0:
            raise Unusable(f"has a cell of more than {LARGEST_CELL:,} characters", row=first + place, field=name)


def _is_text(column: pa.Array) -> bool:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    return any(is_one(kind) for is_one in _TEXTS)


def _values(column: pa.Array) -> pa.Array:
    """The values of a column, each once if it lists them."""
    return column.dictionary if pa.types.is_dictionary(column.type) else column


def _each(column: pa.Array, facts: pa.Array) -> pa.Array:
    """Facts of `_values`, row for row."""
    return facts.take(column.indices) if pa.types.is_dictionary(column.type) else facts


def _bytes(column: pa.Array) -> int:
    """About what a nested column takes once it is written out."""
    if pa.types.is_struct(column.type):
        return sum(map(_bytes, column.flatten()))
    if pa.types.is_nested(column.type):
        return _bytes(column.flatten())
    return 8 * len(column) + (int(_lengths(column).sum()) if _is_text(column) else 0)


def _lengths(column: pa.Array) -> Integers:
    """Bytes of each text."""
    lengths = _each(column, pc.binary_length(_values(column).cast(pa.large_binary()))).fill_null(0)
    found: Integers = lengths.to_numpy(zero_copy_only=False).astype(np.int64)
    return found


def _ends(batch: pa.RecordBatch) -> Integers:
    """Where each row would end if the batch was written out as text: texts by their lengths, a byte for each cell."""
    each: Integers = np.full(batch.num_rows, batch.num_columns, dtype=np.int64)
    for column in batch.columns:
        if _is_text(column):
            each += _lengths(column)
    return np.cumsum(each)


def _small(batch: pa.RecordBatch, ends: Integers) -> Iterator[pa.RecordBatch]:
    """Slices whose texts stay small once they are written out; a row is never split."""
    start = 0
    while start < batch.num_rows:
        most = (ends[start - 1] if start else 0) + LARGEST_PIECE
        stop = max(int(np.searchsorted(ends, most, side="right")), start + 1)
        yield batch.slice(start, stop - start)
        start = stop


def _as_text(name: str, column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _as_text(name, column.cast(kind.value_type))
    if pa.types.is_timestamp(kind):
        is_finer = kind.unit == "ns"  # than what the ledger keeps; cut, as there is no room for it
        exact = column.cast(pa.timestamp("us", tz=kind.tz), safe=not is_finer)
        text = exact.cast(pa.timestamp("us")).cast(pa.string())  # UTC; with its zone it would be looked up
        return text if kind.tz is None else pc.binary_join_element_wise(text, "Z", "")
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_struct(kind):
        return pa.array(
            [None if v is None else json.dumps(v, ensure_ascii=False, default=str) for v in column.to_pylist()],
            pa.string(),
        )
    try:
        return column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise _wrong_type(name, str(kind)) from None


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
