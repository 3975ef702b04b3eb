"""Keeps the checked events of a file on disk, so that memory does not grow with it, and finds duplicates among them.

An export over closed months holds an event whose usage came late more than once: as its month was closed, and for each
later change a row that takes the former state back and one with the new state. Those fold into the event as it is now.
Anything else that is there twice is rejected.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from billing_core.imports.bounds import shown
from billing_core.imports.model import MOST_LISTED, RejectedLine
from billing_core.imports.temp_folder import Scratch
from billing_core.imports.validation import COUNTS, PARTS, STAGED
from billing_core.runtime.faults import naming

MEMORY = "256MB"
"""What finding duplicates may use before it goes to disk."""

ROWS_AT_ONCE = 50_000

_SUMMED = (*PARTS, "credits_total", *COUNTS)


class StagedRows:
    """The checked rows of an imported file in a private folder, which is removed with this object."""

    def __init__(self) -> None:
        self._scratch = Scratch()
        self._writer: pq.ParquetWriter | None = pq.ParquetWriter(self._file, STAGED, compression="zstd")
        self._dropped: npt.NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self.rows = 0

    @property
    def _file(self) -> Path:
        return self._scratch.path / "events.parquet"

    def close(self) -> None:
        """Remove the folder with the rows."""
        self._scratch.close()

    def exists(self) -> bool:
        """Whether the folder still exists: temporary folders are cleaned up by others too."""
        return self._file.is_file()

    def add(self, rows: pa.Table) -> None:
        """Write checked rows (`STAGED`) to the folder."""
        if self._writer is not None and rows.num_rows:
            with naming(self._file):
                self._writer.write_table(rows)
            self.rows += rows.num_rows

    def finish(self) -> tuple[list[RejectedLine], int]:
        """End the writing: reject rows that contradict each other and merge equal ones; returns reasons and how many
        rows they concern.
        """
        if self._writer is not None:
            with naming(self._file):
                self._writer.close()
            self._writer = None
        with duckdb.connect(
            config={"memory_limit": MEMORY, "temp_directory": str(self._scratch.path / "tmp")}
        ) as engine:
            engine.execute("SET threads = 1")
            engine.read_parquet(str(self._file)).create_view("staged")
            engine.execute(_SUSPECTS)
            engine.execute(_GROUPS)
            rejected = [
                RejectedLine(
                    row, "id", _TWICE.format(shown(event_id), first) if is_twice else _PARTS.format(shown(event_id))
                )
                for row, event_id, first, is_twice in engine.execute(_REJECTED, [MOST_LISTED]).fetchall()
            ]
            count = int(engine.execute(f"SELECT count(*) FROM ({_BAD})").fetchall()[0][0])
            dropped = engine.execute(_DROPPED).fetchnumpy()["row"]
        self._dropped = np.sort(np.asarray(dropped, dtype=np.int64))
        self.rows -= len(self._dropped)
        return rejected, count

    def batches(self, rows: int = ROWS_AT_ONCE) -> Iterator[pa.Table]:
        """The staged events, each once, in the order of the file, in pieces."""
        with pq.ParquetFile(self._file) as file:
            for batch in file.iter_batches(batch_size=rows):
                table = pa.Table.from_batches([batch], schema=STAGED)
                if len(self._dropped):
                    keep = ~np.isin(table["row"].to_numpy(), self._dropped)
                    table = table.filter(pa.array(keep))
                if table.num_rows:
                    yield table


_SAME = " AND ".join(
    f'coalesce(sum({name}), 0) = coalesce(arg_max(coalesce({name}, 0), "row") FILTER (NOT is_reversal), 0)'
    for name in _SUMMED
)

_SUSPECTS = """
CREATE TEMP TABLE suspects AS SELECT id FROM staged GROUP BY id HAVING count(*) > 1 OR bool_or(is_reversal)
"""
"""Ids that are there more than once, or that are taken back: few, so that what follows looks at few."""

_GROUPS = f"""
CREATE TEMP TABLE groups AS
SELECT id, count(*) AS occurs, min("row") AS first, max("row") FILTER (NOT is_reversal) AS kept,
       bool_or(is_late) AS is_late,
       count(*) FILTER (NOT is_late) <= 1 AND kept IS NOT NULL AND {_SAME} AS folds
FROM staged SEMI JOIN suspects USING (id) GROUP BY id
"""
"""They fold if all the states of an event are there: then what was taken back cancels, and the sums are the newest
state's own."""

_BAD = """
SELECT s."row", s.id, g.first, NOT g.is_late AS is_twice FROM staged s JOIN groups g USING (id)
WHERE NOT g.folds AND (g.is_late OR s."row" <> g.first)
"""
"""Of what does not fold, every row of a correction of which parts are missing, and every repetition."""

_REJECTED = f'{_BAD} ORDER BY s."row" LIMIT ?'

_DROPPED = f"""
SELECT "row" FROM ({_BAD}) UNION ALL
SELECT s."row" FROM staged s JOIN groups g USING (id) WHERE g.folds AND s."row" <> g.kept
"""

_TWICE = "{} is already in row {:,}; list every event once"
_PARTS = (
    "{} was corrected after its month was closed, and the file lacks the state before or after; "
    "export the months before as well"
)
