"""Splits a difference in credits into volume, price and mix. Pure and exact.

With segments *s* (a chatflow with a set of models), *n* events, *c* credits, 0 for the baseline and 1 for the day,
`r = c0 ÷ n0` over all events and `r(s) = c0(s) ÷ n0(s)` within a segment (`r` for a segment the baseline lacks):

* volume = (n1 − n0) · r: more or fewer events, at what an event cost on average;
* mix = Σ n1(s) · r(s) − n1 · r: other chatflows or models than usual, each at its usual price;
* price = Σ (c1(s) − n1(s) · r(s)): the same kind of event cost more or less: tokens, latency, rate card.

They add up to c1 − c0 whatever the figures. Without a baseline everything is volume.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from billing_core.values.decimals import EXACT

SIX_PLACES = 6


@dataclass(frozen=True, slots=True)
class Segment:
    """Events of one kind (chatflow and models) and their credits, in fractions: a baseline is an average."""

    events: Fraction
    credits: Fraction


@dataclass(frozen=True, slots=True)
class Variance:
    """The credits of a day minus those of an average day before it (`baseline`), split into its reasons.

    `volume + price + mix == difference`, to the last digit.
    """

    baseline: Decimal
    difference: Decimal
    volume: Decimal
    price: Decimal
    mix: Decimal


def split(actual: Mapping[Hashable, Segment], baseline: Mapping[Hashable, Segment]) -> Variance:
    """The difference between a day and its baseline, split into volume, price and mix; six decimal places, what
    rounding leaves goes to the largest part.
    """
    n1, c1 = _total(actual)
    n0, c0 = _total(baseline)
    if n0 == 0:
        return _rounded(c1, c0, volume=c1 - c0, price=Fraction(0), mix=Fraction(0))
    average = c0 / n0
    expected = Fraction(0)
    for key, segment in actual.items():
        before = baseline.get(key)
        rate = average if before is None or before.events == 0 else before.credits / before.events
        expected += segment.events * rate
    return _rounded(c1, c0, volume=(n1 - n0) * average, price=c1 - expected, mix=expected - n1 * average)


def averaged(sums: Mapping[Hashable, Segment], days: int) -> dict[Hashable, Segment]:
    """The segments of an average day of `days`, from sums over them."""
    return {key: Segment(one.events / days, one.credits / days) for key, one in sums.items()}


def rounded(value: Fraction, places: int = SIX_PLACES) -> Decimal:
    """A fraction as a decimal with `places` places, rounded half-even."""
    return Decimal(round(value * 10**places)).scaleb(-places, context=EXACT)


def _total(segments: Mapping[Hashable, Segment]) -> tuple[Fraction, Fraction]:
    return (
        sum((one.events for one in segments.values()), Fraction(0)),
        sum((one.credits for one in segments.values()), Fraction(0)),
    )


def _rounded(c1: Fraction, c0: Fraction, **parts: Fraction) -> Variance:
    baseline = rounded(c0)
    difference = EXACT.subtract(rounded(c1), baseline)
    largest = max(parts, key=lambda name: abs(parts[name]))
    found = {name: rounded(value) for name, value in parts.items() if name != largest}
    rest = difference
    for value in found.values():
        rest = EXACT.subtract(rest, value)
    return Variance(baseline, difference, **{**found, largest: rest})
