"""Reads Parquet files as columns of text, through a process of its own that may take only so much memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import SEEK_END
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from billing_core.imports.bounds import MOST_COLUMNS, PARQUET_LIMITS, TOO_LARGE, Unusable

SMALL_FOOTER = 1 << 17
"""Bytes. It takes at most a thousand times that in memory, so it is read here, where that takes no time."""


def column_names(path: Path) -> tuple[str, ...]:
    """The column names of a Parquet file.

    Raises
    ------
    Unusable
        If it is no Parquet file, or one that cannot be read in the memory there is for it.
    """
    with suppress(pa.ArrowException, OSError, ValueError), path.open("rb") as file:
        file.seek(-8, SEEK_END)
        if int.from_bytes(file.read(4), "little") <= SMALL_FOOTER:
            with pq.ParquetFile(path, **PARQUET_LIMITS) as table:
                if len(table.schema) <= MOST_COLUMNS:
                    return tuple(table.schema_arrow.names)
    with _read_apart(path, 0) as stream:
        return tuple(stream.schema.names)


def pieces(path: Path, rows: int) -> Iterator[tuple[int, dict[str, pa.Array]]]:
    """The rows of a Parquet file in pieces of at most `rows`: number of the first row, and every column as text.

    Raises
    ------
    Unusable
        From where on the file is damaged, or takes too much memory.
    """
    first = 1
    with _read_apart(path, rows) as stream:
        for batch in stream:
            yield first, dict(zip(batch.schema.names, batch.columns, strict=True))
            first += batch.num_rows


@contextmanager
def _read_apart(path: Path, rows: int) -> Iterator[pa.RecordBatchStreamReader]:
    """What the child process reads; it ends with the block, and when this process ends, as nobody reads it then."""
    path_of_modules = os.pathsep.join(filter(None, (str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH"))))
    # The system's own allocator asks for what is needed; others reserve more than the limit at once.
    environment = os.environ | {"PYTHONPATH": path_of_modules, "ARROW_DEFAULT_MEMORY_POOL": "system"}
    with subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", "billing_core.imports.parquet_child", str(path), str(rows)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    ) as process:
        assert process.stdout is not None  # noqa: S101 - asked for above
        assert process.stderr is not None  # noqa: S101
        try:
            with suppress(pa.ArrowInvalid):  # where it ends in the middle
                yield pa.ipc.open_stream(process.stdout)
            said = process.stderr.read()
            if code := process.wait():
                raise _fault(code, said)
        finally:
            process.kill()


def _fault(code: int, said: bytes) -> Unusable:
    """Why the child process ended early, as it said itself unless it was stopped or broke."""
    try:
        row, field, reason = json.loads(said)
    except ValueError:
        return Unusable(f"ended the process that reads it (code {code}): it is damaged, or {TOO_LARGE}")
    return Unusable(reason, row=row, field=field)
