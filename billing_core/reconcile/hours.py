"""Explains a difference between what was sent and what Stripe counts, for one customer and one UTC hour. Pure rules.

Hours, not days: credits lost in the morning and credits of somebody else in the evening must not cancel.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from billing_core.reconcile.report import Cause, ComparisonStep, DifferencePart
from billing_core.values.decimals import EXACT

MOST_SUMS = 4096
"""Combinations of unknown intents looked at; beyond, the largest ones are kept."""


@dataclass(frozen=True, slots=True)
class HourIntent:
    """A meter event of the hour explained; `unknown`: no answer, `recent`: perhaps not in the summary yet."""

    identifier: str
    value: int
    is_unknown: bool
    is_recent: bool
    event_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeptBack:
    """A usage event of the hour that was not sent because Stripe may count it already, with the credits it owes; a
    correction that gives back owes less than nothing.
    """

    event_id: str
    credits: Decimal


@dataclass(frozen=True, slots=True)
class LegacyEvent:
    """A usage event of the hour that the earlier billing system billed. It sent whole credits, rounded up."""

    event_id: str
    credits: Decimal


def explain_hour(
    difference: Decimal,
    intents: Sequence[HourIntent],
    legacy: Sequence[LegacyEvent] = (),
    kept_back: Sequence[KeptBack] = (),
) -> Iterator[DifferencePart]:
    """The parts of `difference` (sent minus counted), which they add up to.

    A higher total than sent is never lag, unless a credit given back has not been counted yet.
    """
    rest, sign = abs(difference), 1 if difference > 0 else -1
    arrived = _arrived([i for i in intents if i.is_unknown and i.value * sign < 0], rest)
    if arrived:
        known = Decimal(sum(abs(intent.value) for intent in arrived))
        yield _part(Cause.UNKNOWN_OUTCOME, known * sign, arrived)
        rest = EXACT.subtract(rest, known)
    awaited = [i for i in intents if i.is_recent and i.value * sign > 0]
    if rest and awaited:
        lag = min(rest, Decimal(sum(abs(intent.value) for intent in awaited)))
        yield _part(Cause.SUMMARY_LAG, lag * sign, awaited)
        rest = EXACT.subtract(rest, lag)
    if rest and difference < 0:
        billed_before = min(rest, Decimal(sum(math.ceil(event.credits) for event in legacy)))
        if billed_before > 0:
            ids = tuple(sorted(event.event_id for event in legacy))
            yield DifferencePart(ComparisonStep.SENT_STRIPE, Cause.LEGACY_BILLED, -billed_before, ids)
            rest = EXACT.subtract(rest, billed_before)
    alike = [event for event in kept_back if event.credits * sign < 0]
    elsewhere = min(rest, Decimal(math.ceil(sum((abs(event.credits) for event in alike), Decimal(0)))))
    if elsewhere > 0:
        ids = tuple(sorted(event.event_id for event in alike))
        yield DifferencePart(ComparisonStep.SENT_STRIPE, Cause.SENT_ELSEWHERE, elsewhere * sign, ids)
        rest = EXACT.subtract(rest, elsewhere)
    if rest and difference > 0:
        yield _part(Cause.LOST_AT_STRIPE, rest, _suspects(rest, intents))
    elif rest:
        yield DifferencePart(ComparisonStep.SENT_STRIPE, Cause.NOT_OURS, -rest)


def _arrived(unknown: Sequence[HourIntent], amount: Decimal) -> list[HourIntent]:
    """The unknown intents that must have arrived if as much of `amount` as possible is theirs.

    An intent arrives whole or not at all: 30 credits are not a part of an intent of 100.
    """
    ways: dict[int, tuple[HourIntent, ...]] = {0: ()}
    for intent in sorted(unknown, key=lambda i: (-abs(i.value), i.identifier)):
        for total, chosen in list(ways.items()):
            if (more := total + abs(intent.value)) <= amount:
                ways.setdefault(more, (*chosen, intent))
        if len(ways) > MOST_SUMS:
            ways = {total: ways[total] for total in sorted(ways, reverse=True)[:MOST_SUMS]}
    return list(ways[max(ways)])


def _suspects(lost: Decimal, intents: Sequence[HourIntent]) -> list[HourIntent]:
    """The one intent of exactly that size if there is one, else everything that was sent in the hour."""
    old = [intent for intent in intents if not intent.is_unknown and not intent.is_recent]
    fitting = [intent for intent in old if intent.value == lost]
    return fitting if len(fitting) == 1 else old


def _part(cause: Cause, amount: Decimal, intents: Sequence[HourIntent]) -> DifferencePart:
    ids = sorted({event_id for intent in intents for event_id in intent.event_ids})
    return DifferencePart(
        ComparisonStep.SENT_STRIPE, cause, amount, tuple(ids), tuple(sorted(i.identifier for i in intents))
    )
