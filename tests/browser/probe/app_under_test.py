"""The dashboard's own entry with other pages: small ones that show what sign-in must and must not let through."""

from __future__ import annotations

import streamlit as st

from app import MIDDLEWARE, lifespan, routes
from components.shared.notice import report_script_error

app = st.App(
    "pages/main.py", lifespan=lifespan, routes=routes(), middleware=MIDDLEWARE, on_script_error=report_script_error
)
