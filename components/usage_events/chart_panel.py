"""The charts under the table of usage events, each with a table of the same figures, and checked against it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import streamlit as st

from billing_core.access import Principal
from billing_core.service import BillingService
from billing_core.types import Credits, GetUsageEventsParams
from billing_core.usage_events.model import BreakdownRow, Summary
from billing_core.usage_events.ranking import Ranking, added, disagreements, ranking
from components.shared import after_paint, sign_in
from components.shared.colours import CREDIT_PARTS
from components.shared.formats import UNKNOWN, credits_text
from components.shared.notice import plain
from components.usage_events import charts
from components.usage_events.credit_rows import FIGURE_COLUMNS, day_rows, others_text, slice_rows
from components.usage_events.errors import stop_on_error
from components.usage_events.state import URL, add_value, show_day

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SHOWN = 10
"""Bars of a ranking; the rest is "all others"."""

READ = 2_000
"""Slices read at most; what is beyond is in "all others" too, as the difference to the total."""

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
    st.header("Where the credits went", anchor=False)
    mark = st.container()
    theme = st.context.theme.type or "light"
    zone = service.settings.zone
    table = service.get_usage_events(params, principal)
    whole, events = table.totals.credits, table.pagination.total_items

    left, right = st.columns([2, 1], gap="medium")
    with left:
        _chart(
            "Credits per day",
            "day",
            lambda: charts.credits_per_day(summary.days, zone.key, theme),
            day_rows(summary),
            alt=f"Credits per day by type, days in {zone.key}",
            on_click=_clicked_day,
            hint="Click a bar to see its day.",
        )
    with right:
        _chart(
            "Share by type",
            "type",
            lambda: charts.credits_by_type(whole, theme),
            _type_rows(whole),
            alt="Share of AI token, compute and storage credits",
        )

    left, right = st.columns(2, gap="medium")
    with left:
        chosen = TOPS[st.session_state.get(RANK, next(iter(TOPS)))]
        slices = service.breakdown(params, principal, *chosen.dimensions, limit=READ)
        ranked = ranking(slices, whole, events, shown=SHOWN)
        _chart(
            "Top",
            f"top-{chosen.filter}",
            lambda: charts.top(ranked, theme),
            _ranking_rows(chosen, ranked),
            alt=f"Credits by type of the top {chosen.label.lower()}",
            on_click=lambda point: _clicked_bar(chosen, point),
            hint="Click a bar to filter by it.",
            control=_rank_control,
            note=others_text(chosen.label.lower(), slices, ranked, read=READ),
        )
    with right:
        heat = service.by_hour_of_week(params, principal)
        _chart(
            "Hour and weekday",
            "heat",
            lambda: charts.hour_of_week(heat, zone.key, theme),
            _heat_rows(heat),
            alt=f"Credits by weekday and hour of the day, in the timezone {zone.key}",
        )

    tree = service.breakdown(params, principal, "organization", "chatflow", "chatflow_name", limit=READ)
    areas = ranking(tree, whole, events, shown=AREAS)
    _chart(
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
        f"top {chosen.label.lower()}": _all(slices, ranked),
        "organizations": _all(tree, areas),
    }
    wrong = disagreements(whole.total, parts)
    with mark.container(key="tie-out"):
        if wrong or not summary.ties_out:
            st.warning(plain(tie_out_text(whole.total, wrong or ["days"])), icon=":material/warning:")
        else:
            st.caption(tie_out_text(whole.total, wrong))


def _all(slices: Sequence[BreakdownRow], shown: Ranking) -> list[Decimal]:
    """What a breakdown adds up to: every slice read, or, of one too long to read whole, what the chart shows."""
    if len(slices) < READ:
        return [added(slices).total]
    return [one.credits.total for one in shown.rows]


def _chart(
    title: str,
    name: str,
    draw: Callable[[], Figure],
    rows: dict[str, list[str]],
    *,
    alt: str,
    on_click: Callable[[dict[str, Any]], None] | None = None,
    hint: str | None = None,
    control: Callable[[], None] | None = None,
    note: str | None = None,
) -> None:
    """A heading, and under it the chart or the table of its figures."""
    with st.container(horizontal=True, vertical_alignment="center", height=44, border=False, wrap=False):
        st.markdown(f"**{plain(title)}**", width="content", help=hint)
        if control is not None:
            control()
        st.space("stretch")
        as_table = st.toggle("Table", key=f"usage.as-table.{name}")
    if as_table:
        st.dataframe(rows, hide_index=True, alt=alt, key=f"table-{name}", column_config=_right_aligned(rows))
        return
    key = f"chart-{name}-{URL.generation()}"

    def clicked() -> None:
        points = st.session_state[key]["selection"]["points"]
        if points and on_click is not None:
            on_click(points[0])

    config = {"displayModeBar": False, "displaylogo": False, "scrollZoom": False}
    if on_click is None:
        st.plotly_chart(draw(), key=key, alt=alt, config=config)
    else:
        st.plotly_chart(draw(), key=key, alt=alt, config=config, on_select=clicked, selection_mode="points")
    if note is not None:
        st.caption(plain(note))


def _rank_control() -> None:
    st.selectbox("Rank", list(TOPS), key=RANK, width=160, filter_mode=None, label_visibility="collapsed")


def _right_aligned(rows: dict[str, list[str]]) -> dict[str, Any]:
    figures = {*FIGURE_COLUMNS, "Amount"}
    return {name: st.column_config.TextColumn(name, alignment="right" if name in figures else "left") for name in rows}


def _clicked_day(point: dict[str, Any]) -> None:
    show_day(date.fromisoformat(point["customdata"][0]))
    st.rerun()  # everything: the filter bar is outside of this fragment


def _clicked_bar(top: Top, point: dict[str, Any]) -> None:
    value = point["customdata"][0]
    if clickable(top, value):
        add_value(top.filter, value)
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
