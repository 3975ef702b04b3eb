"""The Month close page: the state of each month; check, close, verify, reopen one."""

from __future__ import annotations

import streamlit as st

from billing_core.access import Role
from billing_core.web import wiring
from components.months.panel import months_view
from components.shared import sign_in
from components.shared.navigation import MONTH_CLOSE
from components.shared.widgets import quiet

principal = sign_in.guard(Role.ADMIN, Role.FINANCE)
with quiet():
    service = wiring.service()
    service.check_mode()
    st.title(MONTH_CLOSE.title, anchor=False)
    months_view(service, principal)
