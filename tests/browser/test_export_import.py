"""Journeys over the Export and import page that only a browser can make: files down and up, the dialog, phones."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from billing_core.auth.users import UserFile
from billing_core.runtime import clock
from tests.browser.org_steps import credits_in, events_credits
from tests.browser.server import DASHBOARD, Server, serving
from tests.browser.steps import expect_nothing_wider, open_user_menu, settle, signed_in_at
from tests.browser.usage_steps import choose
from tests.factories import ledger_at, usage_row

PASSWORD = "correct horse battery"
WORK_TIMEOUT_MS = 60_000

STREAMLITS_OWN = 'data-testid="stFileUploaderDropzone"'
"""Its box for uploads says "presentation" and can be focused by scripts; the button in it is what people use."""

MIDDLE_OF_LAST_MONTH = datetime.combine(
    (clock.now().date().replace(day=1) - timedelta(days=1)).replace(day=15), time(12), UTC
)


def numbered(number: int) -> dict:
    """Forty events of last month, ten of now; their credits differ."""
    now = clock.now() - timedelta(minutes=number)
    return usage_row(
        id=f"e{number:02}",
        timestamp=now if number > 40 else MIDDLE_OF_LAST_MONTH - timedelta(hours=number),
        latency_seconds=60 * (number % 7 + 1),
        organization_id=f"org_{number % 3}",
        customer_id=f"cus_{number % 3}",
        chatflow_name="=Support; *bold*" if number == 5 else "Support",
    )


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("transfer")
    ledger_at(folder / "billing.duckdb", [numbered(n) for n in range(1, 51)]).engine.close()
    accounts = UserFile(folder / "credentials.yaml")
    for name, role in (("ada", "admin"), ("fay", "finance"), ("ann", "analyst")):
        accounts.add(name, password=PASSWORD, role=role)
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
    return signed_in_at(chromium, f"{dashboard.url}/export_import", name, PASSWORD)


@pytest.fixture(scope="module")
def finance(chromium: Browser, dashboard: Server) -> Iterator[BrowserContext]:
    context = context_of(chromium, dashboard, "fay")
    yield context
    context.close()


@pytest.fixture(scope="module")
def admin(chromium: Browser, dashboard: Server) -> Iterator[BrowserContext]:
    context = context_of(chromium, dashboard, "ada")
    yield context
    context.close()


def opened(context: BrowserContext, dashboard: Server, query: str = "", **size: int) -> Page:
    """A new tab at the page, drawn to its figures."""
    page = context.new_page()
    if size:
        page.set_viewport_size({"height": 1000, **size})
    page.goto(f"{dashboard.url}/export_import{query}")
    drawn(page)
    return page


def drawn(page: Page) -> None:
    last = page.get_by_text("Preview:").or_(page.get_by_role("heading", name="Earlier imports"))
    expect(last.first).to_be_visible(timeout=WORK_TIMEOUT_MS)
    settle(page)


def rows_and_credits(place: Page | Locator) -> tuple[int, Decimal]:
    """What the preview says."""
    text = place.locator("p", has_text="Preview:").inner_text()
    rows = re.search(r"([\d,]+) rows?", text)
    assert rows is not None
    return int(rows[1].replace(",", "")), credits_in(text)


def export(place: Page | Locator) -> None:
    place.get_by_role("button", name=re.compile(r"^Export [\d,]+ rows?$")).click()
    expect(place.get_by_text(re.compile("is ready: "))).to_be_visible(timeout=WORK_TIMEOUT_MS)


def downloaded(page: Page, name: str) -> bytes:
    """What a link of the finished export leads to."""
    link = page.get_by_role("link", name=name).get_attribute("href")
    answer = page.request.get("://".join(urlsplit(page.url)[:2]) + link)
    assert answer.status == 200, answer.text()
    return answer.body()


def table(file: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.decode())))


def credits_of(rows: list[dict[str, str]]) -> Decimal:
    return sum((Decimal(row["credits_total"]) for row in rows), Decimal(0))


def as_csv(rows: list[dict[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys())
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def last_month(context: BrowserContext, dashboard: Server) -> bytes:
    page = opened(context, dashboard, "?span=Last+month")
    export(page)
    file = downloaded(page, "Download the file")
    page.close()
    return file


def upload(page: Page, name: str, file: bytes) -> None:
    page.locator("input[type=file]").set_input_files({"name": name, "mimeType": "text/csv", "buffer": file})
    expect(page.get_by_text(re.compile(rf"^{re.escape(name)}: "))).to_be_visible(timeout=WORK_TIMEOUT_MS)
    settle(page)


def expect_counts(page: Page, **counts: int) -> None:
    """The tiles of a dry run."""
    tiles = page.locator(".st-key-import-counts")
    for label, value in counts.items():
        tile = tiles.get_by_test_id("stMetric").filter(has_text=re.compile(f"^{label.capitalize()}"))
        expect(tile.get_by_test_id("stMetricValue")).to_have_text(f"{value:,}")


def usage_credits(context: BrowserContext, dashboard: Server) -> Decimal:
    """What Usage Events adds up to for last month."""
    page = context.new_page()
    page.goto(f"{dashboard.url}/?period=Last+month")
    found = events_credits(page)
    page.close()
    return found


def test_last_month_as_csv_ties_out_with_the_screen_and_with_usage_events(finance: BrowserContext, dashboard: Server):
    page = opened(finance, dashboard)
    choose(page, "Period", "Last month")
    expect(page.get_by_text("Preview: 40 rows")).to_be_visible()
    settle(page)
    assert parse_qs(urlsplit(page.url).query) == {"span": ["Last month"]}
    rows, credits_ = rows_and_credits(page)
    export(page)
    expect(page.get_by_text("The file's totals equal the preview's.")).to_be_visible()
    file = downloaded(page, "Download the file")
    found = table(file)
    assert (len(found), credits_of(found)) == (rows, credits_)
    assert next(row for row in found if row["id"] == "e05")["chatflow_name"] == "'=Support; *bold*"
    digest = hashlib.sha256(file).hexdigest()
    expect(page.get_by_text(digest)).to_be_visible()
    manifest = json.loads(downloaded(page, "Manifest"))
    assert (manifest["sha256"], manifest["rows"], manifest["timezone"]) == (digest, 40, "Europe/Berlin")
    assert Decimal(manifest["totals"]["credits_total"]) == credits_
    page.close()
    assert usage_credits(finance, dashboard) == credits_


@pytest.mark.matrix
def test_a_shared_address_opens_the_same_export_and_a_reload_keeps_it(finance: BrowserContext, dashboard: Server):
    page = opened(finance, dashboard, "?dataset=organizations&format=xlsx&span=All+time")
    expect(page.get_by_text("Preview: 3 rows")).to_be_visible()
    page.reload()
    expect(page.get_by_text("Preview: 3 rows")).to_be_visible()
    export(page)
    assert downloaded(page, "Download the file")[:2] == b"PK"
    page.close()


@pytest.mark.matrix
def test_a_focus_file_comes_with_its_metadata(finance: BrowserContext, dashboard: Server):
    page = opened(finance, dashboard, "?format=focus&span=Last+month")
    rows, credits_ = rows_and_credits(page)
    export(page)
    found = table(downloaded(page, "Download the file"))
    assert len(found) == rows
    assert sum((Decimal(row["PricingQuantity"]) for row in found), Decimal(0)) == credits_
    metadata = json.loads(downloaded(page, "FOCUS metadata"))
    assert "1.2" in json.dumps(metadata)
    page.close()


def test_the_dialog_takes_over_the_filter_of_usage_events_and_stays_open_until_the_file_is_there(
    finance: BrowserContext, dashboard: Server
):
    page = finance.new_page()
    page.goto(f"{dashboard.url}/?period=Last+month&organization=org_1")
    shown = events_credits(page)
    open_user_menu(page)
    page.get_by_role("button", name="Export…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("Preview:")).to_be_visible(timeout=WORK_TIMEOUT_MS)
    expect(dialog.get_by_text("Organization: org_1")).to_be_visible()
    assert rows_and_credits(dialog)[1] == shown
    export(dialog)
    found = table(downloaded(page, "Download the file"))
    assert {row["organization_id"] for row in found} == {"org_1"}
    assert credits_of(found) == shown
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    settle(page)
    assert parse_qs(urlsplit(page.url).query) == {"period": ["Last month"], "organization": ["org_1"]}
    page.close()


def test_analysts_are_offered_usage_events_and_nothing_else_and_foreign_files_are_not_theirs(
    chromium: Browser, finance: BrowserContext, dashboard: Server
):
    page = opened(finance, dashboard, "?span=Last+month")
    export(page)
    theirs = page.get_by_role("link", name="Download the file").get_attribute("href")
    page.close()
    context = context_of(chromium, dashboard, "ann")
    page = opened(context, dashboard, "?view=import&dataset=bundle")
    page.get_by_role("combobox", name="Data set", exact=True).click()
    expect(page.get_by_role("option")).to_have_text(["Usage events"])
    page.keyboard.press("Escape")
    expect(page.get_by_role("tab")).to_have_count(0)
    expect(page.locator("input[type=file]")).to_have_count(0)
    export(page)
    assert page.request.get(dashboard.url + theirs).status == 404
    context.close()


def test_a_changed_file_is_shown_imported_and_taken_back(admin: BrowserContext, dashboard: Server):
    before = usage_credits(admin, dashboard)
    rows = table(last_month(admin, dashboard))
    rows[0]["chatflow_name"] = "Renamed *here*"
    rows.append({**rows[1], "id": "new-1", "trace_url": rows[1]["trace_url"].replace(rows[1]["id"], "new-1")})
    added = Decimal(rows[1]["credits_total"])
    page = opened(admin, dashboard, "?view=import")
    upload(page, "october.csv", as_csv(rows))
    expect_counts(page, new=1, changed=1, unchanged=39, rejected=0)
    expect(page.get_by_text(f"Totals change by +1 event, +{added} credits")).to_be_visible()
    assert usage_credits(admin, dashboard) == before
    page.get_by_role("button", name="Import…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Import 1 new and 1 changed events").click()
    expect(page.get_by_text("It can be undone below")).to_be_visible(timeout=WORK_TIMEOUT_MS)
    expect(dialog).to_be_hidden()
    assert usage_credits(admin, dashboard) == before + added
    upload(page, "october.csv", as_csv(rows))
    expect(page.get_by_text("Everything in this file is already in the ledger")).to_be_visible()
    discard = page.get_by_role("button", name="Discard")
    discard.click()
    expect(discard).to_have_count(0)
    settle(page)  # a list that is open closes when the page is drawn anew
    page.get_by_role("combobox", name="Undo an import").click()
    page.get_by_role("option", name=re.compile("october")).click()
    settle(page)
    page.get_by_role("button", name="Undo…").click()
    page.get_by_role("dialog").get_by_role("button", name="Undo the import").click()
    expect(page.get_by_text("1 event removed, 1 event restored")).to_be_visible(timeout=WORK_TIMEOUT_MS)
    page.close()
    assert usage_credits(admin, dashboard) == before


@pytest.mark.matrix
def test_rows_that_cannot_be_used_are_named_and_nothing_is_imported(admin: BrowserContext, dashboard: Server):
    rows = table(last_month(admin, dashboard))
    rows[3]["tokens_in"] = "-5"
    page = opened(admin, dashboard, "?view=import")
    upload(page, "broken.csv", as_csv(rows))
    expect_counts(page, new=0, rejected=1)
    expect(page.get_by_text("Nothing is imported until they are corrected")).to_be_visible()
    expect(page.get_by_role("button", name="Import…")).to_have_count(0)
    with page.expect_download() as download:
        page.get_by_role("button", name="Rejected rows (CSV)").click()
    (rejected,) = csv.DictReader(io.StringIO(Path(download.value.path()).read_text()))
    assert (rejected["row"], rejected["field"]) == ("4", "tokens_in")
    page.close()


@pytest.mark.matrix
@pytest.mark.parametrize("query", ["", "?dataset=bundle", "?format=focus"])
def test_on_a_phone_nothing_but_tables_scrolls_sideways(admin: BrowserContext, dashboard: Server, query: str):
    page = opened(admin, dashboard, query, width=390)
    expect_nothing_wider(page)
    page.close()


@pytest.mark.matrix
@pytest.mark.parametrize(("theme", "width"), [("light", 1440), ("dark", 390)])
@pytest.mark.parametrize("query", ["?span=All+time", "?view=import"])
def test_screen_readers_can_use_the_page_and_nothing_but_tables_is_too_wide(
    admin: BrowserContext, dashboard: Server, theme: str, width: int, query: str
):
    page = admin.new_page()
    page.emulate_media(color_scheme=theme)
    page.set_viewport_size({"width": width, "height": 1000})
    page.goto(f"{dashboard.url}/export_import{query}")
    drawn(page)
    expect_nothing_wider(page)
    if "import" not in query:
        export(page)
        settle(page)
    faults = {
        (fault["id"], node["html"])
        for fault in Axe().run(page).response["violations"]
        for node in fault["nodes"]
        if STREAMLITS_OWN not in node["html"]
    }
    assert faults == set()
    page.close()
