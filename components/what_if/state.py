"""State of the what-if view between two runs: the last result, its question, the open confirmation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import streamlit as st

from billing_core.rating.card import RateCardFile
from billing_core.rerating.model import Rerating
from billing_core.web import wiring
from components.shared.outcome import remember_outcome
from components.shared.periods import Period, PeriodChoice
from components.shared.url_codec import PERIOD_VALUES, SPAN_NAMES, Codec, number, one_of
from components.shared.url_state import UrlState


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

ANSWER, APPLYING, AWAITED = "what-if.answer", "what-if.applying", "what-if.awaited"

BUSY = "Somebody is applying rate cards right now. Wait until that is done, then calculate again."


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


def keep(
    cards: RateCardFile, label: str, window: tuple[datetime | None, datetime | None], found: Rerating, version: int
) -> None:
    """Store the result that the view shows."""
    before = answer()
    number = 1 if before is None else before.number + 1
    st.session_state[ANSWER] = RerateResult(cards, label, *window, found, version, number)
    close_dialog()


def answer() -> RerateResult | None:
    """The result that the view shows; `None` before the first."""
    kept: RerateResult | None = st.session_state.get(ANSWER)
    return kept


def discard() -> None:
    """Forget the result."""
    st.session_state.pop(ANSWER, None)
    close_dialog()


def ask_to_apply() -> None:
    """Open the confirmation with the next run."""
    st.session_state[APPLYING] = True


def wants_to_apply() -> bool:
    """Whether the confirmation of applying is open."""
    return bool(st.session_state.get(APPLYING))


def close_dialog() -> None:
    """Close the confirmation."""
    st.session_state.pop(APPLYING, None)


def await_work(has_started: bool) -> None:
    """Store that this session waits for the job just started; tells the person if somebody else was faster."""
    state = wiring.rerate_job().state
    if not has_started or state is None:
        remember_outcome(SAID, BUSY, is_done=False)
    else:
        st.session_state[AWAITED] = state.number


def awaited_is_over() -> bool:
    """Whether the job this session started has ended since this was last asked."""
    state = wiring.rerate_job().state
    if state is None or state.is_running or st.session_state.get(AWAITED) != state.number:
        return False
    del st.session_state[AWAITED]
    return True
