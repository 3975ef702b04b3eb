"""The organizations of a month as finance needs them: amount, cost, margin and plan of each, and their sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import streamlit as st

from billing_core.access import Principal
from billing_core.month_close.model import Month
from billing_core.organizations.figures import Figures
from billing_core.organizations.service import MonthRow
from billing_core.organizations.table import label
from billing_core.service import BillingService
from billing_core.values.counts import count_of
from components.months import texts
from components.shared.formats import UNKNOWN, count, short_credits, short_usd
from components.shared.notice import plain
from components.shared.widgets import table

SHOWN = 200
FIGURES = ("Events", "Credits", "Amount", "Cost", "Margin")


def organizations_of(service: BillingService, principal: Principal, month: Month) -> None:
    """Draw the table; the last row is the sum over all of them."""
    rows, total = service.organizations.of_month(month.window, principal)
    if not rows:
        return
    st.subheader(texts.ORGANIZATIONS, anchor=False)
    cells = organization_rows(rows[:SHOWN], total)
    table(cells, alt=texts.ORGANIZATIONS, key=f"months-organizations-{month.period}", right=FIGURES, height="content")
    if (rest := len(rows) - SHOWN) > 0:
        st.caption(f"and {count_of(rest, 'more organization')}; the export of organizations has them all")
    st.caption(plain(texts.ORGANIZATIONS_NOTE))


def organization_rows(rows: Sequence[MonthRow], total: Figures) -> dict[str, list[str]]:
    """The table's cells, with the sum over all organizations as the last row."""
    names: Mapping[str, str] = {row.organization_id: row.name for row in rows if row.organization_id and row.name}
    figures = [*(row.figures for row in rows), total]
    return {
        "Organization": [*(label(row.organization_id, names) for row in rows), "All"],
        "Plan": [*(", ".join(row.plans) or UNKNOWN for row in rows), ""],
        "Customer": [*(", ".join(row.customer_ids) or UNKNOWN for row in rows), ""],
        "Events": [count(one.events) for one in figures],
        "Credits": [short_credits(one.credits.total) for one in figures],
        "Amount": [short_usd(one.amount_usd) for one in figures],
        "Cost": [short_usd(one.cost_usd) for one in figures],
        "Margin": [short_usd(one.margin_usd) for one in figures],
    }
