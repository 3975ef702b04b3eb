"""Splits the AI credits of events by the model and token class that they were for. Pure and exact.

Credits are booked per event, rounded once; parts are not stored. A part is what its own usage costs by the card the
event was rated with, rounded half-even to a millionth of a credit; what rounding leaves (less than a millionth per
part) is added to the event's largest part, of equal ones the first by model and class. So parts always add up to what
was booked. Credits that the card does not give for the usage (recorded by an earlier system, imported, or rated with a
card that is not known) belong to the event's model if it used one, else to none, and to no token class.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import lcm

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.rating.card import Basis, RateCard
from billing_core.rating.rate import CREDITS, NO_CLASS, SAFE, UsageLines, credits_of_cost, price_lines
from billing_core.values.decimals import Integers, from_integers, round_half_even, to_integers
from billing_core.values.usage_frame import TOKEN_CLASSES

PARTS_SCHEMA = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # of the table that was split
        pa.field("model", pa.string()),
        pa.field("token_class", pa.string()),
        pa.field("credits", CREDITS, nullable=False),
    ]
)

_CLASSES = pa.array([*TOKEN_CLASSES, None], pa.string())


def needs_lines(cards: Sequence[RateCard]) -> bool:
    """Whether one of the cards rates by more than model and token class, so that parts need `usage_lines`."""
    return any(card.exclude or card.units or card.token_classes for card in cards)


def ai_parts(usage: pa.Table, card: RateCard | None) -> pa.Table:
    """The parts (`PARTS_SCHEMA`) of the AI credits of some events by model and token class, none of them 0.

    usage: Columns `usage`, `usage_lines` and `credits_ai_tokens`, which is negative in a reversal.
    card: The one all of them were rated with; `None` if it is not known.
    """
    booked = to_integers(usage["credits_ai_tokens"])
    amounts = np.abs(booked)
    if card is None:
        row, model, token_class, credits_ = _unexplained(usage, np.flatnonzero(amounts))
    else:
        row, model, token_class, credits_ = _by_card(usage, card, amounts)
    used = credits_ != 0
    signed = np.where(booked[row] < 0, -credits_, credits_)[used]
    kept = pa.array(np.flatnonzero(used))
    columns = [pa.array(row[used]), model.take(kept), token_class.take(kept), from_integers(signed, CREDITS)]
    return pa.Table.from_arrays(columns, schema=PARTS_SCHEMA)


_Cells = tuple[Integers, pa.Array, pa.Array, Integers]


def _unexplained(usage: pa.Table, rows: Integers) -> _Cells:
    """All credits of some events as one part each."""
    lists = usage["usage"].combine_chunks().take(pa.array(rows))
    models = [None if not one or len(one) > 1 else one[0]["model"] for one in lists.to_pylist()]
    amounts = np.abs(to_integers(usage["credits_ai_tokens"]))[rows]
    return rows, pa.array(models, pa.string()), pa.nulls(len(rows), pa.string()), amounts


def _by_card(usage: pa.Table, card: RateCard, amounts: Integers) -> _Cells:
    lines = UsageLines.of(usage, card)
    priced = price_lines(lines, card)
    exact, divisor = priced.numerator, priced.denominator
    if card.ai.basis is Basis.COST:
        each = credits_of_cost(card)
        divisor = lcm(each.denominator, priced.denominator)
        cost = to_integers(lines.lines.field("cost_usd")).astype(object) * int(each * divisor)
        exact = cost + exact.astype(object) * (divisor // priced.denominator)

    names = sorted(set(lines.lines.field("model").drop_null().to_pylist()))
    place = pc.index_in(lines.lines.field("model"), pa.array(names, pa.string())).fill_null(len(names))
    classes = len(_CLASSES)
    token_class = np.where(priced.token_class == NO_CLASS, classes - 1, priced.token_class)
    width = (len(names) + 1) * classes
    code = lines.of_event * width + place.to_numpy(zero_copy_only=False).astype(np.int64) * classes + token_class
    cells, where = np.unique(code, return_inverse=True)
    order = np.argsort(where, kind="stable")
    starts = np.searchsorted(where[order], np.arange(len(cells)))
    sums = np.add.reduceat(exact[order], starts) if len(cells) else exact[:0]
    rounded = round_half_even(sums, Fraction(1, divisor))
    fits = int(np.abs(rounded).max(initial=0)) * max(len(rounded), 1) < SAFE
    rounded = rounded.astype(np.int64 if fits else object)

    row = cells // width
    edges = np.searchsorted(row, np.arange(len(amounts) + 1))
    running = np.concatenate([np.zeros(1, dtype=rounded.dtype), np.cumsum(rounded)])
    rest = amounts - (running[edges[1:]] - running[edges[:-1]])
    counts = edges[1:] - edges[:-1]
    explained = (counts > 0) & (np.abs(rest) <= counts)
    largest = np.lexsort((cells, -rounded, row))[edges[:-1][explained]]
    rounded[largest] += rest[explained]
    kept = explained[row] & (amounts[row] > 0)
    other = _unexplained(usage, np.flatnonzero(~explained & (amounts > 0)))
    model = pa.array([*names, None], pa.string()).take(pa.array(cells[kept] % width // classes))
    of_class = _CLASSES.take(pa.array(cells[kept] % classes))
    return (
        np.concatenate([row[kept], other[0]]).astype(np.int64),
        pa.concat_arrays([model, other[1]]),
        pa.concat_arrays([of_class, other[2]]),
        np.concatenate([rounded[kept], other[3]]).astype(np.int64),
    )
