"""The table of limits: one page of rows, searched, sorted and paged here, with the forecast of the rows shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.access import Role
from billing_core.organizations.forecast import Forecast, NotEnough
from billing_core.organizations.limits import Limit, at_risk, by_customer
from billing_core.service import BillingService
from billing_core.values.counts import count_of
from components.organizations import texts
from components.organizations.formats import left_text
from components.organizations.limit_rows import (
    DEFAULT_SORT,
    FORECAST_COLUMNS,
    SORTS,
    arranged,
    events_query,
    forecast_cells,
)
from components.organizations.names import names as names_of
from components.organizations.query import LAST_PART
from components.organizations.risk import AT_RISK
from components.organizations.state import go_to_events, open_organization
from components.organizations.texts import organizations_text, plan_text, subscription_text, used_text
from components.shared import sign_in
from components.shared.data_grid import RowButton, data_grid, page_count, page_of, pages
from components.shared.formats import cut_percent, moment
from components.shared.notice import plain
from components.shared.url_codec import Codec, flag, number, one_of, text
from components.shared.url_state import UrlState
from components.shared.widgets import quiet

PAGE_ROWS = 25

LONGEST_BAR = 200
"""Percent at which bars end: one customer at 2,500 % must not make all others invisible."""

DRAWN = "org.limits-drawn"
"""Session state: the rows whose forecasts were drawn last; they are remembered and need no first drawing without."""

OPEN, EVENTS = "Page", "Events"

BAR = "bar"
"""The column beside the number: it ends at `LONGEST_BAR`, the number does not."""


@dataclass(frozen=True)
class LimitsView:
    """What the URL asks of the table; an empty `plan` is every plan."""

    search: str = ""
    plan: str = ""
    sort: str = DEFAULT_SORT
    at_risk: bool = False
    page: int = 1


URL = UrlState(
    "org-limits",
    Codec(
        LimitsView(),
        {
            "search": text(),
            "plan": text(),
            "sort": one_of(tuple(SORTS)),
            "at_risk": flag(),
            "page": number(1, LAST_PART),
        },
        {"search": "find", "plan": "limits_plan", "sort": "limits_by", "at_risk": AT_RISK, "page": "part"},
    ),
)

Forecasts = Mapping[str | None, Forecast | NotEnough]


def limits_table(service: BillingService) -> None:
    """Draw the table of limits with its controls: turning a page, searching or sorting reruns nothing else of the
    page.
    """
    st.fragment(_table)(service)


def scale_of(shown: Sequence[Limit]) -> int:
    """The percent at the end of the table's bars: 100, or as far as a row goes, but not beyond 200."""
    longest = max((row.percent_used for row in shown if row.percent_used is not None), default=Decimal(0))
    return min(LONGEST_BAR, max(100, int(longest.to_integral_value(ROUND_CEILING))))


def _table(service: BillingService) -> None:
    principal = sign_in.guard(Role.ADMIN)
    with quiet():
        now, zone = service.now(), service.settings.zone
        names, rows = names_of(service, principal), by_customer(service.organizations.limits.read(principal).rows)
        plans = sorted({plan_text(row) for row in rows})
        view = URL.current()
        plan = view.plan if view.plan in plans else None
        _controls(plans, min(service.settings.limit_thresholds))
        if view.at_risk:
            risky = at_risk(rows, service.settings.limit_thresholds)
            rows = tuple(row for row in rows if row.customer_id in risky)
        found = arranged(rows, names, now, find=view.search, plan=plan, sort=view.sort)
        if not found:
            st.info(texts.NOT_FOUND, icon=":material/search_off:")
            return
        _, shown = page_of(found, view.page, PAGE_ROWS)
        place = st.empty()
        asked = tuple((row.organization_id, row.customer_id) for row in shown)
        if st.session_state.get(DRAWN) != asked:  # a new forecast takes a moment, and the rest need not wait for it
            with place:
                _grid(shown, names, now, zone, None)
        forecasts = service.organizations.forecasting.forecasts(principal, {row.organization_id for row in shown})
        st.session_state[DRAWN] = asked
        with place:
            _grid(shown, names, now, zone, forecasts)
        st.caption(
            plain(
                f"{count_of(len(found), 'row')} of {len(rows):,}, one per customer. Times in {zone.key}. {_bars(shown)}"
            )
        )
        if len(found) > PAGE_ROWS:
            pages(URL, page_count(len(found), PAGE_ROWS))


def _bars(shown: Sequence[Limit]) -> str:
    return f"Bars end at {scale_of(shown)} %."


def _controls(plans: Sequence[str], threshold: int) -> None:
    URL.told()
    with st.container(horizontal=True, vertical_alignment="bottom", key="org-limits-controls"):
        URL.search_box("Customer, organization, plan or state")
        URL.selectbox("plan", "Plan", ["", *plans], width=180, format_func=lambda plan: plan or "All plans")
        URL.selectbox("sort", "Sort by", list(SORTS), width=200, format_func=lambda name: SORTS[name].label)
        URL.toggle("at_risk", "At risk only", help=texts.AT_RISK_NOTE.format(threshold=threshold))


def _grid(
    shown: Sequence[Limit], names: Mapping[str, str], now: datetime, zone: ZoneInfo, forecasts: Forecasts | None
) -> None:
    """The rows; a click leads to the organization's page or to the customer's events of the period."""
    import pyarrow as pa  # here: the sign-in form must not wait for it

    stage = "waiting" if forecasts is None else "whole"
    shares = [None if row.percent_used is None else float(row.percent_used) for row in shown]
    expected, runs_out, error = FORECAST_COLUMNS
    forecast = _forecast_columns(shown, forecasts)
    cells: dict[str, Any] = {  # what an admin looks for first stands first; the rest is to the right
        "Customer": [row.customer_id or "none" for row in shown],
        "Organizations": [organizations_text(row, names) for row in shown],
        "Plan": [plan_text(row) for row in shown],
        "Used": ["" if row.is_without else cut_percent(row.percent_used) for row in shown],
        BAR: pa.array(shares, pa.float64()),
        "Left": ["" if row.is_without else left_text(row.time_left(now)) for row in shown],
        runs_out: forecast[runs_out],
        expected: forecast[expected],
        "Credits": [used_text(row) for row in shown],
        "State": [subscription_text(row) for row in shown],
        EVENTS: ["Events"] * len(shown),
        "End": ["" if row.is_without else moment(row.period_end, zone) for row in shown],
        error: forecast[error],
    }

    def opened(row: int) -> None:
        open_organization(shown[row].organization_id)

    def events(row: int) -> None:
        go_to_events(events_query(shown[row], now, zone))
        st.rerun()

    data_grid(
        cells,
        _config(shown, zone),
        key=f"org-limits-grid-{URL.generation()}-{URL.current().page}-{stage}",
        alt="Plans and limits by customer",
        rows=len(shown),
        buttons=[
            RowButton(OPEN, OPEN, "Open", opened, help=texts.OWN_PAGE),
            RowButton(EVENTS, EVENTS, "Events", events, 75, texts.CUSTOMERS_EVENTS),
        ],
    )


def _config(shown: Sequence[Limit], zone: ZoneInfo) -> dict[str, Any]:
    column = st.column_config
    expected, runs_out, error = FORECAST_COLUMNS
    return {
        "Customer": column.TextColumn("Customer", width=150, pinned=True),
        "Organizations": column.TextColumn("Organizations", width=170, help=texts.ORGANIZATIONS_NOTE),
        "Plan": column.TextColumn("Plan", width=125),
        "State": column.TextColumn("State", width=125),
        "Used": column.TextColumn("Used", alignment="right", width=80, help=texts.SHARE_NOTE),
        BAR: column.ProgressColumn(
            "", min_value=0.0, max_value=float(scale_of(shown)), format=" ", width=90, help=texts.SHARE_NOTE
        ),
        "Credits": column.TextColumn("Credits used of included", alignment="right", width=190),
        "Left": column.TextColumn("Time left", alignment="right", width=90),
        "End": column.TextColumn(f"Period end ({zone.key})", width=160),
        expected: column.TextColumn(expected, alignment="right", width=270, help=texts.EXPECTED_NOTE),
        runs_out: column.TextColumn(runs_out, width=250, help=texts.RUNS_OUT_COLUMN),
        error: column.TextColumn(error, width=150, help=texts.ERROR_COLUMN),
    }


def _forecast_columns(shown: Sequence[Limit], forecasts: Forecasts | None) -> dict[str, list[str]]:
    if forecasts is None:
        return {name: ["…"] * len(shown) for name in FORECAST_COLUMNS}
    cells = [forecast_cells(forecasts.get(row.organization_id), row) for row in shown]
    return {name: [cell[place] for cell in cells] for place, name in enumerate(FORECAST_COLUMNS)}
