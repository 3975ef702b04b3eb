"""The What-if page: past usage priced with other rate cards. Admins apply, finance calculates."""

from __future__ import annotations

import streamlit as st

from billing_core.access import Role
from billing_core.web import wiring
from components.shared import sign_in
from components.shared.navigation import WHAT_IF
from components.shared.widgets import quiet
from components.what_if.panel import what_if_view

principal = sign_in.guard(Role.ADMIN, Role.FINANCE)
with quiet():
    service = wiring.service()
    service.check_mode()
    st.title(WHAT_IF.title, anchor=False)
    what_if_view(service, principal)
