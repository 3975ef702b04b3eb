"""The help dialog: what each page is for, the keyboard, terms, and where the documentation is."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

from billing_core.access import Principal
from components.help import texts
from components.shared.navigation import offered_to

PAGES, KEYBOARD = "Pages", "Keyboard"
"""Tabs that the dialog may open with."""


def help_dialog(principal: Principal, first: str = PAGES) -> None:
    """Draw the help dialog with the tab `first` open; its pages are those that the reader's role is offered."""
    st.dialog("Help", width="medium", icon=":material/help:")(_help)(principal, first)


def _help(principal: Principal, first: str) -> None:
    pages, keys, terms, documents = st.tabs([PAGES, KEYBOARD, "Terms", "Documentation"], default=first)
    with pages:
        _definitions((f"{page.icon} {page.title}", page.purpose) for page in offered_to(principal.role))
        st.caption(f"{texts.ROLES[principal.role]} {texts.LINKS}")
        st.caption(f"**Theme.** {texts.THEME}")
    with keys:
        _definitions(texts.KEYS.items())
    with terms:
        _definitions((term[:1].upper() + term[1:], meaning) for term, meaning in texts.TERMS.items())
    with documents:
        st.markdown(texts.WHERE)
        _definitions((f"`{name}`", subject) for name, subject in texts.DOCUMENTS.items())


def _definitions(lines: Iterable[tuple[str, str]]) -> None:
    st.markdown("\n".join(f"- **{term}**: {meaning}" for term, meaning in lines))
