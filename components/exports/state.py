"""State of the export panel: on its page in the URL, in the dialog of other pages in the session."""

from __future__ import annotations

from enum import StrEnum

import streamlit as st

from components.exports.query import CODEC
from components.shared.url_state import UrlState
from components.usage_events import state as usage_events
from components.usage_events.query import Filters, as_changes

OPEN = "export.open"
"""Session state: the dialog is open."""

JOB = "export.job"
"""Session state: the id of the export this session started last."""


class Place(StrEnum):
    """Where an export panel is shown, on its page or as a dialog; part of the keys of its widgets."""

    PAGE = "page"
    DIALOG = "dialog"


STATES = {
    Place.PAGE: UrlState("export-page", CODEC),
    Place.DIALOG: UrlState("export-dialog", CODEC, kept="export.choice"),
}
"""Everything chosen so far in the panel at a place. The address of a page that has the dialog is its own."""


# ── the dialog ───────────────────────────────────────────────────────────────────────────────────


def open_dialog() -> None:
    """Open the export dialog with the next run; on the Usage Events page it takes over what that page shows."""
    st.session_state[OPEN] = True
    filters = usage_events.URL.current() if usage_events.URL.is_drawn("period") else Filters()
    STATES[Place.DIALOG].change(**as_changes(filters))


def is_open() -> bool:
    """Whether the export dialog is open."""
    return bool(st.session_state.get(OPEN))


def close() -> None:
    """Close the export dialog; its choices are there again the next time."""
    st.session_state.pop(OPEN, None)


# ── the export under way ─────────────────────────────────────────────────────────────────────────


def remember_job(job_id: str) -> None:
    """Store which background export this session started last."""
    st.session_state[JOB] = job_id


def current_job() -> str | None:
    """The id of the export this session started last; `None` once it was dismissed."""
    job_id: str | None = st.session_state.get(JOB)
    return job_id


def forget_job() -> None:
    """Dismiss the export this session started last."""
    st.session_state.pop(JOB, None)
