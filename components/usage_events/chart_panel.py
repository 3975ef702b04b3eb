"""The charts under the table of usage events, each with a table of the same figures, and checked against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

import streamlit as st

from billing_core.access import Principal
from billing_core.service import BillingService
from billing_core.types import Credits, GetUsageEventsParams
from billing_core.usage_events.model import Summary
from billing_core.usage_events.ranking import Ranking, disagreements, ranking
from components.shared import after_paint, sign_in
from components.shared.chart import chart
from components.shared.colours import CREDIT_PARTS
from components.shared.formats import UNKNOWN, credits_text
from components.shared.notice import plain
from components.usage_events import charts, texts
from components.usage_events.credit_rows import FIGURE_COLUMNS, READ, day_rows, others_text, slice_rows, sums_of
from components.usage_events.errors import stop_on_error
from components.usage_events.state import URL, add_value, show_day

SHOWN = 10
"""Bars of a ranking; the rest is "all others"."""

RANK = "usage.rank"
"""Session state: what the ranking is by."""

AREAS = 150
"""Chatflows shown as areas of their own."""


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
        return f"✓ charts, table and header agree: {credits_text(total)} credits"
    return (
        f"Some figures do not agree with the table's {credits_text(total)} credits: {', '.join(wrong)}. "
        "Do not rely on them; contact your administrator."
    )


CHARTS_PIXELS = 900
"""Height that is kept free for the charts until they are drawn, so that nothing jumps."""


@st.fragment
def chart_panel(service: BillingService, params: GetUsageEventsParams, summary: Summary) -> None:
    """Draw all charts of one filter. Asks for the reader again: a fragment runs on its own."""
    principal = sign_in.guard()
    if not after_paint.is_painted():
        st.skeleton(height=CHARTS_PIXELS)
        return
    with stop_on_error():
        _panel(service, principal, params, summary)


def _panel(service: BillingService, principal: Principal, params: GetUsageEventsParams, summary: Summary) -> None:
    st.header(texts.WHERE_CREDITS_WENT, anchor=False)
    mark = st.container()
    theme = st.context.theme.type or "light"
    zone, generation = service.settings.zone, URL.generation()
    table = service.get_usage_events(params, principal)
    whole, events = table.totals.credits, table.pagination.total_items

    left, right = st.columns([2, 1], gap="medium")
    with left:
        chart(
            "Credits per day",
            "day",
            lambda: charts.credits_per_day(summary.days, zone.key, theme),
            day_rows(summary),
            alt=f"Credits per day by type, days in {zone.key}",
            right=(*FIGURE_COLUMNS, "Amount"),
            generation=generation,
            on_click=_clicked_day,
            hint=texts.DAY_HINT,
        )
    with right:
        chart(
            "Share by type",
            "type",
            lambda: charts.credits_by_type(whole, theme),
            _type_rows(whole),
            alt="Share of AI token, compute and storage credits",
            right=FIGURE_COLUMNS,
        )

    left, right = st.columns(2, gap="medium")
    with left:
        chosen = TOPS[st.session_state.get(RANK, next(iter(TOPS)))]
        slices = service.breakdown(params, principal, *chosen.dimensions, limit=READ)
        ranked = ranking(slices, whole, events, shown=SHOWN)
        chart(
            "Top",
            f"top-{chosen.filter}",
            lambda: charts.top(ranked, theme),
            _ranking_rows(chosen, ranked),
            alt=f"Credits by type of the top {chosen.label.lower()}",
            right=FIGURE_COLUMNS,
            generation=generation,
            on_click=lambda point: _clicked_bar(chosen, point),
            hint=texts.BAR_HINT,
            control=_rank_control,
            note=others_text(chosen.label.lower(), slices, ranked),
        )
    with right:
        heat = service.by_hour_of_week(params, principal)
        chart(
            "Hour and weekday",
            "heat",
            lambda: charts.hour_of_week(heat, zone.key, theme),
            _heat_rows(heat),
            alt=f"Credits by weekday and hour of the day, in the timezone {zone.key}",
        )

    tree = service.breakdown(params, principal, "organization", "chatflow", "chatflow_name", limit=READ)
    areas = ranking(tree, whole, events, shown=AREAS)
    chart(
        "Organizations and their chatflows",
        "tree",
        lambda: charts.share_tree(areas.largest, areas.others, theme),
        _tree_rows(areas),
        alt="Credits by organization and, within it, by chatflow, as a treemap",
    )

    parts: dict[str, Any] = {
        "header": [summary.totals.totals.credits.total],
        "credits per day": [day.totals.credits.total for day in summary.days],
        "share by type": [getattr(whole, part.field) for part in CREDIT_PARTS],
        "hour and weekday": heat.values(),
        f"top {chosen.label.lower()}": sums_of(slices, ranked),
        "organizations": sums_of(tree, areas),
    }
    wrong = disagreements(whole.total, parts)
    with mark.container(key="tie-out"):
        if wrong or not summary.ties_out:
            st.warning(plain(tie_out_text(whole.total, wrong or ["days"])), icon=":material/warning:")
        else:
            st.caption(tie_out_text(whole.total, wrong))


def _rank_control() -> None:
    st.selectbox("Rank", list(TOPS), key=RANK, width=160, filter_mode=None, label_visibility="collapsed")


def _clicked_day(point: Sequence[Any]) -> None:
    show_day(date.fromisoformat(point[0]))
    st.rerun()  # everything: the filter bar is outside of this fragment


def _clicked_bar(top: Top, point: Sequence[Any]) -> None:
    if clickable(top, point[0]):
        add_value(top.filter, point[0])
        st.rerun()


def _type_rows(whole: Credits) -> dict[str, list[str]]:
    return {
        "Type": [part.label for part in CREDIT_PARTS] + ["All"],
        "Total credits": [credits_text(getattr(whole, part.field)) for part in CREDIT_PARTS]
        + [credits_text(whole.total)],
    }


def _ranking_rows(top: Top, ranked: Ranking) -> dict[str, list[str]]:
    rows = ranked.rows
    names = [" · ".join(value or UNKNOWN for value in one.values) if one.values else "all others" for one in rows]
    return {top.label: names, **slice_rows(rows)}


def _tree_rows(areas: Ranking) -> dict[str, list[str]]:
    rows = areas.rows
    return {
        "Organization": [(one.values[0] or UNKNOWN) if one.values else "all others" for one in rows],
        "Chatflow": [(one.values[2] or one.values[1] or UNKNOWN) if one.values else "" for one in rows],
        **slice_rows(rows),
    }


def _heat_rows(heat: dict[tuple[int, int], Decimal]) -> dict[str, list[str]]:
    cells = sorted(heat.items())
    return {
        "Weekday": [charts.WEEKDAYS[weekday] for (weekday, _), _ in cells],
        "Hour": [f"{hour:02}:00" for (_, hour), _ in cells],
        "Total credits": [credits_text(value) for _, value in cells],
    }
