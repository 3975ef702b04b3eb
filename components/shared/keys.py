"""The keys `/` and `?` on every page, and the phone's drawer, which closes once a page was chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.components.v1 import declare_component

PRESSED = "shared.keys-pressed"
"""Session state: when `?` was last pressed, by the browser's clock in milliseconds."""


def _page_keys(**how: Any) -> Any:
    """Draw what listens. Declared in the run of a page, as `after_paint` says why."""
    return declare_component("page_keys", path=Path(__file__).parent / "page_keys")(**how)


def asks_for_keys() -> bool:
    """Draw what listens for keys; whether `?` was pressed since the last run."""
    last, pressed = st.session_state.get(PRESSED, 0), _page_keys(key="page-keys", default=0)
    st.session_state[PRESSED] = max(last, pressed)
    return bool(pressed > last)
