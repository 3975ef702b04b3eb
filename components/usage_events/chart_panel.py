"""The charts above the table of usage events, each with a table of the same figures, and checked against it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import streamlit as st

from billing_core.access import Principal
from billing_core.service import BillingService
from billing_core.types import GetUsageEventsParams
from billing_core.usage_events.model import Summary
from billing_core.usage_events.ranking import Ranking, disagreements, ranking
from components.shared import after_paint, sign_in
from components.shared.chart import chart
from components.shared.formats import UNKNOWN, short_credits
from components.shared.notice import plain
from components.usage_events import charts, texts
from components.usage_events.credit_rows import (
    COMPARED,
    FIGURE_COLUMNS,
    READ,
    compared_cells,
    credits_before,
    day_rows,
    others_text,
    slice_rows,
    sums_of,
)
from components.usage_events.errors import stop_on_error
from components.usage_events.state import URL, add_value, show_day

SHOWN = 10
"""Bars of a ranking; the rest is "all others"."""

RANK = "usage.rank"
"""Session state: what the ranking is by."""


@dataclass(frozen=True, slots=True)
class Top:
    """A ranking of the page: its label, the dimension, and the filter that a click on a bar sets."""

    label: str
    dimensions: tuple[str, ...]
    filter: str


TOPS = {
    top.label: top
    for top in (
        Top("Chatflows", ("chatflow", "chatflow_name"), "chatflow"),
        Top("Models", ("model",), "model"),
        Top("Users", ("user",), "user"),
        Top("Organizations", ("organization",), "organization"),
        Top("Customers", ("customer",), "customer"),
        Top("Sync status", ("status",), "status"),
        Top("Environments", ("environment",), "environment"),
    )
}


def clickable(top: Top, value: str | None) -> bool:
    """Whether a bar is one value of a filter; a set of several models is not."""
    return bool(value) and not (top.filter == "model" and " + " in str(value))


def tie_out_text(total: Decimal, wrong: Sequence[str]) -> str:
    """The text under the heading: that every chart adds up to the table's total, or which does not."""
    if not wrong:
        return f"✓ charts, table and header agree: {short_credits(total)} credits"
    return (
        f"Some figures do not agree with the table's {short_credits(total)} credits: {', '.join(wrong)}. "
        "Do not rely on them; contact your administrator."
    )


HOURS = "Hours of the week"
"""The choice beside the rankings that shows when credits are used."""

CHART_PIXELS = 230

STRIP_PIXELS = 356
"""Height of the strip whatever it shows, so that nothing jumps when charts arrive."""

SKELETON_MARGIN = 40


@st.fragment
def chart_strip(service: BillingService, params: GetUsageEventsParams, compare: str | None) -> None:
    """Draw the charts of one filter and of what it is compared with beside each other, or, folded, only the way
    back to them. Asks for the reader again: a fragment runs on its own.
    """
    principal = sign_in.guard()
    if not URL.current().charts:
        st.button("Show charts", icon=":material/bar_chart:", type="tertiary", key="show-charts", on_click=_unfold)
        return
    with st.container(height=STRIP_PIXELS, border=False, key="chart-strip"):
        if not after_paint.is_painted():
            st.skeleton(height=STRIP_PIXELS - SKELETON_MARGIN)
            return
        with stop_on_error():
            _strip(service, principal, params, compare)


def _fold() -> None:
    URL.change(charts=False)


def _unfold() -> None:
    URL.change(charts=True)


def _strip(service: BillingService, principal: Principal, params: GetUsageEventsParams, compare: str | None) -> None:
    theme = st.context.theme.type or "light"
    zone, generation = service.settings.zone, URL.generation()
    table, summary = service.get_usage_events(params, principal), service.summary(params, principal, compare)
    whole = table.totals.credits
    parts: dict[str, Iterable[Decimal]] = {
        "header": [summary.totals.totals.credits.total],
        "credits per day": [day.totals.credits.total for day in summary.days],
    }
    left, right = st.columns([3, 2], gap="medium")
    with left:
        chart(
            "Credits per day",
            "day",
            lambda: charts.credits_per_day(summary.days, zone.key, theme, CHART_PIXELS, summary.previous_days),
            day_rows(summary),
            alt=f"Credits per day by type, days in {zone.key}",
            right=(*FIGURE_COLUMNS, "Amount", *COMPARED),
            generation=generation,
            on_click=_clicked_day,
            hint=texts.DAY_HINT,
            height=CHART_PIXELS,
        )
    with right:
        chosen = st.session_state.get(RANK, next(iter(TOPS)))
        if chosen == HOURS:
            heat = service.by_hour_of_week(params, principal)
            parts["hours of the week"] = heat.values()
            note = None
            chart(
                "By",
                "heat",
                lambda: charts.hour_of_week(heat, zone.key, theme, height=CHART_PIXELS),
                _heat_rows(heat),
                alt=f"Credits by weekday and hour of the day, in the timezone {zone.key}",
                control=_rank_control,
                height=CHART_PIXELS,
            )
        else:
            top = TOPS[chosen]
            slices = service.breakdown(params, principal, *top.dimensions, limit=READ)
            ranked = ranking(slices, whole, table.pagination.total_items, shown=SHOWN)
            parts[f"top {top.label.lower()}"] = sums_of(slices, ranked)
            note = others_text(top.label.lower(), slices, ranked)
            before = _before(service, principal, params, summary, top, ranked)
            chart(
                "Top",
                f"top-{top.filter}",
                lambda: charts.top(ranked, theme, height=CHART_PIXELS, has_legend=False, before=before),
                _ranking_rows(top, ranked, before),
                alt=f"Credits by type of the top {top.label.lower()}",
                right=(*FIGURE_COLUMNS, *COMPARED),
                generation=generation,
                on_click=lambda point: _clicked_bar(top, point),
                hint=texts.BAR_HINT,
                control=_rank_control,
                height=CHART_PIXELS,
            )
    wrong = disagreements(whole.total, parts) or ([] if summary.ties_out else ["days"])
    with st.container(horizontal=True, vertical_alignment="center", key="tie-out"):
        if wrong:
            st.warning(plain(tie_out_text(whole.total, wrong)), icon=":material/warning:")
        else:
            st.caption(tie_out_text(whole.total, wrong), width="content")
        st.space("stretch")
        if note is not None:
            st.caption(plain(note), width="content")
        st.button("Hide charts", icon=":material/expand_less:", type="tertiary", key="hide-charts", on_click=_fold)


def _before(
    service: BillingService,
    principal: Principal,
    params: GetUsageEventsParams,
    summary: Summary,
    top: Top,
    ranked: Ranking,
) -> list[Decimal | None]:
    """The credits that the rows of a ranking are compared with; empty if with nothing."""
    if summary.previous is None or summary.previous_window is None:
        return []
    start, end = summary.previous_window
    then = params.model_copy(update={"from_": start, "to": end})
    slices = service.breakdown(then, principal, *top.dimensions, limit=READ)
    return credits_before(slices, ranked, summary.previous.totals.credits.total)


def _rank_control() -> None:
    st.selectbox("Rank", [*TOPS, HOURS], key=RANK, width=180, filter_mode=None, label_visibility="collapsed")


def _clicked_day(point: Sequence[Any]) -> None:
    show_day(date.fromisoformat(point[0]))
    st.rerun()  # everything: the filter bar is outside of this fragment


def _clicked_bar(top: Top, point: Sequence[Any]) -> None:
    if clickable(top, point[0]):
        add_value(top.filter, point[0])
        st.rerun()


def _ranking_rows(top: Top, ranked: Ranking, before: Sequence[Decimal | None]) -> dict[str, list[str]]:
    rows = ranked.rows
    names = [" · ".join(value or UNKNOWN for value in one.values) if one.values else "all others" for one in rows]
    compared = compared_cells([one.credits.total for one in rows], before) if before else {}
    return {top.label: names, **slice_rows(rows), **compared}


def _heat_rows(heat: dict[tuple[int, int], Decimal]) -> dict[str, list[str]]:
    cells = sorted(heat.items())
    return {
        "Weekday": [charts.WEEKDAYS[weekday] for (weekday, _), _ in cells],
        "Hour": [f"{hour:02}:00" for (_, hour), _ in cells],
        "Total credits": [short_credits(value) for _, value in cells],
    }
