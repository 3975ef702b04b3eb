"""Parts of a page that are drawn once its first screen has been painted."""

from __future__ import annotations

import streamlit as st

from components.shared import sign_in

PAINTED = "shared.first-screen-painted"
"""Session state: the browser has had the time to paint the first screen of its visit."""

WAIT_SECONDS = 0.6
"""A grid is painted by then. A chart in the same answer would make the browser load 4.7 MB of scripts first."""

_ASKED = "shared.first-screen-asked"


def is_painted() -> bool:
    """Whether the first screen of this visit has been painted, so that charts may be drawn."""
    return bool(st.session_state.get(PAINTED))


def rerun_once_painted(fragment: str) -> None:
    """Run the fragment of key `fragment` again when the first screen has been painted.

    Call it inside that fragment while `is_painted` is false, and no more from then on: Streamlit stops the timer of a
    fragment that is not drawn again.
    """
    st.session_state[_ASKED] = False

    @st.fragment(run_every=WAIT_SECONDS)
    def timer() -> None:
        sign_in.guard()
        if st.session_state[_ASKED]:
            st.session_state[PAINTED] = True
            st.rerun(scope=fragment)
        st.session_state[_ASKED] = True

    timer()
