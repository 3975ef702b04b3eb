"""Finds the chatflow, model or user that drives a change of an organization's credits. Pure and exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from billing_core.values.decimals import EXACT, exact_sum

SLOPE_DAYS = 14
"""Complete days compared with as many before them: two of each weekday on either side."""

DIMENSIONS = ("chatflow", "model", "user")
"""Every event has one value in each (`model`: its set of models); `None` is "not named"."""

SMALLEST = Fraction(1, 10)
"""Changes below a tenth are not explained: they are how usage breathes."""

Slices = Mapping[str, Mapping[str | None, Decimal]]
"""Dimension → value → credits; each dimension holds all credits."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one value of a dimension adds to a change, in credits (negative: takes away); `name` is for people."""

    dimension: str
    value: str | None
    credits: Decimal
    name: str | None = None


@dataclass(frozen=True, slots=True)
class UsageChange:
    """An organization's credits of the last days compared with those of as many days before, and what drives the
    difference.

    `contributions` holds every value of every dimension, largest in the direction of the change first; those of one
    dimension add up to `change` exactly. `driver` is the one to name.
    """

    before: Decimal
    now: Decimal
    change: Decimal
    driver: Contribution
    contributions: tuple[Contribution, ...]

    @property
    def share(self) -> Fraction:
        """The share of the change that its driver accounts for; above 1 where others went the other way."""
        return Fraction(self.driver.credits) / Fraction(self.change)

    @property
    def relative(self) -> Fraction | None:
        """The change relative to the credits before (1: twice as many); `None` where there were none."""
        return None if not self.before else Fraction(self.change) / Fraction(self.before)


def slope_driver(before: Slices, now: Slices) -> UsageChange | None:
    """The value of a dimension that drives a change; `None` for a change under 10 %, or where none does."""
    totals = [exact_sum(slices[DIMENSIONS[0]].values()) for slices in (before, now)]
    change = EXACT.subtract(totals[1], totals[0])
    if not change or abs(Fraction(change)) < SMALLEST * Fraction(totals[0]):
        return None
    found = [one for dimension in DIMENSIONS for one in _contributions(dimension, before[dimension], now[dimension])]
    sign = 1 if change > 0 else -1
    found.sort(key=lambda one: (-sign * one.credits, DIMENSIONS.index(one.dimension), one.value or ""))
    telling = {name for name in DIMENSIONS if len({*before[name], *now[name]}) > 1}  # the only model explains nothing
    driver = next((one for one in found if one.dimension in telling), found[0])
    return UsageChange(totals[0], totals[1], change, driver, tuple(found))


def _contributions(
    dimension: str, before: Mapping[str | None, Decimal], now: Mapping[str | None, Decimal]
) -> list[Contribution]:
    nothing = Decimal(0)
    return [
        Contribution(dimension, value, EXACT.subtract(now.get(value, nothing), before.get(value, nothing)))
        for value in {*before, *now}
    ]
