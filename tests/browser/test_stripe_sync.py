"""Journeys over the Stripe Sync page that only a browser can make: a push followed live, maps, dialogs, phones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from billing_core.auth.users import UserFile
from billing_core.reconcile.report import CustomerDay
from billing_core.sandbox.server import SandboxProcess
from billing_core.service import BillingService
from billing_core.settings import load_settings
from components.stripe_sync.rows import HeatGrid, Measure, heat_grid
from tests.browser.conftest import EXPECT_TIMEOUT_MS
from tests.browser.server import DASHBOARD, Server, serving
from tests.browser.steps import expect_nothing_wider, settle, signed_in_at
from tests.factories import EVERYONE

PASSWORD = "correct horse battery"
WORK_TIMEOUT_MS = 90_000


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A ledger with a few days of the sandbox's usage, connected to the sandbox's Stripe."""
    folder = tmp_path_factory.mktemp("sync")
    accounts = UserFile(folder / "credentials.yaml")
    accounts.add("ada", password=PASSWORD, role="admin")
    accounts.add("fay", password=PASSWORD, role="finance")
    with SandboxProcess(events=300, days=5, seed=7) as sandbox:
        variables = {
            **sandbox.environment,
            "BILLING_MODE": "live",  # the demo would read a sandbox of its own
            "BILLING_COOKIE_KEY": "0123456789 abcdefghijklmnopqrstuvwxyz",
            "BILLING_WAREHOUSE_URL": f"duckdb:///{folder}/billing.duckdb",
            "BILLING_TIMEZONE": "Europe/Berlin",
            "BILLING_CREDENTIALS": str(folder / "credentials.yaml"),
        }
        with closing(BillingService(load_settings(variables, env_file=None))) as service:
            service.pull(EVERYONE, first_days=6)
        yield variables


@pytest.fixture(scope="module")
def dashboard(environment: dict[str, str]) -> Iterator[Server]:
    with serving(DASHBOARD, environment) as server:
        yield server


def context_of(chromium: Browser, dashboard: Server, name: str) -> BrowserContext:
    return signed_in_at(chromium, f"{dashboard.url}/stripe_sync", name, PASSWORD)


@pytest.fixture(scope="module")
def signed_in(chromium: Browser, dashboard: Server) -> Iterator[BrowserContext]:
    context = context_of(chromium, dashboard, "ada")
    yield context
    context.close()


def opened(context: BrowserContext, dashboard: Server, **size: int) -> Page:
    """A new tab at the page, drawn to its end."""
    page = context.new_page()
    if size:
        page.set_viewport_size({"height": 1000, **size})
    page.goto(f"{dashboard.url}/stripe_sync")
    drawn(page)
    return page


def drawn(page: Page) -> None:
    """Wait for the last section: a busy machine takes its time."""
    expect(page.get_by_role("heading", name="Push log")).to_be_visible(timeout=EXPECT_TIMEOUT_MS)
    settle(page)


def section(page: Page, key: str) -> Locator:
    return page.locator(f".st-key-{key}")


def events_in(page: Page, stage: str) -> int:
    """How many events the tile of a stage counts; a stage without events has no tile."""
    if not section(page, f"sync-stage-{stage}").count():
        return 0
    found = re.search(r"([\d,]+) events?", section(page, f"sync-stage-{stage}").inner_text())
    assert found is not None
    return int(found[1].replace(",", ""))


def click_cell(page: Page, grid: HeatGrid, row: CustomerDay) -> None:
    """Click the cell of a customer's day on the map."""
    area = section(page, "chart-heat-0").locator(".heatmaplayer image").first
    area.scroll_into_view_if_needed()
    settle(page)
    box = area.bounding_box()
    assert box is not None
    x = box["x"] + box["width"] * (grid.days.index(row.day) + 0.5) / len(grid.days)
    y = box["y"] + box["height"] * (grid.customers.index(row.customer_id) + 0.5) / len(grid.customers)
    page.mouse.move(x, y)
    page.mouse.click(x, y)


def reconcile(page: Page) -> None:
    page.get_by_role("button", name="Reconcile", exact=True).click()
    expect(page.get_by_text(re.compile("unexplained credits"))).to_be_visible(timeout=WORK_TIMEOUT_MS)
    settle(page)


def unfold(page: Page, label: str) -> None:
    """Open a fold and wait until it has grown: what moves below an open list closes it."""
    page.get_by_text(label).click()
    page.evaluate(
        "() => Promise.allSettled(document.getAnimations()"
        ".filter(one => one.effect.getTiming().iterations !== Infinity).map(one => one.finished))"
    )
    settle(page)


def choose_first(page: Page, label: str) -> None:
    """Choose the first value of a list. Scrolling closes an open list, so that has to be over before the click."""
    box = page.get_by_role("combobox", name=label, exact=True)
    box.scroll_into_view_if_needed()
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    box.click()
    page.get_by_role("option").first.click()
    settle(page)


def decide(page: Page, verb: str) -> str:
    """Confirm the open dialog; returns what its button says after the verb."""
    dialog = page.get_by_role("dialog")
    confirm = dialog.get_by_role("button", name=re.compile(rf"{verb} [\d,]+ events?: [\d,.]+ credits \(\$"))
    expect(dialog.get_by_text(re.compile("This affects"))).to_be_visible()
    expect(confirm).to_be_enabled()
    what = confirm.inner_text().split(f"{verb} ")[-1].strip()
    confirm.click()
    expect(dialog).to_be_hidden()
    settle(page)
    return what


def test_a_hold_and_its_release_go_through_dialogs_that_state_credits_and_money(
    signed_in: BrowserContext, dashboard: Server
):
    page = opened(signed_in, dashboard)
    pending, held = events_in(page, "pending"), events_in(page, "held")
    unfold(page, "Hold back a customer's pending events")
    choose_first(page, "Customer")
    page.get_by_role("button", name="Hold…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name=re.compile("^Hold "))).to_be_disabled()
    dialog.get_by_role("textbox", name="Reason").fill("contract under review")
    page.keyboard.press("Enter")
    what = decide(page, "Hold")
    expect(page.get_by_text(re.compile("are on hold"))).to_be_visible()
    moved = events_in(page, "held") - held
    assert moved > 0
    assert events_in(page, "pending") == pending - moved
    section(page, "sync-problem-on_hold").get_by_role("button", name="Release…").click()
    assert decide(page, "Release") == what
    assert (events_in(page, "pending"), events_in(page, "held")) == (pending, held)
    expect(section(page, "sync-problem-on_hold")).to_have_count(0)
    page.close()


def test_from_a_preview_over_the_push_to_the_passport_behind_a_difference(
    signed_in: BrowserContext, dashboard: Server, environment: dict[str, str]
):
    page = opened(signed_in, dashboard)
    pending = events_in(page, "pending")
    assert pending > 0
    assert events_in(page, "confirmed") == 0
    # preview
    page.get_by_role("button", name="Preview a push").click()
    send = page.get_by_role("button", name=re.compile(r"Send [\d,]+ meter events?: [\d,]+ credits \(\$"))
    expect(send).to_be_visible(timeout=WORK_TIMEOUT_MS)
    expect(page.get_by_text(re.compile(r"A push would send [\d,]+ meter events? with"))).to_be_visible()
    assert events_in(page, "pending") == pending
    # push
    send.click()
    expect(page.get_by_text(re.compile(r"The push by ada ended .* credits delivered"))).to_be_visible(
        timeout=WORK_TIMEOUT_MS
    )
    settle(page)
    assert events_in(page, "pending") < pending
    assert events_in(page, "processed") + events_in(page, "confirmed") > 0
    expect(section(page, "sync-stage-all").get_by_text("✓ equals the whole ledger")).to_be_visible()
    # reconcile
    reconcile(page)
    expect(page.get_by_text("0 unexplained credits: every difference has its cause.")).to_be_visible()
    # drill down
    with closing(BillingService(load_settings(environment, env_file=None))) as service:
        found = service.stripe.last_reconciliation(EVERYONE)
    assert found is not None
    row = next(row for row in found.rows if row.differs and row.parts[0].event_ids)
    click_cell(page, heat_grid(found, Measure.LANGFUSE_STRIPE), row)
    closer_look = section(page, "sync-closer-look")
    expect(closer_look.get_by_text(f"{row.day} UTC")).to_be_visible()
    settle(page)
    event_id = row.parts[0].event_ids[0]
    closer_look.locator("summary").first.click()
    closer_look.get_by_role("link", name=event_id).click()
    drawer = page.get_by_role("dialog")
    expect(drawer.get_by_text(event_id).first).to_be_visible()
    page.close()


def test_finance_reads_the_page_and_finds_no_button_that_acts(chromium: Browser, dashboard: Server):
    context = context_of(chromium, dashboard, "fay")
    page = opened(context, dashboard)
    expect(page.get_by_text("Only admins can push, retry, hold and release")).to_be_visible()
    expect(page.get_by_role("button", name="Preview a push")).to_have_count(0)
    expect(page.get_by_role("button", name="Hold…")).to_have_count(0)
    answer = page.request.get(f"{dashboard.url}/download/sync-problems.csv")
    assert answer.status == 200
    assert answer.text().startswith("cause,title,")
    context.close()


@pytest.mark.matrix
@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
def test_screen_readers_can_use_the_page_and_nothing_but_tables_is_too_wide(
    signed_in: BrowserContext, dashboard: Server, theme: str, width: int
):
    page = signed_in.new_page()
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 1000})
    page.goto(f"{dashboard.url}/stripe_sync")
    drawn(page)
    expect_nothing_wider(page)
    faults = {fault["id"]: fault["nodes"] for fault in Axe().run(page).response["violations"]}
    assert faults == {}
    page.close()
