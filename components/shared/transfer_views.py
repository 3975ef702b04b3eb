"""The two parts of the Export and import page, as tabs."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from billing_core.access import Principal, Role

PARAMETER = "view"
"""In the URL: the part that is shown."""


class View(StrEnum):
    """The parts of the Export and import page; the value is what the URL has."""

    EXPORT = "export"
    IMPORT = "import"


LABELS: Mapping[View, str] = {View.EXPORT: "Export", View.IMPORT: "Import"}


def transfer_tabs(principal: Principal) -> tuple[View, DeltaGenerator]:
    """The part that the URL asks for and the place to draw it, behind tabs for those who may import."""
    if principal.role is not Role.ADMIN:  # who may import is decided in `billing_core`
        return View.EXPORT, st.container()
    shown = View.IMPORT if st.query_params.get(PARAMETER) == View.IMPORT else View.EXPORT
    key = f"transfer-view-{shown}"  # other tabs after a link changed the URL: they start with what that says
    tabs = st.tabs(list(LABELS.values()), default=LABELS[shown], key=key, on_change=_show, args=(key,))
    return shown, tabs[list(LABELS).index(shown)]


def _show(key: str) -> None:
    """Another part starts with its own address: parameters of the former one mean nothing there."""
    view = next(view for view, label in LABELS.items() if label == st.session_state[key])
    st.query_params.from_dict({PARAMETER: view.value})
