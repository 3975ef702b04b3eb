"""From `streamlit run` to a usable sign-in form, against the same for an empty Streamlit app.

    python -m benchmarks.start_to_form [--rounds N]

Both are started in turn, each in a new process, and opened at once in a Chromium that is already running but has
nothing cached. Prints the medians in seconds; the target is at most one second between them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[1]
EMPTY_APP = 'import streamlit as st\nst.title("Hello")\n'


def seconds_to_show(browser: Browser, script: Path, selector: str) -> float:
    """Wall time from starting the process to `selector` being visible."""
    environment = {**os.environ, "BILLING_MODE": "demo", "PYTHONUNBUFFERED": "1"}
    context = browser.new_context()
    page = context.new_page()
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "streamlit", "run", str(script), "--server.port", "0"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None  # noqa: S101 - for the type checker
    try:
        address = next(found[0] for line in process.stdout if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
        page.goto(address)
        page.locator(selector).wait_for()
        return time.perf_counter() - begun
    finally:
        process.terminate()
        process.communicate()
        context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        empty = Path(folder) / "empty.py"
        empty.write_text(EMPTY_APP, encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        hello, form = [], []
        for _ in range(rounds):
            hello.append(seconds_to_show(browser, empty, "h1"))
            form.append(seconds_to_show(browser, ROOT / "app.py", "input[type=password]"))
        browser.close()
    base, ours = statistics.median(hello), statistics.median(form)
    print(f"empty app {base:.2f} s, sign-in form {ours:.2f} s, difference {ours - base:.2f} s (target 1 s)")


if __name__ == "__main__":
    main()
