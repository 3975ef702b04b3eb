"""Arithmetic on Arrow columns of times, without Arrow's own functions for it.

Those ask the system's timezone database, even for UTC, and a small container has none.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def microseconds(times: Any) -> Any:
    """The times of a column as whole microseconds since 1970, UTC."""
    return times.cast(pa.timestamp("us", tz=times.type.tz)).cast(pa.int64())


def microseconds_between(start: Any, end: Any) -> Any:
    """How many microseconds `end` is after `start`, per row; null where one of them is."""
    return pc.subtract(microseconds(end), microseconds(start))


def cut_to(times: Any, step: timedelta) -> Any:
    """The times of a column rounded down to multiples of `step`; the type stays."""
    exact, size = microseconds(times), step // timedelta(microseconds=1)
    near = pc.multiply(pc.divide(exact, size), size)  # towards 1970
    cut = pc.if_else(pc.greater(near, exact), pc.subtract(near, size), near)
    return cut.cast(pa.timestamp("us", tz=times.type.tz)).cast(times.type)
