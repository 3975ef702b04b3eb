"""The result of an action, shown once: callbacks run before the page is drawn, so the text is kept until then."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from components.shared.notice import plain


@dataclass(frozen=True, slots=True)
class _Outcome:
    text: str
    is_done: bool


def remember_outcome(place: str, text: str, *, is_done: bool) -> None:
    """Keep a result's text for `show_outcome` of the same place (a key of the session's state)."""
    st.session_state[place] = _Outcome(text, is_done)


def show_outcome(place: str) -> None:
    """Draw the result kept for this place, if any, and forget it."""
    outcome: _Outcome | None = st.session_state.pop(place, None)
    if outcome is None:
        return
    if outcome.is_done:
        st.success(plain(outcome.text), icon=":material/check_circle:")
    else:
        st.error(plain(outcome.text), icon=":material/error:")
