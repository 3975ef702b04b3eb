"""The parts of the Export and import page: who may use which, and the choice between them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import streamlit as st

from billing_core.access import Principal, Role

PARAMETER = "view"
"""In the URL: the part that is shown."""


class View(StrEnum):
    """The parts of the Export and import page; the value is what the URL has."""

    EXPORT = "export"
    IMPORT = "import"
    MONTHS = "months"
    WHAT_IF = "what-if"
    AUDIT = "audit"


LABELS: Mapping[View, str] = {
    View.EXPORT: "Export",
    View.IMPORT: "Import",
    View.MONTHS: "Months",
    View.WHAT_IF: "What-if",
    View.AUDIT: "Audit log",
}

OFFERED: Mapping[View, frozenset[Role]] = {
    View.EXPORT: frozenset(Role),
    View.IMPORT: frozenset({Role.ADMIN}),
    View.MONTHS: frozenset({Role.ADMIN, Role.FINANCE}),
    View.WHAT_IF: frozenset({Role.ADMIN, Role.FINANCE}),
    View.AUDIT: frozenset({Role.ADMIN}),
}
"""Who may do what is decided in `billing_core`; here it only decides what is offered."""


def view_switch(principal: Principal) -> View:
    """The part the URL asks for, drawn with the choice of the others; the first one if the reader may not use it."""
    offered = [view for view in View if principal.role in OFFERED[view]]
    asked = st.query_params.get(PARAMETER)
    shown = next((view for view in offered if view.value == asked), offered[0])
    if len(offered) > 1:
        # Radio buttons: they wrap on a phone, and what is chosen can be read in the dark, too.
        key = f"transfer-view-{shown}"  # another widget after a link changed the URL: it starts with what that says
        st.radio(
            "View",
            offered,
            index=offered.index(shown),
            key=key,
            horizontal=True,
            label_visibility="collapsed",
            format_func=LABELS.__getitem__,
            on_change=_show,
            args=(key,),
        )
    return shown


def _show(key: str) -> None:
    """Another part starts with its own address: parameters of the former one mean nothing there."""
    st.query_params.from_dict({PARAMETER: str(st.session_state[key])})
