"""Journeys through Explore from a question to a link that a colleague opens, and keys that every page knows."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from billing_core.auth.users import UserFile
from tests.browser.server import DASHBOARD, Server, serving
from tests.browser.steps import settle, signed_in_at
from tests.browser.usage_steps import FIRST_ROW_PIXELS, ROW_PIXELS, cell, choose, grid, shown_ids, wait_for_first_cell
from tests.factories import ledger_at, model_usage, usage_row

PASSWORD = "correct horse battery"
COLUMNS = "&columns=Status&columns=Time&columns=Credits&columns=Event+id"
OCTOBER = f"view=explore&period=Custom&first_day=2026-10-01&last_day=2026-10-31{COLUMNS}"
NEW_IN_OCTOBER = ["b-new-3", "b-new-2", "b-new-1"]


def use(name: str, month: int, day: int, organization: str, model: str = "gpt-5") -> dict:
    """A trace of 1,000 tokens and a minute: 100 credits for the model, 50 for compute."""
    used = [model_usage(model, input=600, output=400)]
    at = datetime(2026, month, day, 12, tzinfo=UTC)
    return usage_row(id=name, timestamp=at, organization_id=organization, models=[model], usage=used)


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """September and October: org_a as before, org_b with a model that it did not use in September."""
    folder: Path = tmp_path_factory.mktemp("journeys")
    rows = [use(f"a-{month}-{day}", month, day, "org_a") for month in (9, 10) for day in (3, 4)]
    rows += [use(f"b-{month}", month, 5, "org_b") for month in (9, 10)]
    rows += [use(f"b-new-{n}", 10, 10 + n, "org_b", "o4") for n in (1, 2, 3)]
    ledger_at(folder / "billing.duckdb", rows).engine.close()
    accounts = folder / "credentials.yaml"
    for name, role in (("ada", "analyst"), ("fay", "finance")):
        UserFile(accounts).add(name, password=PASSWORD, role=role)
    environment = {
        "BILLING_MODE": "live",
        "BILLING_COOKIE_KEY": "0123456789 abcdefghijklmnopqrstuvwxyz",
        "BILLING_WAREHOUSE_URL": f"duckdb:///{folder}/billing.duckdb",
        "BILLING_TIMEZONE": "Europe/Berlin",
        "BILLING_CREDENTIALS": str(accounts),
    }
    with serving(DASHBOARD, environment) as server:
        yield server


@pytest.fixture(scope="module")
def analyst(chromium: Browser, dashboard: Server) -> Iterator[BrowserContext]:
    context = signed_in_at(chromium, dashboard.url, "ada", PASSWORD)
    yield context
    context.close()


@pytest.fixture
def page(analyst: BrowserContext) -> Iterator[Page]:
    page = analyst.new_page()
    yield page
    page.close()


def groups(page: Page, number: int) -> list[list[str]]:
    """The rows of Explore: name, figure, before, change."""
    expect(cell(page, 4, number - 1)).to_have_count(1)
    return [[cell(page, column, row).inner_text() for column in range(1, 5)] for row in range(number)]


def show(page: Page, row: int) -> None:
    """Press the button of a row of Explore."""
    settle(page)
    grid(page).scroll_into_view_if_needed()
    grid(page).click(position={"x": 40, "y": FIRST_ROW_PIXELS + row * ROW_PIXELS})


def test_why_a_bill_rose_is_found_and_a_colleague_of_another_role_sees_the_same_events(
    page: Page, chromium: Browser, dashboard: Server
):
    page.goto(f"{dashboard.url}/?{OCTOBER}&compare=last-month")
    wait_for_first_cell(page, 1, "org_b")
    assert groups(page, 2) == [["org_b", "600.00", "150.00", "+300 %"], ["org_a", "300.00", "300.00", "unchanged"]]
    show(page, 0)
    wait_for_first_cell(page, 4, "b-new-3")
    assert shown_ids(page, 4) == [*NEW_IN_OCTOBER, "b-10"]
    page.get_by_role("radiogroup").get_by_text("Explore", exact=True).click()
    choose(page, "Group by", "Model")
    wait_for_first_cell(page, 1, "o4")
    assert groups(page, 1) == [["o4", "300.00", "unknown", "unknown"]]
    show(page, 0)
    wait_for_first_cell(page, 4, "b-new-3")
    assert shown_ids(page, 3) == NEW_IN_OCTOBER
    colleague = signed_in_at(chromium, dashboard.url, "fay", PASSWORD)
    theirs = colleague.new_page()
    theirs.goto(page.url)
    wait_for_first_cell(theirs, 4, "b-new-3")
    assert shown_ids(theirs, 3) == NEW_IN_OCTOBER
    assert "organization=org_b" in theirs.url
    colleague.close()


def test_two_months_are_compared_by_model_and_the_comparison_stands_in_the_address(page: Page, dashboard: Server):
    page.goto(f"{dashboard.url}/?{OCTOBER}&by=model&compare=nothing")
    wait_for_first_cell(page, 1, "gpt-5")
    choose(page, "Compare with", "vs. last month")
    expect(cell(page, 4, 0)).to_have_text("unchanged")
    assert groups(page, 3) == [
        ["gpt-5", "300.00", "300.00", "unchanged"],
        ["o4", "300.00", "unknown", "unknown"],
        ["no model", "300.00", "150.00", "+100 %"],
    ]
    assert "compare=last-month" in page.url
    page.go_back()
    settle(page)
    expect(cell(page, 4, 0)).to_have_count(0)


def test_a_key_leads_to_the_search_box_and_another_lists_the_keys(page: Page, dashboard: Server):
    page.goto(f"{dashboard.url}/?{OCTOBER}")
    wait_for_first_cell(page, 1, "org_b")
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox", name="Search")).to_be_focused()
    page.keyboard.type("?")  # is text there
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("Backspace")
    page.get_by_role("heading", name="Usage Events").click()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog").get_by_text("Go to the page's search box")).to_be_visible()


def test_on_a_phone_the_drawer_closes_once_a_page_was_chosen(page: Page, dashboard: Server):
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{dashboard.url}/?{OCTOBER}")
    wait_for_first_cell(page, 1, "org_b")
    page.get_by_test_id("stExpandSidebarButton").click()
    page.get_by_role("link", name="Export and import").click()
    expect(page.get_by_role("heading", name="Export and import", exact=True)).to_be_visible()
    expect(page.get_by_test_id("stExpandSidebarButton")).to_be_visible()
