"""The table of a page: its controls, one page of rows, and the way to the others.

Streamlit's own sort orders only the rows that were sent, so a click on a header asks for another order instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Generic, Literal, Protocol, TypeVar

import streamlit as st

from components.shared.formats import rows_range
from components.shared.url_state import UrlState
from components.shared.widgets import table

ROW_PIXELS, HEADER_PIXELS = 35, 38

Text = TypeVar("Text")
Row = TypeVar("Row")


class Paged(Protocol):
    """The state of a view with a table in pages."""

    @property
    def page(self) -> int:
        """The page of the table, from 1."""


class Sorted(Protocol):
    """The state of a view with a sorted table."""

    @property
    def sort(self) -> str:
        """The field that rows are sorted by."""

    @property
    def ascending(self) -> bool:
        """Whether the smallest comes first."""


P = TypeVar("P", bound=Paged)
O = TypeVar("O", bound=Sorted)  # noqa: E741 - an order


@dataclass(frozen=True)
class Column(Generic[Text]):
    """A column: its field, by which it is sorted; its header; how a row is written in it; its width in pixels."""

    field: str
    label: str
    text: Text
    width: int
    align: Literal["left", "right"] = "left"
    help: str = ""

    def header(self, view: Sorted) -> dict[str, Any]:
        """Label, width and help of the column in a table that is sorted by a click."""
        help_text = f"{self.help} Click to sort.".strip()
        return {"label": self.label + arrow(self.field, view), "width": self.width, "help": help_text}


@dataclass(frozen=True, slots=True)
class RowButton:
    """A column of buttons: what a click does gets the number of the row, from 0. `text` is that of every row, or of
    each; a row whose text is empty has no button. Pinned, they stay as wide as they are.
    """

    field: str
    label: str
    text: str | Sequence[str]
    on_click: Callable[[int], None]
    width: int = 70
    help: str | None = None
    is_pinned: bool = False


def arrow(field: str, view: Sorted) -> str:
    """What a header says of the order: nothing unless the table is sorted by it."""
    return "" if field != view.sort else " ↑" if view.ascending else " ↓"


def toggled(view: Sorted, clicked: str, *, starts_ascending: bool = False) -> tuple[str, bool]:
    """Field and direction after a click on a header: the same one reverses, another starts with the largest, or, as
    names do, with the smallest.
    """
    return clicked, starts_ascending if clicked != view.sort else not view.ascending


def page_of(found: Sequence[Row], page: int, size: int) -> tuple[int, Sequence[Row]]:
    """The number and rows of a page; a page behind the last one is the last one."""
    shown = min(max(1, page), page_count(len(found), size))
    return shown, found[(shown - 1) * size : shown * size]


def page_count(total: int, size: int) -> int:
    """How many pages `total` rows have; one if there are none."""
    return max(1, -(-total // size))


def table_controls(
    url: UrlState[Any],
    sorts: Sequence[str],
    columns: Sequence[str],
    words: Callable[[str], str],
    sizes: Sequence[int],
    *,
    key: str,
    placeholder: str,
    usual: Sequence[str] = (),
    read: Callable[[Any], Any] = tuple,
) -> None:
    """Draw sort box (for keyboards and phones; a click on a header does the same), page size and choice of columns.

    Without any in the URL the columns are the `usual` ones; `read` says what stands there for those chosen.
    """
    order_boxes(url, sorts, words, sizes)
    with st.popover("Columns", icon=":material/view_column:", key=key):
        column_box(url, columns, words, placeholder=placeholder, usual=usual, read=read)


def order_boxes(
    url: UrlState[Any], sorts: Sequence[str], words: Callable[[str], str], sizes: Sequence[int], **how: Any
) -> None:
    """Draw what a table is sorted by, in which direction, and how many rows a page has."""
    url.selectbox("sort", "Sort by", sorts, **{"width": 170, "format_func": words, "filter_mode": "fuzzy", **how})
    url.selectbox("ascending", "Order", (False, True), **{"width": 130, "format_func": _direction, **how})
    url.selectbox("rows", "Rows", sizes, **{"width": 90, **how})


def column_box(
    url: UrlState[Any],
    columns: Sequence[str],
    words: Callable[[str], str],
    *,
    placeholder: str,
    usual: Sequence[str] = (),
    read: Callable[[Any], Any] = tuple,
) -> None:
    """Draw the choice of columns; `usual` and `read` as in `table_controls`."""
    chosen = [name for name in url.current().columns if name in columns] or usual
    how: dict[str, Any] = {"format_func": words, "select_all": True, "placeholder": placeholder}
    url.multiselect("columns", "Columns", columns, read=read, chosen=chosen, **how)


def _direction(ascending: bool) -> str:
    return "Ascending" if ascending else "Descending"


def data_grid(
    cells: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    key: str,
    alt: str,
    rows: int,
    buttons: Sequence[RowButton] = (),
    on_header: Callable[[str], None] | None = None,
) -> None:
    """Draw one page of rows. `key` changes with order and page: a selection must not outlive its rows.

    Buttons stand first, unless `cells` has a place for them. `on_header` gets the field of a header that was clicked.
    """
    import pyarrow as pa  # here: the sign-in form must not wait for it

    texts = {one.field: [one.text] * rows if isinstance(one.text, str) else list(one.text) for one in buttons}
    first = {field: text for field, text in texts.items() if field not in cells}

    def header() -> None:
        clicked = st.session_state[key]["selection"]["columns"]
        if clicked and clicked[0] not in texts and on_header is not None:
            on_header(clicked[0])

    is_sorted: dict[str, Any] = {"on_select": header, "selection_mode": "single-column"}
    st.dataframe(
        pa.table({**first, **cells, **texts}),
        key=key,
        hide_index=True,
        alt=alt,
        placeholder="",
        row_height=ROW_PIXELS,
        height=HEADER_PIXELS + ROW_PIXELS * max(1, rows),
        column_config={**config, **{button.field: _button_column(key, button) for button in buttons}},
        **({} if on_header is None else is_sorted),
    )


def _button_column(key: str, button: RowButton) -> Any:
    name = f"{key}-{button.field}"

    def clicked() -> None:
        click = st.session_state[name]
        if click is not None:
            button.on_click(click["row"])

    return st.column_config.ButtonColumn(
        button.label,
        width=button.width,
        type="tertiary",
        key=name,
        on_click=clicked,
        help=button.help,
        pinned=button.is_pinned or None,
    )


def sort_by(url: UrlState[O], clicked: str, *, starts_ascending: bool = False) -> None:
    """Sort a table by the header that was clicked."""
    sort, ascending = toggled(url.current(), clicked, starts_ascending=starts_ascending)
    url.change(sort=sort, ascending=ascending)


def pages(url: UrlState[P], number: int) -> None:
    """Draw the buttons to the other pages of a table of `number` pages."""
    key = f"{url.key('page')}-{number}"
    page = min(url.current().page, number)
    st.pagination(number, default=page, key=key, on_change=url.choose, args=("page", key), width="stretch")


def paging(url: UrlState[P], total: int, size: int, noun: str, *, key: str) -> None:
    """Draw which of `total` rows are shown, with the buttons to the others."""
    with st.container(horizontal=True, vertical_alignment="center", key=key):
        page = min(url.current().page, page_count(total, size))
        st.container(width="content").text(rows_range(page, size, total, noun))
        # Stretched: sized by its content it would hide page numbers for want of a room that it never asks for.
        pages(url, page_count(total, size))


def list_key(name: str, identity: object) -> str:
    """The key of a list to pick of: rows picked in one list must not be picked in the next."""
    return f"{name}-{sha256(repr(identity).encode()).hexdigest()[:12]}"


def picked_rows(
    shown: Sequence[Row],
    cells: Mapping[str, Sequence[str]],
    *,
    name: str,
    identity: object,
    alt: str,
    right: Sequence[str] = (),
    mode: Literal["single-row", "multi-row"] = "multi-row",
    **options: Any,
) -> list[Row]:
    """Draw `shown` as a table to pick rows of; returns those somebody picked. `identity` tells the list from others."""
    key = list_key(name, identity)
    event = table(cells, alt=alt, key=key, right=right, on_select="rerun", selection_mode=mode, **options)
    return [shown[row] for row in event["selection"]["rows"] if row < len(shown)]
