"""The way from the amount over the cost to the margin, as one line that adds up. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal

from billing_core.organizations.figures import Figures
from components.organizations import texts

PLACES = (2, 3, 4, 6, 12)
"""Decimals tried in turn: as few as let the printed figures add up to the printed margin."""


def terms(figures: Figures) -> list[tuple[str, Decimal]]:
    """The signed US dollars that add up to the margin, each with what it is; those of 0 beside amount and cost are
    left out.
    """
    cost = figures.cost_usd or Decimal(0)
    found = [("amount", figures.amount_usd)]
    if figures.amount_without_cost_usd:
        found.append((texts.OF_UNKNOWN_COST, -figures.amount_without_cost_usd))
    found.append(("cost", -cost))
    if figures.own_keys_cost_usd:
        found.append((texts.OWN_KEYS, figures.own_keys_cost_usd))
    return found


def margin_line(figures: Figures) -> str:
    """The margin in words: `$12.00 amount − $2.00 cost = $10.00 margin`; what it says adds up as printed."""
    if figures.margin_usd is None:
        return texts.MARGIN_UNKNOWN
    steps = terms(figures)
    for places in PLACES:
        unit = Decimal(1).scaleb(-places)
        margin = figures.margin_usd.quantize(unit, ROUND_HALF_EVEN)
        printed = _rounded(steps, margin, unit)
        if sum(printed) == margin:
            break
    said = [
        f"{_dollars(value, signed=place > 0)} {name}"
        for place, ((name, _), value) in enumerate(zip(steps, printed, strict=True))
    ]
    return f"{' '.join(said)} = {_dollars(margin)} margin"


def _rounded(steps: Sequence[tuple[str, Decimal]], margin: Decimal, unit: Decimal) -> list[Decimal]:
    """The terms to whole units, each up or down. Amount and cost stand on tiles as well and are rounded as there; of
    the others as many go the other way as the sum asks for, those first that are nearest to it.
    """
    printed = [value.quantize(unit, ROUND_HALF_EVEN) for _, value in steps]
    step = unit if margin > sum(printed) else -unit
    loose = [place for place, (name, _) in enumerate(steps) if name in {texts.OF_UNKNOWN_COST, texts.OWN_KEYS}]
    for place in sorted(loose, key=lambda one: abs(printed[one] + step - steps[one][1])):
        moved = printed[place] + step
        if sum(printed) != margin and abs(moved - steps[place][1]) < unit and moved:
            printed[place] = moved
    return printed


def _dollars(value: Decimal, *, signed: bool = False) -> str:
    if signed:
        return f"{'−' if value <= 0 else '+'} ${abs(value):,f}"
    return f"{'−' if value < 0 else ''}${abs(value):,f}"
