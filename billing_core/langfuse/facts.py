"""The schema of observation facts: what billing needs of one observation, the same for both API generations.

One Arrow row per row read, before anything is deduplicated. Prompts and answers are never part of it.
"""

from __future__ import annotations

import pyarrow as pa

from billing_core.values.usage_frame import COST, TIME, TOKEN_CLASSES

TRACE_RECORD, MARKED_ROOT, ROOT, NOT_ROOT = 0, 1, 2, 3
"""`rank`: whose attributes come first. A legacy trace record stands above every observation; a row the
application marked as root (it has a physical parent) above physical roots."""

_VALUES = [
    pa.field("project_id", pa.string()),
    pa.field("trace_id", pa.string(), nullable=False),
    pa.field("id", pa.string(), nullable=False),
    pa.field("bucket", pa.uint8(), nullable=False),  # from the trace id: rows of a trace meet in one partition
    pa.field("rank", pa.int8(), nullable=False),
    pa.field("parent_id", pa.string()),
    pa.field("environment", pa.string()),
    pa.field("name", pa.string()),
    pa.field("type", pa.string()),
    pa.field("level", pa.string()),
    pa.field("trace_name", pa.string()),
    pa.field("session_id", pa.string()),
    pa.field("model", pa.string()),
    pa.field("metadata", pa.string()),  # roots only
    pa.field("user_id", pa.string()),  # the row's own
    pa.field("customer_id", pa.string()),
    pa.field("organization_id", pa.string()),
    pa.field("chatflow_id", pa.string()),
    pa.field("chatflow_name", pa.string()),
    pa.field("ownership", pa.string()),
    pa.field("legacy_status", pa.string()),
    pa.field("legacy_error", pa.string()),
    pa.field("storage_gb", COST),
    pa.field("legacy_ai_tokens", COST),
    pa.field("legacy_compute", COST),
    pa.field("legacy_storage", COST),
    pa.field("legacy_total", COST),
    pa.field("cut", pa.bool_(), nullable=False),  # a metadata value of ours came shortened
    pa.field("metadata_user_id", pa.string()),  # for traces whose rows name no user
    pa.field("tokens_in", pa.int64()),
    pa.field("tokens_out", pa.int64()),
    pa.field("tokens_total", pa.int64()),
    *(pa.field(f"tokens_{name}", pa.int64(), nullable=False) for name in TOKEN_CLASSES),
    pa.field("usage_keys", pa.list_(pa.string())),  # beside each other with the counts: tokens by key, other units
    pa.field("usage_counts", pa.list_(pa.int64())),
    pa.field("cost_usd", COST),
    pa.field("unpriced", pa.bool_(), nullable=False),
    pa.field("bad_usage", pa.bool_(), nullable=False),
    pa.field("overlap", pa.bool_(), nullable=False),
    pa.field("incomplete", pa.bool_(), nullable=False),  # a value that is not an amount could not be read
    pa.field("failed", pa.bool_()),  # level ERROR; null: no level came
    pa.field("problems", pa.list_(pa.string())),
    pa.field("record_cost", COST),  # of a legacy trace record: what Langfuse sums
    pa.field("record_latency", pa.float64()),  # seconds, likewise
]

VALUE_NAMES = tuple(field.name for field in _VALUES)
"""The columns filled row by row, in order; times and the two flags below come column by column."""

FACTS_SCHEMA = pa.schema(
    [
        *_VALUES,
        pa.field("start_time", TIME, nullable=False),
        pa.field("end_time", TIME),
        pa.field("updated_at", TIME),
        pa.field("expanded", pa.bool_(), nullable=False),  # metadata values in full
        pa.field("repeat", pa.bool_(), nullable=False),  # read a second time by our own wish
    ]
)
