"""Writes Parquet files: decimals as DECIMAL, times in UTC, and the export's metadata in the file's own."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from billing_core.exports.hashing_file import HashingSink
from billing_core.exports.source import RowSource

METADATA_KEY = "billing"
"""Under this name the file's metadata holds a JSON document: rows, totals and the rest of the manifest."""

NEARLY_UNIQUE = frozenset(
    {
        "id",
        "timestamp",
        "ended_at",
        "session_id",
        "latency_seconds",
        "cost_usd",
        "credits_ai_tokens",
        "credits_compute",
        "credits_total",
        "amount_usd",
        "meter_event_identifier",
        "synced_at",
        "trace_url",
        "usage",
        "updated_at",
    }
)
"""Columns of which a list of different values would be as long as the column: Parquet need not try to make one."""

BOUNDED = ("timestamp", "day", "ChargePeriodStart")
"""Columns whose smallest and largest value per row group spare readers the others: rows are in the order of time."""


def write_parquet(
    sink: HashingSink, source: RowSource, tables: Iterable[pa.Table], document: dict[str, object]
) -> None:
    """Write a whole Parquet file, one row group per table; `document` goes into the metadata."""
    text = json.dumps(document, ensure_ascii=False, sort_keys=True)
    schema = pa.schema([field.remove_metadata() for field in source.schema], metadata={METADATA_KEY: text})
    repeating = [name for name in schema.names if name not in NEARLY_UNIQUE]
    bounded = [name for name in BOUNDED if name in schema.names]
    file = pa.PythonFile(sink, mode="w")
    # Decimals of up to 18 digits as integers of 64 bits: still DECIMAL to every reader, and half the work to write.
    with pq.ParquetWriter(
        file,
        schema,
        compression="snappy",
        use_dictionary=repeating,
        write_statistics=bounded or False,
        store_decimal_as_integer=True,
    ) as writer:
        for table in tables:
            writer.write_table(pa.Table.from_arrays(table.columns, schema=schema), row_group_size=table.num_rows)
