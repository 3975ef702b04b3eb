"""Questions for re-rating: the events of a selection in parts that fit in memory."""

from __future__ import annotations

from collections.abc import Sequence

import ibis.expr.types as ir

from billing_core.ledger.compiled import Bound, Question, ask, bound_number
from billing_core.ledger.queries import Chosen, Selection, choose, selected


def part_of(selection: Selection, columns: Sequence[str] = (), *, part: int = 0, parts: int = 1) -> Question:
    """A question: stored columns of a part of a selection's events, the `part`-th of `parts` by id."""
    numbers = (parts, part, part - parts) if parts > 1 else ()
    return ask(_part_of, choose(selection), tuple(map(bound_number, numbers)), tuple(columns))


def _part_of(chosen: Chosen, part: tuple[Bound, ...], columns: tuple[str, ...]) -> ir.Table:
    t = selected(chosen)
    if part:
        parts, this, below = (number.scalar for number in part)  # below 0 where the engine's hashes are signed
        t = t.filter((t.id.hash() % parts).isin([this, below]))
    return t.select(*columns) if columns else t


def per_quarter_hour(selection: Selection) -> Question:
    """A question: how many events begin in each quarter of an hour since 1970, in the order of time."""
    return ask(_per_quarter_hour, choose(selection))


def _per_quarter_hour(chosen: Chosen) -> ir.Table:
    t = selected(chosen)
    return t.group_by("quarter_hour").aggregate(events=t.count()).order_by("quarter_hour")
