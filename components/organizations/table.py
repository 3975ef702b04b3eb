"""The table of organizations: searched, sorted and paged here, so that only one page of rows is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

import streamlit as st

from billing_core.access import Role
from billing_core.organizations.figures import Figures, OrganizationFigures, Statistics, added
from billing_core.organizations.table import BY_NAME, SORTS, label, rows, share
from billing_core.types import GetUsageEventsParams
from billing_core.values.counts import count_of
from components.organizations.bar import search_box
from components.organizations.figures import KINDS, kind_of
from components.organizations.query import PAGE_SIZES, Address, csv_address
from components.organizations.state import choose, current, generation, open_organization, widget, write
from components.shared import sign_in
from components.shared.colours import CREDIT_PARTS
from components.shared.formats import UNKNOWN, change, count, credits_text, usd
from components.shared.links import file_link
from components.shared.widgets import quiet

OPEN = "open"
"""The grid's own column of buttons."""

DAILY = "daily"

POINTS = 60
"""Bars of a sparkline at most: beyond, each stands for several days."""

ROW_PIXELS = 35
HEADER_PIXELS = 38


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of the table: its sort name in the URL, header, cell format, width in pixels."""

    field: str
    label: str
    text: Callable[[OrganizationFigures], str]
    width: int
    align: Literal["left", "right"] = "right"
    help: str = ""


def _figure_column(field: str) -> TableColumn:
    kind = kind_of(field)
    return TableColumn(field, kind.label, lambda one: kind.cell(kind.value(one.now)), kind.width, help=kind.meaning)


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


COLUMNS = (
    _figure_column("credits_total"),
    TableColumn("share", "Share", lambda _: "", 110, help="Share of all organizations' credits."),
    TableColumn(DAILY, "Credits per day", lambda _: "", 130, help="Over the days of the period."),
    TableColumn(
        "change", "Change", change_text, 100, help="In credits, compared with the previous period of equal length."
    ),
    *(_figure_column(kind.field) for kind in KINDS[1:]),
    TableColumn(
        "customers",
        "Customers",
        lambda one: ", ".join(one.customer_ids) or UNKNOWN,
        160,
        "left",
        "Stripe customers that the organization's events are billed to; sorted by how many there are.",
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


def page_of(found: Sequence[OrganizationFigures], part: int, size: int) -> tuple[int, Sequence[OrganizationFigures]]:
    """The number and rows of a page; a page behind the last one is the last one."""
    last = max(1, -(-len(found) // size))
    shown = min(max(1, part), last)
    return shown, found[(shown - 1) * size : shown * size]


def thinned(daily: Sequence[Decimal], most: int = POINTS) -> list[float]:
    """Credits per day as bars; of a long period, sums of equally many days each, the last one perhaps of fewer."""
    width = max(1, -(-len(daily) // most))
    return [float(sum(daily[at : at + width], Decimal(0))) for at in range(0, len(daily), width)]


def toggled(address: Address, clicked: str) -> tuple[str, bool]:
    """Sort and direction after a click on a header: the same column reverses, another starts with the largest."""
    if clicked != address.by:
        return clicked, clicked == BY_NAME  # names start with A
    return clicked, not address.up


def footer_text(found: Sequence[OrganizationFigures], statistics: Statistics, *, searched: bool) -> str:
    """Sums over every row of the search, whatever page is shown; without a search they are the tiles' figures."""
    figures = added([one.now for one in found], latency_p95=None)
    held = figures.credits
    parts = " + ".join(f"{part.label} {credits_text(getattr(held, part.field))}" for part in CREDIT_PARTS)
    whole = statistics.total.credits.total
    of_all = f" of {credits_text(whole)} in all" if searched else ""
    number = count_of(len(found), "row" if any(one.organization_id is None for one in found) else "organization")
    return (
        f"**All {number} of this filter:** {parts} = **{credits_text(held.total)} credits**{of_all} · {_rest(figures)}"
    )


def _rest(figures: Figures) -> str:
    return (
        f"{usd(figures.amount_usd)} · Langfuse cost {usd(figures.cost_usd)} · margin {usd(figures.margin_usd)} · "
        f"{count_of(figures.events, 'event')} · {count_of(figures.chats, 'chat')} · "
        f"{count_of(figures.users, 'active user')} · tokens {count(figures.tokens_total)} · not yet in Stripe "
        f"{credits_text(figures.unsynced_credits)} · failed {credits_text(figures.failed_credits)}"
    )


def organizations_table(statistics: Statistics, names: Mapping[str, str], params: GetUsageEventsParams) -> None:
    """Draw the table with its controls: turning a page, searching or sorting reruns nothing else of the page."""
    st.fragment(_table)(statistics, names, params)


def _table(statistics: Statistics, names: Mapping[str, str], params: GetUsageEventsParams) -> None:
    sign_in.guard(Role.ADMIN)
    with quiet():
        st.header("Organizations", anchor=False)
        address = current()
        with st.container(horizontal=True, vertical_alignment="bottom", key="org-table-controls"):
            _controls(address)
            file_link(
                "CSV",
                csv_address(address, params),
                note="Every row of this table with exact figures, in this order.",
                key="org-csv",
            )
        found = rows(statistics, names, find=address.find, sort=address.by, descending=not address.up)
        if not found:
            st.info("No organization matches this search.", icon=":material/search_off:")
            st.button("Clear the search", icon=":material/restart_alt:", key="org-clear-find", on_click=_clear_search)
            return
        _, shown = page_of(found, address.part, address.size)
        _grid(shown, statistics, names, address)
        text = footer_text(found, statistics, searched=bool(address.find.strip()))
        st.markdown(text.replace("$", r"\$"))
        _paging(found, address)


def _clear_search() -> None:
    write(replace(current(), find="", part=1))


def _controls(address: Address) -> None:
    search_box(address.find, "Organization id or name")
    key = widget("by")
    st.selectbox(
        "Sort by",
        SORT_FIELDS,
        index=SORT_FIELDS.index(address.by) if address.by in SORT_FIELDS else 0,
        key=key,
        format_func=sort_label,
        on_change=choose,
        args=("by", key),
        width=170,
    )
    key = widget("up")
    st.selectbox(
        "Order",
        (False, True),
        index=int(address.up),
        key=key,
        width=130,
        filter_mode=None,
        format_func=lambda up: "Ascending" if up else "Descending",
        on_change=choose,
        args=("up", key),
    )
    key = widget("size")
    st.selectbox(
        "Rows",
        PAGE_SIZES,
        index=PAGE_SIZES.index(address.size),
        key=key,
        on_change=choose,
        args=("size", key),
        width=90,
        filter_mode=None,
    )
    key = widget("show")
    with st.popover("Columns", icon=":material/view_column:", key="org-columns-open"):
        fields = [column.field for column in COLUMNS]
        st.multiselect(
            "Columns",
            fields,
            default=[name for name in address.show if name in fields] or list(DEFAULT_COLUMNS),
            key=key,
            format_func=sort_label,
            on_change=choose,
            args=("show", key, _columns),
            select_all=True,
            wrap=True,
            placeholder="Default columns",
        )


def _columns(chosen: Sequence[str]) -> tuple[str, ...]:
    """What stands in the URL: nothing for the usual columns."""
    return () if set(chosen) == set(DEFAULT_COLUMNS) else tuple(chosen)


def _grid(
    shown: Sequence[OrganizationFigures], statistics: Statistics, names: Mapping[str, str], address: Address
) -> None:
    """The rows. The grid's identity changes with question and page: a selection must not outlive its rows."""
    chosen = set(address.show) & {column.field for column in COLUMNS} or set(DEFAULT_COLUMNS)
    columns = [column for column in COLUMNS if column.field in chosen]
    identity = f"{generation()}-{address.part}"
    key, button = f"{widget('grid')}-{identity}", f"{widget('open')}-{identity}"
    ids = [one.organization_id for one in shown]
    config: dict[str, Any] = {
        OPEN: st.column_config.ButtonColumn(
            "Page", width=70, type="tertiary", key=button, on_click=_on_open, args=(button, ids)
        ),
        BY_NAME: st.column_config.TextColumn(
            "Organization" + _arrow(BY_NAME, address), width=170, pinned=True, help="Click to sort."
        ),
        **{column.field: _config(column, address) for column in columns},
    }
    st.dataframe(
        _frame(shown, columns, names, statistics.total.credits.total),
        key=key,
        hide_index=True,
        alt="Organizations and their figures",
        placeholder="",
        row_height=ROW_PIXELS,
        height=HEADER_PIXELS + ROW_PIXELS * max(1, len(ids)),
        on_select=lambda: _on_header(key),
        selection_mode="single-column",
        column_config=config,
    )


def _arrow(field: str, address: Address) -> str:
    if field != address.by:
        return ""
    return " ↑" if address.up else " ↓"


def _config(column: TableColumn, address: Address) -> Any:
    name = column.label + _arrow(column.field, address)
    if column.field == DAILY:
        return st.column_config.BarChartColumn(name, width=column.width, help=column.help, y_min=0)
    note = f"{column.help} Click to sort.".strip()
    if column.field == "share":
        return st.column_config.ProgressColumn(
            name, width=column.width, help=note, min_value=0.0, max_value=1.0, format="percent"
        )
    return st.column_config.TextColumn(name, width=column.width, alignment=column.align, help=note)


def _frame(
    shown: Sequence[OrganizationFigures], columns: Sequence[TableColumn], names: Mapping[str, str], whole: Decimal
) -> Any:
    import pyarrow as pa  # here: the sign-in form must not wait for it

    cells: dict[str, Any] = {OPEN: ["Open"] * len(shown), BY_NAME: [label(one.organization_id, names) for one in shown]}
    for column in columns:
        if column.field == "share":
            cells["share"] = pa.array([_float(share(one.now.credits.total, whole)) for one in shown], pa.float64())
        elif column.field == DAILY:
            cells[DAILY] = pa.array([thinned(one.daily) for one in shown], pa.list_(pa.float64()))
        else:
            cells[column.field] = [column.text(one) for one in shown]
    return pa.table(cells)


def _float(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def _on_header(key: str) -> None:
    columns = st.session_state[key]["selection"]["columns"]
    if columns and columns[0] in SORT_FIELDS:
        address = current()
        by, up = toggled(address, columns[0])
        write(replace(address, by=by, up=up, part=1))


def _on_open(key: str, ids: Sequence[str | None]) -> None:
    click = st.session_state[key]
    if click is not None:
        open_organization(ids[click["row"]])


def _paging(found: Sequence[OrganizationFigures], address: Address) -> None:
    part, shown = page_of(found, address.part, address.size)
    last = max(1, -(-len(found) // address.size))
    first = (part - 1) * address.size
    with st.container(horizontal=True, vertical_alignment="center", key="org-paging"):
        text = f"{first + 1:,}–{first + len(shown):,} of {count_of(len(found), 'row')}"
        st.container(width="content").text(text)
        key = f"{widget('part')}-{generation()}-{last}"
        st.pagination(last, default=part, key=key, on_change=choose, args=("part", key), width="stretch")
