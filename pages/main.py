"""The script behind every page: navigation first, then sign-in, then the page.

It lies inside `pages/` so that no `pages/` lies beside it: Streamlit would run those files without it. The order
matters too: any other loses deep links or the session's cookie.
"""

from __future__ import annotations

import streamlit as st

from billing_core.access import Role
from components import shell
from components.shared import sign_in

PAGES = {
    st.Page("usage_events.py", title="Usage Events", icon=":material/assessment:", default=True): frozenset(Role),
    st.Page("organization_stats.py", title="Organization Stats", icon=":material/apartment:"): frozenset({Role.ADMIN}),
    st.Page("stripe_sync.py", title="Stripe Sync", icon=":material/sync_alt:"): frozenset({Role.ADMIN, Role.FINANCE}),
    st.Page("export_import.py", title="Export and import", icon=":material/import_export:"): frozenset(Role),
}
"""Each page with the roles it serves. The same pages for everybody: an address then means the same before and after
signing in. Roles are the pages' matter; here they only decide who is shown a link."""

signed_in = sign_in.is_signed_in()
st.set_page_config(
    page_title="Billing",
    page_icon="🧾",  # a Material icon would be fetched from another host
    layout="wide",
    initial_sidebar_state="auto" if signed_in else "collapsed",
)
page = st.navigation(list(PAGES), position="hidden")
principal = sign_in.enter()
with st.sidebar:
    for listed, roles in PAGES.items():
        if principal.role in roles:
            st.page_link(listed)
shell.user_menu(principal)
page.run()
