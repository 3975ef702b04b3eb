"""The sidebar of every signed-in page: who is reading, the export button, and sign-out."""

from __future__ import annotations

import streamlit as st

from billing_core.access import Principal
from billing_core.settings import Mode
from billing_core.web import wiring
from components.shared import sign_in
from components.shared.notice import plain


def user_menu(principal: Principal) -> None:
    """Draw name, role, limits and mode in the sidebar, with the buttons to export and to sign out."""
    from components.exports.state import OPEN, open_dialog  # the sign-in form need not wait for it

    gatekeeper = wiring.gatekeeper()
    user = gatekeeper.user(principal.name)
    if principal.organizations is None:
        reach = "all organizations"
    else:
        reach = "only " + ", ".join(sorted(principal.organizations))
    mode = ":orange-badge[:material/science: Demo]" if gatekeeper.mode is Mode.DEMO else ":green-badge[Live]"
    with st.sidebar, st.container(key="user-menu", gap="small"):
        st.markdown(f":material/account_circle: **{plain(user.display_name if user else principal.name)}** {mode}")
        st.caption(f"{plain(principal.name)} · role {principal.role} · {plain(reach)}")
        st.button("Export…", icon=":material/download:", on_click=open_dialog, key="user-menu-export")
        st.button("Sign out", icon=":material/logout:", on_click=sign_in.sign_out, key="sign-out")
        sign_in.deliver_cookie()
    if OPEN.get():
        from components.exports.panel import export_dialog  # it brings the engine

        export_dialog()
