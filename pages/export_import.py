"""The Export and import page: files out, files in, months to close, what-if, and the audit log."""

from __future__ import annotations

import streamlit as st

from billing_core.access import Principal
from billing_core.service import BillingService
from billing_core.web import wiring
from components.shared import sign_in
from components.shared.transfer_views import View, view_switch
from components.shared.widgets import quiet


def show(view: View, service: BillingService, principal: Principal) -> None:
    """Draw the chosen part alone; its modules are imported when it is shown."""
    match view:
        case View.EXPORT:
            from components.exports.panel import export_view

            export_view()
        case View.IMPORT:
            from components.imports.panel import import_view

            import_view(service, principal)
        case View.MONTHS:
            from components.months.panel import months_view

            months_view(service, principal)
        case View.WHAT_IF:
            from components.what_if.panel import what_if_view

            what_if_view(service, principal)
        case View.AUDIT:
            from components.audit.panel import audit_view

            audit_view(service, principal)


principal = sign_in.guard()
with quiet():
    service = wiring.service()
    service.check_mode()
    st.title("Export and import", anchor=False)
    show(view_switch(principal), service, principal)
