"""Journeys over the Usage Events page that only a browser can make: grids, charts, addresses, phones."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from billing_core.auth.users import UserFile
from billing_core.runtime import clock
from tests.browser.conftest import EXPECT_TIMEOUT_MS
from tests.browser.server import DASHBOARD, Server, serving
from tests.browser.steps import expect_nothing_wider, fill_in_form, settle, sign_in
from tests.browser.usage_steps import (
    cells,
    choose,
    choose_rows,
    click_bar,
    click_header,
    go_to_page,
    grid,
    open_details,
    shown_ids,
    wait_for_first_cell,
)
from tests.factories import events_table, ledger_at, usage_row

EVENTS = 60
PASSWORD = "correct horse battery"
COLUMNS = "&columns=Status&columns=Time&columns=Credits&columns=Event+id"
NOW = clock.now()
FIRST_SCREEN_BYTES = 3_000_000
"""What a first visit may load until the table is painted, sign-in and fonts included; it takes 1.6 MB."""


NOTE_WHEN_THE_TABLE_IS_THERE = """
new MutationObserver((_, observer) => {
  if (document.querySelector('[data-testid="stDataFrame"] canvas')) {
    window.tableAt = performance.now();
    observer.disconnect();
  }
}).observe(document, { childList: true, subtree: true });
"""


def numbered(number: int) -> dict:
    """Event `e05` happened 5 hours ago and took 5 minutes: 100 + 250 credits."""
    return usage_row(
        id=f"e{number:02}",
        timestamp=NOW - number * timedelta(hours=1),
        latency_seconds=60 * number,
        organization_id="org_acme" if number % 3 == 0 else "org_b",
        chatflow_id=f"flow-{number % 4}",
        chatflow_name=f"Chatflow {number % 4}",
    )


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("usage") / "billing.duckdb"
    ledger_at(path, [numbered(n) for n in range(1, EVENTS + 1)]).engine.close()
    return path


@pytest.fixture(scope="module")
def dashboard(ledger: Path) -> Iterator[Server]:
    accounts = ledger.parent / "credentials.yaml"
    UserFile(accounts).add("ada", password=PASSWORD, role="analyst")
    environment = {
        "BILLING_MODE": "live",  # the demo would read the sandbox into the ledger
        "BILLING_COOKIE_KEY": "0123456789 abcdefghijklmnopqrstuvwxyz",
        "BILLING_WAREHOUSE_URL": f"duckdb:///{ledger}",
        "BILLING_TIMEZONE": "Europe/Berlin",
        "BILLING_CREDENTIALS": str(accounts),
    }
    with serving(DASHBOARD, environment) as server:
        yield server


@pytest.fixture(scope="module")
def signed_in(chromium: Browser, dashboard: Server) -> Iterator[BrowserContext]:
    """A browser that holds the cookie, and after the first journey most of what a page loads."""
    context = chromium.new_context(viewport={"width": 1440, "height": 1000})
    context.set_default_timeout(EXPECT_TIMEOUT_MS)
    page = context.new_page()
    page.goto(dashboard.url)
    sign_in(page, "ada", PASSWORD)
    page.close()
    yield context
    context.close()


@pytest.fixture
def analyst(signed_in: BrowserContext, dashboard: Server) -> Iterator[Page]:
    """A new tab at the page with the columns that the journeys read."""
    page = signed_in.new_page()
    page.goto(f"{dashboard.url}/?{COLUMNS[1:]}")
    wait_for_first_cell(page, 4, "e01")
    yield page
    page.close()


@pytest.mark.matrix
def test_on_a_first_visit_the_table_is_there_before_any_library_of_charts_is_asked_for(
    chromium: Browser, dashboard: Server
):
    context = chromium.new_context(viewport={"width": 1440, "height": 1000})
    page = context.new_page()
    page.add_init_script(NOTE_WHEN_THE_TABLE_IS_THERE)
    page.goto(dashboard.url)
    fill_in_form(page, "ada", PASSWORD)
    expect(page.locator(".js-plotly-plot").first).to_be_visible(timeout=EXPECT_TIMEOUT_MS)
    asked = page.evaluate("performance.getEntriesByType('resource').map(one => one.toJSON())")
    table_at = page.evaluate("window.tableAt")
    before_the_table = [one for one in asked if one["startTime"] < table_at]
    assert [one["name"] for one in before_the_table if "Plotly" in one["name"]] == []
    assert sum(one["transferSize"] for one in before_the_table) < FIRST_SCREEN_BYTES
    assert not any("/embed." in one["name"] for one in asked)  # Vega
    context.close()


@pytest.mark.matrix
def test_a_desktop_shows_the_columns_of_an_analyst_without_scrolling_sideways(
    signed_in: BrowserContext, dashboard: Server
):
    page = signed_in.new_page()
    page.goto(dashboard.url)
    wait_for_first_cell(page, 8, "$0.0060")
    heads = [grid(page).locator("th").nth(n).inner_text() for n in range(9)]
    assert heads == ["Status", "Event", "Time ↓", "Organization", "Chatflow", "User", "Tokens", "Credits", "Amount"]
    scroller = page.locator(".dvn-scroller").first
    assert scroller.evaluate("one => one.scrollWidth - one.clientWidth") <= 0
    tops = [page.locator(f".st-key-{key}").bounding_box()["y"] for key in ("usage-strip", "toolbar")]
    assert tops[1] < tops[0] < grid(page).bounding_box()["y"]
    expect(page.locator(".usage-card").first).to_be_hidden()
    buttons = page.locator(".st-key-toolbar").get_by_role("button")
    assert len({round(one.bounding_box()["y"]) for one in buttons.all() if one.is_visible()}) <= 2  # of one line
    page.close()


@pytest.mark.matrix
def test_a_phone_shows_rows_as_cards_that_lead_to_their_explanation(signed_in: BrowserContext, dashboard: Server):
    page = signed_in.new_page()
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{dashboard.url}/?rows=5")
    card = page.get_by_role("link", name="150.00 credits").first
    expect(card).to_be_visible()
    expect(card).to_contain_text("$0.0060")
    expect(grid(page)).to_be_hidden()
    card.click()
    expect(page.get_by_role("dialog").get_by_text("100 + 50 + 0 = 150 credits").first).to_be_visible()
    assert "rows=5" in page.url
    page.close()


def address(url: str) -> dict[str, list[str]]:
    found = parse_qs(urlsplit(url).query)
    found.pop("columns", None)
    return found


def wait_for_address(page: Page, expected: dict[str, list[str]]) -> None:
    page.wait_for_url(lambda url: address(url) == expected)


def test_back_undoes_a_sort_and_a_page(analyst: Page):
    choose_rows(analyst, "5")
    go_to_page(analyst, 2)
    wait_for_first_cell(analyst, 4, "e06")
    click_header(analyst, 3)
    wait_for_first_cell(analyst, 4, "e60")
    wait_for_address(analyst, {"rows": ["5"], "sort": ["Credits"]})
    analyst.go_back()
    expect(analyst.get_by_text("6–10 of 60 events")).to_be_visible()
    wait_for_address(analyst, {"rows": ["5"], "page": ["2"]})
    analyst.go_back()
    expect(analyst.get_by_text("1–5 of 60 events")).to_be_visible()


def test_a_header_sorts_in_the_engine_and_turns_round_on_the_next_click(analyst: Page):
    click_header(analyst, 3)
    wait_for_first_cell(analyst, 4, "e60")
    wait_for_address(analyst, {"sort": ["Credits"]})
    click_header(analyst, 3)
    wait_for_first_cell(analyst, 4, "e01")
    wait_for_address(analyst, {"sort": ["Credits"], "order": ["Ascending"]})
    click_header(analyst, 3)
    wait_for_first_cell(analyst, 4, "e60")
    assert cells(analyst, 3, 3) == ["3,100.00", "3,050.00", "3,000.00"]


def test_a_filtered_view_is_the_same_after_reload_and_in_another_tab(analyst: Page, signed_in: BrowserContext):
    choose(analyst, "Period", "Last 7 days")
    analyst.get_by_role("searchbox", name="Search").fill("org_acme")
    analyst.keyboard.press("Enter")
    wait_for_first_cell(analyst, 4, "e03")
    choose_rows(analyst, "5")
    expect(analyst.get_by_text("1–5 of 20 events")).to_be_visible()
    go_to_page(analyst, 2)
    wait_for_first_cell(analyst, 4, "e18")
    view = shown_ids(analyst, 5)
    assert view == ["e18", "e21", "e24", "e27", "e30"]
    wait_for_address(analyst, {"period": ["Last 7 days"], "search": ["org_acme"], "rows": ["5"], "page": ["2"]})
    analyst.reload()
    wait_for_first_cell(analyst, 4, "e18")
    other = signed_in.new_page()
    other.goto(analyst.url)
    wait_for_first_cell(other, 4, "e18")
    assert shown_ids(analyst, 5) == shown_ids(other, 5) == view


def test_a_chosen_filter_can_be_removed_after_its_panel_was_closed(analyst: Page):
    analyst.get_by_role("button", name="Filters").click()
    analyst.get_by_role("combobox", name="Organization").fill("org_acme")
    analyst.get_by_role("option", name="org_acme").click()
    wait_for_first_cell(analyst, 4, "e03")
    wait_for_address(analyst, {"organization": ["org_acme"]})
    analyst.get_by_role("heading", name="Usage Events").click()  # beside the panel, which closes it
    settle(analyst)
    analyst.get_by_role("button", name="Organization: org_acme").click()
    wait_for_first_cell(analyst, 4, "e01")
    wait_for_address(analyst, {})
    choose(analyst, "Period", "Last 7 days")  # the browser must not remember the filter on its own
    expect(analyst.get_by_text("1–25 of 60 events")).to_be_visible()
    wait_for_address(analyst, {"period": ["Last 7 days"]})


def test_a_bar_of_a_ranking_becomes_a_filter(analyst: Page):
    click_bar(analyst, "top-chatflow", 0)
    expect(analyst.get_by_role("button", name="Chatflow: Chatflow 0")).to_be_visible()
    wait_for_first_cell(analyst, 4, "e04")
    wait_for_address(analyst, {"chatflow": ["flow-0"]})


def test_a_bar_of_a_day_shows_that_day(analyst: Page):
    click_bar(analyst, "day", 1)
    settle(analyst)
    expect(analyst.get_by_role("combobox", name="Period")).to_have_value("Custom")
    query = address(analyst.url)
    assert query["period"] == ["Custom"]
    assert query["first_day"] == query["last_day"]
    (day,) = query["first_day"]
    wait_for_first_cell(analyst, 2, day, part=True)
    assert {text[:10] for text in cells(analyst, 2, 3)} == {day}
    analyst.go_back()  # three parameters, one step
    wait_for_address(analyst, {})
    wait_for_first_cell(analyst, 4, "e01")


def test_details_open_from_the_row_and_from_the_address_and_close_again(analyst: Page):
    open_details(analyst, 1)
    drawer = analyst.get_by_role("dialog")
    expect(drawer.get_by_text("gpt-5, input: 600 × 100 ÷ 1,000 = 60").first).to_be_visible()
    expect(drawer.get_by_text("100 + 100 + 0 = 200 credits").first).to_be_visible()
    assert 560 <= drawer.bounding_box()["width"] <= 720
    wait_for_address(analyst, {"event": ["e02"]})
    analyst.reload()
    expect(drawer.get_by_text("100 + 100 + 0 = 200 credits").first).to_be_visible()
    analyst.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    analyst.wait_for_url(lambda url: "event=" not in url)
    open_details(analyst, 1)
    expect(drawer).to_be_visible()


def test_the_download_holds_exactly_the_events_of_the_filter(analyst: Page):
    analyst.get_by_role("searchbox", name="Search").fill("flow-3")
    analyst.keyboard.press("Enter")
    wait_for_first_cell(analyst, 4, "e03")
    link = analyst.get_by_role("link", name="CSV").get_attribute("href")
    answer = analyst.request.get(analyst.url.split("/?")[0] + link)
    assert answer.status == 200
    rows = list(csv.DictReader(io.StringIO(answer.text())))
    assert [row["id"] for row in rows] == [f"e{n:02}" for n in range(59, 0, -4)]
    assert rows[-1]["credits_total"] == "250"


@pytest.mark.matrix
@pytest.mark.parametrize(("theme", "width", "query"), [("light", 1440, "?organization=org_acme"), ("dark", 390, "")])
def test_screen_readers_can_use_the_page_and_nothing_but_the_grid_is_too_wide(
    signed_in: BrowserContext, dashboard: Server, theme: str, width: int, query: str
):
    page = signed_in.new_page()
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 1000})
    page.goto(f"{dashboard.url}/{query}")
    expect(page.get_by_text("charts, table and header agree")).to_be_visible()
    settle(page)
    expect_nothing_wider(page)
    faults = {fault["id"]: fault["nodes"] for fault in Axe().run(page).response["violations"]}
    assert faults == {}


def test_turning_pages_neither_repeats_nor_skips_while_data_arrives(analyst: Page, ledger: Path):
    choose_rows(analyst, "25")
    seen = shown_ids(analyst, 25)
    late = ledger_at(ledger)
    late.book(events_table([numbered(0), {**numbered(70), "id": "e70"}]), run_id="late")
    late.engine.close()
    for number, rows in ((2, 25), (3, 10)):
        go_to_page(analyst, number)
        wait_for_first_cell(analyst, 4, f"e{(number - 1) * 25 + 1:02}")
        seen += shown_ids(analyst, rows)
    assert seen == [f"e{n:02}" for n in range(1, EVENTS + 1)]
    analyst.get_by_role("button", name="Show them").click()
    wait_for_first_cell(analyst, 4, "e00")
    expect(analyst.get_by_text("1–25 of 62 events")).to_be_visible()
