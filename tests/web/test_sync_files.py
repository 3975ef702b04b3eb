"""The downloads of the Stripe Sync page: who gets them, and that they hold exact figures and no formulas."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from starlette.applications import Starlette

from billing_core.reconcile.report import Cause, ComparisonStep, CustomerDay, DifferencePart, Reconciliation
from billing_core.stripe_sync.pipeline import Action, Amounts, Problem
from billing_core.stripe_sync.service import StripeSyncService
from billing_core.values.usage_frame import Window
from billing_core.web import wiring
from billing_core.web.downloads import download_routes
from billing_core.web.sync_files import problems_lines, reconciliation_lines
from tests.factories import EVERYONE, ledger_at, usage_row
from tests.stand_ins import replace_method
from tests.web.client import Client, get_as

PROBLEMS, RECONCILIATION = "/download/sync-problems.csv", "/download/reconciliation.csv"
START = datetime(2026, 11, 16, tzinfo=UTC)
LATE = DifferencePart(ComparisonStep.LEDGER_SENT, Cause.LATE, Decimal("0.5"), ("e1", "e2"))
FOREIGN = DifferencePart(ComparisonStep.SENT_STRIPE, Cause.NOT_OURS, Decimal(-3))
ROW = CustomerDay("cus_a", date(2026, 11, 16), Decimal("1.5"), Decimal("1.5"), Decimal(1), Decimal(4), (LATE, FOREIGN))
UNKNOWN = CustomerDay(None, date(2026, 11, 16), None, Decimal(2), Decimal(0), None)
FOUND = Reconciliation(Window(START, START + timedelta(days=1)), START, (ROW, UNKNOWN))


@pytest.fixture
def files(demo):
    ledger_at(wiring.settings().warehouse_path, [usage_row(), usage_row(id="trace-2")]).engine.close()
    return Client(Starlette(routes=download_routes()))


def get(client: Client, path: str, name: str = "finance"):
    return get_as(client, path, name)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("path", [PROBLEMS, RECONCILIATION])
def test_a_download_needs_a_session_and_a_role_that_may_see_it(files, path):
    assert files.get(path).status_code == 401
    refused = get(files, path, "analyst")
    assert refused.status_code == 403
    assert "needs the admin or finance role" in refused.json()["error"]


def test_problems_come_as_a_file_with_exact_figures(files):
    desk = wiring.service().stripe
    desk.decide(EVERYONE, desk.preview(EVERYONE, Action.HOLD), reason="under review")
    answer = get(files, PROBLEMS)
    assert answer.status_code == 200
    assert answer.headers["content-disposition"] == 'attachment; filename="sync-problems.csv"'
    assert answer.headers["cache-control"] == "no-store"
    (held,) = rows(answer.text)
    assert (held["cause"], held["events"], held["credits"], held["amount_usd"]) == ("on_hold", "2", "300", "0.012")
    assert json.loads(held["actions"]) == ["release"]


def test_a_reconciliation_that_was_never_made_is_one_sentence(files):
    answer = get(files, RECONCILIATION)
    assert answer.status_code == 404
    assert answer.json()["error"].startswith("nothing has been reconciled yet")


def test_the_last_reconciliation_comes_row_by_row(files, monkeypatch):
    replace_method(monkeypatch, StripeSyncService, "last_reconciliation", lambda *_: FOUND)
    first, second = rows(get(files, RECONCILIATION).text)
    assert (first["customer_id"], first["day_utc"], first["stripe_credits"]) == ("cus_a", "2026-11-16", "4")
    assert first["unexplained_credits"] == "3"
    assert json.loads(first["causes"]) == ["late", "not_ours"]
    assert json.loads(first["causes_credits"]) == ["0.5", "-3"]
    assert json.loads(first["event_ids"]) == [["e1", "e2"], []]
    assert (second["customer_id"], second["langfuse_credits"], second["ledger_credits"]) == ("", "", "2")


def test_text_that_a_spreadsheet_would_run_is_neutralised():
    problem = Problem("x", "t", "w", '=HYPERLINK("http://evil")', Amounts(1, Decimal(-5), Decimal(0)), 1, ())
    (found,) = rows("".join(problems_lines([problem])))
    assert found["example"] == '\'=HYPERLINK("http://evil")'
    assert found["credits"] == "-5"
    evil = CustomerDay("@cus", ROW.day, Decimal(1), Decimal(1), Decimal(1), Decimal(1))
    text = "".join(reconciliation_lines(Reconciliation(FOUND.window, START, (evil,))))
    assert rows(text)[0]["customer_id"] == "'@cus"
