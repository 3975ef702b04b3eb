"""The rating function: usage and a rate card in, exact credits out.

Pure and vectorised: integers and fractions over columns, no float, no clock, no input or output. Each
component is rounded once, half-even, to six decimal places (CONTRACT section 6); `total` is the sum of the
rounded parts. Units: latency in microseconds between two timestamps, 60 seconds to the minute.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from billing_core.rating.card import Basis, ComputeBasis, RateCard
from billing_core.rating.globs import first_match, fits
from billing_core.values.decimals import Integers, from_integers, round_half_even, to_integers
from billing_core.values.time_columns import microseconds_between
from billing_core.values.usage_frame import LONGEST_RUN, TOKEN_CLASSES, USAGE_LINE
from billing_core.values.usage_keys import REST, KeyMeaning, read_key, words_of

CREDITS = pa.decimal128(18, 6)
PRICE = pa.decimal128(18, 12)

OWN_KEY = "user"
"""`ai_credentials_ownership` of a customer who brought the key: AI tokens cost them nothing here."""

LARGEST_COMPONENT = 10**11 * 10**6
"""Millionths of a credit (4 million USD on the built-in card); more is a mistake in the usage, not a bill."""

_MICROS = 10**6
NO_CLASS = -1
"""Of a line that counts no tokens."""

SAFE = 2**62
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
        pa.field("usage_unpriced", pa.bool_()),  # some observation that is rated has tokens and no cost
        pa.field("double_count_suspect", pa.bool_()),  # some observation that is rated seems to repeat others
        pa.field("unknown_usage", pa.bool_()),  # tokens behind a key that neither we nor the card know
    ]
)

Mask = npt.NDArray[np.bool_]
_LONGEST_MICROSECONDS = LONGEST_RUN // timedelta(microseconds=1)


def rate(usage: pa.Table, card: RateCard) -> pa.Table:
    """Credits for every row of `usage` (columns of `USAGE_SCHEMA`) by one rate card.

    Returns
    -------
    pyarrow.Table
        `RATED_SCHEMA`, row for row. A part that cannot be rated is 0 *and* flagged, never silently 0.
    """
    own_key = pc.equal(pc.utf8_lower(usage["ai_credentials_ownership"]), OWN_KEY).fill_null(False)
    own = own_key.to_numpy(zero_copy_only=False)
    lines = UsageLines.of(usage, card)
    usage_unpriced, suspect = _bools(usage["unpriced"]), _bools(usage["double_count_suspect"])
    if card.exclude:  # what is left out is no reason for a flag any more
        usage_unpriced = np.where(lines.are_known, lines.any("unpriced"), usage_unpriced)
        suspect = np.where(lines.are_known, lines.any("repeats"), suspect)

    priced = _price(lines, card)
    if card.ai.basis is Basis.TOKENS:
        ai, unpriced = round_half_even(priced.numerator, Fraction(1, priced.denominator)), priced.unpriced
    else:
        ai, unpriced = _ai_by_cost(usage, card, lines, priced)
        unpriced = unpriced | usage_unpriced
    ai, unpriced = np.where(own, 0, ai), unpriced & ~own

    measured, is_unknown = _time(usage, card)
    per_microsecond = _fraction(card.compute.credits_per_minute) * _MICROS / _MICROSECONDS_PER_MINUTE
    too_long = (measured > _LONGEST_MICROSECONDS) | is_unknown
    compute = round_half_even(np.where(too_long, 0, measured), per_microsecond)

    per_unit = _fraction(card.storage.credits_per_gb_month) * _MICROS / _COST_UNIT
    storage = round_half_even(to_integers(usage["storage_gb"]), per_unit)

    absurd: Mask = too_long.copy()
    parts = []
    for part in (ai, compute, storage):
        beyond = (part > LARGEST_COMPONENT) | (part < 0)
        absurd |= beyond.astype(bool)
        parts.append(np.where(beyond, 0, part).astype(np.int64))
    columns = [from_integers(part, CREDITS) for part in (*parts, parts[0] + parts[1] + parts[2])]
    flags = [pa.array(mask) for mask in (unpriced, absurd, usage_unpriced, suspect, priced.unknown)]
    return pa.Table.from_arrays([*columns, own_key, *flags], schema=RATED_SCHEMA)


class KeyPrice(NamedTuple):
    """How a card prices a usage key: as tokens of a class, or per unit; both `None`: it has no price."""

    token_class: str | None
    credits_each: Decimal | None
    is_known: bool


def price_of_key(card: RateCard, key: str) -> KeyPrice:
    """The price of a usage key by the card, else by the built-in table (docs/units.md)."""
    if key != REST:
        if (unit := _named(card.units, key)) is not None:
            return KeyPrice(None, card.units[unit], is_known=True)
        if (mapped := _named(card.token_classes, key)) is not None:
            return KeyPrice(card.token_classes[mapped], None, is_known=True)
    kind = read_key(key)
    return KeyPrice(
        TOKEN_CLASSES[kind.token_class] if kind.counted is not KeyMeaning.UNITS else None, None, kind.is_known
    )


def _named(patterns: Mapping[str, object], key: str) -> str | None:
    """The entry of a card for a usage key; a name stands for all its spellings, a glob may fit any of them."""
    names = [one if "*" in one or "?" in one else _spelled(one) for one in patterns]
    place = first_match(names, key, _spelled(key))
    return None if place is None else [*patterns][place]


def _spelled(key: str) -> str:
    return "_".join(words_of(key)) or key


def is_left_out(card: RateCard, observation: Mapping[str, Any]) -> bool:
    """Whether the card's `exclude` rules leave an observation unrated; a field it lacks matches nothing."""
    return any(
        all(
            observation[field] is not None and fits(pattern, observation[field])
            for field, pattern in one.fields().items()
        )
        for one in card.exclude
    )


def effective_token_rate(card: RateCard, model: str | None, token_class: str) -> Decimal | None:
    """Credits per 1,000 tokens before margin, or `None` where the card has no price."""
    line = card.ai.rate_of(model, token_class)
    return None if line is None else line.credits_per_1000_tokens


def _fraction(value: Decimal) -> Fraction:
    return Fraction(value)


def _bools(column: pa.ChunkedArray) -> Mask:
    return np.asarray(column.to_numpy(), dtype=bool)


def _time(usage: pa.Table, card: RateCard) -> tuple[Integers, Mask]:
    """Microseconds that compute counts, and where the card asks for what is not known."""
    if card.compute.basis is ComputeBasis.WALL_CLOCK:
        latency = to_integers(microseconds_between(usage["timestamp"], usage["ended_at"]))
        return latency, np.zeros(len(latency), dtype=bool)
    return to_integers(usage["active_seconds"]), usage["active_seconds"].is_null().to_numpy()


@dataclass(frozen=True, slots=True)
class UsageLines:
    """What observations used, line by line in the order of their events, without those that the card leaves out.

    `of_event` is each line's event, `are_known` says of each event whether its lines are known; where they are not,
    they are those of `usage`, by model and class.
    """

    events: int
    lines: pa.StructArray
    of_event: npt.NDArray[np.int64]
    are_known: Mask

    @classmethod
    def of(cls, usage: pa.Table, card: RateCard) -> UsageLines:
        lists = _whole(usage["usage_lines"])
        # Empty lines beside usage say nothing: an import may bring them.
        is_empty = to_integers(pc.list_value_length(lists).cast(pa.int64())) == 0
        has_usage = to_integers(pc.list_value_length(_whole(usage["usage"])).cast(pa.int64())) > 0
        known = lists.is_valid().to_numpy(zero_copy_only=False) & ~(is_empty & has_usage)
        lines, of_event = lists.flatten(), pc.list_parent_indices(lists).cast(pa.int64()).to_numpy()
        if not known.all():
            summed, of_summed = _by_model(_whole(usage["usage"]), ~known)
            order = np.argsort(np.concatenate([of_event, of_summed]), kind="stable")
            lines = pa.concat_arrays([lines, summed]).take(pa.array(order))
            of_event = np.concatenate([of_event, of_summed])[order]
        if card.exclude and len(lines):
            kept = ~_left_out(lines, card)
            lines, of_event = lines.filter(pa.array(kept)), of_event[kept]
        return cls(usage.num_rows, lines, of_event, known)

    def any(self, name: str) -> Mask:
        """Which events have a line of which that is true."""
        marked = self.lines.field(name).fill_null(False).to_numpy(zero_copy_only=False)
        found: Mask = np.bincount(self.of_event[marked], minlength=self.events) > 0
        return found

    def sum(self, values: Integers) -> Integers:
        """Per event, exactly."""
        running = np.concatenate([np.zeros(1, dtype=values.dtype), np.cumsum(values)])
        edges = np.searchsorted(self.of_event, np.arange(self.events + 1))
        sums: Integers = running[edges[1:]] - running[edges[:-1]]
        return sums


def _whole(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    return array


def _by_model(lists: pa.Array, wanted: Mask) -> tuple[pa.StructArray, npt.NDArray[np.int64]]:
    """Lines of what models used, for events of which no more is known."""
    flat, of_event = lists.flatten(), pc.list_parent_indices(lists).cast(pa.int64()).to_numpy()
    pieces, owners = [], []
    for name in (*TOKEN_CLASSES, "cost_usd"):
        is_cost = name == "cost_usd"
        column = flat.field(name)
        used = column.is_valid().to_numpy(zero_copy_only=False) if is_cost else to_integers(column) > 0
        rows = np.flatnonzero(wanted[of_event] & used)
        taken, count = pa.array(rows), len(rows)
        made = {
            "model": flat.field("model").take(taken),
            "key": pa.nulls(count, pa.string()) if is_cost else pa.repeat(REST if name == "other" else name, count),
            name if is_cost else "quantity": column.take(taken),
        }
        fields = [made.get(field.name, pa.nulls(count, field.type)) for field in USAGE_LINE]
        pieces.append(pa.StructArray.from_arrays(fields, fields=list(USAGE_LINE)))
        owners.append(of_event[rows])
    return pa.concat_arrays(pieces), np.concatenate(owners)


def _left_out(lines: pa.StructArray, card: RateCard) -> Mask:
    found: Mask = np.zeros(len(lines), dtype=bool)
    for one in card.exclude:
        fit: Mask = np.ones(len(lines), dtype=bool)
        for field, pattern in one.fields().items():
            values = lines.field(field).dictionary_encode()
            hits = [fits(pattern, value) for value in values.dictionary.to_pylist()]
            fit &= np.array([*hits, False])[values.indices.fill_null(len(hits)).to_numpy(zero_copy_only=False)]
        found |= fit
    return found


@dataclass(frozen=True, slots=True)
class PricedLines:
    """Per line: quantity × price × margin as `numerator` ÷ `denominator` millionths of a credit, and what is odd.

    token_class: Its place in `TOKEN_CLASSES`; -1 for other units, and for lines of a cost.
    unpriced, unknown: Something was used and has no price; behind a key that neither we nor the card know.
    """

    numerator: Integers
    denominator: int
    token_class: npt.NDArray[np.int64]
    unpriced: Mask
    unknown: Mask


@dataclass(frozen=True, slots=True)
class _Priced:
    """Per event: the sums of its `PricedLines`. With `basis: cost` only other units have prices here."""

    numerator: Integers
    denominator: int
    tokens: Integers
    unpriced: Mask
    unknown: Mask


def price_lines(lines: UsageLines, card: RateCard) -> PricedLines:
    """Price every line; each pair of model and key is looked up once."""
    models, keys = lines.lines.field("model").dictionary_encode(), lines.lines.field("key").dictionary_encode()
    model_names, key_names = [*models.dictionary.to_pylist(), None], [*keys.dictionary.to_pylist(), None]
    width = len(key_names)
    pairs = models.indices.fill_null(len(model_names) - 1).to_numpy(zero_copy_only=False).astype(np.int64) * width
    pairs += keys.indices.fill_null(width - 1).to_numpy(zero_copy_only=False)
    found, code = np.unique(pairs, return_inverse=True)

    by_tokens = card.ai.basis is Basis.TOKENS
    prices = [None if key is None else price_of_key(card, key) for key in key_names]
    factors: list[Fraction | None] = []
    is_unknown = np.zeros(len(found), dtype=bool)
    token_class = np.full(len(found), NO_CLASS, dtype=np.int64)
    for place, pair in enumerate(found.tolist()):
        model, price = model_names[pair // width], prices[pair % width]
        each: Fraction | None = Fraction(0)
        if price is not None and price.token_class is not None:
            token_class[place], is_unknown[place] = TOKEN_CLASSES.index(price.token_class), not price.is_known
            if by_tokens:
                per_thousand = effective_token_rate(card, model, price.token_class)
                each = None if per_thousand is None else _fraction(per_thousand) / 1000
        elif price is not None:
            each = None if price.credits_each is None else _fraction(price.credits_each)
        factors.append(None if each is None else each * _fraction(card.margin) * _MICROS)
    common = lcm(*(factor.denominator for factor in factors if factor is not None))
    whole = [0 if factor is None else int(factor * common) for factor in factors]
    quantity = to_integers(lines.lines.field("quantity"))
    largest = int(quantity.max(initial=0)) * max(whole, default=0) * max(len(quantity), 1)
    kind: type = np.int64 if largest < SAFE else object
    numerator: Integers = quantity.astype(kind) * np.array(whole, dtype=kind)[code]
    used = quantity > 0
    without = used & np.array([factor is None for factor in factors], dtype=bool)[code]
    return PricedLines(numerator, common, token_class[code], without, used & is_unknown[code])


def _price(lines: UsageLines, card: RateCard) -> _Priced:
    each = price_lines(lines, card)
    tokens = np.where(each.token_class == NO_CLASS, 0, to_integers(lines.lines.field("quantity")))
    return _Priced(
        lines.sum(each.numerator),
        each.denominator,
        lines.sum(tokens),
        lines.sum(each.unpriced.astype(np.int64)) > 0,
        lines.sum(each.unknown.astype(np.int64)) > 0,
    )


def credits_of_cost(card: RateCard) -> Fraction:
    """Millionths of a credit per unit of a stored cost (10⁻¹² US dollars), for a card with `basis: cost`."""
    return _fraction(card.margin) / _fraction(card.credit_price_usd) * _MICROS / _COST_UNIT


def _ai_by_cost(usage: pa.Table, card: RateCard, lines: UsageLines, priced: _Priced) -> tuple[Integers, Mask]:
    """cost_usd × margin ÷ credit price, and what other units cost; unpriced: something was used at no known cost."""
    cost, without_cost = to_integers(usage["cost_usd"]), usage["cost_usd"].is_null().to_numpy()
    tokens = to_integers(usage["tokens_total"])
    if card.exclude:
        of_lines = lines.lines.field("cost_usd")
        has_cost = lines.sum(of_lines.is_valid().to_numpy(zero_copy_only=False).astype(np.int64)) > 0
        cost = np.where(lines.are_known, lines.sum(to_integers(of_lines)), cost)
        without_cost = np.where(lines.are_known, ~has_cost, without_cost)
        tokens = np.where(lines.are_known, priced.tokens, tokens)
    factor = credits_of_cost(card)
    unpriced: Mask = ((tokens > 0) | priced.unpriced) & without_cost
    if not priced.numerator.any():
        return round_half_even(cost, factor), unpriced
    common = lcm(factor.denominator, priced.denominator)
    both = cost.astype(object) * int(factor * common) + priced.numerator.astype(object) * (common // priced.denominator)
    return round_half_even(both, Fraction(1, common)), unpriced
