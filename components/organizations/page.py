"""One organization's page: its figures, days, people, chatflows and models, its plan, its forecast, its bill at
Stripe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import streamlit as st

from billing_core.access import Principal
from billing_core.errors import AccessDenied, BadParameter
from billing_core.organizations.figures import OrganizationFigures, Statistics
from billing_core.organizations.table import NOBODY, label
from billing_core.service import BillingService
from billing_core.types import Attribute, GetUsageEventsParams
from billing_core.usage_events.model import BreakdownRow, Summary
from billing_core.usage_events.ranking import Ranking, ranking
from billing_core.values.counts import count_of
from components.organizations import texts
from components.organizations.overview import against_text, first_figures, more_figures, period_text, tie_out
from components.organizations.query import CODEC, Address, events_of, of_day
from components.organizations.state import PAGE, go_to_events
from components.shared import texts as shared_texts
from components.shared.chart import chart
from components.shared.formats import UNKNOWN
from components.shared.links import usage_link
from components.shared.notice import plain
from components.shared.widgets import quiet
from components.stripe_sync.customer import show_customer
from components.usage_events import charts
from components.usage_events.credit_rows import COMPARED, FIGURE_COLUMNS, READ, day_rows, others_text, slice_rows

SHOWN = 10
"""Bars of a ranking; the rest is "all others"."""

LINKED = 5
"""Values of a ranking that are links as well: charts cannot be reached by keyboards."""


@dataclass(frozen=True, slots=True)
class Rank:
    """A ranking: its title, what it is broken down by, and the filter of Usage Events that a bar stands for."""

    title: str
    dimensions: tuple[str, ...]
    filter: str
    hint: str = texts.EVENTS_HINT


RANKS = (
    Rank("Users", ("user",), "user"),
    Rank("Chatflows", ("chatflow", "chatflow_name"), "chatflow"),
    Rank("Models", ("model",), "model", texts.MODELS_HINT),
)


def params_of(params: GetUsageEventsParams, organization_id: str | None) -> GetUsageEventsParams:
    """The parameters of the same period limited to one organization's events, or to those without one."""
    if organization_id is None:
        return params.model_copy(update={"without": (Attribute.ORGANIZATION,)})
    return params.model_copy(update={"organization": (organization_id,)})


def unknown_text(organization_id: str | None) -> str:
    """The message for an organization that does not exist; the same for one that the reader may not see."""
    named = "events without an organization" if organization_id is None else f"events of organization {organization_id}"
    return f"There are no {named} that you may see."


def is_known(service: BillingService, principal: Principal, organization_id: str | None) -> bool:
    """Whether the reader may see any event of the organization, whenever it was."""
    asked = {"without": "organization"} if organization_id is None else {"organization": organization_id}
    try:
        params = GetUsageEventsParams.parse({**asked, "limit": 1})
        return service.get_usage_events(params, principal).pagination.total_items > 0
    except (AccessDenied, BadParameter):
        return False


def events_query(query: Mapping[str, Any], rank: Rank, value: str | None) -> dict[str, Any] | None:
    """URL parameters of Usage Events for one bar; `None` for a set of several models, which is no value of a filter."""
    if rank.filter == "model" and " + " in (value or ""):
        return None
    if value:
        return {**query, rank.filter: value}
    lacking = query.get("without")
    return {**query, "without": [*([lacking] if lacking else []), rank.filter]}


def organization_page(
    service: BillingService,
    principal: Principal,
    params: GetUsageEventsParams,
    statistics: Statistics,
    names: Mapping[str, str],
    address: Address,
    now: datetime,
    compare: str | None,
) -> None:
    """Draw everything about the organization that the address opens."""
    query_params = CODEC.render(address.closed())
    st.page_link(PAGE, label="All organizations", icon=":material/arrow_back:", query_params=query_params)
    wanted = None if address.open_none else address.open
    one = next((found for found in statistics.organizations if found.organization_id == wanted), None)
    if one is None:
        _quiet(service, principal, wanted, names, now)
        return
    _head(one, names)
    mine = params_of(params, wanted)
    query = events_of(address, wanted, nobody=wanted is None)
    zone = service.settings.zone
    against = against_text(statistics, zone)
    first_figures(statistics, one.now, one.previous, query, against)
    summary = service.summary(mine, principal, compare)
    with st.container(horizontal=True, vertical_alignment="center", key="org-period"):
        st.caption(plain(period_text(address, now, zone, against)), width="content")
        agrees = statistics.ties_out and summary.ties_out and summary.totals.totals.credits == one.now.credits
        tie_out(one.now.credits.total, query, ties_out=agrees)
    more_figures(statistics, one.now, one.previous, query, against)
    if one.now.events:
        _usage(service, principal, mine, summary, query)
    else:
        st.info(texts.BECAME_INACTIVE, icon=":material/event_busy:")
    _plan(service, principal, wanted, now)
    if wanted is not None:
        with quiet():
            _bills(service, principal, one.customer_ids, now)


def _quiet(
    service: BillingService, principal: Principal, wanted: str | None, names: Mapping[str, str], now: datetime
) -> None:
    """An organization without events in the period: its plan all the same, if the reader may know it at all."""
    if not is_known(service, principal, wanted):
        st.info(plain(unknown_text(wanted)), icon=":material/search_off:")
        return
    st.header(plain(label(wanted, names)), anchor=False)
    st.info(texts.QUIET, icon=":material/event_busy:")
    _plan(service, principal, wanted, now)


def _head(one: OrganizationFigures, names: Mapping[str, str]) -> None:
    st.header(plain(label(one.organization_id, names)), anchor=False)
    if one.organization_id is None:
        st.caption(f"{NOBODY}: events whose traces name none. They count towards no organization.")
    elif one.organization_id in names:
        st.caption(plain(one.organization_id))
    customers = ", ".join(one.customer_ids)
    st.caption(plain(f"Billed to {customers} in this period." if customers else texts.NOT_BILLED))


def _usage(
    service: BillingService,
    principal: Principal,
    params: GetUsageEventsParams,
    summary: Summary,
    query: Mapping[str, Any],
) -> None:
    theme = st.context.theme.type or "light"
    zone_name = service.settings.zone.key
    chart(
        "Credits per day",
        "org-days",
        lambda: charts.credits_per_day(summary.days, zone_name, theme, earlier=summary.previous_days),
        day_rows(summary),
        alt=f"Credits per day by type, days in {zone_name}",
        right=(*FIGURE_COLUMNS, "Amount", *COMPARED),
        on_click=lambda point: go_to_events(of_day(query, str(point[0]))),
        hint=texts.DAY_HINT,
    )
    grid = st.columns(len(RANKS), gap="medium")
    for place, rank in zip(grid, RANKS, strict=True):
        with place, quiet():
            slices = service.breakdown(params, principal, *rank.dimensions, limit=READ)
            found = ranking(slices, summary.totals.totals.credits, summary.totals.events, shown=SHOWN)
            _ranking(rank, found, slices, query, theme)


def _ranking(rank: Rank, found: Ranking, slices: Sequence[BreakdownRow], query: Mapping[str, Any], theme: str) -> None:
    def clicked(point: Sequence[Any]) -> None:
        target = events_query(query, rank, point[0])
        if target is not None:
            go_to_events(target)

    called = [_called(one) if one.values else "all others" for one in found.rows]
    chart(
        rank.title,
        f"org-{rank.filter}",
        lambda: charts.top(found, theme),
        {rank.title: called, **slice_rows(found.rows)},
        alt=f"Credits by type of the top {rank.title.lower()}",
        right=FIGURE_COLUMNS,
        on_click=clicked,
        hint=rank.hint,
        note=others_text(rank.title.lower(), slices, found),
    )
    links = [(one, target) for one in found.largest if (target := events_query(query, rank, one.values[0])) is not None]
    for one, target in links[:LINKED]:
        usage_link(_called(one), **target)


def _called(one: BreakdownRow) -> str:
    return next((value for value in reversed(one.values) if value), UNKNOWN)


def _plan(service: BillingService, principal: Principal, organization_id: str | None, now: datetime) -> None:
    from components.organizations.forecast import forecast_panel  # both only when an organization is opened
    from components.organizations.limit_panel import limit_panel

    if organization_id is not None:
        with quiet():
            st.header("Plan and limits", anchor=False)
            limit_panel(service, principal, organization_id, now)
    with quiet():
        forecast_panel(service, principal, organization_id, now)


def _bills(service: BillingService, principal: Principal, customers: Sequence[str], now: datetime) -> None:
    """Subscription and upcoming invoice as Stripe has them; asked anew only when somebody presses the button."""
    st.header("Subscription and upcoming invoice", anchor=False)
    if principal.organizations is not None:
        st.caption(texts.INVOICES_LIMITED)
        return
    if not customers:
        st.caption(texts.NO_STRIPE_CUSTOMER)
        return
    customer = customers[0]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        if len(customers) > 1:
            customer = st.selectbox(
                count_of(len(customers), "customer"), customers, key="org-customer", width=320, filter_mode="contains"
            )
        asked = st.button(
            "Read from Stripe",
            icon=":material/person_search:",
            key="org-customer-read",
            disabled=not service.stripe.is_connected,
            help=None if service.stripe.is_connected else shared_texts.NOT_CONNECTED,
        )
    never = f"{customer} has not been read from Stripe yet. Press “Read from Stripe”."
    show_customer(service, principal, customer, now, asked=asked, never=never)
