"""The keys `/` and `?` on every page, and the phone's drawer, which closes once a page was chosen."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from components.shared.script_frame import draw_frame

PRESSED = "shared.keys-pressed"
"""Session state: when `?` was last pressed, by the browser's clock in milliseconds."""

_PAGE_KEYS = Path(__file__).parent / "page_keys"


def asks_for_keys() -> bool:
    """Draw what listens for keys; whether `?` was pressed since the last run."""
    last, pressed = st.session_state.get(PRESSED, 0), draw_frame(_PAGE_KEYS, key="page-keys", default=0)
    st.session_state[PRESSED] = max(last, pressed)
    return bool(pressed > last)
