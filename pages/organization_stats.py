"""The Organization Stats page: which organizations use how much, what it is worth, who is about to run out, what
changed.
"""

from __future__ import annotations

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.service import BillingService
from billing_core.web import wiring
from components.organizations.bar import comparison_bar, period_bar, view_switch
from components.organizations.chart_panel import charts_view
from components.organizations.names import names
from components.organizations.overview import overview
from components.organizations.page import organization_page
from components.organizations.query import Address, OrganizationView, question
from components.organizations.risk import risk_tile
from components.organizations.state import URL, PinnedState, current_pin, follow
from components.shared import sign_in
from components.shared.layout import wide
from components.shared.periods import window_or_open
from components.shared.url_state import compare_of, sync_address
from components.shared.widgets import quiet
from components.usage_events.freshness import nothing_yet, title_row


def figures(
    service: BillingService, principal: Principal, address: Address, pin: PinnedState, view: OrganizationView
) -> None:
    """Draw the views that need the statistics of a period, which are read once."""
    zone = service.settings.zone
    window = window_or_open(address, pin.at, zone)
    comparison_bar(window, zone)
    params, compare = question(address, at=pin.at, zone=zone, as_of=pin.as_of), compare_of(address, window, zone)
    with st.spinner("Calculating totals…"):
        statistics = service.organizations.statistics(params, principal, compare)
    called = names(service, principal)
    if address.is_open:
        organization_page(service, principal, params, statistics, called, address, pin.at, compare)
    elif view is OrganizationView.CHARTS:
        charts_view(service, params, statistics, called)
    else:
        overview(statistics, called, params, address, pin.at, zone, compare, risk_tile(service, principal))


def show(service: BillingService, principal: Principal, address: Address, pin: PinnedState) -> None:
    """Draw the chosen view alone; the modules of views that are rarely opened are imported when they are."""
    view = OrganizationView.OVERVIEW if address.is_open else view_switch()
    match view:
        case OrganizationView.LIMITS:
            from components.organizations.limits import limits_view

            limits_view(service, principal, pin.at)
        case OrganizationView.ANOMALIES:
            from components.organizations.anomalies import anomalies_view

            zone = service.settings.zone
            period_bar(zone)
            anomalies_view(service, principal, pin.at, address.window(pin.at, zone))
        case OrganizationView.NAMES:
            from components.organizations.directory import directory_view

            directory_view(service, principal)
        case _:
            figures(service, principal, address, pin, view)


principal = sign_in.guard(Role.ADMIN)
wide()
with quiet():
    follow()
    sync_address()
    URL.told()
    service = wiring.service()
    service.check_mode()
    is_running = title_row("Organization Stats", service, principal, "organization_stats", URL)
    pin = current_pin(service)
    if pin.as_of == 0:
        nothing_yet(service, is_running=is_running)
    else:
        show(service, principal, URL.current(), pin)
