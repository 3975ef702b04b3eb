"""What a person does on the Usage Events page, by name. Columns are counted from 0, rows from 0 below the header."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

from tests.browser.steps import settle

HEADER_PIXELS = 19
ROW_PIXELS = 35
FIRST_ROW_PIXELS = 38 + ROW_PIXELS // 2
"""From the grid's top edge to the middle of the header and of the first row."""

WIDTHS = (110, 70, 145, 95, 195)
"""Of the columns that the journeys ask for: status, details, time, credits, id."""


def grid(page: Page) -> Locator:
    return page.get_by_test_id("stDataFrame").first


def cell(page: Page, column: int, row: int) -> Locator:
    """A cell in the grid's table for screen readers: what is on the canvas, as text."""
    return grid(page).get_by_test_id(f"glide-cell-{column}-{row}")


def cells(page: Page, column: int, rows: int) -> list[str]:
    return [cell(page, column, row).inner_text() for row in range(rows)]


def shown_ids(page: Page, rows: int) -> list[str]:
    expect(cell(page, 4, rows - 1)).to_have_count(1)
    return cells(page, 4, rows)


def wait_for_first_cell(page: Page, column: int, text: str, *, part: bool = False) -> None:
    """Wait until the first row is the expected one and the run that brought it is over."""
    first = cell(page, column, 0)
    expect(first).to_contain_text(text) if part else expect(first).to_have_text(text)
    settle(page)


def _click(page: Page, column: int, y: int, part: float = 1 / 3) -> None:
    grid(page).scroll_into_view_if_needed()
    pinned, *others = WIDTHS  # a pinned column stays as wide as it is, the others share the rest
    scale = max(1.0, (grid(page).bounding_box()["width"] - pinned) / sum(others))
    x = pinned + (sum(others[: column - 1]) + others[column - 1] * part) * scale if column else pinned * part
    grid(page).click(position={"x": x, "y": y})


def click_header(page: Page, column: int) -> None:
    _click(page, column, HEADER_PIXELS)


def open_details(page: Page, row: int) -> None:
    _click(page, 1, FIRST_ROW_PIXELS + row * ROW_PIXELS, part=1 / 2)
    expect(page.get_by_role("dialog")).to_be_visible()


def choose(page: Page, label: str, option: str) -> None:
    page.get_by_role("combobox", name=label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()
    settle(page)


def choose_rows(page: Page, number: str) -> None:
    """Choose the rows per page, and leave the panel."""
    page.get_by_role("button", name="Table", exact=False).first.click()
    choose(page, "Rows", number)
    page.keyboard.press("Escape")
    expect(page.get_by_role("combobox", name="Rows", exact=True)).to_be_hidden()


def go_to_page(page: Page, number: int) -> None:
    page.get_by_role("navigation", name="Pagination").get_by_role("button", name=f"Page {number}", exact=True).click()


def click_bar(page: Page, chart: str, number: int) -> None:
    """Click a bar of the first series of a chart."""
    bar = page.locator(f'[class*="st-key-chart-{chart}-"]').locator(".bars").first.locator(".point path").nth(number)
    bar.scroll_into_view_if_needed()
    settle(page)
    box = bar.bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
