"""What a person does, by name."""

from __future__ import annotations

from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import EXPECT_TIMEOUT_MS


def settle(page: Page) -> None:
    """Wait until the script behind the page has finished its run."""
    page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()


def expect_nothing_wider(page: Page) -> None:
    """Nothing scrolls sideways but what scrolls by itself, such as a table."""
    assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
    assert page.locator("[data-testid=stMain]").evaluate("main => main.scrollWidth - main.clientWidth") <= 0


def fill_in_form(page: Page, name: str, password: str) -> None:
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password", exact=True).fill(password)
    page.get_by_role("button", name="Sign in").click()


def sign_in(page: Page, name: str, password: str) -> None:
    """Sign in and wait until the browser holds the cookie."""
    with page.expect_response("**/auth/cookie/*") as answer:
        fill_in_form(page, name, password)
    assert answer.value.status == 200
    settle(page)


def signed_in_at(chromium: Browser, address: str, name: str, password: str) -> BrowserContext:
    """A browser of somebody who signed in at that address."""
    context = chromium.new_context(viewport={"width": 1440, "height": 1000})
    context.set_default_timeout(EXPECT_TIMEOUT_MS)
    page = context.new_page()
    page.goto(address)
    sign_in(page, name, password)
    page.close()
    return context


def open_user_menu(page: Page) -> None:
    """Open the menu at the foot of the sidebar."""
    page.locator(".st-key-user-menu").get_by_role("button").click()


def sign_out(page: Page) -> None:
    open_user_menu(page)
    with page.expect_response("**/auth/cookie/clear?*"):
        page.get_by_role("button", name="Sign out").click()
    expect_form(page)


def expect_form(page: Page) -> None:
    """The form, and nothing of any page."""
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
    settle(page)
    expect(page.locator(".st-key-user-menu")).to_have_count(0)
    expect(page.get_by_text("secret figures")).to_have_count(0)


def expect_page(page: Page, title: str) -> None:
    expect(page.get_by_role("heading", name=title, exact=True)).to_be_visible()
    expect(page.get_by_label("Username")).to_have_count(0)
