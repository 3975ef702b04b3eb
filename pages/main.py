"""The script behind every page: navigation first, then sign-in, then the page.

It lies inside `pages/` so that no `pages/` lies beside it: Streamlit would run those files without it. The order
matters too: any other loses deep links or the session's cookie.
"""

from __future__ import annotations

import streamlit as st

from components import shell
from components.shared import sign_in
from components.shared.navigation import DESTINATIONS, USAGE_EVENTS

reader = sign_in.signed_in()
shell.frame(reader)
# The same pages for everybody: an address then means the same before and after signing in.
pages = {one: st.Page(one.file, title=one.title, icon=one.icon, default=one is USAGE_EVENTS) for one in DESTINATIONS}
page = st.navigation(list(pages.values()), position="hidden")
shell.name_tab(reader, page)
principal = sign_in.enter()
shell.sidebar(principal, pages)
page.run()
