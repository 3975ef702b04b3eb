"""The choice of cards to re-rate with: those in force, a file, or typed text. Nothing of it is stored. Nothing of it is
kept.
"""

from __future__ import annotations

import streamlit as st
import yaml

from billing_core.errors import BillingError, RateCardError
from billing_core.rating.card import RateCardFile, parse_rate_cards
from billing_core.service import BillingService
from components.shared.notice import notice_of_error, plain
from components.what_if import texts
from components.what_if.state import URL, CardSource
from components.what_if.texts import card_text, cards_line

LARGEST_MB = 1
LARGEST_CHARACTERS = LARGEST_MB * 2**20
"""A card is some hundred lines."""

NESTED = "rate card {}: is nested too deeply; see docs/rate-cards.md"

TEXT = "what-if.text"
"""Session state: what somebody wrote, while the box is not on the screen."""

LABELS = {
    CardSource.TEXT: "Write or paste cards",
    CardSource.FILE: "Upload a file",
    CardSource.CURRENT: "The cards in force",
}

NOTES = {CardSource.TEXT: texts.CARDS_NOTE, CardSource.FILE: texts.FILE_NOTE, CardSource.CURRENT: (texts.IN_FORCE_NOTE)}


def cards_box(service: BillingService) -> tuple[RateCardFile, str] | None:
    """Draw the choice of cards; returns them with a label, `None` while there are none that can be used."""
    URL.radio("source", "Cards", list(CardSource), format_func=LABELS.__getitem__)
    source = URL.current().source
    st.caption(plain(NOTES[source]))
    try:
        found = _read(service, source)
    except BillingError as error:
        notice_of_error(error)
        return None
    if found is not None:
        st.caption(plain(cards_line(found[0], service.settings.zone)))
    return found


def cards_of(text: str, name: str) -> RateCardFile:
    """The cards of a text that came from outside.

    Raises RateCardError: Saying what is wrong with it; also if it is no card at all but something that would keep the
    reader busy.
    """
    if len(text) > LARGEST_CHARACTERS:
        raise RateCardError(f"rate card {name}: has {len(text):,} characters; expected {LARGEST_CHARACTERS:,} at most")
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.BaseLoader)):
            # A line of them can stand for gigabytes, and no card needs them.
            raise RateCardError(f"rate card {name}: uses YAML aliases (*name); write the values out")
    except yaml.YAMLError:
        pass  # said better by whoever parses it
    except RecursionError:
        raise RateCardError(NESTED.format(name)) from None
    try:
        return parse_rate_cards(text, name)
    except RecursionError:
        raise RateCardError(NESTED.format(name)) from None


def _read(service: BillingService, source: CardSource) -> tuple[RateCardFile, str] | None:
    if source is CardSource.CURRENT:
        return _current(service), "the cards in force"
    if source is CardSource.TEXT:
        return _written(service)
    file = st.file_uploader(
        "Rate card file", type=["yaml", "yml", "json"], key="what-if-file", max_upload_size=LARGEST_MB
    )
    if file is None:
        return None
    try:
        text = file.getvalue().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RateCardError(f"rate card {file.name}: not UTF-8 text; save it as UTF-8") from None
    return cards_of(text, file.name), file.name


def _current(service: BillingService) -> RateCardFile:
    return service.rate_cards()


def _written(service: BillingService) -> tuple[RateCardFile, str]:
    key = "what-if-text"

    def changed() -> None:
        st.session_state[TEXT] = st.session_state[key]

    text = st.text_area(
        "Cards",
        st.session_state.get(TEXT) or card_text(_current(service)),
        key=key,
        height=320,
        max_chars=LARGEST_CHARACTERS,
        on_change=changed,
        label_visibility="collapsed",
    )
    return cards_of(text, "as written"), "the cards as written"
