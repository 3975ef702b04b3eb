"""Sign-in as a browser sees it: cookies, tabs, addresses and what a page may load."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, expect

from billing_core.auth.users import UserFile
from billing_core.web.moved import MOVED
from tests.browser.server import DASHBOARD, PROBE, ROOT, serving
from tests.browser.steps import expect_form, expect_page, fill_in_form, open_user_menu, settle, sign_in, sign_out

PAGES = sorted(path.stem for path in (ROOT / "pages").glob("*.py"))
DEMO = {"BILLING_MODE": "demo"}


def expect_nothing_but_the_form(page):
    expect_form(page)
    shown = {heading.inner_text() for heading in page.locator("h1, h2, h3").all()}
    assert shown <= {"Billing", "Page not found"}
    assert page.get_by_test_id("stDataFrame").count() == 0


def test_anonymous_visitors_of_a_fresh_server_see_the_form_at_every_address(context, tmp_path):
    """The first one opens an address inside; `/` opened first is the next test's."""
    with serving(DASHBOARD, {**DEMO, "BILLING_CREDENTIALS": str(tmp_path / "none.yaml")}) as fresh:
        for address in (*(f"/{page}" for page in PAGES), *(f"/export_import?view={view}" for view in MOVED), "/"):
            page = context.new_page()
            page.goto(fresh.url + address)
            expect_nothing_but_the_form(page)
            page.close()
            context.clear_cookies()


def test_the_dashboard_opens_on_usage_events_after_signing_in(page, tmp_path):
    environment = {
        **DEMO,
        "BILLING_CREDENTIALS": str(tmp_path / "none.yaml"),
        "BILLING_WAREHOUSE_URL": f"duckdb:///{tmp_path}/billing.duckdb",
    }
    with serving(DASHBOARD, environment) as dashboard:
        page.goto(dashboard.url)
        expect_nothing_but_the_form(page)
        sign_in(page, "finance", "finance-demo")
        expect_page(page, "Usage Events")


def test_an_anonymous_visitor_sees_the_form_at_every_address_of_the_probe(page, probe):
    for address in ("/", "/second", "/finance_only", "/failing"):
        page.goto(probe.url + address)
        expect_form(page)


def test_one_sign_in_lasts_over_reloads_tabs_and_deep_links_by_a_cookie_out_of_reach_for_scripts(page, context, probe):
    page.goto(probe.url)
    sign_in(page, "finance", "finance-demo")
    (cookie,) = [cookie for cookie in context.cookies() if cookie["name"] == "billing_session"]
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Lax", "/")
    assert "billing_session" not in page.evaluate("document.cookie")
    page.reload()
    expect_page(page, "Probe")
    other = context.new_page()
    other.goto(probe.url + "/second?other=42")
    expect_page(other, "Second")
    expect(other.get_by_text("secret figures, other=42")).to_be_visible()
    assert other.url == probe.url + "/second?other=42"


@pytest.mark.matrix
def test_a_deep_link_opened_before_signing_in_leads_to_its_page_and_filters(page, probe):
    page.goto(probe.url + "/second?other=42")
    expect_form(page)
    sign_in(page, "finance", "finance-demo")
    expect_page(page, "Second")
    expect(page.get_by_text("secret figures, other=42")).to_be_visible()
    assert page.url == probe.url + "/second?other=42"


def test_filters_in_the_address_survive_signing_in_and_out(page, probe):
    page.goto(probe.url + "/usage_events?customer=cus_1&other=42")
    expect_form(page)
    sign_in(page, "finance", "finance-demo")
    expect(page.get_by_label("Customer")).to_have_value("cus_1")
    expect(page.get_by_text("secret figures of finance, other=42")).to_be_visible()
    assert urlsplit(page.url).query == "customer=cus_1&other=42"
    sign_out(page)
    sign_in(page, "admin", "admin-demo")
    expect(page.get_by_label("Customer")).to_have_value("cus_1")


def test_the_second_tab_loses_access_with_its_next_click_after_signing_out_in_the_first(page, context, probe):
    page.goto(probe.url)
    sign_in(page, "finance", "finance-demo")
    other, third = context.new_page(), context.new_page()
    other.goto(probe.url)
    third.goto(probe.url)
    expect_page(other, "Probe")
    expect_page(third, "Probe")
    sign_out(page)
    other.get_by_role("button", name="Next page").click()  # lies in a fragment, which main.py does not see
    expect_form(other)
    expect(other.get_by_text("Your session has ended.")).to_be_visible()
    third.get_by_role("link", name="Second").click()
    expect_form(third)


def test_a_cookie_kept_from_before_signing_out_is_refused(page, context, chromium, probe):
    page.goto(probe.url)
    sign_in(page, "finance", "finance-demo")
    stolen = context.cookies()
    sign_out(page)
    assert "billing_session" not in {cookie["name"] for cookie in context.cookies()}
    thief = chromium.new_context()
    thief.add_cookies(stolen)
    replay = thief.new_page()
    replay.goto(probe.url)
    expect_form(replay)
    thief.close()


@pytest.mark.matrix
def test_signing_in_again_in_the_same_tab_works_as_often_as_wanted(page, probe):
    page.goto(probe.url)
    for _ in range(3):
        sign_in(page, "finance", "finance-demo")
        page.reload()
        expect_page(page, "Probe")
        sign_out(page)
        page.reload()
        expect_form(page)


def test_nothing_of_one_person_is_left_for_the_next_in_the_same_tab(page, probe):
    page.goto(probe.url)
    sign_in(page, "finance", "finance-demo")
    sign_out(page)
    sign_in(page, "analyst-acme", "acme-demo")
    expect(page.get_by_text("secret figures of analyst-acme")).to_be_visible()
    expect(page.get_by_text("secret figures of finance")).to_have_count(0)
    open_user_menu(page)
    expect(page.get_by_text("only org_acme")).to_be_visible()


def test_a_demoted_and_a_removed_person_lose_access_with_the_next_click(page, probe, credentials):
    file = UserFile(credentials)
    file.add("ada", password="correct horse", role="finance")
    page.goto(probe.url + "/finance_only")
    sign_in(page, "ada", "correct horse")
    expect_page(page, "Finance")
    credentials.write_text(credentials.read_text().replace("- finance", "- analyst"))
    page.get_by_role("link", name="Probe").click()
    expect_form(page)
    sign_in(page, "ada", "correct horse")
    expect_page(page, "Probe")
    page.goto(probe.url + "/finance_only")
    expect(page.get_by_text("You need the finance or admin role to view this page.")).to_be_visible()
    expect(page.get_by_text("secret figures")).to_have_count(0)
    file.remove("ada")
    page.get_by_role("link", name="Probe").click()
    expect_form(page)


def test_a_page_for_finance_refuses_an_analyst_by_address_and_by_link(page, probe):
    page.goto(probe.url + "/finance_only")
    sign_in(page, "analyst", "analyst-demo")
    refusal = page.get_by_text("You need the finance or admin role to view this page.")
    expect(refusal).to_be_visible()
    page.get_by_role("link", name="Second").click()
    expect_page(page, "Second")
    page.get_by_role("link", name="Finance").click()
    expect(refusal).to_be_visible()
    expect(page.get_by_text("secret figures")).to_have_count(0)


def test_ten_wrong_passwords_are_throttled_and_the_right_one_has_to_wait_as_well(page, tmp_path):
    with serving(PROBE, {**DEMO, "BILLING_CREDENTIALS": str(tmp_path / "none.yaml")}) as server:
        page.goto(server.url)
        for attempt in range(1, 11):
            fill_in_form(page, "admin", f"wrong horse {attempt}")
            message = (
                "Incorrect username or password." if attempt <= 5 else "Too many attempts. Try again in 15 minutes."
            )
            expect(page.get_by_text(message)).to_be_visible()
            expect(page.get_by_label("Password", exact=True)).to_have_value("")
            settle(page)
        fill_in_form(page, "admin", "admin-demo")
        expect(page.get_by_text("Too many attempts.")).to_be_visible()
        expect_form(page)
        page.reload()
        sign_in(page, "finance", "finance-demo")
        expect_page(page, "Probe")


@pytest.mark.matrix
def test_on_a_phone_the_session_survives_a_reload_as_well(chromium, probe):
    phone = chromium.new_context(viewport={"width": 390, "height": 844}, is_mobile=True)
    page = phone.new_page()
    page.goto(probe.url)
    sign_in(page, "finance", "finance-demo")
    page.reload()
    expect_page(page, "Probe")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    phone.close()


def test_a_fault_in_a_page_is_a_reference_for_the_person_and_a_trace_in_the_log(page, probe):
    page.goto(probe.url + "/failing")
    sign_in(page, "finance", "finance-demo")
    box = page.get_by_text("Something went wrong here")
    expect(box).to_be_visible()
    reference = re.search(r"recorded as ([0-9A-F]{8})", box.inner_text())[1]
    assert "secret detail" not in page.content()
    assert "RuntimeError" not in page.content()
    assert f"reference {reference}" in probe.log
    assert "a secret detail of the fault" in probe.log


def is_complaint(message: ConsoleMessage) -> bool:
    """An error in the browser's console, but for Streamlit's search for its base path, which begins with a 404."""
    return message.type == "error" and not message.location["url"].endswith(("/_stcore/health", "/_stcore/host-config"))


def test_pages_with_charts_and_tables_load_nothing_from_elsewhere_and_break_no_policy(page, probe):
    complaints, hosts = [], set()
    page.on("console", lambda message: complaints.append(message.text) if is_complaint(message) else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    page.goto(probe.url + "/charts")
    sign_in(page, "finance", "finance-demo")
    expect(page.locator(".js-plotly-plot .bars")).to_be_visible()
    expect(page.get_by_test_id("stDataFrame")).to_be_visible()
    assert complaints == []
    assert hosts <= {"127.0.0.1", None, ""}


@pytest.mark.matrix
def test_whoever_signed_in_over_this_very_socket_may_send_more_than_a_stranger(page, probe):
    page.goto(probe.url + "/long_text")
    sign_in(page, "finance", "finance-demo")
    for size in (100_000, 900_000):
        page.get_by_label("Text").fill("x" * size)
        page.get_by_label("Text").blur()
        expect(page.get_by_text(f"{size:,} characters")).to_be_visible()
    page.reload()
    expect(page.get_by_text("0 characters", exact=True)).to_be_visible()
    page.get_by_label("Text").fill("x" * 100_000)
    page.get_by_label("Text").blur()
    expect(page.get_by_text("100,000 characters")).to_be_visible()


@pytest.mark.matrix
def test_a_stranger_who_sends_too_much_is_cut_off_and_gets_the_form_again(page, probe):
    page.goto(probe.url)
    expect_form(page)
    fill_in_form(page, "x" * 100_000, "wrong horse")
    page.reload()
    sign_in(page, "finance", "finance-demo")
    expect_page(page, "Probe")


@pytest.mark.matrix
def test_below_a_base_path_signing_in_works_the_same(page, tmp_path):
    environment = {**DEMO, "BILLING_CREDENTIALS": str(tmp_path / "none.yaml")}
    with serving(PROBE, environment, "--server.baseUrlPath", "team/billing") as server:
        base = server.url if server.url.endswith("/team/billing") else server.url + "/team/billing"
        page.goto(base + "/usage_events?other=42")
        sign_in(page, "finance", "finance-demo")
        expect(page.get_by_text("secret figures of finance, other=42")).to_be_visible()
        page.reload()
        expect_page(page, "Probe")
        sign_out(page)
        assert httpx.get(base.removesuffix("/team/billing") + "/healthz").json() == {"status": "ok"}


@pytest.mark.matrix
def test_in_live_mode_sessions_outlive_a_restart_and_the_form_lists_no_accounts(page, tmp_path):
    environment = {
        "BILLING_MODE": "live",
        "BILLING_COOKIE_KEY": "0123456789 abcdefghijklmnopqrstuvwxyz",
        "BILLING_CREDENTIALS": str(tmp_path / "credentials.yaml"),
        "BILLING_WAREHOUSE_URL": f"duckdb:///{tmp_path}/billing.duckdb",
    }
    UserFile(tmp_path / "credentials.yaml").add("ada", password="correct horse", role="finance")
    with serving(PROBE, environment) as server:
        page.goto(server.url)
        expect_form(page)
        expect(page.get_by_text("analyst-demo")).to_have_count(0)
        sign_in(page, "ada", "correct horse")
    with serving(PROBE, environment) as restarted:
        page.goto(restarted.url)
        expect_page(page, "Probe")


@pytest.mark.matrix
@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"BILLING_LOOKBACK_HOURS": "many"}, "BILLING_LOOKBACK_HOURS:"),
        ({"BILLING_MODE": "live"}, "BILLING_COOKIE_KEY: not set; live mode needs 32 or more random characters"),
        ({"BILLING_COOKIE_KEY": "guessable"}, "BILLING_COOKIE_KEY: too weak"),
    ],
    ids=["unreadable value", "live without a key", "weak key"],
)
def test_with_a_wrong_setting_the_process_serves_and_says_so_in_one_calm_line(page, tmp_path, wrong, line):
    environment = {"BILLING_MODE": "demo", "BILLING_CREDENTIALS": str(tmp_path / "none.yaml"), **wrong}
    with serving(DASHBOARD, environment) as server:
        page.goto(server.url)
        expect(page.get_by_text(line)).to_be_visible()
        expect(page.get_by_role("button", name="Sign in")).to_have_count(0)
        assert "guessable" not in page.content()
        health, ready = httpx.get(server.url + "/healthz"), httpx.get(server.url + "/readyz")
        assert (health.status_code, health.json()) == (200, {"status": "ok"})
        assert (ready.status_code, ready.json()) == (503, {"status": "unavailable", "reason": "SettingsError"})
        assert "guessable" not in server.log


def test_every_answer_of_the_port_carries_the_security_headers_and_metrics_are_closed(probe):
    for path in ("/", "/second", "/healthz", "/_stcore/health", "/_stcore/metrics", "/auth/cookie/guess"):
        headers = httpx.get(probe.url + path).headers
        assert "frame-ancestors 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "strict-transport-security" not in headers
    assert httpx.get(probe.url + "/_stcore/metrics").status_code == 404


@pytest.mark.matrix
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_form_and_menu_have_no_accessibility_fault_axe_can_find(chromium, probe, scheme):
    context = chromium.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(probe.url)
    expect_form(page)
    assert faults(page) == []
    sign_in(page, "finance", "finance-demo")
    assert faults(page) == []
    context.close()


def faults(page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{fault['id']}: {node['target']} {node['failureSummary']}" for fault in found for node in fault["nodes"]]
