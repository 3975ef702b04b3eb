"""The Stripe Sync page: how far credits got, what is stuck, whether Langfuse, ledger and Stripe agree. Admins act,
finance reads.
"""

from __future__ import annotations

from billing_core.access import Role
from billing_core.web import wiring
from components.shared import sign_in
from components.shared.widgets import quiet
from components.stripe_sync.actions import actions_panel
from components.stripe_sync.customer import customer_panel
from components.stripe_sync.decisions import hold_form
from components.stripe_sync.log import push_log
from components.stripe_sync.overview import overview
from components.stripe_sync.push import push_panel
from components.stripe_sync.reconcile import reconcile_panel
from components.stripe_sync.settle import settlements_panel
from components.stripe_sync.state import read_pipeline
from components.usage_events.freshness import title_row

principal = sign_in.guard(Role.ADMIN, Role.FINANCE)
with quiet():
    service = wiring.service()
    service.check_mode()
    now = service.now()
    reading = read_pipeline(service, principal)  # first: it refuses people who may not see everything
    title_row("Stripe Sync", service, principal)
    with quiet():
        actions_panel(service, principal, reading, now)
    with quiet():
        push_panel(service, principal, now)
        hold_form(service, principal)
    with quiet():
        overview(service, principal, reading, now)
    with quiet():
        settlements_panel(service, principal)
    with quiet():
        reconcile_panel(service, principal, now)
    with quiet():
        customer_panel(service, principal, now)
    with quiet():
        push_log(service, principal)
