"""The Audit log page: who did what and when, and whether the log is whole."""

from __future__ import annotations

import streamlit as st

from billing_core.access import Role
from billing_core.web import wiring
from components.audit.panel import audit_view
from components.shared import sign_in
from components.shared.navigation import AUDIT_LOG
from components.shared.widgets import quiet

principal = sign_in.guard(Role.ADMIN)
with quiet():
    service = wiring.service()
    service.check_mode()
    st.title(AUDIT_LOG.title, anchor=False)
    audit_view(service, principal)
