"""The result of a read of Langfuse: counts, and the usage rows in batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from billing_core.langfuse.detect import Api
from billing_core.langfuse.rollup import DailyTotal
from billing_core.langfuse.spool import Spool
from billing_core.values.usage_frame import USAGE_SCHEMA, RejectedRow

BATCH_ROWS = 50_000

_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4")


@dataclass(slots=True)
class UpstreamRead:
    """A finished read of Langfuse. Its rows live in the spool until `discard`, which belongs after booking.

    observations: Rows read, those taken over from an interrupted run included; rows asked for a second time (to get
        metadata in full, or to look for late ends) are not counted again.
    duplicates: Rows dropped because a newer version of the same observation was read too.
    rejected: Rows that could not be read at all.
    notes: Sentences about rows that were not looked for.
    daily: Sums per UTC day of the window, for the cross-check with Langfuse's own metrics.
    """

    api: Api
    spool: Spool
    observations: int = 0
    duplicates: int = 0
    rejected: list[RejectedRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    daily: list[DailyTotal] = field(default_factory=list)
    events: int = 0
    _files: list[Path] = field(default_factory=list)

    def keep(self, table: pa.Table) -> None:
        """Add a rolled-up table to the read; for the provider."""
        path = self.spool.work_folder / f"events-{len(self._files):04d}.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, USAGE_SCHEMA, options=_OPTIONS) as writer:
            writer.write_table(table)
        self._files.append(path)
        self.events += len(table)

    def batches(self, size: int = BATCH_ROWS) -> Iterator[pa.Table]:
        """The usage rows, one per trace, in tables of at most `size`; can be iterated again until `discard`."""
        for path in self._files:
            with pa.memory_map(str(path)) as file:
                table = pa.ipc.open_file(file).read_all()
            for start in range(0, len(table), size):
                yield table.slice(start, size)

    def discard(self) -> None:
        """Delete the read's pages and rows from disk; called once they were booked."""
        self._files.clear()
        self.spool.discard()

    def close(self) -> None:
        """End the read but leave its pages for the next run of the same window, as after a failed booking."""
        self.spool.release()
