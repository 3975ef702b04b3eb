"""The limits of one organization: plan, share used, and what is expected at the period's end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.access import Principal
from billing_core.organizations.forecast import Forecast, NotEnough
from billing_core.organizations.limits import Limit
from billing_core.service import BillingService
from components.organizations import texts
from components.organizations.formats import cut, left_text
from components.organizations.limit_charts import ExpectedCredits, bullet
from components.organizations.limit_rows import events_query, is_about
from components.organizations.names import names as names_of
from components.organizations.texts import LIMITS_NOTE, age_text, plan_text, share_text, shared_text, subscription_text
from components.shared import texts as shared_texts
from components.shared.chart import draw_figure
from components.shared.formats import UNKNOWN, cut_percent, moment, rounded, short_credits
from components.shared.links import usage_link
from components.shared.notice import plain
from components.shared.widgets import tile


def limit_panel(service: BillingService, principal: Principal, organization_id: str, now: datetime) -> None:
    """Draw a box per customer that pays for the organization."""
    limits = service.organizations.limits
    rows = [row for row in limits.of(principal, organization_id) if row.customer_id is not None]
    if not rows:
        st.info(texts.NO_CUSTOMER_KNOWN, icon=":material/help:")
        return
    names, live = names_of(service, principal), [row for row in rows if not row.is_without]
    forecast = service.organizations.forecasting.forecast(principal, organization_id) if live else None
    for row in live:
        _box(service, row, forecast, names, now)
    for row in rows:
        if row.is_without:
            _without(row, now, service.settings.zone)
    reading = limits.read(principal)
    st.caption(plain(f"{age_text(reading.read_at, now, service.settings.zone)} {reading.problem or ''}"))


def _head(row: Limit) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{plain(row.customer_id or UNKNOWN)}**", width="content")
        st.badge(plain(subscription_text(row)), color="gray")


def _without(row: Limit, now: datetime, zone: ZoneInfo) -> None:
    with st.container(border=True, key=f"org-limit-{row.customer_id}"):
        _head(row)
        st.markdown(plain(share_text(row)))
        usage_link("Usage events of the customer", **events_query(row, now, zone))


def _box(
    service: BillingService, row: Limit, forecast: Forecast | NotEnough | None, names: Mapping[str, str], now: datetime
) -> None:
    zone, customer, thresholds = service.settings.zone, row.customer_id, service.settings.limit_thresholds
    expected = _expected(forecast, row)
    with st.container(border=True, key=f"org-limit-{customer}"):
        _head(row)
        grid = st.grid(3, min_column_width=200, key=f"org-limit-tiles-{customer}")
        tile(
            grid,
            "Plan",
            plan_text(row),
            [f"{rounded(row.included)} credits included in a period"],
            note=shared_texts.PLAN_BY_PRICE,
            key=f"org-limit-plan-{customer}",
        )
        tile(
            grid,
            "Used",
            cut_percent(row.percent_used),
            [*_expected_text(expected), *_shared(row, names)],
            note=LIMITS_NOTE,
            key=f"org-limit-used-{customer}",
        )
        tile(
            grid,
            "Time left",
            left_text(row.time_left(now)),
            [f"{moment(row.period_start, zone)} – {moment(row.period_end, zone)} {zone.key}"],
            note=texts.PERIOD_NOTE,
            key=f"org-limit-period-{customer}",
        )
        st.markdown(plain(share_text(row)))
        if row.used is not None and row.included:
            theme = st.context.theme.type or "light"
            draw_figure(
                bullet(row.used, row.included, thresholds, expected, theme),
                key=f"org-limit-bullet-{customer}",
                alt=bullet_text(row, thresholds, expected),
            )
            st.caption(legend_text(expected))
        usage_link("Usage events of the customer in this period", **events_query(row, now, zone))


def _shared(row: Limit, names: Mapping[str, str]) -> list[str]:
    if not row.shared_with:
        return []
    return [f"Shared with {shared_text(row, names)}; own part {cut(row.own_used)} credits"]


def _expected(forecast: Forecast | NotEnough | None, row: Limit) -> ExpectedCredits | None:
    if not isinstance(forecast, Forecast) or not is_about(forecast, row):
        return None
    return ExpectedCredits(forecast.expected, forecast.low, forecast.high)


def _expected_text(expected: ExpectedCredits | None) -> list[str]:
    """The forecast of the page: there is no other, so that two never contradict each other."""
    return [] if expected is None else [f"Expected at period end: {short_credits(expected.credits)} credits"]


def legend_text(expected: ExpectedCredits | None) -> str:
    """The legend of a limit's chart, in words."""
    text = texts.BULLET_LEGEND
    return text if expected is None else f"{text} Diamond: expected at the period's end, with its range."


def bullet_text(row: Limit, thresholds: Sequence[int], expected: ExpectedCredits | None) -> str:
    """The chart of a limit in words, for people who do not see it."""
    lines = ", ".join(f"{threshold:,} %" for threshold in thresholds)
    text = f"{share_text(row)}. Thresholds at {lines}."
    if expected is None:
        return text
    low, high = short_credits(expected.low), short_credits(expected.high)
    return f"{text} Expected at the period's end: {short_credits(expected.credits)} ({low} – {high})."
