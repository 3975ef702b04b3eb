"""State of the directory view between two runs: whose line is being edited, and the result of the last change."""

from __future__ import annotations

import streamlit as st

from components.shared.session import Kept

EDITING = Kept[str]("org.directory-editing")
"""The organization whose dialog is open."""

SAID = "org.directory-said"
"""Session state: what the last change did, to be said once."""


def close() -> None:
    """Close the dialog; what was typed in it is forgotten."""
    organization_id = EDITING.get()
    EDITING.drop()
    for part in ("name", "customer"):
        st.session_state.pop(f"org-directory-{part}-{organization_id}", None)
