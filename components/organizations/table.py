"""The table of organizations: searched, sorted and paged here, so that only one page of rows is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeAlias

import streamlit as st

from billing_core.access import Role
from billing_core.organizations.figures import Figures, OrganizationFigures, Statistics, added
from billing_core.organizations.table import BY_NAME, SORTS, label, rows, share
from billing_core.types import GetUsageEventsParams
from billing_core.values.counts import count_of
from components.organizations import texts
from components.organizations.figures import KINDS, fields_for, kind_of
from components.organizations.query import PAGE_SIZES, Address, csv_address
from components.organizations.state import URL, open_organization
from components.shared import sign_in
from components.shared.colours import CREDIT_PARTS
from components.shared.data_grid import Column, RowButton, data_grid, page_of, paging, sort_by, table_controls
from components.shared.formats import UNKNOWN, change, count, short_credits, short_usd
from components.shared.links import file_link
from components.shared.widgets import quiet

OPEN = "open"
"""The grid's own column of buttons."""

DAILY = "daily"

POINTS = 60
"""Bars of a sparkline at most: beyond, each stands for several days."""

TableColumn: TypeAlias = Column[Callable[[OrganizationFigures], str]]
"""A column of the table; its field is the sort name in the URL."""


def _figure_column(field: str) -> TableColumn:
    kind = kind_of(field)
    return TableColumn(field, kind.label, lambda one: kind.cell(kind.value(one.now)), kind.width, "right", kind.meaning)


def change_text(one: OrganizationFigures) -> str:
    """How an organization's credits changed against the period before; one that appeared or vanished is named as
    such.
    """
    if one.previous is None:
        return ""
    if not one.previous.events:
        return "new"
    if not one.now.events:
        return "became inactive"
    return change(one.now.credits.total, one.previous.credits.total)


def before_text(one: OrganizationFigures) -> str:
    """The credits that an organization's are compared with; empty if with nothing."""
    return "" if one.previous is None else short_credits(one.previous.credits.total)


COLUMNS = (
    _figure_column("credits_total"),
    TableColumn("share", "Share", lambda _: "", 110, "right", texts.SHARE_OF_ALL),
    TableColumn(DAILY, "Credits per day", lambda _: "", 130, "right", texts.PER_DAY),
    TableColumn("before", "Before", before_text, 105, "right", texts.BEFORE_NOTE),
    TableColumn("change", "Change", change_text, 100, "right", texts.CHANGE_NOTE),
    *(_figure_column(kind.field) for kind in KINDS[1:]),
    TableColumn(
        "customers", "Customers", lambda one: ", ".join(one.customer_ids) or UNKNOWN, 160, "left", texts.CUSTOMERS_NOTE
    ),
)

DEFAULT_COLUMNS = (
    "credits_total",
    "share",
    DAILY,
    "change",
    "amount_usd",
    "cost_usd",
    "margin_usd",
    "events",
    "chats",
    "messages_sent",
    "messages_generated",
    "users",
    "tokens_total",
    "chatflows",
    "models",
    "latency_seconds_average",
    "latency_seconds_p95",
    "error_share",
    "unsynced_credits",
    "failed_credits",
    "customers",
)

_LABELS = {BY_NAME: "Organization", **{column.field: column.label for column in COLUMNS}}

SORT_FIELDS = tuple(field for field in SORTS if field in _LABELS)


def sort_label(field: str) -> str:
    """A sort order in words."""
    return _LABELS[field]


def thinned(daily: Sequence[Decimal], most: int = POINTS) -> list[float]:
    """Credits per day as bars; of a long period, sums of equally many days each, the last one perhaps of fewer."""
    width = max(1, -(-len(daily) // most))
    return [float(sum(daily[at : at + width], Decimal(0))) for at in range(0, len(daily), width)]


def footer_text(found: Sequence[OrganizationFigures], statistics: Statistics, *, searched: bool) -> str:
    """Sums over every row of the search, whatever page is shown; without a search they are the tiles' figures."""
    figures = added([one.now for one in found], latency_p95=None)
    held = figures.credits
    parts = " + ".join(f"{part.label} {short_credits(getattr(held, part.field))}" for part in CREDIT_PARTS)
    whole = statistics.total.credits.total
    of_all = f" of {short_credits(whole)} in all" if searched else ""
    number = count_of(len(found), "row" if any(one.organization_id is None for one in found) else "organization")
    return (
        f"**All {number} matching this filter:** {parts} = **{short_credits(held.total)} credits**{of_all} · "
        f"{_rest(figures, statistics)}"
    )


def _rest(figures: Figures, statistics: Statistics) -> str:
    costs = f"Langfuse cost {short_usd(figures.cost_usd)} · margin {short_usd(figures.margin_usd)} · "
    return (
        f"{short_usd(figures.amount_usd)} · {costs if statistics.has_costs else ''}"
        f"{count_of(figures.events, 'event')} · {count_of(figures.chats, 'chat')} · "
        f"{count_of(figures.users, 'active user')} · tokens {count(figures.tokens_total)} · not yet in Stripe "
        f"{short_credits(figures.unsynced_credits)} · failed {short_credits(figures.failed_credits)}"
    )


def organizations_table(
    statistics: Statistics, names: Mapping[str, str], params: GetUsageEventsParams, compare: str | None
) -> None:
    """Draw the table with its controls: turning a page, searching or sorting reruns nothing else of the page."""
    st.fragment(_table)(statistics, names, params, compare)


def _table(statistics: Statistics, names: Mapping[str, str], params: GetUsageEventsParams, compare: str | None) -> None:
    sign_in.guard(Role.ADMIN)
    with quiet():
        st.header("Organizations", anchor=False)
        address = URL.current()
        with st.container(horizontal=True, vertical_alignment="bottom", key="org-table-controls"):
            URL.search_box("Organization id or name")
            _controls(statistics)
            file_link("CSV", csv_address(address, params, compare), note=texts.TABLE_CSV_NOTE, key="org-csv")
        found = rows(statistics, names, find=address.search, sort=address.sort, descending=not address.ascending)
        if not found:
            st.info(texts.NOT_FOUND, icon=":material/search_off:")
            st.button("Clear the search", icon=":material/restart_alt:", key="org-clear-find", on_click=_clear_search)
            return
        _, shown = page_of(found, address.page, address.rows)
        _grid(shown, statistics, names, address)
        text = footer_text(found, statistics, searched=bool(address.search.strip()))
        st.markdown(text.replace("$", r"\$"))
        paging(URL, len(found), address.rows, "row", key="org-paging")


def _clear_search() -> None:
    URL.change(search="")


def _controls(statistics: Statistics) -> None:
    fields = fields_for((column.field for column in COLUMNS), statistics)
    how = {"key": "org-columns-open", "placeholder": "Default columns"}
    usual = fields_for(DEFAULT_COLUMNS, statistics)

    def read(chosen: Sequence[str]) -> tuple[str, ...]:
        """What stands in the URL: nothing for the usual columns."""
        return () if set(chosen) == set(usual) else tuple(chosen)

    sorts = fields_for(SORT_FIELDS, statistics)
    table_controls(URL, sorts, fields, sort_label, PAGE_SIZES, read=read, usual=usual, **how)


def _grid(
    shown: Sequence[OrganizationFigures], statistics: Statistics, names: Mapping[str, str], address: Address
) -> None:
    there = fields_for((column.field for column in COLUMNS), statistics)
    chosen = set(address.columns) & set(there) or set(DEFAULT_COLUMNS) & set(there)
    columns = [column for column in COLUMNS if column.field in chosen]
    name = TableColumn(BY_NAME, "Organization", lambda one: label(one.organization_id, names), 170)
    data_grid(
        _cells(shown, [name, *columns], statistics.total.credits.total),
        {
            BY_NAME: st.column_config.TextColumn(pinned=True, **name.header(address)),
            **{column.field: _config(column, address) for column in columns},
        },
        key=f"org-grid-{URL.generation()}-{address.page}",
        alt="Organizations and their figures",
        rows=len(shown),
        buttons=[RowButton(OPEN, "Page", "Open", lambda row: open_organization(shown[row].organization_id))],
        on_header=_on_header,
    )


def _config(column: TableColumn, address: Address) -> Any:
    header = column.header(address)
    if column.field == DAILY:
        return st.column_config.BarChartColumn(y_min=0, **{**header, "help": column.help})
    if column.field == "share":
        return st.column_config.ProgressColumn(min_value=0.0, max_value=100.0, format="%.1f %%", **header)
    return st.column_config.TextColumn(alignment=column.align, **header)


def _cells(shown: Sequence[OrganizationFigures], columns: Sequence[TableColumn], whole: Decimal) -> dict[str, Any]:
    import pyarrow as pa  # here: the sign-in form must not wait for it

    cells: dict[str, Any] = {column.field: [column.text(one) for one in shown] for column in columns}
    if "share" in cells:
        cells["share"] = pa.array([_percent(share(one.now.credits.total, whole)) for one in shown], pa.float64())
    if DAILY in cells:
        cells[DAILY] = pa.array([thinned(one.daily) for one in shown], pa.list_(pa.float64()))
    return cells


def _percent(value: Decimal | None) -> float | None:
    return None if value is None else float(value * 100)


def _on_header(field: str) -> None:
    if field in SORT_FIELDS:
        sort_by(URL, field, starts_ascending=field == BY_NAME)  # names start with A
