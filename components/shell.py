"""The frame of every page: the browser's tab, and the sidebar with the product's name, the pages and the user menu."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import streamlit as st
from streamlit.navigation.page import Page

from billing_core.access import Principal
from billing_core.settings import Mode
from billing_core.web import wiring
from components.shared import keys, sign_in
from components.shared.navigation import Destination, Section, offered_to
from components.shared.notice import plain

PRODUCT = "Billing"

ABOUT = "**Billing**: usage from Langfuse, rated into credits, sent to Stripe. Help is in the user menu of the sidebar."

THEME = "Switch theme: ⋮ menu, top right"

TURN = "user-menu.turn"
"""Session state: a number that gives the user menu a new identity, closed, once a button of it was pressed."""


def frame(reader: Principal | None) -> None:
    """Set the browser's icon, whether the sidebar is open, and the ⋮ menu.

    Before the navigation: it would have the browser fetch the page's icon from another host.
    """
    st.set_page_config(
        page_icon="🧾",
        layout="wide",
        initial_sidebar_state="collapsed" if reader is None else "auto",
        menu_items={"About": ABOUT},  # an entry of our own brings the menu, and with it the choice of a theme
    )


def name_tab(reader: Principal | None, page: Page) -> None:
    """Set the title of the browser's tab."""
    st.set_page_config(page_title=PRODUCT if reader is None else f"{page.title} · {PRODUCT}")


def sidebar(principal: Principal, pages: Mapping[Destination, Page]) -> None:
    """Draw the product's name, the pages that serve the reader's role under their sections, and the user menu."""
    with st.sidebar:
        with st.container(horizontal=True, vertical_alignment="center", key="product"):
            st.markdown(f"**{PRODUCT}**", width="stretch")
            if wiring.gatekeeper().mode is Mode.DEMO:
                st.badge("Demo", icon=":material/science:", color="orange")
            else:
                st.badge("Live", color="green")
        offered = offered_to(principal.role)
        with st.container(key="navigation", gap="small"):
            for section in Section:
                if links := [pages[one] for one in offered if one.section is section and one in pages]:
                    with st.container(gap="xxsmall"):
                        st.caption(section)
                        for link in links:
                            st.page_link(link, width="stretch")
        _user_menu(principal)


def _user_menu(principal: Principal) -> None:
    """Draw who is reading and what they may see, with help, the export dialog and signing out."""
    from components.exports.state import OPEN, open_dialog  # the sign-in form need not wait for it

    user, limits = wiring.gatekeeper().user(principal.name), principal.organizations
    name = user.display_name if user else principal.name
    reach = "all organizations" if limits is None else "only " + ", ".join(sorted(limits))
    with st.container(key="user-menu", gap=None):
        menu = st.popover(
            f"{plain(name)} · {principal.role}",
            icon=":material/account_circle:",
            width="stretch",
            key=f"user-menu-{st.session_state.get(TURN, 0)}",
        )
        sign_in.deliver_cookie()  # not in the menu, which a browser draws only while it is open
    with menu, st.container(gap="xsmall"):
        st.caption(f"{plain(principal.name)} · role {principal.role} · {plain(reach)}")
        _item("Export…", "download", "user-menu-export", _chosen(open_dialog))
        asks_for_help = _item("Help", "help", "user-menu-help", _chosen(OPEN.drop))
        _item("Sign out", "logout", "sign-out", sign_in.sign_out)
        st.caption(THEME)
    asks_for_keys = keys.asks_for_keys()
    if OPEN.get():
        from components.exports.panel import export_dialog  # it brings the engine

        export_dialog()
    elif asks_for_help or asks_for_keys:
        from components.help.dialog import KEYBOARD, PAGES, help_dialog

        help_dialog(principal, KEYBOARD if asks_for_keys else PAGES)


def _item(label: str, icon: str, key: str, act: Callable[[], None]) -> bool:
    """Draw a line of the user menu."""
    return st.button(label, icon=f":material/{icon}:", key=key, on_click=act, type="tertiary")


def _chosen(act: Callable[[], None]) -> Callable[[], None]:
    """A callback that does what a button of the menu says, and closes the menu."""

    def chosen() -> None:
        st.session_state[TURN] = st.session_state.get(TURN, 0) + 1
        act()

    return chosen
