from __future__ import annotations

import streamlit as st

from billing_core.access import Role
from components.shared import sign_in

sign_in.guard(Role.FINANCE, Role.ADMIN)
st.title("Finance", anchor=False)
st.text("secret figures")
