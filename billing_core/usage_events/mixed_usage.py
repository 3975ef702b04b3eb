"""Splits events that used several models, or tokens of several classes, into what belongs to each. Exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.ledger.queries import with_utc
from billing_core.rating.card import LEGACY_VERSION, RateCard
from billing_core.rating.parts import ai_parts
from billing_core.values.usage_frame import TOKEN_CLASSES

CREDITS = pa.decimal128(38, 6)
TOKENS = pa.decimal128(38, 0)
COST = pa.decimal128(38, 12)
"""Wide enough for sums over any number of events."""

PART = ("model", "token_class")
MEASURES = {"credits": CREDITS, "tokens": TOKENS, "cost_usd": COST}


def parts(
    events: pa.Table, keys: Sequence[str], card_of: Callable[[str], RateCard | None], *, with_classes: bool
) -> Iterator[dict[str, Any]]:
    """Sums of AI credits, tokens and cost per `keys`, model and (`with_classes`) token class.

    events: Rows of `explore_queries.mixed`.
    card_of: The rate card with an id.

    What events have beyond the sum of these parts belongs to no model. Without classes `token_class` is `None`.
    """
    pieces = [*_credits(events, card_of), *_usage(events, with_classes)]
    schema = pa.schema([("row", pa.int64()), *((name, pa.string()) for name in PART), *MEASURES.items()])
    found = pa.concat_tables([_filled(piece, schema) for piece in pieces])
    if not with_classes:
        found = found.set_column(2, "token_class", pa.nulls(found.num_rows, pa.string()))
    for key in keys:
        found = found.append_column(key, events[key].take(found["row"]))
    summed = found.group_by([*keys, *PART], use_threads=False).aggregate(
        [(name, "sum", pc.ScalarAggregateOptions(min_count=1)) for name in MEASURES]
    )
    summed = summed.rename_columns([*keys, *PART, *MEASURES])
    yield from with_utc(summed).to_pylist()


def _filled(piece: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with columns it lacks as nulls."""
    columns = [
        piece[field.name].cast(field.type) if field.name in piece.column_names else pa.nulls(len(piece), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _credits(events: pa.Table, card_of: Callable[[str], RateCard | None]) -> Iterator[pa.Table]:
    versions = events["rate_card_version"]
    for version in pc.unique(versions).to_pylist():
        rows = np.flatnonzero(pc.equal(versions, version).to_numpy())
        card = None if version == LEGACY_VERSION else card_of(version)
        split = ai_parts(events.take(pa.array(rows)), card)
        yield split.set_column(0, "row", pa.array(rows[split["row"].to_numpy()], pa.int64()))


def _usage(events: pa.Table, with_classes: bool) -> Iterator[pa.Table]:
    """Tokens and cost, negative where an event of a closed month is taken back; unknown as the event has them."""
    lists = events["usage"].combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = pa.concat_arrays(lists.chunks) if lists.num_chunks else pa.array([], lists.type)
    used, row = lists.flatten(), pc.list_parent_indices(lists).cast(pa.int64())
    is_reversal = events["is_reversal"].take(row)
    has_tokens, has_cost = events["tokens_total"].is_valid().take(row), events["has_cost"].take(row)
    for name in TOKEN_CLASSES:
        tokens = used.field(name)
        counted = pc.if_else(has_tokens, _signed(tokens, is_reversal), pa.scalar(None, pa.int64()))
        token_class = pa.repeat(pa.scalar(name, pa.string()), len(row))
        piece = pa.table({"row": row, "model": used.field("model"), "token_class": token_class, "tokens": counted})
        is_kept = with_classes or name != TOKEN_CLASSES[0]  # a model that used no tokens is a model all the same
        yield piece.filter(pc.greater(tokens, 0)) if is_kept else piece
    if not with_classes:
        cost = pc.if_else(has_cost, _signed(used.field("cost_usd"), is_reversal), None)
        yield pa.table({"row": row, "model": used.field("model"), "cost_usd": cost})


def _signed(values: pa.Array, is_reversal: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(is_reversal, pc.negate(values), values)
