"""State of the what-if view between two runs: the last result, its question, the open confirmation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from billing_core.rating.card import RateCardFile
from billing_core.rerating.model import Rerating
from billing_core.web import wiring
from components.shared.periods import Period, PeriodChoice
from components.shared.session import AwaitedJob, Kept
from components.shared.url_codec import PERIOD_VALUES, SPAN_NAMES, Codec, number, one_of
from components.shared.url_state import UrlState
from components.what_if import texts


class CardSource(StrEnum):
    """Where the cards come from; the value is what the URL has."""

    TEXT = "text"
    FILE = "file"
    CURRENT = "current"


@dataclass(frozen=True)
class WhatIfView(PeriodChoice):
    """Where the cards come from, the period, and the page of the table."""

    period: Period = Period.ALL_TIME
    source: CardSource = CardSource.TEXT
    page: int = 1


URL = UrlState(
    "what-if",
    Codec(
        WhatIfView(),
        {**PERIOD_VALUES, "source": one_of(CardSource), "page": number(1, 10**8)},
        {**SPAN_NAMES, "page": "part"},
    ),
)

SAID = "what-if.said"
"""What the last action did, to be said once."""


@dataclass(frozen=True, slots=True)
class RerateResult:
    """What cards would change, computed at a state of the ledger; or, once applied, what they changed.

    `start` and `end` are the window that was asked for: applying asks for the same one.
    """

    cards: RateCardFile
    label: str
    start: datetime | None
    end: datetime | None
    found: Rerating
    version: int
    number: int


ANSWER, APPLYING = Kept[RerateResult]("what-if.answer"), Kept[bool]("what-if.applying")
"""The result that the view shows; whether the confirmation of applying it is open."""

AWAITED = AwaitedJob("what-if.awaited", wiring.rerate_job, SAID, texts.BUSY)


def keep(
    cards: RateCardFile, label: str, window: tuple[datetime | None, datetime | None], found: Rerating, version: int
) -> None:
    """Store the result that the view shows."""
    before = ANSWER.get()
    number = 1 if before is None else before.number + 1
    ANSWER.put(RerateResult(cards, label, *window, found, version, number))
    APPLYING.drop()


def discard() -> None:
    """Forget the result."""
    ANSWER.drop()
    APPLYING.drop()
