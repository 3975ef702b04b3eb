"""The rating function: a usage frame and a card in, exact credits out.

Pure and vectorised: integers and fractions over columns, no float, no clock, no input or output. Each
component is rounded once, half-even, to six decimal places (CONTRACT section 6); `total` is the sum of the
rounded parts. Units: latency in microseconds between two timestamps, 60 seconds to the minute.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from math import lcm

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.decimals import Integers, from_integers, round_half_even, to_integers
from billing_core.rating.card import Basis, RateCard
from billing_core.usage import LONGEST_RUN, TOKEN_CLASSES

__all__ = ["CREDITS", "LARGEST_COMPONENT", "OWN_KEY", "PRICE", "RATED_SCHEMA", "rate"]

CREDITS = pa.decimal128(18, 6)
PRICE = pa.decimal128(18, 12)

OWN_KEY = "user"
"""`ai_credentials_ownership` of a customer who brought the key: AI tokens cost them nothing here."""

LARGEST_COMPONENT = 10**11 * 10**6
"""Millionths of a credit (4 million USD on the built-in card); more is a mistake in the usage, not a bill."""

_MICROS = 10**6
_SAFE = 2**62
"""Sums that stay below it fit 64 bits; beyond (only absurd usage gets there) Python's integers add up."""
_COST_UNIT = 10**12
_MICROSECONDS_PER_MINUTE = 60 * 10**6

RATED_SCHEMA = pa.schema(
    [
        pa.field("credits_ai_tokens", CREDITS),
        pa.field("credits_compute", CREDITS),
        pa.field("credits_storage", CREDITS),
        pa.field("credits_total", CREDITS),
        pa.field("own_key", pa.bool_()),
        pa.field("unpriced", pa.bool_()),  # the card has no price for something this event used
        pa.field("absurd", pa.bool_()),  # a component beyond LARGEST_COMPONENT, a run beyond LONGEST_RUN: not rated
    ]
)


def rate(usage: pa.Table, card: RateCard) -> pa.Table:
    """Rate every row of `usage` (columns of `USAGE_SCHEMA`) with `card`.

    Returns
    -------
    pyarrow.Table
        `RATED_SCHEMA`, row for row. A part that cannot be rated is 0 *and* flagged, never silently 0.
    """
    own_key = pc.equal(pc.utf8_lower(usage["ai_credentials_ownership"]), OWN_KEY).fill_null(False)
    own = own_key.to_numpy(zero_copy_only=False)

    price_ai = _ai_by_tokens if card.ai.basis is Basis.TOKENS else _ai_by_cost
    ai, unpriced = price_ai(usage, card)
    ai, unpriced = np.where(own, 0, ai), unpriced & ~own

    latency = to_integers(pc.microseconds_between(usage["timestamp"], usage["ended_at"]))
    per_microsecond = _fraction(card.compute.credits_per_minute) * _MICROS / _MICROSECONDS_PER_MINUTE
    too_long = latency > LONGEST_RUN // timedelta(microseconds=1)
    compute = round_half_even(np.where(too_long, 0, latency), per_microsecond)

    per_unit = _fraction(card.storage.credits_per_gb_month) * _MICROS / _COST_UNIT
    storage = round_half_even(to_integers(usage["storage_gb"]), per_unit)

    absurd: npt.NDArray[np.bool_] = too_long.copy()
    parts = []
    for part in (ai, compute, storage):
        beyond = (part > LARGEST_COMPONENT) | (part < 0)
        absurd |= beyond.astype(bool)
        parts.append(np.where(beyond, 0, part).astype(np.int64))
    columns = [from_integers(part, CREDITS) for part in (*parts, parts[0] + parts[1] + parts[2])]
    return pa.Table.from_arrays([*columns, own_key, pa.array(unpriced), pa.array(absurd)], schema=RATED_SCHEMA)


def effective_token_rate(card: RateCard, model: str | None, token_class: str) -> Decimal | None:
    """Credits per 1,000 tokens before margin, or `None` where the card has no price."""
    line = card.ai.rate_of(model, token_class)
    return None if line is None else line.credits_per_1000_tokens


def _fraction(value: Decimal) -> Fraction:
    return Fraction(value)


def _flat_usage(usage: pa.Table) -> tuple[pa.StructArray, Integers]:
    """Every model line of the frame, and the offsets at which each event's lines begin and end."""
    lists = usage["usage"].combine_chunks()
    if isinstance(lists, pa.ChunkedArray):
        lists = pa.concat_arrays(lists.chunks) if lists.num_chunks else pa.array([], usage.schema.field("usage").type)
    lengths = to_integers(pc.list_value_length(lists).cast(pa.int64()))
    return lists.flatten(), np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(lengths)])


def _sum_per_event(values: Integers, offsets: Integers) -> Integers:
    running = np.concatenate([np.zeros(1, dtype=values.dtype), np.cumsum(values)])
    sums: Integers = running[offsets[1:]] - running[offsets[:-1]]
    return sums


def _ai_by_tokens(usage: pa.Table, card: RateCard) -> tuple[Integers, npt.NDArray[np.bool_]]:
    """Σ tokens × rate × margin ÷ 1,000 in millionths of a credit, rounded once per event."""
    lines, offsets = _flat_usage(usage)
    models = lines.field("model").dictionary_encode()
    names = [*models.dictionary.to_pylist(), None]
    code = models.indices.fill_null(len(names) - 1).to_numpy(zero_copy_only=False)

    factors = {
        token_class: [
            None
            if (found := effective_token_rate(card, name, token_class)) is None
            else _fraction(found) * _fraction(card.margin) * _MICROS / 1000
            for name in names
        ]
        for token_class in TOKEN_CLASSES
    }
    common = lcm(*(f.denominator for column in factors.values() for f in column if f is not None))
    whole = {name: [0 if f is None else int(f * common) for f in column] for name, column in factors.items()}
    tokens = {name: counts for name in TOKEN_CLASSES if (counts := to_integers(lines.field(name))).any()}
    largest = sum(int(np.abs(counts).max()) * max(whole[name]) for name, counts in tokens.items()) * len(code)
    kind: type = np.int64 if largest < _SAFE else object
    numerator: Integers = np.zeros(len(code), dtype=kind)
    unpriced_line = np.zeros(len(code), dtype=bool)
    for name, counts in tokens.items():
        numerator += counts.astype(kind) * np.array(whole[name], dtype=kind)[code]
        unpriced_line |= (counts > 0) & np.array([f is None for f in factors[name]])[code]
    rounded = round_half_even(_sum_per_event(numerator, offsets), Fraction(1, common))
    return rounded, _sum_per_event(unpriced_line.astype(np.int64), offsets) > 0


def _ai_by_cost(usage: pa.Table, card: RateCard) -> tuple[Integers, npt.NDArray[np.bool_]]:
    """cost_usd × margin ÷ credit price; unpriced where tokens were used at no known cost."""
    factor = _fraction(card.margin) / _fraction(card.credit_price_usd) * _MICROS / _COST_UNIT
    rounded = round_half_even(to_integers(usage["cost_usd"]), factor)
    tokens = to_integers(usage["tokens_total"])
    without_cost = usage["cost_usd"].is_null().to_numpy()
    partly = usage["unpriced"].to_numpy()
    return rounded, ((tokens > 0) & without_cost) | partly
