"""Journeys over the Organization Stats page that only a browser can make: grids, charts, addresses, phones."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from billing_core.auth.users import UserFile
from billing_core.runtime import clock
from tests.browser.org_steps import (
    credits_in,
    drawn,
    events_credits,
    mark,
    open_row,
    organizations,
    show_view,
    sort_by,
    wait_for_first,
)
from tests.browser.server import DASHBOARD, Server, serving
from tests.browser.steps import expect_nothing_wider, settle, signed_in_at
from tests.browser.usage_steps import choose
from tests.factories import ledger_at, usage_row

PASSWORD = "correct horse battery"
NOW = clock.now()


def numbered(number: int) -> dict:
    """Seven organizations and nobody's events; the higher an organization's number, the more credits."""
    place = number % 8
    return usage_row(
        id=f"e{number:02}",
        timestamp=NOW - number * timedelta(hours=3),
        latency_seconds=60 * (place + 1),
        organization_id=f"org_{place}" if place else None,
        customer_id=f"cus_{place}" if place else None,
        user_id=f"user-{number % 5}",
        chatflow_id=f"flow-{number % 3}",
        chatflow_name=f"Chatflow {number % 3}",
    )


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("organizations")
    ledger_at(folder / "billing.duckdb", [numbered(n) for n in range(1, 81)]).engine.close()
    accounts = UserFile(folder / "credentials.yaml")
    accounts.add("ada", password=PASSWORD, role="admin")
    accounts.add("ann", password=PASSWORD, role="analyst")
    environment = {
        "BILLING_MODE": "live",  # the demo would read the sandbox into the ledger
        "BILLING_COOKIE_KEY": "0123456789 abcdefghijklmnopqrstuvwxyz",
        "BILLING_WAREHOUSE_URL": f"duckdb:///{folder}/billing.duckdb",
        "BILLING_TIMEZONE": "Europe/Berlin",
        "BILLING_CREDENTIALS": str(folder / "credentials.yaml"),
    }
    with serving(DASHBOARD, environment) as server:
        yield server


def context_of(chromium: Browser, dashboard: Server, name: str) -> BrowserContext:
    return signed_in_at(chromium, f"{dashboard.url}/organization_stats", name, PASSWORD)


@pytest.fixture(scope="module")
def signed_in(chromium: Browser, dashboard: Server) -> Iterator[BrowserContext]:
    context = context_of(chromium, dashboard, "ada")
    yield context
    context.close()


def opened(context: BrowserContext, dashboard: Server, query: str = "", **size: int) -> Page:
    """A new tab at the page, drawn to its figures."""
    page = context.new_page()
    if size:
        page.set_viewport_size({"height": 1000, **size})
    page.goto(f"{dashboard.url}/organization_stats{query}")
    drawn(page)
    return page


def address(page: Page) -> dict[str, list[str]]:
    return parse_qs(urlsplit(page.url).query)


def bar(page: Page, chart: str, series: int, number: int) -> Locator:
    bars = page.locator(f".st-key-chart-{chart}-0 .barlayer .bars").nth(series)
    return bars.locator(".point path").nth(number)


def click(page: Page, shape: Locator) -> None:
    shape.scroll_into_view_if_needed()
    settle(page)
    box = shape.bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)


def test_from_the_table_over_one_organization_to_its_events_with_equal_totals(
    signed_in: BrowserContext, dashboard: Server
):
    page = opened(signed_in, dashboard)
    wait_for_first(page, "org_7")
    whole = credits_in(mark(page).inner_text())
    sort_by(page, "Credits")
    wait_for_first(page, "No organization")
    assert address(page) == {"up": ["1"]}
    page.get_by_role("searchbox", name="Search").fill("ORG_")
    page.keyboard.press("Enter")
    wait_for_first(page, "org_1")
    assert organizations(page, 7) == [f"org_{n}" for n in range(1, 8)]
    assert address(page) == {"up": ["1"], "find": ["ORG_"]}
    open_row(page, 2)
    expect(page.get_by_role("heading", name="org_3")).to_be_visible()
    drawn(page)
    assert address(page) == {"up": ["1"], "find": ["ORG_"], "open": ["org_3"]}
    mine = credits_in(mark(page).inner_text())
    assert 0 < mine < whole
    mark(page).click()
    expect(page.get_by_role("button", name="Organization: org_3")).to_be_visible()
    assert events_credits(page) == mine
    page.close()


def test_the_whole_page_ties_out_with_usage_events_of_the_same_period(signed_in: BrowserContext, dashboard: Server):
    page = opened(signed_in, dashboard)
    choose(page, "Period", "Last 7 days")
    drawn(page)
    assert address(page) == {"span": ["Last 7 days"]}
    shown = credits_in(mark(page).inner_text())
    mark(page).click()
    assert events_credits(page) == shown
    assert address(page) == {"period": ["Last 7 days"]}
    page.close()


def test_a_view_is_the_same_after_reload_and_its_search_survives_another_view(
    signed_in: BrowserContext, dashboard: Server
):
    page = opened(signed_in, dashboard)
    page.get_by_role("searchbox", name="Search").fill("org_5")
    page.keyboard.press("Enter")
    wait_for_first(page, "org_5")
    show_view(page, "Charts")
    expect(page.get_by_text("Active users per day")).to_be_visible()
    settle(page)
    assert address(page) == {"find": ["org_5"], "view": ["Charts"]}
    page.reload()
    expect(page.get_by_text("Active users per day")).to_be_visible()
    settle(page)
    show_view(page, "Overview")
    wait_for_first(page, "org_5")
    assert address(page) == {"find": ["org_5"]}
    page.close()


def test_a_bar_of_the_trend_opens_its_organization_and_the_way_back_leads_to_the_charts(
    signed_in: BrowserContext, dashboard: Server
):
    page = opened(signed_in, dashboard, "?view=Charts")
    click(page, bar(page, "org-trend", 0, 25))  # of 30 days; the events are of the last ten
    expect(page.get_by_role("heading", name="org_7")).to_be_visible()
    drawn(page)
    assert address(page) == {"view": ["Charts"], "open": ["org_7"]}
    page.get_by_role("link", name="All organizations").click()
    expect(page.get_by_text("Active users per day")).to_be_visible()
    settle(page)
    assert address(page) == {"view": ["Charts"]}
    page.close()


@pytest.mark.matrix
def test_a_day_of_an_organization_leads_to_its_events_of_that_day(signed_in: BrowserContext, dashboard: Server):
    page = opened(signed_in, dashboard, "?open=org_3")
    click(page, bar(page, "org-days", 0, 1))
    expect(page.get_by_role("heading", name="Usage Events", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Organization: org_3")).to_be_visible()
    settle(page)
    query = address(page)
    assert query["period"] == ["Custom"]
    assert query["first_day"] == query["last_day"]
    assert query["organization"] == ["org_3"]
    page.close()


@pytest.mark.matrix
def test_a_user_of_the_leaderboard_leads_to_that_users_events(signed_in: BrowserContext, dashboard: Server):
    page = opened(signed_in, dashboard, "?view=Charts&only=org_7")
    click(page, bar(page, "org-users", 1, 0))
    expect(page.get_by_role("heading", name="Usage Events", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Organization: org_7")).to_be_visible()
    settle(page)
    assert address(page)["user"][0].startswith("user-")
    page.close()


@pytest.mark.matrix
def test_a_mover_leads_to_its_organization_by_an_address_to_share(signed_in: BrowserContext, dashboard: Server):
    page = opened(signed_in, dashboard)
    page.get_by_text("More figures, comparison and top movers").click()
    page.get_by_role("link", name="org_6: new").first.click()
    expect(page.get_by_role("heading", name="org_6")).to_be_visible()
    drawn(page)
    assert address(page) == {"more": ["1"], "open": ["org_6"]}
    page.go_back()
    wait_for_first(page, "org_7")
    assert address(page) == {"more": ["1"]}
    page.close()


@pytest.mark.matrix
def test_the_page_of_nobodys_events_leads_to_events_without_an_organization(
    signed_in: BrowserContext, dashboard: Server
):
    page = opened(signed_in, dashboard, "?open_none=1")
    mine = credits_in(mark(page).inner_text())
    mark(page).click()
    assert events_credits(page) == mine
    assert address(page)["without"] == ["organization"]
    page.close()


def test_analysts_find_no_link_and_are_refused_when_they_type_the_address(chromium: Browser, dashboard: Server):
    context = context_of(chromium, dashboard, "ann")
    page = context.new_page()
    page.goto(f"{dashboard.url}/organization_stats?view=Charts")
    expect(page.get_by_text("the admin role")).to_be_visible()
    settle(page)
    expect(page.get_by_role("link", name="Usage Events")).to_be_visible()
    expect(page.get_by_role("link", name="Organization Stats")).to_have_count(0)
    expect(page.get_by_text("org_7")).to_have_count(0)
    context.close()


@pytest.mark.matrix
def test_on_a_phone_nothing_but_tables_scrolls_sideways(signed_in: BrowserContext, dashboard: Server):
    page = opened(signed_in, dashboard, width=390)
    expect_nothing_wider(page)
    page.close()


@pytest.mark.matrix
@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
@pytest.mark.parametrize("query", ["?compare=org_1&compare=org_2", "?view=Charts", "?open=org_3"])
def test_screen_readers_can_use_the_page_and_nothing_is_too_wide(
    signed_in: BrowserContext, dashboard: Server, theme: str, width: int, query: str
):
    page = signed_in.new_page()
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 1000})
    page.goto(f"{dashboard.url}/organization_stats{query}")
    drawn(page)
    expect_nothing_wider(page)
    faults = {fault["id"]: fault["nodes"] for fault in Axe().run(page).response["violations"]}
    assert faults == {}
    page.close()
