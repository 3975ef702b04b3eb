"""Two to six organizations side by side: every figure, and their credits day by day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from billing_core.access import Role
from billing_core.organizations.figures import OrganizationFigures, Statistics
from billing_core.organizations.table import label, share
from components.organizations.charts import daily_lines, day_names
from components.organizations.figures import KINDS, fields_for, kind_of
from components.organizations.query import COMPARED
from components.organizations.state import URL
from components.organizations.table import change_text
from components.shared import sign_in
from components.shared.chart import chart
from components.shared.formats import percent, short_credits
from components.shared.widgets import quiet, table


def chosen_organizations(statistics: Statistics, wanted: Sequence[str]) -> list[OrganizationFigures]:
    """The wanted organizations that exist, in the order asked for; others are left out without a word."""
    there = {one.organization_id: one for one in statistics.organizations}
    return [there[one] for one in wanted if one in there]


def comparison_rows(
    chosen: Sequence[OrganizationFigures], statistics: Statistics, names: Mapping[str, str]
) -> dict[str, list[str]]:
    """The comparison as a table: a row per figure, a column per organization."""
    whole = statistics.total.credits.total
    kinds = [kind_of(field) for field in fields_for((kind.field for kind in KINDS), statistics)]
    texts = {
        label(one.organization_id, names): [
            *(kind.cell(kind.value(one.now)) for kind in kinds),
            percent(share(one.now.credits.total, whole)),
            change_text(one),
        ]
        for one in chosen
    }
    return {"Figure": [*(kind.label for kind in kinds), "Share of credits", "Change of credits"], **texts}


def daily_rows(
    chosen: Sequence[OrganizationFigures], first_day: str | None, names: Mapping[str, str]
) -> dict[str, list[str]]:
    """The credits per day as a table: a row per day, a column per organization."""
    length = max((len(one.daily) for one in chosen), default=0)
    columns = {label(one.organization_id, names): [short_credits(value) for value in one.daily] for one in chosen}
    return {"Day": day_names(first_day, length), **columns}


def compare_panel(statistics: Statistics, names: Mapping[str, str], zone_name: str) -> None:
    """Draw the choice of organizations and their comparison; the choice is in the URL."""
    st.fragment(_panel)(statistics, names, zone_name)


def _panel(statistics: Statistics, names: Mapping[str, str], zone_name: str) -> None:
    sign_in.guard(Role.ADMIN)
    with quiet():
        st.header("Compare", anchor=False)
        ids = [one.organization_id for one in statistics.organizations if one.organization_id is not None]
        chosen = chosen_organizations(statistics, URL.current().compare)
        URL.multiselect(
            "compare",
            "Organizations",
            ids,
            chosen=[one.organization_id for one in chosen],
            max_selections=COMPARED,
            format_func=lambda one: label(one, names),
            placeholder=f"Choose 2 to {COMPARED}",
        )
        if len(chosen) < 2:
            st.caption(f"Choose 2 to {COMPARED} organizations to see every figure beside each other.")
            return
        shown = comparison_rows(chosen, statistics, names)
        columns = [name for name in shown if name != "Figure"]
        table(shown, alt="Figures of the chosen organizations", key="org-comparison", right=columns, height="content")
        days = daily_rows(chosen, statistics.first_day, names)
        chart(
            "Credits per day",
            "org-compare",
            lambda: daily_lines(chosen, statistics.first_day, names, zone_name, st.context.theme.type or "light"),
            days,
            alt=f"Credits per day of {', '.join(columns)}, days in {zone_name}",
            right=columns,
        )
