"""What a person waits for in Chromium, above an empty Streamlit app measured in the same run.

python -m benchmarks.browser LEDGER     (a ledger made by benchmarks.fill; needs chromium)
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from billing_core.auth.users import UserFile

ROOT = Path(__file__).resolve().parent.parent
EMPTY_APP = """
import streamlit as st
st.selectbox("Choice", ["a", "b"], key="choice")
st.write("ready " + st.session_state.choice)
"""
USER, PASSWORD = "bench", "bench-password"
COOKIE_KEY = "0123456789abcdefghijklmnopqrstuvwxyz"
STARTS = 3
CHANGES = 8
READING_MILLISECONDS = 5000
"""A person needs as long to type name and password; the server uses it to get ready."""
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
RANGE = re.compile(r"^[\d,]+–[\d,]+ of [\d,]+ events$")
SETTLED = "[data-testid=stApp][data-test-script-state=notRunning]"


def measure(ledger: Path) -> dict[str, Any]:
    """Milliseconds, medians: start to form, sign-in to table, filter change, each beside the empty app."""
    chromium = next(
        (p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None
    )
    if chromium is None:
        return {"skipped": "no chromium here"}
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        UserFile(Path(folder) / "credentials.yaml").add(USER, password=PASSWORD, role="admin")
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        empty = Path(folder) / "empty.py"
        empty.write_text(EMPTY_APP)
        starts: dict[str, list[float]] = {"empty": [], "ours": []}
        for _ in range(STARTS):
            starts["empty"].append(_start(browser, str(empty), "text=ready a", folder, ledger))
            starts["ours"].append(_start(browser, str(ROOT / "app.py"), "input[type=password]", folder, ledger))
        with server(str(empty), folder, ledger) as url:
            until_up(url)
            page = browser.new_page()
            page.goto(url)
            page.wait_for_selector("text=ready a")
            empty_changes = [_change_empty(page, "b" if n % 2 == 0 else "a") for n in range(CHANGES)]
        signed_in, organizations = [], []
        for _ in range(STARTS - 1):
            with server(str(ROOT / "app.py"), folder, ledger) as url:
                page = browser.new_page(viewport={"width": 1440, "height": 1000})
                signed_in.append(_sign_in(page, url))
                organizations.append(_open_organizations(page))
        with server(str(ROOT / "app.py"), folder, ledger) as url:
            page = browser.new_page(viewport={"width": 1440, "height": 1000})
            signed_in.append(_sign_in(page, url))
            changes = [_change_filter(page, days) for days in ("Last 7 days", "Last 30 days") * (CHANGES // 2)]
            organizations.append(_open_organizations(page))
        browser.close()
    median = {name: statistics.median(values) for name, values in starts.items()}
    figures = {
        "start_to_form_ms": median["ours"],
        "start_to_form_empty_app_ms": median["empty"],
        "sign_in_to_table_ms": statistics.median(signed_in),
        "organization_page_ms": statistics.median(organizations),
        "filter_change_ms": statistics.median(changes),
        "filter_change_empty_app_ms": statistics.median(empty_changes),
    }
    return {name: round(value) for name, value in figures.items()} | {"sign_ins_ms": str([round(s) for s in signed_in])}


@contextmanager
def server(script: str, folder: str, ledger: Path) -> Iterator[str]:
    """`streamlit run` on a free port; yields its address at once, before it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LANGFUSE", "STRIPE", "BILLING"))}
    environment |= {
        "BILLING_MODE": "live",
        "BILLING_WAREHOUSE_URL": f"duckdb:///{ledger}",
        "PYTHONPATH": str(ROOT),
        "BILLING_COOKIE_KEY": COOKIE_KEY,
        "BILLING_CREDENTIALS": f"{folder}/credentials.yaml",
    }
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "streamlit",
            "run",
            script,
            "--server.port",
            str(port),
            "--server.headless",
            "true",
            "--browser.gatherUsageStats",
            "false",
            "--server.fileWatcherType",
            "none",
        ],
        cwd=ROOT if script.endswith("app.py") else folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait(20)


def _start(browser: Any, script: str, awaited: str, folder: str, ledger: Path) -> float:
    """From `streamlit run` to the first useful thing on the screen."""
    page = browser.new_page()
    began = time.perf_counter()
    with server(script, folder, ledger) as url:
        until_up(url)
        page.goto(url)
        page.wait_for_selector(awaited)
        taken = (time.perf_counter() - began) * 1000
        page.close()
    return taken


def until_up(url: str) -> None:
    for _ in range(3000):
        try:
            urllib.request.urlopen(url + "_stcore/health", timeout=1).read()  # noqa: S310  (our own loopback server)
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise TimeoutError(url)


def _sign_in(page: Page, url: str) -> float:
    until_up(url)
    page.goto(url)
    page.get_by_label("Username").wait_for()
    page.wait_for_timeout(READING_MILLISECONDS)
    page.get_by_label("Username").fill(USER)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    began = time.perf_counter()
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_selector("[data-testid=stDataFrame]")
    taken = (time.perf_counter() - began) * 1000
    page.wait_for_selector(SETTLED)
    return taken


def _open_organizations(page: Page) -> float:
    """From the click on its link until tiles and table of the last 30 days stand there; nothing is remembered yet."""
    began = time.perf_counter()
    page.get_by_role("link", name="Organization Stats").click()
    page.get_by_role("heading", name="Organization Stats").wait_for()
    page.get_by_text("reconciles to Usage Events").wait_for()
    page.wait_for_selector("[data-testid=stDataFrame]")
    page.wait_for_selector(".st-key-org-paging")
    return (time.perf_counter() - began) * 1000


def _change_empty(page: Page, option: str) -> float:
    page.get_by_label("Choice").click()
    choice = page.get_by_role("option", name=option, exact=True)
    choice.wait_for()
    began = time.perf_counter()
    choice.click()
    page.wait_for_selector(f"text=ready {option}")
    return (time.perf_counter() - began) * 1000


def _change_filter(page: Page, option: str) -> float:
    """Until the range text above the table names the new count."""
    before = page.get_by_text(RANGE).first.inner_text()
    page.get_by_role("combobox", name="Period").click()
    choice = page.get_by_role("option", name=option, exact=True)
    choice.wait_for()
    began = time.perf_counter()
    choice.click()
    page.wait_for_function(
        "before => ![...document.querySelectorAll('*')].some(e => e.children.length === 0 && e.textContent === before)",
        arg=before,
    )
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]).resolve())))
