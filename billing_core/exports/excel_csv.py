"""CSV as spreadsheets in Europe open it: semicolons, decimal commas, the local time beside each UTC time. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.exports.arrow_text import texts, whole
from billing_core.exports.source import RowSource
from billing_core.ledger.queries import offsets

SEPARATOR = ";"
SECOND = 10**6


def local_name(name: str, zone: ZoneInfo) -> str:
    """The heading of a column of local times, such as `timestamp (Europe/Berlin)`.

    That of UTC has another name than `(UTC)`, which says of the column of times itself what it is in.
    """
    return f"{name} ({'Etc/UTC' if zone.key == 'UTC' else zone.key})"


def for_excel(source: RowSource, zone: ZoneInfo) -> RowSource:
    """An export's rows with a column of local times after each column of times, and decimal commas in text."""
    times = [field.name for field in source.schema if pa.types.is_timestamp(field.type)]
    fields = []
    for one in source.schema:
        fields.append(one)
        if one.name in times:
            fields.append(pa.field(local_name(one.name, zone), pa.string()))
    schema = pa.schema(fields)

    def with_local(table: pa.Table) -> pa.Table:
        columns = {field.name: table[field.name] for field in table.schema}
        columns |= {local_name(name, zone): local_times(whole(table[name]), zone) for name in times}
        return pa.Table.from_arrays([columns[name] for name in schema.names], schema=schema)

    def tables() -> Iterator[pa.Table]:
        return map(with_local, source.tables())

    head = source.head
    first = None if head is None else lambda rows: with_local(head(rows))
    return replace(source, schema=schema, tables=tables, head=first, text=_text)


def local_times(times: pa.Array, zone: ZoneInfo) -> pa.Array:
    """Times in UTC as local text without an offset, to the second (`2026-10-31 14:03:07`), as spreadsheets read it."""
    microseconds = times.cast(pa.timestamp("us", tz=times.type.tz)).cast(pa.int64())
    known = microseconds.drop_null().to_numpy(zero_copy_only=False) // SECOND
    if not len(known):
        return pa.nulls(len(times), pa.string())
    first, last = (datetime.fromtimestamp(int(at), UTC) for at in (known.min(), known.max()))
    steps = offsets(zone, first, last + timedelta(seconds=1))
    ends = np.array([int(until.timestamp()) for until, _ in steps[:-1]], np.int64)
    shifts = np.array([int(offset.total_seconds()) for _, offset in steps], np.int64)
    at = pc.fill_null(microseconds, 0).to_numpy(zero_copy_only=False) // SECOND
    local = pa.array(at + shifts[np.searchsorted(ends, at, side="right")]).cast(pa.timestamp("s"))
    return pc.if_else(microseconds.is_valid(), pc.cast(local, pa.string()), pa.scalar(None, pa.string()))


def _text(table: pa.Table) -> pa.Table:
    """Everything as text, decimals with a comma."""
    columns = [
        pc.replace_substring(texts(column), ".", ",") if pa.types.is_decimal(column.type) else texts(column)
        for column in table.columns
    ]
    return pa.Table.from_arrays(columns, names=table.column_names)
