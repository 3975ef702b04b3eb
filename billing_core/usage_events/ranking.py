"""The largest rows of a breakdown of credits, and all others as one row, without losing a credit. Pure, exact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from billing_core.types import Credits
from billing_core.usage_events.model import BreakdownRow
from billing_core.values.decimals import EXACT, exact_sum


@dataclass(frozen=True, slots=True)
class Ranking:
    """The largest rows of a breakdown and one for all others (`None`: there are none); they make the whole."""

    largest: tuple[BreakdownRow, ...]
    others: BreakdownRow | None

    @property
    def rows(self) -> tuple[BreakdownRow, ...]:
        """The rows of the ranking: the largest, then the one for all others."""
        return self.largest if self.others is None else (*self.largest, self.others)


def ranking(slices: Sequence[BreakdownRow], whole: Credits, events: int, *, shown: int) -> Ranking:
    """The first `shown` rows of a breakdown; the rest of `whole` and its `events` is "others"."""
    largest = tuple(slices[:shown])
    held = added(largest)
    rest = Credits(**{name: EXACT.subtract(getattr(whole, name), getattr(held, name)) for name in Credits.model_fields})
    other_events = events - sum(s.events for s in largest)
    others = BreakdownRow((), other_events, rest) if other_events or rest.total else None
    return Ranking(largest, others)


def added(slices: Iterable[BreakdownRow]) -> Credits:
    """The sum of the credits of breakdown rows, part by part."""
    sums = dict.fromkeys(Credits.model_fields, Decimal(0))
    for one in slices:
        for name in sums:
            sums[name] = EXACT.add(sums[name], getattr(one.credits, name))
    return Credits(**sums)


def disagreements(total: Decimal, parts: Mapping[str, Iterable[Decimal]]) -> list[str]:
    """The names of figures whose parts do not add up to exactly `total`: what a person must not rely on."""
    return [name for name, values in parts.items() if exact_sum(values) != total]
