"""Makes the pictures of README and docs: demo data in Chromium, as an admin sees it. `make pictures` runs it."""

from __future__ import annotations

import shutil
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.browser.server import DASHBOARD, serving
from tests.browser.steps import settle, sign_in

FOLDER = Path(__file__).parent / "images"
WIDTH, HEIGHT = 1440, 1000
PICTURES = {
    "usage-events": "",
    "explore": "?view=explore&by=model&grain=day&then=credit_type",
    "organization-stats": "organization_stats",
    "stripe-sync": "stripe_sync",
    "months": "month_close",
}
"""Each picture's file and the address it shows."""

READ = "Langfuse read"
"""Stands beside a page's title once the demo's events have been read."""

DRAWING_MS = 3_000
"""Charts and maps draw for a moment after the page has settled."""


def take(page: Page, url: str) -> None:
    """Take every picture from a dashboard at `url`."""
    page.goto(url)
    sign_in(page, "admin", "admin-demo")
    page.get_by_text(READ).wait_for(timeout=180_000)
    for name, address in PICTURES.items():
        page.goto(f"{url}/{address}")
        page.get_by_role("heading", level=1).wait_for()
        settle(page)
        page.wait_for_timeout(DRAWING_MS)
        settle(page)
        page.screenshot(path=FOLDER / f"{name}.png")


def main() -> None:
    """Start a dashboard on demo data and take the pictures."""
    with (
        serving(DASHBOARD, {"BILLING_MODE": "demo", "BILLING_DEMO_EVENTS": "20000"}) as server,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        take(browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}), server.url)
        browser.close()


if __name__ == "__main__":
    main()
