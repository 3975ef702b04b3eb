"""Finds traces of which only rows with impossible times were seen: lost starts (1970), wrong clocks (2106)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from billing_core.langfuse.pieces import shown
from billing_core.langfuse.plan import LANGFUSE_BEGAN, astray_after
from billing_core.langfuse.spool import SpoolPart
from billing_core.values.usage_frame import RejectedRow, Window

MOST_STRAYS = 1_000
"""Such traces whose other rows are asked for in one read: normally there is none."""

_TOO_MANY = (
    f"has rows dated before 2020 or in the future, as have more than {MOST_STRAYS:,} traces: not read; "
    "mend the clock of whatever sends them, and delete these traces or pull the time they are dated by --from and --to"
)
_PERHAPS_ELSEWHERE = (
    "was seen only at times before 2020 or in the future, and Langfuse found the question for its other rows too "
    "heavy: not saved; pull the time it belongs to by --from and --to"
)


class Strays:
    """Traces of one read that have rows with impossible times: booked if they have no other rows, whatever the window.

    foreign: Those not booked by this read: other rows of theirs lie in some other window, or may.
    rejected: Those about which that could not be found out.
    """

    def __init__(self, ids: set[str], left: Sequence[str]) -> None:
        self.ids = ids
        self.foreign = set(left)
        self.rejected = [RejectedRow(f"trace {shown(one)}", _TOO_MANY) for one in left]

    @classmethod
    def of(cls, ids: set[str]) -> Strays:
        """The first of these traces, to be examined."""
        ordered = sorted(ids)
        return cls(set(ordered[:MOST_STRAYS]), ordered[MOST_STRAYS:])

    def judge(self, parts: Sequence[SpoolPart], window: Window, now: datetime, *, is_whole: bool) -> None:
        """Decide by their other rows which traces have a place in time; `is_whole`: whether all of those were read."""
        future = astray_after(window, now)
        for part in parts:
            for table in part.tables(["trace_id", "start_time"]):
                times = pc.divide(table["start_time"].cast(pa.int64()), 1000)
                in_time = pc.and_(pc.greater_equal(times, LANGFUSE_BEGAN), pc.less(times, future))
                self.foreign.update(pc.unique(table.filter(in_time)["trace_id"]).to_pylist())
        if not is_whole:
            unknown = sorted(self.ids - self.foreign)
            self.foreign.update(unknown)
            self.rejected += [RejectedRow(f"trace {shown(one)}", _PERHAPS_ELSEWHERE) for one in unknown]
