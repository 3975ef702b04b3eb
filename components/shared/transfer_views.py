"""The two parts of the Export and import page, as tabs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from billing_core.access import Principal, Role
from components.shared.url_codec import Codec, one_of
from components.shared.url_state import UrlState


class View(StrEnum):
    """The parts of the Export and import page; the value is what the URL has."""

    EXPORT = "export"
    IMPORT = "import"

    @property
    def label(self) -> str:
        """The text of the part's tab."""
        return self.value.capitalize()


@dataclass(frozen=True)
class Shown:
    """What the URL asks of the page itself."""

    view: View = View.EXPORT


URL = UrlState("transfer", Codec(Shown(), {"view": one_of(View)}))

NOT_FOR_YOU = "You need the admin role to import."


def transfer_tabs(principal: Principal) -> tuple[View, DeltaGenerator]:
    """The part that the URL asks for and the place to draw it, behind tabs for those who may import."""
    URL.told()
    view = URL.current().view
    if principal.role is not Role.ADMIN:  # who may import is decided in `billing_core`
        if view is View.IMPORT:
            st.info(NOT_FOR_YOU, icon=":material/lock:")
        return View.EXPORT, st.container()
    key = f"transfer-view-{view}"  # other tabs after a link changed the URL: they start with what that says
    tabs = st.tabs([one.label for one in View], default=view.label, key=key, on_change=_show, args=(key,))
    return view, tabs[list(View).index(view)]


def _show(key: str) -> None:
    """Another part starts with its own address: parameters of the former one mean nothing there."""
    view = next(one for one in View if one.label == st.session_state[key])
    st.query_params.from_dict(URL.codec.render(Shown(view)))
