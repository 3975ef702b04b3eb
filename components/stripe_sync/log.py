"""The push log: who pushed when, and the result."""

from __future__ import annotations

import streamlit as st

from billing_core.access import Principal
from billing_core.service import BillingService
from components.shared.widgets import table
from components.stripe_sync import texts
from components.stripe_sync.rows import push_log_rows

RUNS = 20


def push_log(service: BillingService, principal: Principal) -> None:
    """Draw the last pushes, newest first."""
    st.header("Push log", anchor=False)
    runs = service.stripe.pushes(principal, RUNS)
    if not runs:
        st.caption(texts.NEVER_PUSHED)
        return
    rows = push_log_rows(runs, service.settings.zone, is_pushing=service.stripe.is_pushing())
    right = [name for name in rows if name not in {"By", "Outcome", "Problem"}][1:]
    table(rows, alt="Push log", key="sync-push-log", right=right)
