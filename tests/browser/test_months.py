"""Finance at the end of a month, with real books: check, accept, close, download, verify, reopen; and admins."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, expect

from billing_core.auth.users import UserFile
from billing_core.runtime import clock
from billing_core.sandbox.server import SandboxProcess
from billing_core.service import BillingService
from billing_core.settings import load_settings
from components.months.texts import TECHNICAL, month_name
from components.shared.navigation import AUDIT_LOG, MONTH_CLOSE, WHAT_IF, Destination
from tests.browser.conftest import EXPECT_TIMEOUT_MS
from tests.browser.server import DASHBOARD, Server, serving
from tests.browser.steps import expect_nothing_wider, open_user_menu, settle, signed_in_at
from tests.factories import EVERYONE

PASSWORD = "correct horse battery"
WORK_TIMEOUT_MS = 90_000

DAYS = 40
"""The sandbox's usage begins in the month before this one, whatever the day."""

LAST_MONTH = f"{clock.now().replace(day=1) - timedelta(days=1):%Y-%m}"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A ledger with the sandbox's usage of last month, connected to the sandbox's Stripe; nothing was pushed."""
    folder = tmp_path_factory.mktemp("months")
    accounts = UserFile(folder / "credentials.yaml")
    accounts.add("fay", password=PASSWORD, role="finance")
    accounts.add("ada", password=PASSWORD, role="admin")
    with SandboxProcess(events=300, days=DAYS, seed=7) as sandbox:
        variables = {
            **sandbox.environment,
            "BILLING_MODE": "live",  # the demo would read a sandbox of its own
            "BILLING_COOKIE_KEY": "0123456789 abcdefghijklmnopqrstuvwxyz",
            "BILLING_WAREHOUSE_URL": f"duckdb:///{folder}/billing.duckdb",
            "BILLING_CREDENTIALS": str(folder / "credentials.yaml"),
        }
        with closing(BillingService(load_settings(variables, env_file=None))) as service:
            service.pull(EVERYONE, first_days=DAYS + 1)
        yield variables


@pytest.fixture(scope="module")
def dashboard(environment: dict[str, str]) -> Iterator[Server]:
    with serving(DASHBOARD, environment) as server:
        yield server


@pytest.fixture(scope="module")
def finance(chromium: Browser, dashboard: Server) -> Iterator[BrowserContext]:
    context = signed_in_at(chromium, f"{dashboard.url}/month_close", "fay", PASSWORD)
    yield context
    context.close()


@pytest.fixture(scope="module")
def admin(chromium: Browser, dashboard: Server) -> Iterator[BrowserContext]:
    context = signed_in_at(chromium, f"{dashboard.url}/month_close", "ada", PASSWORD)
    yield context
    context.close()


def opened(context: BrowserContext, dashboard: Server, address: str, heading: str, **size: int) -> Page:
    page = context.new_page()
    if size:
        page.set_viewport_size({"height": 1000, **size})
    page.goto(f"{dashboard.url}/{address}")
    expect(page.get_by_role("heading", name=heading, exact=True)).to_be_visible(timeout=EXPECT_TIMEOUT_MS)
    settle(page)
    return page


def months(context: BrowserContext, dashboard: Server, **size: int) -> Page:
    return opened(context, dashboard, f"month_close?month={LAST_MONTH}", month_name(LAST_MONTH), **size)


def accept_everything(page: Page) -> None:
    boxes = page.locator(".st-key-months-checklist").get_by_test_id("stCheckbox")
    expect(boxes.first).to_be_visible()
    for place in range(boxes.count()):
        boxes.nth(place).locator("label").first.click()
        settle(page)


def faults(page: Page) -> dict[str, object]:
    """Rules that screen readers and weak eyes need, with the places that break them."""
    settle(page)
    page.mouse.move(0, 0)  # what hangs over a grid that is pointed at lies outside the landmarks
    expect(page.locator("#stFloatingOverlayPortal > *")).to_have_count(0)
    return {fault["id"]: fault["nodes"] for fault in Axe().run(page).response["violations"]}


def test_finance_closes_last_month_with_accepted_causes_proves_it_and_reopens_it(
    finance: BrowserContext, dashboard: Server
):
    name = month_name(LAST_MONTH)
    page = months(finance, dashboard)
    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.get_by_text(re.compile("(block|blocks) closing"))).to_be_visible(timeout=WORK_TIMEOUT_MS)
    settle(page)
    close = page.get_by_role("button", name=f"Close {name}…")
    expect(close).to_be_disabled()
    accept_everything(page)
    page.get_by_role("textbox", name="Reason").fill("agreed with accounting")
    page.get_by_role("textbox", name="Reason").press("Enter")
    expect(close).to_be_enabled()
    close.click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("Reason: agreed with accounting")).to_be_visible()
    dialog.get_by_role("button", name=f"Close {name}", exact=True).click()
    expect(dialog).to_be_hidden()
    expect(page.get_by_text(re.compile(f"{name} is closed: "))).to_be_visible(timeout=WORK_TIMEOUT_MS)
    settle(page)
    facts = page.locator(".st-key-months-facts")
    facts.get_by_text(TECHNICAL).click()
    expect(facts.get_by_test_id("stCode")).to_be_visible()
    shown = facts.get_by_test_id("stCode").inner_text().strip()

    with page.expect_download() as download:
        page.get_by_role("link", name="Manifest (JSON)").click()
    text = Path(download.value.path()).read_bytes()
    assert download.value.suggested_filename == f"close-{LAST_MONTH}.json"
    assert hashlib.sha256(text).hexdigest() == shown
    manifest = json.loads(text)
    assert {one["accepted_by"] for one in manifest["exceptions"]} == {"fay"}
    assert manifest["closed_by"] == "fay"

    page.get_by_role("button", name="Verify", exact=True).click()
    expect(page.get_by_text(f"{name} is unchanged since it was closed.")).to_be_visible(timeout=WORK_TIMEOUT_MS)
    assert faults(page) == {}

    page.get_by_role("button", name="Reopen…").click()
    confirm = dialog.get_by_role("button", name=f"Reopen {name}")
    expect(confirm).to_be_disabled()
    dialog.get_by_role("textbox", name="Reason").fill("one more customer")
    dialog.get_by_role("textbox", name="Reason").press("Enter")
    confirm.click()
    expect(page.get_by_text(f"{name} is reopened.")).to_be_visible()
    expect(page.get_by_text("one more customer")).to_be_visible()
    page.close()


def test_an_admin_reads_an_entry_of_the_audit_log_verifies_its_chain_and_takes_it_out(
    admin: BrowserContext, dashboard: Server
):
    page = opened(admin, dashboard, "audit_log?what=pull", "Audit log")
    expect(page.get_by_text("1–1 of 1 entry")).to_be_visible()
    page.get_by_role("button", name="Verify the chain").click()
    expect(page.get_by_text(re.compile("Verified up to entry"))).to_be_visible()
    area = page.get_by_test_id("stDataFrame").first.bounding_box()
    assert area is not None
    page.mouse.click(area["x"] + 18, area["y"] + 52)  # the box before the first row, which is drawn on a canvas
    expect(page.get_by_text(re.compile(r"Entry \d+: pull by tester"))).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    assert ",tester,pull," in lines[1]
    assert faults(page) == {}
    page.close()


def test_an_admin_prices_history_with_another_card_and_books_it(admin: BrowserContext, dashboard: Server):
    page = opened(admin, dashboard, "what_if", "What-if")
    box = page.get_by_role("textbox", name="Cards")
    expect(box).to_have_value(re.compile("id: builtin-1"))
    text = box.input_value()
    box.fill(text.replace("id: builtin-1", "id: dearer").replace("credits_per_minute: 50", "credits_per_minute: 70"))
    box.press("Control+Enter")
    expect(page.get_by_text(re.compile("^dearer: from"))).to_be_visible()
    settle(page)
    page.get_by_role("button", name="Calculate").click()
    verdict = page.get_by_text(re.compile(r"[\d,]+ of [\d,]+ events would change: \+"))
    expect(verdict).to_be_visible(timeout=WORK_TIMEOUT_MS)
    expect(page.get_by_text("✓ The old credits reconcile to Usage Events for this period.")).to_be_visible()
    number = verdict.inner_text().split(" of ")[0]
    assert faults(page) == {}
    page.get_by_role("button", name="Apply…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox").fill(number)
    dialog.get_by_role("textbox").press("Enter")
    dialog.get_by_role("button", name=f"Apply to {number} events").click()
    expect(page.get_by_text(re.compile(rf"Applied .*: {number} events"))).to_be_visible(timeout=WORK_TIMEOUT_MS)
    page.close()


@pytest.mark.matrix
@pytest.mark.parametrize("one", [MONTH_CLOSE, WHAT_IF, AUDIT_LOG], ids=lambda one: one.file)
def test_nothing_is_wider_than_a_phone(admin: BrowserContext, dashboard: Server, one: Destination):
    page = opened(admin, dashboard, one.file.removesuffix(".py"), one.title, width=390)
    expect_nothing_wider(page)
    page.emulate_media(color_scheme="dark")
    assert faults(page) == {}
    page.close()


@pytest.mark.matrix
def test_an_address_from_before_the_pages_were_split_leads_to_its_page(admin: BrowserContext, dashboard: Server):
    page = opened(admin, dashboard, "export_import?view=audit&what=pull", "Audit log")
    assert page.url == f"{dashboard.url}/audit_log?what=pull"
    assert page.title() == "Audit log · Billing"
    expect(page.get_by_text("1–1 of 1 entry")).to_be_visible()
    page.close()


@pytest.mark.matrix
def test_the_drawer_of_a_phone_holds_the_user_menu_and_the_menu_of_the_page_the_themes(
    admin: BrowserContext, dashboard: Server
):
    page = opened(admin, dashboard, "audit_log", "Audit log", width=390)
    page.get_by_role("button", name="Expand sidebar").click()
    open_user_menu(page)
    for name in ("Export…", "Help", "Sign out"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_in_viewport(ratio=1)
    page.get_by_role("button", name="Help", exact=True).click()
    expect(page.get_by_role("dialog").get_by_text("Check a month, close it")).to_be_visible()
    expect(page.get_by_role("button", name="Sign out")).to_have_count(0)  # the menu closed
    assert faults(page) == {}
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Month close").click()
    expect(page.get_by_role("heading", name="Month close")).to_be_visible()
    page.get_by_test_id("stMainMenu").get_by_role("button").click()
    for theme in ("System", "Light", "Dark"):
        expect(page.get_by_role("menuitemradio", name=theme)).to_be_visible()
    page.close()
