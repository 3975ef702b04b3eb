"""The Alerts page: rules that tell people, where they tell it, and what they told."""

from __future__ import annotations

import streamlit as st

from billing_core.access import Role
from billing_core.web import wiring
from components.alerts.panel import alerts_view
from components.shared import sign_in
from components.shared.navigation import ALERTS
from components.shared.widgets import quiet

principal = sign_in.guard(Role.ADMIN, Role.FINANCE)
with quiet():
    service = wiring.service()
    service.check_mode()
    st.title(ALERTS.title, anchor=False)
    alerts_view(service, principal)
