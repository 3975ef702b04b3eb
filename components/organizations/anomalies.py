"""The anomalies view: days and organizations outside their usual range, ranked by credits at stake; somebody can mark
them as seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.errors import BillingError
from billing_core.organizations.anomalies import Anomaly, AnomalyReport
from billing_core.organizations.table import label
from billing_core.service import BillingService
from billing_core.types import utc_text
from billing_core.values.counts import count_of
from components.organizations import texts
from components.organizations.anomaly_charts import split_figure
from components.organizations.anomaly_rows import AnomalyFilter, anomaly_rows, chosen, period_rows, split_rows
from components.organizations.names import names as names_of
from components.organizations.query import LAST_PART, events_of, of_day
from components.organizations.state import URL as PAGE_URL
from components.organizations.state import organization_link
from components.organizations.texts import story, summary_text
from components.shared import sign_in
from components.shared.chart import chart
from components.shared.data_grid import HEADER_PIXELS, ROW_PIXELS, page_count, page_of, pages, picked_rows
from components.shared.links import file_link, usage_link
from components.shared.notice import plain
from components.shared.outcome import remember_outcome, show_outcome
from components.shared.url_codec import Codec, number, one_of
from components.shared.url_state import UrlState
from components.shared.widgets import quiet, table

CSV_PATH = "/download/anomalies.csv"

SAID = "org.anomaly-said"
"""Session state: what the last mark did, to be said once."""

PAGE_ROWS = 25

LINKED = 5
"""Chosen anomalies that are told in full; a mark concerns all of them."""

LISTED = 100
"""Organizations without a judgement that are named one by one."""

FIGURES = ("Deviation (credits)", "Deviation (USD)", "Credits", "Usual range")


@dataclass(frozen=True)
class AnomaliesView:
    """What the URL asks of the table."""

    seen: str = AnomalyFilter.NEW
    page: int = 1


URL = UrlState(
    "org-anomalies",
    Codec(AnomaliesView(), {"seen": one_of(AnomalyFilter.CHOICES), "page": number(1, LAST_PART)}, {"page": "part"}),
)

Window = tuple[datetime | None, datetime | None]


def anomalies_view(service: BillingService, principal: Principal, now: datetime, window: Window) -> None:
    """Draw every anomaly in the complete days of `window` (`None`: no end on that side)."""
    del principal, now  # the fragment asks who is reading whenever it runs; only days that are over are judged
    st.fragment(_view)(service, window)


def _view(service: BillingService, window: Window) -> None:
    principal = sign_in.guard(Role.ADMIN)
    with quiet():
        with st.spinner("Comparing days…"):
            report = service.organizations.forecasting.anomalies(principal, *window)
        names, zone = names_of(service, principal), service.settings.zone
        with st.container(horizontal=True, vertical_alignment="center"):
            st.header("Unusual days", anchor=False, width="stretch", help=texts.ANOMALIES_NOTE)
            file_link("CSV", CSV_PATH + _query(window), note=texts.ANOMALIES_CSV_NOTE, key="org-anomalies-csv")
        st.caption(plain(summary_text(report, zone)))
        show_outcome(SAID)
        if report.first_day is not None:
            _days(service, principal, report, names, zone)
            _periods(report, names)
            _not_judged(report, names)


def _query(window: Window) -> str:
    said = {name: utc_text(time) for name, time in zip(("from", "to"), window, strict=True) if time is not None}
    return f"?{urlencode(said)}" if said else ""


# ── days ─────────────────────────────────────────────────────────────────────────────────────────


def _days(
    service: BillingService, principal: Principal, report: AnomalyReport, names: Mapping[str, str], zone: ZoneInfo
) -> None:
    if not report.rows:
        st.success(texts.NOTHING_UNUSUAL, icon=":material/check_circle:")
        return
    found = chosen(report.rows, _filter(report))
    if not found:
        st.info(texts.NONE_IN_SELECTION, icon=":material/done_all:")
        return
    _, page = page_of(found, URL.current().page, PAGE_ROWS)
    shown = service.organizations.forecasting.explained(principal, report, page)
    picked = picked_rows(
        shown,
        anomaly_rows(shown, names),
        name="org-anomalies",
        identity=[(row.organization_id, row.day, row.mark) for row in shown],
        alt="Unusual days, largest deviation first",
        right=FIGURES,
        height=HEADER_PIXELS + ROW_PIXELS * len(shown),
        row_height=ROW_PIXELS,
    )
    if len(found) > PAGE_ROWS:
        pages(URL, page_count(len(found), PAGE_ROWS))
    if picked:
        _actions(service, principal, picked)
        for row in picked[:LINKED]:
            _details(row, names, zone)
        if len(picked) > LINKED:
            st.caption(f"and {len(picked) - LINKED:,} more")
    else:
        st.caption(texts.ANOMALIES_HINT)
    theme = st.context.theme.type or "light"
    chart(
        "What the differences are made of",
        "org-split",
        lambda: split_figure(shown, names, theme),
        split_rows(shown, names),
        alt="Volume, price and mix of each difference, in the order of the table",
        right=("Volume", "Price", "Mix", "Difference", "Average day before"),
        hint=texts.SPLIT_NOTE,
    )


def _filter(report: AnomalyReport) -> str:
    counts = {choice: len(chosen(report.rows, choice)) for choice in AnomalyFilter.CHOICES}
    how = {"label_visibility": "collapsed", "format_func": lambda choice: f"{choice} ({counts[choice]:,})"}
    URL.told()
    URL.radio("seen", "Show", AnomalyFilter.CHOICES, **how)  # a segmented control is too pale on the dark theme
    return URL.current().seen


def _actions(service: BillingService, principal: Principal, picked: Sequence[Anomaly]) -> None:
    marked = [row for row in picked if row.mark is not None]
    open_ones = [row for row in picked if not row.is_seen]
    with st.container(horizontal=True, vertical_alignment="bottom", key="org-anomaly-actions"):
        if open_ones:
            st.text_input(
                "Note",
                key="org-anomaly-note",
                max_chars=300,
                width=320,
                placeholder="What happened (optional)",
                help=texts.MARK_NOTE,
            )
            st.button(
                f"Mark {count_of(len(open_ones), 'day')} as seen",
                icon=":material/visibility:",
                type="primary",
                key="org-anomaly-mark",
                on_click=_mark,
                args=(service, principal, open_ones),
            )
        if marked:
            st.button(
                f"Remove {count_of(len(marked), 'mark')}",
                icon=":material/undo:",
                key="org-anomaly-unmark",
                on_click=_unmark,
                args=(service, principal, marked),
            )


def _mark(service: BillingService, principal: Principal, rows: Sequence[Anomaly]) -> None:
    note = st.session_state.get("org-anomaly-note", "")
    forecasting = service.organizations.forecasting
    try:
        for row in rows:
            forecasting.mark(principal, row.organization_id, row.day, note, credits_shown=row.credits)
    except BillingError as error:
        remember_outcome(SAID, f"Not all marked: {error}", is_done=False)
    else:
        remember_outcome(SAID, f"Marked {count_of(len(rows), 'day')} as seen.", is_done=True)
        st.session_state["org-anomaly-note"] = ""


def _unmark(service: BillingService, principal: Principal, rows: Sequence[Anomaly]) -> None:
    try:
        for row in rows:
            service.organizations.forecasting.unmark(principal, row.organization_id, row.day)
    except BillingError as error:
        remember_outcome(SAID, f"Not all marks removed: {error}", is_done=False)
    else:
        remember_outcome(SAID, f"Removed {count_of(len(rows), 'mark')}.", is_done=True)


def _details(row: Anomaly, names: Mapping[str, str], zone: ZoneInfo) -> None:
    organization = row.organization_id
    with st.container(border=True, gap="small"):
        for sentence in story(row, names, zone):
            st.text(sentence)  # names and notes in it: Markdown would make links of addresses
        with st.container(horizontal=True):
            theirs = events_of(PAGE_URL.current(), organization, nobody=organization is None)
            query = of_day(theirs, row.day.isoformat())
            usage_link("Events of that day", **query)
            organization_link(label(organization, names), organization)


# ── periods, and who was not judged ──────────────────────────────────────────────────────────────


def _periods(report: AnomalyReport, names: Mapping[str, str]) -> None:
    if not report.periods:
        return
    st.header("Unusual periods", anchor=False)
    st.caption(texts.PERIODS_NOTE)
    rows = period_rows(report.periods[:PAGE_ROWS], names)
    table(
        rows,
        alt="Organizations whose whole period is unusual",
        key="org-anomalous-periods",
        right=(*FIGURES, "Compared periods"),
    )
    if len(report.periods) > PAGE_ROWS:
        st.caption(f"and {len(report.periods) - PAGE_ROWS:,} more with smaller deviations")


def _not_judged(report: AnomalyReport, names: Mapping[str, str]) -> None:
    left_out = report.not_judged
    if not left_out:
        return
    with st.expander(f"Not assessed: {count_of(len(left_out), 'organization')}", icon=":material/hourglass_empty:"):
        shown = left_out[:LISTED]
        rows = {
            "Organization": [label(one.organization_id, names) for one in shown],
            "Why": [one.reason for one in shown],
        }
        table(rows, alt="Organizations that could not be assessed, and why", key="org-not-judged")
        if len(left_out) > LISTED:
            st.caption(f"and {len(left_out) - LISTED:,} more")
