"""The Export and import page: files out and, for admins, files in."""

from __future__ import annotations

import streamlit as st

from billing_core.web import wiring
from components.exports.panel import export_view
from components.shared import sign_in
from components.shared.navigation import EXPORT_IMPORT
from components.shared.transfer_views import View, transfer_tabs
from components.shared.widgets import quiet

principal = sign_in.guard()
with quiet():
    service = wiring.service()
    service.check_mode()
    st.title(EXPORT_IMPORT.title, anchor=False)
    view, place = transfer_tabs(principal)
    with place:
        if view is View.IMPORT:
            from components.imports.panel import import_view  # few people open it

            import_view(service, principal)
        else:
            export_view()
