"""As the dashboard's `main.py`, with the probe's pages."""

from __future__ import annotations

import streamlit as st

from components import shell
from components.shared import sign_in

PAGES = [
    st.Page("open.py", title="Probe", default=True),
    st.Page("second.py", title="Second"),
    st.Page("finance_only.py", title="Finance"),
    st.Page("failing.py", title="Failing"),
    st.Page("charts.py", title="Charts"),
    st.Page("long_text.py", title="Long text"),
]

page = st.navigation(PAGES, position="sidebar" if sign_in.signed_in() else "hidden")
shell.sidebar(sign_in.enter(), {})
page.run()
