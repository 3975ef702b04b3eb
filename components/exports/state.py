"""State of the export panel: on its page in the URL, in the dialog of other pages in the session.

The address of those other pages is theirs. Widgets start with what is kept, write there what somebody chooses, and get
a new identity whenever anything else changed it (see `organizations.state`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

import streamlit as st

from components.exports.query import ADDRESS_NAMES, Choice
from components.usage_events.query import Filters
from components.usage_events.state import current_filters

OPEN = "export.open"
"""Session state: the dialog is open."""

KEPT = "export.choice"
"""Session state: what was chosen in the dialog."""

JOB = "export.job"
"""Session state: the id of the export this session started last."""

SEEN, EPOCH = "export.seen", "export.epoch"


class Place(StrEnum):
    """Where an export panel is shown, on its page or as a dialog; part of the keys of its widgets."""

    PAGE = "page"
    DIALOG = "dialog"


# ── the choice ───────────────────────────────────────────────────────────────────────────────────


def choice(place: Place) -> Choice:
    """Everything chosen so far in the panel at a place."""
    if place is Place.PAGE:
        return Choice.parse({name: st.query_params.get_all(name) for name in ADDRESS_NAMES})
    kept: Choice = st.session_state.get(KEPT, Choice())
    return kept


def _write(place: Place, chosen: Choice) -> None:
    if place is Place.DIALOG:
        st.session_state[KEPT] = chosen
        return
    now: Mapping[str, list[str]] = chosen.query()
    for name in ADDRESS_NAMES:
        then = st.query_params.get_all(name)
        if name in now and now[name] != then:
            st.query_params[name] = now[name]
        elif name not in now and then:
            del st.query_params[name]


def change(place: Place, **values: Any) -> None:
    """Change the choices by other means than their widgets, which then start anew."""
    _write(place, replace(choice(place), **values))


def widget(place: Place, name: str) -> str:
    """The key of the widget for a part of the choices; it changes when anything else changed them."""
    state, present = st.session_state, choice(place)
    if state.get(f"{SEEN}.{place}") != present:
        state[f"{SEEN}.{place}"] = present
        state[f"{EPOCH}.{place}"] = state.get(f"{EPOCH}.{place}", 0) + 1
    return f"export-{place}-{name}-{state[f'{EPOCH}.{place}']}"


def _take(place: Place, chosen: Choice) -> None:
    _write(place, chosen)
    st.session_state[f"{SEEN}.{place}"] = choice(place)


def choose(place: Place, name: str, key: str, read: Callable[[Any], Any] = lambda chosen: chosen) -> None:
    """Callback: store what somebody chose in the widget `key` as the field `name` of the choices."""
    _take(place, replace(choice(place), **{name: read(st.session_state[key])}))


def choose_filter(place: Place, name: str, key: str, read: Callable[[Any], Any] = lambda chosen: chosen) -> None:
    """Callback: store what somebody chose in the widget `key` as a field of the filters."""
    present = choice(place)
    _take(place, replace(present, filters=replace(present.filters, **{name: read(st.session_state[key])})))


def choose_values(place: Place, facet: str, key: str) -> None:
    """Callback: store what somebody chose in the widget `key` as the values of one filter."""
    values: Sequence[str] = st.session_state[key]
    _take(place, choice(place).valued(facet, values))


# ── the dialog ───────────────────────────────────────────────────────────────────────────────────


def open_dialog() -> None:
    """Open the export dialog with the next run; on the Usage Events page it takes over what that page shows."""
    st.session_state[OPEN] = True
    filters = current_filters() if "period" in st.session_state else Filters()
    present = choice(Place.DIALOG)
    st.session_state[KEPT] = replace(present, filters=filters)


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
