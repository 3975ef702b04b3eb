"""What a first visit loads and how long it takes until the table is painted, beside a bare grid in an empty app.

python -m benchmarks.first_visit LEDGER     (a ledger made by benchmarks.fill; needs chromium)
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from benchmarks.browser import CHROMIUM_FLAGS, PASSWORD, ROOT, USER, server, until_up
from billing_core.auth.users import UserFile

GRID_APP = """
import streamlit as st
st.dataframe([{"Time": f"2026-11-{n:02}", "Credits": n * 100, "Chatflow": "Ticket triage"} for n in range(1, 26)])
"""
GRID = "[data-testid=stDataFrame] canvas"
ROUNDS = 3
TEN_MBIT = {"offline": False, "latency": 40, "downloadThroughput": 10e6 / 8, "uploadThroughput": 10e6 / 8}


@dataclass
class Wire:
    """What a page has loaded so far: answers, and bytes as they crossed the wire."""

    requests: int = 0
    bytes: float = 0

    def count(self, event: dict[str, Any]) -> None:
        self.requests += 1
        self.bytes += event["encodedDataLength"]


def measure(ledger: Path) -> dict[str, Any]:
    """Medians: milliseconds from the address to the painted table, cold and warm, and what was loaded until then."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return {"skipped": "no chromium here"}
    figures: dict[str, Any] = {}
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        UserFile(Path(folder) / "credentials.yaml").add(USER, password=PASSWORD, role="admin")
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        empty = Path(folder) / "grid.py"
        empty.write_text(GRID_APP)
        with server(str(empty), folder, ledger) as bare, server(str(ROOT / "app.py"), folder, ledger) as ours:
            until_up(bare)
            until_up(ours)
            cookies = _signed_in(browser, ours)
            for speed, conditions in (("", None), ("_10_mbit", TEN_MBIT)):
                for name, url in (("grid_in_an_empty_app", bare), ("usage_events", ours)):
                    visits = [_visit(browser, url, cookies if url == ours else [], conditions) for _ in range(ROUNDS)]
                    figures[f"{name}{speed}"] = {
                        key: round(statistics.median(visit[key] for visit in visits)) for key in visits[0]
                    }
        browser.close()
    return figures


def _signed_in(browser: Browser, url: str) -> list[Any]:
    context = browser.new_context()
    page = context.new_page()
    page.goto(url)
    page.get_by_label("Username").fill(USER)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    with page.expect_response("**/auth/cookie/*"):
        page.get_by_role("button", name="Sign in").click()
    page.wait_for_selector(GRID)
    cookies = context.cookies()
    context.close()
    return cookies


def _visit(browser: Browser, url: str, cookies: list[Any], conditions: dict[str, Any] | None) -> dict[str, float]:
    context: BrowserContext = browser.new_context(viewport={"width": 1440, "height": 1000})
    context.add_cookies(cookies)
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Network.enable")
    if conditions is not None:
        session.send("Network.emulateNetworkConditions", conditions)
    wire = Wire()
    session.on("Network.loadingFinished", wire.count)
    cold = _until_painted(page, lambda: page.goto(url, wait_until="commit"))
    loaded = Wire(wire.requests, wire.bytes)
    page.wait_for_timeout(3_000)
    warm = _until_painted(page, lambda: page.reload(wait_until="commit"))
    context.close()
    return {"cold_ms": cold, "warm_ms": warm, "kilobytes": loaded.bytes / 1000, "requests": loaded.requests}


def _until_painted(page: Page, go: Any) -> float:
    began = time.perf_counter()
    go()
    page.wait_for_selector(GRID)
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]).resolve()), indent=1))
