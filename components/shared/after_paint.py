"""Parts of a page that are drawn once the browser has painted the table: charts, whose library is large.

A chart in a visit's first answer makes the browser fetch and parse 4.7 MB of scripts before it paints anything.
"""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from components.shared import sign_in
from components.shared.script_frame import draw_frame

PAINTED = "shared.table-painted"
"""Session state: the browser has painted the first table of this visit."""

WAIT_SECONDS = 5
"""Then charts are drawn anyhow: a proxy may forbid frames, in which the browser tells."""

_TIMED = "shared.table-painted-timed"
_FIRST_PAINT = Path(__file__).parent / "first_paint"


def is_painted() -> bool:
    """Whether the table of this visit has been painted, so that charts may be drawn.

    While it has not, this draws what tells, and the fragment that calls it runs again then.
    """
    if st.session_state.get(PAINTED):
        return True
    waiting = st.empty()
    with waiting.container():
        if not draw_frame(_FIRST_PAINT, key="first-paint", default=False):
            st.session_state[_TIMED] = False
            _run_later()
            return False
    waiting.empty()
    st.session_state[PAINTED] = True
    return True


@st.fragment(run_every=WAIT_SECONDS)
def _run_later() -> None:
    sign_in.guard()
    if st.session_state[_TIMED]:
        st.session_state[PAINTED] = True
        st.rerun()  # the page: a fragment may run no other one again
    st.session_state[_TIMED] = True
