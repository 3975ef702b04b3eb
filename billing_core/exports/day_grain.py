"""Exports usage by day: one row per day of a timezone and combination of attributes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa

from billing_core.exports.arrow_text import json_list, mapped, whole
from billing_core.exports.event_slices import EPOCH, SLICE_ROWS, TimeSpan, within
from billing_core.exports.flat_schema import AMOUNT, JSON_TEXT, field
from billing_core.ledger import export_queries
from billing_core.ledger.export_queries import DAY_COUNTS, DAY_KEYS
from billing_core.ledger.journal import Ledger
from billing_core.ledger.queries import LocalTime, Selection, local_time, split_models
from billing_core.types import Credits

CREDIT_SUM = pa.decimal128(38, 6)
LONG_SUM = pa.decimal128(38, 12)
_CREDITS = tuple(f"credits_{part}" for part in Credits.model_fields)

DAY_SCHEMA = pa.schema(
    [
        field("day", pa.date32()),
        *(field(name, pa.string(), JSON_TEXT if name == "models" else None) for name in DAY_KEYS),
        field("events", pa.int64()),
        *(field(name, pa.int64()) for name in DAY_COUNTS),
        field("storage_gb", LONG_SUM),
        field("cost_usd", LONG_SUM),
        *(field(name, CREDIT_SUM) for name in _CREDITS),
        field("amount_usd", AMOUNT),
    ]
)


@dataclass(frozen=True, slots=True)
class DayRead:
    """Some whole days of a selection: `[start, end)` in seconds since 1970."""

    ledger: Ledger
    selection: Selection
    zone: ZoneInfo

    def rows(self) -> int:
        """How many rows these days have."""
        return int(self.ledger.read_rows(export_queries.day_count(*self._days()))[0]["rows"])

    def table(self) -> pa.Table:
        """The rows of these days in order: by day, then by every attribute, unknown ones last."""
        stored = self.ledger.engine.read(export_queries.days(*self._days()))
        columns = [_typed(stored, wanted) for wanted in DAY_SCHEMA]
        return pa.Table.from_arrays(columns, schema=DAY_SCHEMA)

    def _days(self) -> tuple[Selection, LocalTime]:
        start, end = self.selection.start, self.selection.end
        if start is None or end is None:
            raise ValueError("days have a beginning and an end")
        return self.selection, local_time(self.zone, start, end)


def days(ledger: Ledger, selection: Selection, zone: ZoneInfo, spans: Sequence[TimeSpan]) -> list[DayRead]:
    """The days of a selection whose events lie in `spans`, as many at a time as have about a slice's events."""
    return [DayRead(ledger, within(selection, part), zone) for part in local_days(zone, spans, SLICE_ROWS)]


def local_days(zone: ZoneInfo, spans: Sequence[TimeSpan], most: int) -> list[TimeSpan]:
    """Spans of events widened to whole days of `zone`; neighbours that share a day, or hold few events, are joined."""
    parts: list[TimeSpan] = []
    for span in spans:
        start, end = _day_start(zone, span.start), _day_end(zone, span.end)
        last = parts[-1] if parts else None
        if last is not None and (start < last.end or last.rows + span.rows <= most):
            parts[-1] = TimeSpan(last.start, max(last.end, end), last.rows + span.rows)
        else:
            parts.append(TimeSpan(start, end, span.rows))
    return parts


def month_windows(zone: ZoneInfo, start: int, end: int) -> list[tuple[datetime, datetime]]:
    """The calendar months of `zone` that `[start, end)`, in seconds since 1970, touches: aware UTC, half open."""
    first = _local(zone, start).date().replace(day=1)
    last = _local(zone, end - 1).date()
    windows = []
    while first <= last:
        following = (first + timedelta(days=32)).replace(day=1)
        windows.append((_midnight(zone, first), _midnight(zone, following)))
        first = following
    return windows


def named_month(zone: ZoneInfo, start: datetime) -> str:
    """The name (`2026-10`) of the month that begins at `start`."""
    return f"{start.astimezone(zone):%Y-%m}"


def _local(zone: ZoneInfo, second: int) -> datetime:
    return (EPOCH + timedelta(seconds=second)).astimezone(zone)


def _midnight(zone: ZoneInfo, day: date) -> datetime:
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _day_start(zone: ZoneInfo, second: int) -> int:
    return int(_midnight(zone, _local(zone, second).date()).timestamp())


def _day_end(zone: ZoneInfo, second: int) -> int:
    return int(_midnight(zone, _local(zone, second - 1).date() + timedelta(days=1)).timestamp())


def _typed(stored: pa.Table, wanted: pa.Field) -> pa.Array:
    column = whole(stored[wanted.name])
    if wanted.name == "models":
        return mapped(column, lambda text: json_list(split_models(text)))
    if wanted.name == "day":
        return column.cast(pa.int32()).cast(pa.date32())
    return column.cast(wanted.type)
