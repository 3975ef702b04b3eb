"""The months view: the state of each month, and the sections to close, verify and reopen one."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.month_close.model import Closing, Month, MonthState
from billing_core.service import BillingService
from billing_core.web import wiring
from billing_core.web.jobs import MonthTask
from components.months import texts
from components.months.close import month_to_close
from components.months.closed import closed_month
from components.months.organizations import organizations_of
from components.months.rows import month_rows
from components.months.state import AWAITED, SAID, chosen_month, read_months, show_month
from components.months.texts import STATE_MARKS, closed_text, month_name, progress_text, refused_text
from components.shared import sign_in
from components.shared.job_progress import follow
from components.shared.notice import plain
from components.shared.outcome import remember_outcome, show_outcome
from components.shared.widgets import quiet

REFRESH_SECONDS = 0.5
"""Between two looks at running work."""

FIGURES = ("Events", "Credits", "Amount (USD)", "Late events", "Late credits")

TABLE_ROWS = 12
"""Months in sight without scrolling."""

ROW_PIXELS = 35


def months_view(service: BillingService, principal: Principal) -> None:
    """Draw the months view."""
    st.caption(plain(texts.FORM))
    if principal.organizations is not None:
        st.info(texts.LIMITED, icon=":material/lock:")
        return
    _show_progress()
    with st.container(key="months-said"):  # always there, so that what stands below keeps its place
        show_outcome(SAID)
    with quiet():
        months = read_months(service, principal)
        _table(service, months)
        month = _choice(months)
        state = wiring.close_job().state
        is_busy = state is not None and state.is_running
        with st.container(key="months-status"):
            if is_busy:
                st.fragment(_watch, run_every=REFRESH_SECONDS)()
        st.header(month_name(month.period), anchor=False)
        if month.state is MonthState.CLOSED:
            closed_month(service, principal, month, is_busy=is_busy)
        else:
            month_to_close(service, principal, month, is_busy=is_busy)
        organizations_of(service, principal, month)


def _table(service: BillingService, months: Sequence[Month]) -> None:
    zone = service.settings.zone
    rows = month_rows(months, zone)
    config = {
        name: st.column_config.TextColumn(name, alignment="right" if name in FIGURES else "left") for name in rows
    }
    config["State"] = st.column_config.MultiselectColumn(
        "State",
        options=[mark.text for mark in STATE_MARKS.values()],
        color=[mark.colour for mark in STATE_MARKS.values()],
        help=" · ".join(f"{mark.text}: {mark.meaning}" for mark in STATE_MARKS.values()),
    )
    key = f"months-table-{len(rows)}"  # columns that come later get a width of their own
    height = ROW_PIXELS * (min(len(months), TABLE_ROWS) + 1) + 2
    st.dataframe(rows, hide_index=True, alt="Months, newest first", key=key, column_config=config, height=height)
    st.caption(
        plain(f"Months follow the reporting timezone, {zone.key}. Figures include late usage counted in the month.")
    )


def _choice(months: Sequence[Month]) -> Month:
    month = chosen_month(months)
    labels = {one.period: f"{month_name(one.period)} · {STATE_MARKS[one.state].word}" for one in months}
    # Another widget after the URL or the month's state changed: it starts with what is so now.
    key = f"months-choice-{month.period}-{month.state}"

    def changed() -> None:
        show_month(st.session_state[key])

    st.selectbox(
        "Month",
        list(labels),
        index=list(labels).index(month.period),
        key=key,
        format_func=labels.__getitem__,
        on_change=changed,
        width=280,
    )
    return month


def _watch() -> None:
    """Follow work on a month, whoever started it; then draw the page with what it found."""
    sign_in.guard(Role.FINANCE, Role.ADMIN)
    follow(wiring.close_job().state, progress_text)


def _show_progress() -> None:
    """What a close that this session asked for came to; everything else is shown in its place."""
    if not AWAITED.is_over():
        return
    state = wiring.close_job().state
    if state is None or state.progress.task is not MonthTask.CLOSE:
        return
    closing = state.result
    if isinstance(closing, Closing) and closing.ok:
        remember_outcome(SAID, closed_text(closing), is_done=True)
    elif isinstance(closing, Closing):
        remember_outcome(SAID, refused_text(state.progress.period, closing), is_done=False)
