"""Month end as finance lives it, with real servers: pull, push, close, late usage, proof; and the way back by files."""

import hashlib
import json
from datetime import timedelta

import duckdb
import httpx
import pytest

from billing_core.runtime import clock
from billing_core.sandbox.server import SandboxProcess

TODAY = clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
THIS_MONTH = TODAY.replace(day=1)
LAST_MONTH = (THIS_MONTH - timedelta(days=1)).replace(day=1)
PERIOD = f"{LAST_MONTH:%Y-%m}"
WINDOW = ("--from", f"{LAST_MONTH:%Y-%m-%d}", "--to", f"{THIS_MONTH:%Y-%m-%d}")
SINCE = ("--from", f"{THIS_MONTH:%Y-%m-%d}")


@pytest.fixture(scope="module")
def server():
    """Two months of usage, so that the last month is over whatever day it is."""
    with SandboxProcess(events=250, days=65, seed=5) as running:
        yield running


@pytest.fixture
def books(tmp_path, server, run_command):
    """Commands over one ledger: the document of a command, with the exit code it shall end with.

    Stripe has nothing yet: what another test's ledger sent would be kept back as sent elsewhere.
    """
    httpx.delete(server.environment["STRIPE_API_BASE"] + "/_sandbox/stripe").raise_for_status()
    environment = {**server.environment, "BILLING_MODE": "live"}

    def command(*words, code=0, ledger="billing"):
        where = {"BILLING_WAREHOUSE_URL": f"duckdb:///{tmp_path}/{ledger}.duckdb"}
        found = run_command({**environment, **where}, *words, "--json")
        assert found[0] == code, found
        return json.loads(found[1])

    return command


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_month_is_pulled_pushed_closed_and_proved_and_its_files_stay_the_same(books, tmp_path):
    books("pull", *WINDOW[:2])
    books("push", code=1)
    refused = books("close", PERIOD, code=1)
    assert (refused["ok"], refused["manifest"]) == (False, None)
    causes = sorted({one["cause"] for one in refused["differences"]})
    assert causes
    assert "unsent" not in causes
    export = ("export", "--dataset", "usage-events", "--format", "csv", *WINDOW, "--out")
    before = books(*export, str(tmp_path / "before.csv"))
    assert before["sha256"] == sha256(tmp_path / "before.csv")

    manifest = books("close", PERIOD, "--accept", *causes, "--reason", "made-up data")["manifest"]
    page = books("events", *WINDOW, "--limit", "1")
    assert (manifest["totals"]["events"], manifest["totals"]["credits_total"], manifest["totals"]["amount_usd"]) == (
        page["pagination"]["total_items"],
        page["totals"]["credits"]["total"],
        page["totals"]["amount_usd"],
    )
    assert before["totals"]["credits_total"] == manifest["totals"]["credits_total"]
    assert {one["accepted_by"].startswith("os:") for one in manifest["exceptions"]} == {True}
    assert books("close", PERIOD)["manifest"] == manifest

    books("pull", *WINDOW)
    books("push")
    assert books("verify", PERIOD) == {**books("verify", PERIOD), "ok": True, "differences": []}
    assert books(*export, str(tmp_path / "after.csv"))["sha256"] == before["sha256"]

    with duckdb.connect(str(tmp_path / "billing.duckdb")) as connection:
        connection.execute(
            "UPDATE events SET credits_ai_tokens = credits_ai_tokens + 1 WHERE id = (SELECT min(id) FROM closed_events)"
        )
    assert any("credits_ai_tokens" in one["says"] for one in books("verify", PERIOD, code=1)["differences"])


def test_an_export_of_everything_fills_an_empty_ledger_with_the_same(books, tmp_path):
    books("pull", *WINDOW[:2])
    books("push", code=1)
    out = tmp_path / "all.zip"
    books("export", "--dataset", "bundle", "--out", str(out))
    foretold = books("import", str(out), "--dry-run", ledger="copy")
    assert books("events", ledger="copy")["pagination"]["total_items"] == 0
    brought = books("import", str(out), ledger="copy")
    assert {key: brought[key] for key in ("rows", "new", "changed", "rejected")} == {
        key: foretold[key] for key in ("rows", "new", "changed", "rejected")
    }
    for words in (("events", "--limit", "1000"), ("stats",)):
        first, copy = books(*words), books(*words, ledger="copy")
        for document in (first, copy):
            document.pop("pagination", None)
        assert copy == first
    assert books("import", str(out), ledger="copy")["new"] == 0
    assert books("push", "--dry-run", ledger="copy")["requests"] == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("export", "--dataset", "invoices", "--format", "csv", "--out", "x"), "dataset"),
        (("export", "--dataset", "usage-events", "--format", "pdf", "--out", "x"), "format"),
        (("export", "--dataset", "usage-events", "--out", "x"), "format"),
        (("export", "--dataset", "usage-events", "--format", "csv", "--out", "no/such/folder/x.csv"), "no/such/folder"),
        (
            ("export", "--dataset", "usage-events", "--format", "csv", "--columns", "id,nothing", "--out", "x"),
            "nothing",
        ),
        (("export", "--dataset", "organizations", "--format", "focus", "--out", "x"), "focus"),
        (("export", "--dataset", "usage-events", "--format", "csv", "--timezone", "Mars", "--out", "x"), "Mars"),
        (("import", "nothing.csv"), "nothing.csv"),
        (("close", "2026-13"), "2026-13"),
        (("close", "2200-01"), "2200-01"),
        (("close", PERIOD, "--accept", "everything"), "everything"),
        (("verify", "2020-01"), "2020-01"),
        (("reopen", "2020-01", "--reason", "x"), "2020-01"),
        (("rerate", "--rate-card", "nothing.yaml"), "nothing.yaml"),
        (("undo-import", "nothing"), "nothing"),
    ],
)
def test_wrong_usage_is_exit_2_and_names_what_is_wrong(books, tmp_path, words, says):
    assert says in books(*words, code=2)["error"]
    assert not (tmp_path / "x").exists()


def test_a_ledger_that_was_rated_anew_is_restored_with_the_card_that_applies_no_more(books, tmp_path):
    books("pull", *WINDOW[:2])
    card = tmp_path / "dearer.yaml"
    card.write_text(
        "id: dearer\neffective_from: 2000-01-01\ncredit_price_usd: 0.00004\n"
        "ai: {rates: [{credits_per_1000_tokens: 200}]}\n"
        "compute: {credits_per_minute: 50}\nstorage: {credits_per_gb_month: 500}\n"
    )
    foretold = books("rerate", "--rate-card", str(card))
    assert books("rerate", "--rate-card", str(card), "--apply")["delta_credits"] == foretold["delta_credits"] != "0"
    assert books("rerate", "--rate-card", str(card), "--apply")["delta_credits"] == "0"
    out = tmp_path / "all.zip"
    books("export", "--dataset", "bundle", "--out", str(out))
    assert books("import", str(out), ledger="copy")["rejected"] == []
    assert books("stats", ledger="copy") == books("stats")
