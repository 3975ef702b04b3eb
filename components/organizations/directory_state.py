"""State of the directory view between two runs: whose line is being edited, and the result of the last change."""

from __future__ import annotations

import streamlit as st

EDITING = "org.directory-editing"
"""Session state: the organization whose dialog is open."""

SAID = "org.directory-said"
"""Session state: what the last change did, to be said once."""


def edit(organization_id: str) -> None:
    """Open the dialog of an organization with the next run."""
    st.session_state[EDITING] = organization_id


def is_open() -> bool:
    """Whether a dialog of the directory is open."""
    return bool(st.session_state.get(EDITING))


def editing() -> str:
    """The organization whose line is edited in the open dialog."""
    organization_id: str = st.session_state[EDITING]
    return organization_id


def close() -> None:
    """Close the dialog; what was typed in it is forgotten."""
    organization_id = st.session_state.pop(EDITING, None)
    for part in ("name", "customer"):
        st.session_state.pop(f"org-directory-{part}-{organization_id}", None)
