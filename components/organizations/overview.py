"""The overview of all organizations: totals, their change, the table, comparison, top movers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import streamlit as st

from billing_core.organizations.figures import Figures, Statistics
from billing_core.types import GetUsageEventsParams
from components.organizations import texts
from components.organizations.compare import compare_panel
from components.organizations.figures import TILES, kind_of
from components.organizations.movers import movers_panel
from components.organizations.query import Address, events_of
from components.organizations.table import organizations_table
from components.shared.formats import NOTHING_EARLIER, change, credits_text, moment
from components.shared.links import usage_link
from components.shared.metric_tiles import MetricTile, metric_tiles
from components.shared.notice import plain


def tiles_of(now: Figures, previous: Figures | None) -> list[MetricTile]:
    """The header figures as tiles, each with its change against the period before, if there is one."""
    return [_tile(field, now, previous) for field in TILES]


def _tile(field: str, now: Figures, previous: Figures | None) -> MetricTile:
    kind = kind_of(field)
    value = kind.value(now)
    before = None if previous is None else kind.value(previous)
    moved = None
    if previous is not None:
        moved = change(value, before) if previous.events else NOTHING_EARLIER
    return MetricTile(
        label=kind.label,
        value=kind.tile(value),
        exact=kind.exact(value),
        meaning=kind.meaning,
        moved=moved,
        before=kind.exact(before) if previous is not None and previous.events else None,
        growth_is_bad=kind.growth_is_bad,
    )


def figure_tiles(now: Figures, previous: Figures | None) -> None:
    """Draw the header figures as tiles, as many side by side as the screen holds."""
    metric_tiles(tiles_of(now, previous), key="org-tiles")


def period_text(address: Address, at: datetime, zone: ZoneInfo, params: GetUsageEventsParams) -> str:
    """The period in words: its days, their timezone, and what it is compared with."""
    shown = f"{address.days(at.astimezone(zone).date())}, days in {zone.key}"
    if params.from_ is None:
        return f"{shown}. Choose a start date to compare with the previous period."
    return f"{shown}, compared with the previous period of equal length, before {moment(params.from_, zone)[:16]}."


def tie_out_text(credits_total: Any, *, ties_out: bool) -> str:
    """Whether the page's credits equal those of Usage Events for the same filter, in words."""
    if ties_out:
        return f"✓ reconciles to Usage Events: {credits_text(credits_total)} credits"
    return (
        f"These figures do not reconcile to Usage Events: here {credits_text(credits_total)} credits. "
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
) -> None:
    """Draw everything about all organizations of a period."""
    figure_tiles(statistics.total, statistics.previous_total)
    with st.container(horizontal=True, vertical_alignment="center", key="org-period"):
        st.caption(plain(period_text(address, at, zone, params)), width="content")
        tie_out(statistics.total.credits.total, events_of(address), ties_out=statistics.ties_out)
    if not statistics.organizations:
        st.info(texts.NO_EVENTS_IN_PERIOD, icon=":material/event_busy:")
        return
    organizations_table(statistics, names, params)
    compare_panel(statistics, names, zone.key)
    movers_panel(statistics, names)
