"""The way from the amount over the cost to the margin, as one line that adds up. Pure."""

from __future__ import annotations

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
        step = Decimal(1).scaleb(-places)
        printed = [value.quantize(step, ROUND_HALF_EVEN) for _, value in steps]
        margin = figures.margin_usd.quantize(step, ROUND_HALF_EVEN)
        if sum(printed) == margin:
            break
    parts = [
        f"{_dollars(value, signed=place > 0)} {name}"
        for place, ((name, _), value) in enumerate(zip(steps, printed, strict=True))
    ]
    return f"{' '.join(parts)} = {_dollars(margin)} margin"


def _dollars(value: Decimal, *, signed: bool = False) -> str:
    if signed:
        return f"{'−' if value <= 0 else '+'} ${abs(value):,f}"
    return f"{'−' if value < 0 else ''}${abs(value):,f}"
