"""The script behind every page: navigation first, then the door, then the page.

It lies inside `pages/` so that no `pages/` lies beside it: Streamlit would run those files without it. The order
matters too: any other loses deep links or the session's cookie.
"""

from __future__ import annotations

import streamlit as st

from components import gate

PAGES = [
    st.Page("usage_events.py", title="Usage Events", icon=":material/assessment:", default=True),
]
"""The same for everybody: an address then means the same before and after signing in. Roles are the pages' matter."""

signed_in = gate.is_signed_in()
st.set_page_config(
    page_title="Billing",
    page_icon="🧾",  # a Material icon would be fetched from another host
    layout="wide",
    initial_sidebar_state="auto" if signed_in else "collapsed",
)
page = st.navigation(PAGES, position="hidden")
principal = gate.enter()
with st.sidebar:
    for listed in PAGES:  # Streamlit's own menu hides itself while there is one page
        st.page_link(listed)
gate.user_menu(principal)
page.run()
