from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser.server import PROBE, Server, serving

EXPECT_TIMEOUT_MS = 20_000

expect.set_options(timeout=EXPECT_TIMEOUT_MS)  # five seconds are too few for two busy cores


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, else the one Playwright has downloaded.

    Per module: Playwright keeps an event loop running in this thread, in which other tests could not start theirs.
    """
    with sync_playwright() as playwright:
        installed = shutil.which("chromium")
        if installed is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip("no Chromium: browser tests need `apt install chromium` or `playwright install chromium`")
        browser = playwright.chromium.launch(executable_path=installed, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def warm_context(chromium: Browser) -> Iterator[BrowserContext]:
    """A browser that keeps what pages load, their scripts above all, and nothing else from test to test."""
    context = chromium.new_context()
    context.set_default_timeout(EXPECT_TIMEOUT_MS)
    yield context
    context.close()


@pytest.fixture
def context(warm_context: BrowserContext) -> Iterator[BrowserContext]:
    """A browser without any cookie or other memory of earlier pages."""
    yield warm_context
    for page in warm_context.pages:
        if page.url.startswith("http"):
            page.evaluate("localStorage.clear()")
        page.close()
    warm_context.clear_cookies()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sign-in file of `probe`."""
    return tmp_path_factory.mktemp("config") / "credentials.yaml"


@pytest.fixture(scope="session")
def probe(credentials: Path) -> Iterator[Server]:
    """The dashboard's entry with the probe's pages, in demo mode."""
    with serving(PROBE, {"BILLING_MODE": "demo", "BILLING_CREDENTIALS": str(credentials)}) as server:
        yield server
