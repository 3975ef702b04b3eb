"""Turns stored events into the published flat columns (CONTRACT section 4), many at a time.

`usage_events.rows` makes the same of a page of them, one by one; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from string import ascii_letters, digits
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from billing_core.exports.arrow_text import json_list, json_strings, mapped, only_of, whole
from billing_core.ledger.queries import split_flags, split_models, with_utc
from billing_core.rating.events import COST_USD, LATENCY
from billing_core.rating.rate import CREDITS
from billing_core.types import FLAT_FIELDS
from billing_core.values.usage_frame import COST, SECONDS, TIME, TOKEN_CLASSES, USAGE_LINE

AMOUNT = pa.decimal128(38, 18)
"""US dollars: credits × credit price, unrounded."""

FORM = b"form"
JSON_TEXT, NUMBER = b"json", b"number"
"""How a column stands in JSON, if not in its kind's own way: text that is JSON already, a decimal as a number."""

_UNRESERVED = ascii_letters + digits + "_.~-"
"""Ids of these characters are their own percent-encoding."""


def field(name: str, kind: pa.DataType, form: bytes | None = None) -> pa.Field:
    """A column of an export: its name, type and form."""
    return pa.field(name, kind, metadata=None if form is None else {FORM: form})


_KINDS: Mapping[str, tuple[pa.DataType, bytes | None]] = {
    **dict.fromkeys(("timestamp", "ended_at", "synced_at"), (TIME, None)),
    **dict.fromkeys(("models", "flags"), (pa.string(), JSON_TEXT)),
    **dict.fromkeys(("tokens_in", "tokens_out", "tokens_total"), (pa.int64(), None)),
    **{f"credits_{part}": (CREDITS, None) for part in ("ai_tokens", "compute", "storage", "total")},
    "latency_seconds": (LATENCY, NUMBER),
    "storage_gb": (COST, None),
    "cost_usd": (COST_USD, None),
    "amount_usd": (AMOUNT, None),
}

FLAT_SCHEMA = pa.schema([field(name, *_KINDS.get(name, (pa.string(), None))) for name in FLAT_FIELDS])
"""The published columns as they are typed: exact decimals, UTC times, lists as JSON text."""

EXTRA_SCHEMA = pa.schema(
    [
        field("project_id", pa.string()),
        field("trace_base", pa.string()),
        field("usage", pa.string(), JSON_TEXT),
        field("observations", pa.int64()),
        field("has_error", pa.bool_()),
        field("problems", pa.string(), JSON_TEXT),
        field("updated_at", TIME),
        field("credit_price_usd", pa.decimal128(18, 12)),
        field("active_seconds", SECONDS),
        field("usage_lines", pa.string(), JSON_TEXT),
    ]
)
"""What the ledger knows beside the published columns, and needs to be the same after an import."""


def flat_table(stored: pa.Table) -> pa.Table:
    """Stored events as the flat columns of `FLAT_SCHEMA`; they need at least `queries.PAGE_COLUMNS`."""
    rows = with_utc(stored)
    made: dict[str, Callable[[], pa.Array]] = {
        "amount_usd": lambda: pc.multiply(rows["credits_total"], rows["credit_price_usd"]),
        "models": lambda: mapped(whole(rows["models"]), lambda text: json_list(split_models(text))),
        "flags": lambda: mapped(_flags_and_marks(rows), lambda text: json_list(split_flags(text, ""))),
        "trace_url": lambda: _trace_url(rows),
    }
    columns = []
    for wanted in FLAT_SCHEMA:
        column = made[wanted.name]() if wanted.name in made else whole(rows[wanted.name])
        columns.append(column if column.type == wanted.type else column.cast(wanted.type))
    return pa.Table.from_arrays(columns, schema=FLAT_SCHEMA)


def with_extras(flat: pa.Table, stored: pa.Table, *, with_costs: bool) -> pa.Table:
    """The flat columns and those of `EXTRA_SCHEMA`, of the same stored rows; without costs they are unknown there."""
    rows = with_utc(stored)
    made: dict[str, Callable[[], pa.Array]] = {
        "usage": lambda: _usage(whole(rows["usage"]), with_costs),
        "usage_lines": lambda: _usage_lines(whole(rows["usage_lines"]), with_costs),
        "problems": lambda: mapped(whole(rows["problems"]), lambda text: json_list([p for p in text.split("\n") if p])),
    }
    for wanted in EXTRA_SCHEMA:
        column = made[wanted.name]() if wanted.name in made else whole(rows[wanted.name])
        flat = flat.append_column(wanted, column.cast(wanted.type))
    return flat


def _flags_and_marks(rows: pa.Table) -> pa.Array:
    return pc.binary_join_element_wise(whole(rows["flags"]), whole(rows["marks"]), ",", null_handling="replace")


def _trace_url(rows: pa.Table) -> pa.Array:
    ids = whole(rows["id"])
    if not only_of(ids, _UNRESERVED):
        ids = mapped(ids, lambda text: quote(text, safe=""))
    return pc.binary_join_element_wise(whole(rows["trace_base"]), ids, "")


def _usage(lists: pa.Array, with_costs: bool) -> pa.Array:
    """What each model used, as a JSON list of objects."""
    used = lists.flatten()
    cost = _cost(used, with_costs)
    parts = ['{"model": ', pc.fill_null(json_strings(used.field("model")), "null")]
    for name in TOKEN_CLASSES:
        parts += [f', "{name}": ', pc.fill_null(pc.cast(used.field(name), pa.string()), "null")]
    objects = pc.binary_join_element_wise(*parts, ', "cost_usd": ', pc.fill_null(cost, "null"), "}", "")
    return _json_lists(lists, objects)


def _cost(used: pa.Array, with_costs: bool) -> pa.Array:
    """The cost of what was used, in quotes; null where it is unknown or not to be seen."""
    text = pc.binary_join_element_wise('"', pc.cast(used.field("cost_usd"), pa.string()), '"', "")
    return text if with_costs else pa.nulls(len(used), pa.string())


def _usage_lines(lists: pa.Array, with_costs: bool) -> pa.Array:
    """What observations used, line by line, as a JSON list of objects; null where that is not known."""
    lines = lists.flatten()
    parts: list[Any] = []
    for kind in USAGE_LINE:
        column = lines.field(kind.name)
        if kind.name == "cost_usd":
            text = _cost(lines, with_costs)
        elif pa.types.is_decimal(kind.type):
            text = pc.binary_join_element_wise('"', pc.cast(column, pa.string()), '"', "")
        else:
            text = json_strings(column) if pa.types.is_string(kind.type) else pc.cast(column, pa.string())
        parts += [f'{", " if parts else "{"}"{kind.name}": ', pc.fill_null(text, "null")]
    joined = _json_lists(lists, pc.binary_join_element_wise(*parts, "}", ""))
    return pc.if_else(lists.is_valid(), joined, pa.scalar(None, pa.string()))


def _json_lists(lists: pa.Array, objects: pa.Array) -> pa.Array:
    ends = pc.subtract(lists.offsets, lists.offsets[0]) if len(lists) else lists.offsets
    joined = pc.binary_join(pa.ListArray.from_arrays(ends, objects), ", ")
    return pc.binary_join_element_wise("[", joined, "]", "", null_handling="replace")
