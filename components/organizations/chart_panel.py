"""The charts of the Organization Stats page, each with a table of the same figures and checked against Usage Events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import reduce
from typing import Any

import streamlit as st

from billing_core.access import Principal, Role
from billing_core.organizations.figures import OrganizationFigures, Statistics
from billing_core.organizations.table import label
from billing_core.service import BillingService
from billing_core.types import GetUsageEventsParams
from billing_core.usage_events.model import BreakdownRow
from billing_core.usage_events.ranking import Ranking, disagreements, ranking
from billing_core.values.decimals import EXACT
from components.organizations import charts as org_charts
from components.organizations import texts
from components.organizations.charts import OTHERS_CLICK, Trend, line_label, user_name
from components.organizations.query import CODEC, Address, events_of, of_day
from components.organizations.state import PAGE, URL, follow, go_to_events, open_organization, organization_link
from components.shared import sign_in
from components.shared.chart import chart
from components.shared.formats import UNKNOWN, count, short_credits
from components.shared.links import usage_link
from components.shared.notice import plain
from components.shared.widgets import quiet
from components.usage_events import charts as usage_charts
from components.usage_events.chart_panel import tie_out_text
from components.usage_events.credit_rows import FIGURE_COLUMNS, READ, others_text, slice_rows, sums_of

TREND_SHOWN = 8
USERS_SHOWN = 15

AREAS = 200
"""Areas of the tree; what is beyond is one area of its own."""

LINKED = 8
"""Organizations and chatflows named under the tree, which knows no clicks."""


def charts_view(
    service: BillingService, params: GetUsageEventsParams, statistics: Statistics, names: Mapping[str, str]
) -> None:
    """Draw all charts of one period."""
    st.fragment(_charts)(service, params, statistics, names)


def limited_to(statistics: Statistics, wanted: Sequence[str]) -> tuple[list[OrganizationFigures], list[str]]:
    """The organizations that the charts are about, and their ids if that is not all of them.

    Of wanted ones that are not there nothing is said: whether they exist elsewhere is not everybody's business.
    """
    there = {one.organization_id: one for one in statistics.organizations if one.organization_id is not None}
    chosen = [there[one] for one in wanted if one in there]
    if not wanted:
        return list(statistics.organizations), []
    return chosen, [one.organization_id for one in chosen if one.organization_id is not None]


def _charts(
    service: BillingService, params: GetUsageEventsParams, statistics: Statistics, names: Mapping[str, str]
) -> None:
    principal = sign_in.guard(Role.ADMIN)
    follow()
    with quiet():
        address = URL.current()
        chosen, ids = limited_to(statistics, address.only)
        URL.multiselect(
            "only",
            "Only these organizations",
            [one.organization_id for one in statistics.organizations if one.organization_id is not None],
            chosen=ids,
            format_func=lambda one: label(one, names),
            placeholder="All organizations",
        )
        if not any(one.now.events for one in chosen):
            st.info(texts.NO_EVENTS_OF_THESE, icon=":material/event_busy:")
            st.page_link(
                PAGE,
                label="All organizations",
                icon=":material/apartment:",
                query_params=CODEC.render(replace(address, only=())),
            )
            return
        _Charts(service, principal, params.model_copy(update={"organization": tuple(ids)}), address, names).draw(
            chosen, statistics.first_day
        )


class _Charts:
    """The charts of one question: what all of them need, and what each adds up to."""

    def __init__(
        self,
        service: BillingService,
        principal: Principal,
        params: GetUsageEventsParams,
        address: Address,
        names: Mapping[str, str],
    ) -> None:
        self.service, self.principal, self.params, self.names = service, principal, params, names
        self.query = {**events_of(address), **({"organization": params.organization} if params.organization else {})}
        self.zone_name = service.settings.zone.key
        self.theme = st.context.theme.type or "light"
        summary = service.summary(params, principal)
        self.whole, self.events = summary.totals.totals.credits, summary.totals.events
        self.ties_out = summary.ties_out

    def draw(self, chosen: Sequence[OrganizationFigures], first_day: str | None) -> None:
        mark = st.container(key="org-tie-out")
        parts = {
            "credits per day": self._trend(chosen, first_day),
            "organizations, chatflows and models": self._tree(),
            "users": self._users(),
        }
        self._active_users()
        wrong = disagreements(self.whole.total, parts)
        with mark:
            if wrong or not self.ties_out:
                st.warning(plain(tie_out_text(self.whole.total, wrong or ["days"])), icon=":material/warning:")
                usage_link("Usage Events matching this filter", **self.query)
            else:
                text = f"✓ reconciles to Usage Events: {short_credits(self.whole.total)} credits"
                usage_link(text, **self.query)

    def _slices(self, *dimensions: str) -> list[BreakdownRow]:
        return self.service.breakdown(self.params, self.principal, *dimensions, limit=READ)

    def _trend(self, chosen: Sequence[OrganizationFigures], first_day: str | None) -> list[Decimal]:
        trend = org_charts.trend_of(chosen, first_day, shown=TREND_SHOWN)
        rows = trend_rows(trend, self.names)

        def clicked(point: Sequence[Any]) -> None:
            if point[0] != OTHERS_CLICK:
                open_organization(trend.lines[int(point[0])].organization_id)

        chart(
            "Credits per day by organization",
            "org-trend",
            lambda: org_charts.trend_bars(trend, self.names, self.zone_name, self.theme),
            rows,
            alt=f"Credits per day of the largest organizations and all others, days in {self.zone_name}",
            right=[name for name in rows if name != "Day"],
            on_click=clicked,
            hint=texts.OPEN_HINT,
        )
        return [value for line in trend.lines for value in line.daily]

    def _tree(self) -> list[Decimal]:
        slices = self._slices("organization", "chatflow", "chatflow_name", "model")
        areas = ranking(slices, self.whole, self.events, shown=AREAS)
        chart(
            "Organizations and chatflows",
            "org-tree",
            lambda: org_charts.organization_tree(areas.largest, areas.others, self.names, self.theme),
            tree_rows(areas, self.names),
            alt="Credits by organization, within it by chatflow, and within that by model, as a treemap",
            right=FIGURE_COLUMNS,
            hint=texts.TREEMAP_HINT,
        )
        self._tree_links(areas.largest)
        return sums_of(slices, areas)

    def _tree_links(self, slices: Sequence[BreakdownRow]) -> None:
        """The largest areas as links."""
        organizations = _largest(slices, lambda one: one.values[:1])
        chatflows = [path for path in _largest(slices, lambda one: one.values[:3]) if path[0] and path[1]]
        with st.container(horizontal=True, key="org-tree-organizations", gap="small"):
            for (organization,) in organizations[:LINKED]:
                organization_link(label(organization, self.names), organization)
        with st.container(horizontal=True, key="org-tree-chatflows", gap="small"):
            for organization, chatflow, name in chatflows[:LINKED]:
                usage_link(
                    f"{name or chatflow} · {label(organization, self.names)}",
                    **{**self.query, "organization": str(organization), "chatflow": str(chatflow)},
                )

    def _users(self) -> list[Decimal]:
        slices = self._slices("organization", "user")
        ranked = ranking(slices, self.whole, self.events, shown=USERS_SHOWN)
        called = [user_name(one, self.names) for one in ranked.largest]

        def clicked(point: Sequence[Any]) -> None:
            organization, user = ranked.largest[int(point[4])].values
            go_to_events(user_query(self.query, organization, user))

        chart(
            "Users",
            "org-users",
            lambda: usage_charts.top(ranked, self.theme, called),
            user_rows(ranked, self.names),
            alt="Credits by type of the users with the most credits",
            right=FIGURE_COLUMNS,
            on_click=clicked,
            hint=texts.USER_HINT,
            note=others_text("users", slices, ranked),
        )
        return sums_of(slices, ranked)

    def _active_users(self) -> None:
        found = org_charts.every_day(self.service.organizations.active_users(self.params, self.principal))
        averages = org_charts.moving_average(one.active for one in found)
        rows = {
            "Day": [one.day.isoformat() for one in found],
            "Active users": [count(one.active) for one in found],
            "New users": [count(one.new) for one in found],
            "7-day average": ["" if value is None else f"{value:,.1f}" for value in averages],
        }

        def clicked(point: Sequence[Any]) -> None:
            go_to_events(of_day(self.query, str(point[0])))

        chart(
            "Active users per day",
            "org-active",
            lambda: org_charts.active_users_figure(found, self.zone_name, self.theme),
            rows,
            alt=f"Active and new users per day with the average of seven days, days in {self.zone_name}",
            right=["Active users", "New users", "7-day average"],
            on_click=clicked,
            hint=texts.ACTIVE_USERS_HINT,
        )


def user_query(query: Mapping[str, Any], organization: str | None, user: str | None) -> dict[str, Any]:
    """URL parameters of Usage Events for one user of one organization; where either is unknown, for events without
    it.
    """
    lacking = [name for name, value in (("organization", organization), ("user", user)) if not value]
    kept = {name: value for name, value in query.items() if name != "organization"}
    named = {name: value for name, value in (("organization", organization), ("user", user)) if value}
    return {**kept, **named, **({"without": lacking} if lacking else {})}


def _largest(
    slices: Sequence[BreakdownRow], key: Callable[[BreakdownRow], tuple[str | None, ...]]
) -> list[tuple[str | None, ...]]:
    """Keys of slices by the credits they hold together, most first."""
    sums: dict[tuple[str | None, ...], Decimal] = {}
    for one in slices:
        sums[key(one)] = EXACT.add(sums.get(key(one), Decimal(0)), one.credits.total)
    return sorted(sums, key=lambda path: -sums[path])


def trend_rows(trend: Trend, names: Mapping[str, str]) -> dict[str, list[str]]:
    """The trend as a table: a row per day, a column per organization, and their sum."""
    sums = [reduce(EXACT.add, day, Decimal(0)) for day in zip(*(line.daily for line in trend.lines), strict=True)]
    return {
        "Day": list(trend.days),
        **{line_label(line, names): [short_credits(value) for value in line.daily] for line in trend.lines},
        "Total credits": [short_credits(value) for value in sums],
    }


def user_rows(found: Ranking, names: Mapping[str, str]) -> dict[str, list[str]]:
    """The most active users as a table, all others in a row of their own."""
    rows = found.rows
    return {
        "User": [(one.values[1] or UNKNOWN) if one.values else org_charts.ALL_OTHERS for one in rows],
        "Organization": [label(one.values[0], names) if one.values else "" for one in rows],
        **slice_rows(rows),
    }


def tree_rows(found: Ranking, names: Mapping[str, str]) -> dict[str, list[str]]:
    """The tree of organizations, chatflows and models as a table, all others in a row of their own."""
    rows = found.rows
    return {
        "Organization": [label(one.values[0], names) if one.values else org_charts.ALL_OTHERS for one in rows],
        "Chatflow": [(one.values[2] or one.values[1] or UNKNOWN) if one.values else "" for one in rows],
        "Model": [(one.values[3] or UNKNOWN) if one.values else "" for one in rows],
        **slice_rows(rows),
    }
