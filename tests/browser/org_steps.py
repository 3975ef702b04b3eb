"""What a person does on the Organization Stats page, by name. Rows of its table are counted from 0 below the header."""

from __future__ import annotations

import re
from decimal import Decimal

from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import EXPECT_TIMEOUT_MS
from tests.browser.steps import settle
from tests.browser.usage_steps import FIRST_ROW_PIXELS, HEADER_PIXELS, ROW_PIXELS, cell, grid

STARTS = {"Organization": 0, "Page": 170, "Credits": 240}
"""Pixels from the table's left edge to the columns that the journeys click; all of them together scroll sideways."""


def drawn(page: Page) -> None:
    """Wait for the mark that comes with the figures."""
    expect(mark(page)).to_be_visible(timeout=EXPECT_TIMEOUT_MS)
    settle(page)


def _click(page: Page, column: str, y: int) -> None:
    grid(page).scroll_into_view_if_needed()
    grid(page).click(position={"x": STARTS[column] + 30, "y": y})


def sort_by(page: Page, column: str) -> None:
    _click(page, column, HEADER_PIXELS)


def open_row(page: Page, row: int) -> None:
    _click(page, "Page", FIRST_ROW_PIXELS + row * ROW_PIXELS)


def organizations(page: Page, rows: int) -> list[str]:
    expect(cell(page, 0, rows - 1)).to_have_count(1)
    return [cell(page, 0, row).inner_text() for row in range(rows)]


def wait_for_first(page: Page, organization: str) -> None:
    expect(cell(page, 0, 0)).to_have_text(organization)
    settle(page)


def mark(page: Page) -> Locator:
    """The link to Usage Events that names the credits."""
    return page.get_by_role("link", name="✓ reconciles to Usage Events")


def credits_in(text: str) -> Decimal:
    """The credits that a sentence names last."""
    return Decimal(re.findall(r"([\d,.]+\d) credits", text)[-1].replace(",", ""))


def events_credits(page: Page) -> Decimal:
    """What the footer of Usage Events adds up to."""
    expect(page.get_by_role("heading", name="Usage Events", exact=True)).to_be_visible()
    footer = page.locator("p", has_text=re.compile("matching this filter:"))
    expect(footer).to_be_visible()
    settle(page)
    return credits_in(footer.inner_text())


def show_view(page: Page, name: str) -> None:
    """Choose a part of the page; its radio button lies under its label."""
    page.get_by_role("radiogroup", name="View").get_by_text(name, exact=True).click()
