"""The overview of all organizations: totals, their change, the table, comparison, top movers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.organizations.figures import Figures, Statistics
from billing_core.types import GetUsageEventsParams, SyncStatus
from components.organizations import texts
from components.organizations.bridge import margin_line
from components.organizations.compare import compare_panel
from components.organizations.figures import FIRST, MORE, fields_for, kind_of, short_duration
from components.organizations.movers import movers_panel
from components.organizations.query import Address, events_of
from components.organizations.state import URL
from components.organizations.table import organizations_table
from components.shared.comparison import Comparison, days_text
from components.shared.formats import NOTHING_EARLIER, short_credits
from components.shared.links import USAGE_PAGE, usage_link
from components.shared.metric_tiles import MetricTile, TileLink, metric_tiles
from components.shared.notice import plain
from components.usage_events.state import CODEC as EVENTS
from components.usage_events.state import EventsView

FIRST_PIXELS = 170
"""Room for "Customers at risk"; two beside each other on a phone."""

STATUSES: Mapping[str, tuple[SyncStatus, ...]] = {
    "unsynced_credits": (SyncStatus.PENDING, SyncStatus.SENDING, SyncStatus.ERROR),
    "failed_credits": (SyncStatus.ERROR,),
}
"""Figures that count the events of some statuses only: the filter of Usage Events that shows exactly these."""


def tiles_of(
    fields: Sequence[str],
    now: Figures,
    previous: Figures | None,
    query: Mapping[str, Any] | None = None,
    against: str = "",
) -> list[MetricTile]:
    """Figures as tiles, each with its change against what it is compared with, if anything, which `against` names;
    `query` asks Usage Events for the events of all of them.
    """
    return [_tile(field, now, previous, query, against) for field in fields]


def _tile(
    field: str, now: Figures, previous: Figures | None, query: Mapping[str, Any] | None, against: str
) -> MetricTile:
    kind = kind_of(field)
    value = kind.value(now)
    before = None if previous is None else kind.value(previous)
    moved = None
    if previous is not None:
        moved = kind.moved(value, before) if previous.events else NOTHING_EARLIER
    link = None
    if query is not None and value and field in STATUSES:
        link = TileLink(texts.SHOW_EVENTS, USAGE_PAGE, {**query, "status": [one.value for one in STATUSES[field]]})
    return MetricTile(
        label=kind.label,
        value=kind.tile(value),
        exact=kind.exact(value),
        meaning=kind.meaning,
        moved=moved,
        before=kind.exact(before) if previous is not None and previous.events else None,
        against=against,
        growth_is_bad=kind.growth_is_bad,
        link=link,
    )


def first_figures(
    statistics: Statistics,
    now: Figures,
    previous: Figures | None,
    query: Mapping[str, Any],
    against: str,
    beside: Sequence[MetricTile] = (),
) -> None:
    """Draw the figures that a page opens with, and the line that leads from the amount to the margin."""
    tiles = tiles_of(fields_for(FIRST, statistics), now, previous, query, against)
    metric_tiles([*tiles, *beside], key="org-tiles", pixels=FIRST_PIXELS)
    if statistics.has_costs:
        st.caption(plain(margin_line(now)))


def more_figures(
    statistics: Statistics,
    now: Figures,
    previous: Figures | None,
    query: Mapping[str, Any],
    against: str,
    label: str = texts.MORE_FIGURES,
) -> bool:
    """Draw the fold with all other figures; whether it is open, which the URL says, so that it stays so.

    What it holds is worked out only then.
    """
    address = URL.current()
    fold = st.expander(
        label, expanded=address.more or bool(address.compare), icon=":material/unfold_more:", **URL.bound("more")
    )
    if not fold.open:
        return False
    with fold:
        metric_tiles(tiles_of(fields_for(MORE, statistics), now, previous, query, against), key="org-more-tiles")
        with st.container(horizontal=True, vertical_alignment="center", key="org-latency"):
            st.caption(plain(latency_text(now)), width="content")
            usage_link(texts.LONGEST_FIRST, **{**query, **EVENTS.render(EventsView(sort="latency_seconds"))})
    return True


def latency_text(figures: Figures) -> str:
    """What the average latency beside the 95th percentile says of the longest traces."""
    average, most = figures.latency_average, figures.latency_p95
    if average is None or most is None or average <= most:
        return texts.LATENCY_EVEN
    return texts.LATENCY_STRETCHED.format(average=short_duration(average), p95=short_duration(most))


def against_text(statistics: Statistics, zone: ZoneInfo) -> str:
    """The days that the figures are compared with, in words; empty without any."""
    return days_text(statistics.previous_window, zone)


def period_text(address: Address, at: datetime, zone: ZoneInfo, against: str) -> str:
    """The period in words: its days, their timezone, and what it is compared with."""
    shown = f"{address.days(at.astimezone(zone).date())}, days in {zone.key}"
    if against:
        return f"{shown}, compared with {against}."
    if address.against is Comparison.PREVIOUS:
        return f"{shown}. Choose a start date to compare with the period before."
    return f"{shown}, compared with nothing."


def tie_out_text(credits_total: Any, *, ties_out: bool) -> str:
    """Whether the page's credits equal those of Usage Events for the same filter, in words."""
    if ties_out:
        return f"✓ reconciles to Usage Events: {short_credits(credits_total)} credits"
    return (
        f"These figures do not reconcile to Usage Events: here {short_credits(credits_total)} credits. "
        "Do not rely on them; contact your administrator."
    )


def tie_out(credits_total: Any, query: Mapping[str, Any], *, ties_out: bool) -> None:
    """Draw whether the page's credits equal those of Usage Events, as a link to the same filter there; a warning if
    they differ.
    """
    text = tie_out_text(credits_total, ties_out=ties_out)
    if ties_out:
        usage_link(text, **query)
        return
    st.warning(plain(text), icon=":material/warning:")
    usage_link("Usage Events of this period", **query)


def overview(
    statistics: Statistics,
    names: Mapping[str, str],
    params: GetUsageEventsParams,
    address: Address,
    at: datetime,
    zone: ZoneInfo,
    compare: str | None,
    risk: MetricTile,
) -> None:
    """Draw everything about all organizations of a period: five figures, the table, and the rest behind a fold."""
    query, against = events_of(address), against_text(statistics, zone)
    first_figures(statistics, statistics.total, statistics.previous_total, query, against, [risk])
    with st.container(horizontal=True, vertical_alignment="center", key="org-period"):
        st.caption(plain(period_text(address, at, zone, against)), width="content")
        tie_out(statistics.total.credits.total, query, ties_out=statistics.ties_out)
    if not statistics.organizations:
        st.info(texts.NO_EVENTS_IN_PERIOD, icon=":material/event_busy:")
        return
    organizations_table(statistics, names, params, compare)
    if more_figures(statistics, statistics.total, statistics.previous_total, query, against, texts.MORE_OF_ALL):
        compare_panel(statistics, names, zone.key)
        movers_panel(statistics, names)
