"""Regroups observation facts by trace on disk, so that the roll-up can work on one bounded part after the other."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa

from billing_core.langfuse.facts import FACTS_SCHEMA
from billing_core.runtime.faults import naming

PARTITION_ROWS = 60_000
"""Rows one partition should hold at most; together with the roll-up a quarter of a gigabyte."""

BUCKETS = 256
GROUP_ROWS = 50_000
"""Rows regrouped at a time: large enough for batches worth reading, small enough for memory."""

_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


class Partitions:
    """Files of observation facts; all rows of a trace are in the same one.

    folder: Where the partitions are written; must not hold anything else.
    rows: How many rows are to be expected; decides how many partitions there are.
    """

    def __init__(self, folder: Path, rows: int) -> None:
        self.count = min(max(-(-rows // PARTITION_ROWS), 1), BUCKETS)
        self._folder = folder
        self._adds = 0
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, tables: Iterable[pa.Table]) -> None:
        """Add pages of facts to the partitions; may be called again for pages that come later."""
        self._adds += 1
        writers: dict[int, pa.RecordBatchStreamWriter] = {}
        with ExitStack() as written:
            written.enter_context(naming(self._folder))
            for group in _groups(tables):
                numbers = group["bucket"].to_numpy().astype(np.int64) * self.count // BUCKETS
                order = np.argsort(numbers, kind="stable")
                edges = np.searchsorted(numbers[order], np.arange(self.count + 1))
                regrouped = group.take(pa.array(order)) if self.count > 1 else group
                for number in range(self.count):
                    start, end = int(edges[number]), int(edges[number + 1])
                    if start == end:
                        continue
                    if number not in writers:
                        path = self._folder / f"{number:03d}-{self._adds}.arrows"
                        writer = pa.ipc.new_stream(str(path), FACTS_SCHEMA, options=_OPTIONS)
                        writers[number] = written.enter_context(writer)
                    writers[number].write_table(regrouped.slice(start, end - start))

    def remove(self) -> None:
        """Delete the files of the partitions."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def __iter__(self) -> Iterator[pa.Table]:
        """The partitions, one at a time; empty ones are left out."""
        for number in range(self.count):
            tables = []
            for path in sorted(self._folder.glob(f"{number:03d}-*.arrows")):
                with pa.memory_map(str(path)) as file:
                    tables.append(pa.ipc.open_stream(file).read_all())
            if tables:
                yield pa.concat_tables(tables)


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    group: list[pa.Table] = []
    rows = 0
    for table in tables:
        group.append(table)
        rows += len(table)
        if rows >= GROUP_ROWS:
            yield pa.concat_tables(group)
            group, rows = [], 0
    if rows:
        yield pa.concat_tables(group)
