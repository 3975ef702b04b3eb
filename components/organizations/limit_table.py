"""The table of limits: one page of rows, searched, sorted and paged here, with the forecast of the rows shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.access import Role
from billing_core.organizations.forecast import Forecast, NotEnough
from billing_core.organizations.limits import Limit
from billing_core.organizations.table import label
from billing_core.service import BillingService
from billing_core.values.counts import count_of
from components.organizations.bar import search_box
from components.organizations.limit_texts import (
    DEFAULT_SORT,
    FORECAST_COLUMNS,
    SORTS,
    arranged,
    events_query,
    forecast_cells,
    left_text,
    pace_text,
    plan_text,
    shared_text,
    state_text,
    used_text,
)
from components.organizations.names import names as names_of
from components.organizations.state import choose, current, go_to_events, open_organization, widget
from components.shared import sign_in
from components.shared.formats import moment
from components.shared.notice import plain
from components.shared.widgets import quiet

SORT, PLAN = "limits_by", "limits_plan"
"""Names in the URL, beside those of the whole page (`find` and `part`, see `query`)."""

ALL = "All plans"
PAGE_ROWS = 25
ROW_PIXELS, HEADER_PIXELS = 35, 38

LONGEST_BAR = 200
"""Percent at which bars end: one customer at 2,500 % must not make all others invisible."""

DRAWN = "org.limits-drawn"
"""Session state: the rows whose forecasts were drawn last; they are remembered and need no first drawing without."""

OPEN, EVENTS = "Page", "Events"

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
        names, rows = names_of(service, principal), service.organizations.limits.read(principal).rows
        plans = sorted({plan_text(row) for row in rows})
        find, plan, sort = current().find, st.query_params.get(PLAN), st.query_params.get(SORT, DEFAULT_SORT)
        plan, sort = plan if plan in plans else None, sort if sort in SORTS else DEFAULT_SORT
        _controls(find, plan, plans, sort)
        found = arranged(rows, names, now, find=find, plan=plan, sort=sort)
        if not found:
            st.info("No organization matches this search.", icon=":material/search_off:")
            return
        pages = -(-len(found) // PAGE_ROWS)
        page = min(current().part, pages)
        shown = found[(page - 1) * PAGE_ROWS : page * PAGE_ROWS]
        place = st.empty()
        asked = tuple((row.organization_id, row.customer_id) for row in shown)
        if st.session_state.get(DRAWN) != asked:  # a new forecast takes a moment, and the rest need not wait for it
            with place:
                _grid(shown, names, now, zone, None)
        forecasts = service.organizations.forecasting.forecasts(principal, {row.organization_id for row in shown})
        st.session_state[DRAWN] = asked
        with place:
            _grid(shown, names, now, zone, forecasts)
        st.caption(plain(f"{count_of(len(found), 'row')} of {len(rows):,}. Times in {zone.key}. {_bars(shown)}"))
        if pages > 1:
            key = widget("part")
            st.pagination(pages, default=page, key=key, on_change=choose, args=("part", key), width="stretch")


def _bars(shown: Sequence[Limit]) -> str:
    return f"Bars end at {scale_of(shown)} %."


def _controls(find: str, plan: str | None, plans: Sequence[str], sort: str) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom", key="org-limits-controls"):
        search_box(find, "Organization, customer, plan or state")
        key = f"{widget('limits-plan')}-{plan}"
        options = [ALL, *plans]
        st.selectbox(
            "Plan",
            options,
            index=0 if plan is None else options.index(plan),
            key=key,
            width=180,
            filter_mode=None,
            on_change=_choose,
            args=(PLAN, key, ALL),
        )
        key = f"{widget('limits-by')}-{sort}"
        st.selectbox(
            "Sort by",
            list(SORTS),
            index=list(SORTS).index(sort),
            key=key,
            width=200,
            filter_mode=None,
            format_func=lambda name: SORTS[name].label,
            on_change=_choose,
            args=(SORT, key, DEFAULT_SORT),
        )


def _choose(name: str, key: str, usual: str) -> None:
    """Write a choice of this view into the URL; another question starts on the first page."""
    chosen = str(st.session_state[key])
    if chosen == usual:
        st.query_params.pop(name, None)
    else:
        st.query_params[name] = chosen
    st.query_params.pop("part", None)


def _grid(
    shown: Sequence[Limit], names: Mapping[str, str], now: datetime, zone: ZoneInfo, forecasts: Forecasts | None
) -> None:
    """The rows; a click leads to the organization's page or to the customer's events of the period."""
    import pyarrow as pa  # here: the sign-in form must not wait for it

    stage = "waiting" if forecasts is None else "whole"
    identity = f"{widget('limits-grid')}-{current().part}-{st.query_params.get(SORT, '')}-{stage}"
    shares = [None if row.percent_used is None else float(row.percent_used) for row in shown]
    expected, runs_out, error = FORECAST_COLUMNS
    forecast = _forecast_columns(shown, forecasts)
    rows: dict[str, Any] = {  # what an admin looks for first stands first; the rest is to the right
        OPEN: ["Open"] * len(shown),
        "Organization": [label(row.organization_id, names) for row in shown],
        "Plan": [plan_text(row) for row in shown],
        "Used": pa.array(shares, pa.float64()),
        "Left": ["" if row.is_without else left_text(row.time_left(now)) for row in shown],
        runs_out: forecast[runs_out],
        expected: forecast[expected],
        "Credits": [used_text(row) for row in shown],
        "Pace": [pace_text(row, now) for row in shown],
        "Customer": [row.customer_id or "none" for row in shown],
        "State": [state_text(row) for row in shown],
        EVENTS: ["Events"] * len(shown),
        "End": ["" if row.is_without else moment(row.period_end, zone) for row in shown],
        error: forecast[error],
        "Shared with": [shared_text(row, names) for row in shown],
    }
    st.dataframe(
        pa.table(rows),
        key=f"{identity}-grid",
        hide_index=True,
        alt="Plans and limits by organization and customer",
        row_height=ROW_PIXELS,
        height=HEADER_PIXELS + ROW_PIXELS * len(shown),
        placeholder="",
        column_config={**_buttons(identity, shown, now, zone), **_config(shown, zone)},
    )


def _buttons(identity: str, shown: Sequence[Limit], now: datetime, zone: ZoneInfo) -> dict[str, Any]:
    open_key, events_key = f"{identity}-open", f"{identity}-events"
    return {
        OPEN: st.column_config.ButtonColumn(
            OPEN,
            width=70,
            type="tertiary",
            key=open_key,
            on_click=_on_open,
            args=(open_key, shown),
            help="The organization's own page.",
        ),
        EVENTS: st.column_config.ButtonColumn(
            EVENTS,
            width=75,
            type="tertiary",
            key=events_key,
            on_click=_on_events,
            args=(events_key, shown, now, zone),
            help="The customer's usage events of the period.",
        ),
    }


def _config(shown: Sequence[Limit], zone: ZoneInfo) -> dict[str, Any]:
    column = st.column_config
    expected, runs_out, error = FORECAST_COLUMNS
    return {
        "Organization": column.TextColumn("Organization", width=170, pinned=True),
        "Customer": column.TextColumn("Customer", width=170),
        "Plan": column.TextColumn("Plan", width=125),
        "State": column.TextColumn("State", width=125),
        "Used": column.ProgressColumn(
            "Used",
            min_value=0.0,
            max_value=float(scale_of(shown)),
            format="%.2f %%",
            width=140,
            help="Percent of the credits included, cut to two decimals.",
        ),
        "Credits": column.TextColumn("Credits used of included", alignment="right", width=190),
        "Pace": column.TextColumn(
            "Pace at period end", alignment="right", width=190, help="If it goes on as on average so far."
        ),
        "Left": column.TextColumn("Time left", alignment="right", width=90),
        "End": column.TextColumn(f"Period end ({zone.key})", width=160),
        expected: column.TextColumn(
            expected, alignment="right", width=270, help="Credits at the period's end, with the 80 % interval."
        ),
        runs_out: column.TextColumn(runs_out, width=250, help="When the included credits are used up."),
        error: column.TextColumn(error, width=150, help="How far forecasts of past weeks were off, on average."),
    }


def _forecast_columns(shown: Sequence[Limit], forecasts: Forecasts | None) -> dict[str, list[str]]:
    if forecasts is None:
        return {name: ["…"] * len(shown) for name in FORECAST_COLUMNS}
    cells = [forecast_cells(forecasts.get(row.organization_id), row) for row in shown]
    return {name: [cell[place] for cell in cells] for place, name in enumerate(FORECAST_COLUMNS)}


def _on_open(key: str, shown: Sequence[Limit]) -> None:
    click = st.session_state[key]
    if click is not None:
        open_organization(shown[click["row"]].organization_id)


def _on_events(key: str, shown: Sequence[Limit], now: datetime, zone: ZoneInfo) -> None:
    click = st.session_state[key]
    if click is not None:
        go_to_events(events_query(shown[click["row"]], now, zone))
        st.rerun()
