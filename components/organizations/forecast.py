"""One organization's forecast: credits at the period's end, when the plan runs out, how good that is, what drives
it.
"""

from __future__ import annotations

from datetime import datetime

import streamlit as st

from billing_core.access import Principal
from billing_core.organizations.drivers import UsageChange
from billing_core.organizations.forecast import Forecast, NotEnough
from billing_core.service import BillingService
from components.organizations import texts
from components.organizations.forecast_charts import SHOWN_DAYS, days_figure, history_figure, sum_figure
from components.organizations.forecast_rows import forecast_rows, sum_rows
from components.organizations.query import events_of
from components.organizations.state import URL
from components.organizations.texts import driver_text, error_text, exhaustion_text, interval_text, period_text
from components.shared.chart import chart, draw_figure
from components.shared.formats import ago, percent, short_credits
from components.shared.links import usage_link
from components.shared.notice import plain
from components.shared.widgets import tile

RIGHT = ("Credits", "Used", "Expected", "Low", "High")


def forecast_panel(service: BillingService, principal: Principal, organization_id: str | None, now: datetime) -> None:
    """Draw the forecast section of an organization's page."""
    forecasting = service.organizations.forecasting
    st.header("Forecast", anchor=False)
    with st.spinner("Forecasting…"):
        answer = forecasting.forecast(principal, organization_id)
    slope = forecasting.driver(principal, organization_id)
    if isinstance(answer, NotEnough):
        _not_enough(answer)
    else:
        _forecast(service, answer, now)
    _driver(slope, organization_id)


def _not_enough(answer: NotEnough) -> None:
    st.info(plain(f"Not enough data for a forecast. {answer.reason}"), icon=":material/hourglass_empty:")
    question = answer.asked
    if question is not None and any(question.days):
        theme = st.context.theme.type or "light"
        draw_figure(history_figure(question, theme), key="org-history", alt="Credits per complete day so far")


def _forecast(service: BillingService, found: Forecast, now: datetime) -> None:
    zone, question = service.settings.zone, found.asked
    grid = st.grid(4, min_column_width=220, key="org-forecast-tiles")
    tile(
        grid,
        "Expected at period end",
        f"{short_credits(found.expected)} credits",
        [interval_text(found), period_text(found, zone)],
        note=texts.FORECAST_NOTE,
        key="org-forecast-expected",
    )
    tile(
        grid,
        "Used so far",
        f"{short_credits(question.used)} credits",
        [f"Usage known until {ago(question.at, now)}."],
        note=texts.USED_NOTE,
        key="org-forecast-used",
    )
    headline, sentence = exhaustion_text(found.exhaustion, question.included)
    tile(
        grid, "Included credits run out", headline, [sentence], key="org-forecast-exhaustion", note=texts.RUNS_OUT_NOTE
    )
    error = found.back_test.error
    tile(
        grid,
        "Error in back-tests",
        "unknown" if error is None else percent(error),
        [error_text(found.back_test)],
        note=texts.BACK_TEST_NOTE,
        key="org-forecast-error",
    )
    for note in found.notes:
        st.caption(plain(note))
    theme = st.context.theme.type or "light"
    left, right = st.columns(2, gap="medium")
    with left:
        chart(
            "Credits per day",
            "org-forecast-days",
            lambda: days_figure(found, theme),
            forecast_rows(found, SHOWN_DAYS),
            right=RIGHT,
            alt=f"Credits per day in {zone.key}: the last {SHOWN_DAYS} days, and those expected with their interval",
        )
    with right:
        chart(
            "Period total",
            "org-forecast-sum",
            lambda: sum_figure(found, theme),
            sum_rows(found),
            right=RIGHT,
            alt="Credits of the period: used so far, expected with their interval, and the included ones",
        )
    st.caption(plain(f"Method: {found.method}; {found.history_days} complete days of history."))


def _driver(slope: UsageChange | None, organization_id: str | None) -> None:
    with st.container(horizontal=True, vertical_alignment="center", key="org-driver"):
        st.text(driver_text(slope), width="stretch")  # names in it: Markdown would make links of addresses
        if slope is None or slope.driver.value is None:
            return
        kind, value = slope.driver.dimension, slope.driver.value
        if kind == "model" and " + " in value:
            return  # a set of models is no filter
        if kind == "chatflow" and value == slope.driver.name:
            return  # known by name alone, and events are filtered by id
        query = events_of(URL.current(), organization_id, nobody=organization_id is None)
        usage_link(f"Events of this {kind}", **{**query, kind: value})
