"""The months view as a script sees it, over a ledger whose months can really be closed."""

from __future__ import annotations

import ast
import json
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pytest
from streamlit.testing.v1 import AppTest

from billing_core.access import Principal, Role
from billing_core.errors import UpstreamError
from billing_core.month_close.service import MonthCloseService
from billing_core.reconcile.report import Cause, ComparisonStep, CustomerDay, DifferencePart
from billing_core.runtime import clock
from billing_core.web import jobs, wiring
from billing_core.web.jobs import MonthTask
from components.shared import sign_in
from tests.factories import events_table, ledger_at
from tests.month_close.world import FINANCE, Books, trace
from tests.pages.opening import opened_at
from tests.stand_ins import replace_method

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 11, 3, 9, tzinfo=UTC)
OCTOBER = "2026-10"


class Later(threading.Thread):
    """Work in the background that begins when somebody waits for it: a page drawn before knows nothing of its end."""

    def start(self) -> None:
        pass

    def join(self, timeout: float | None = None) -> None:
        target, self._target = self._target, None
        if target is not None:
            target(*self._args)


class World:
    """Two events of October that were sent, one of November; a clock that stands in November."""

    def __init__(self) -> None:
        november = trace("n1", timestamp=datetime(2026, 11, 2, tzinfo=UTC))
        path = wiring.settings().warehouse_path
        ledger_at(path, [trace("a1"), trace("a2", organization_id="org_b"), november]).engine.close()
        self.service = wiring.service()
        self.books = Books(self.service._ledger)
        self.months = self.service.months
        self.months._stripe, self.months._clock = self.books, lambda: NOW
        self.set_status("processed", "a1", "a2")

    def set_status(self, status: str, *ids: str) -> None:
        with self.service._ledger.engine.transaction() as writer:
            for one in ids:
                writer.rows("UPDATE events SET sync_status = ? WHERE id = ?", [status, one])
            writer.advance("test")

    def rows(self, query: str, *values: object) -> list[tuple]:
        return self.service._ledger.engine.rows(query, list(values))

    def close(self, *accept: str) -> None:
        assert self.months.close(OCTOBER, FINANCE, accept=accept, reason="agreed").ok

    def states(self) -> dict[str, str]:
        return {month.period: month.state.value for month in self.months.months(FINANCE)}


@pytest.fixture(autouse=True)
def world(demo, monkeypatch):
    monkeypatch.setattr(jobs, "threading", SimpleNamespace(Lock=threading.Lock, Thread=Later))
    return World()


def opened(name: str = "finance", **query: str) -> AppTest:
    return opened_at(name, "month_close.py", **query)


def texts(run: AppTest) -> str:
    """Everything that can be read, without Markdown's escapes."""
    kinds = ("caption", "markdown", "text", "info", "warning", "error", "success", "header", "code")
    return "\n".join(str(element.value) for kind in kinds for element in run.get(kind)).replace("\\", "")


def frame(run: AppTest, column: str):
    return next(one.value for one in run.dataframe if column in one.value.columns)


def keys(run: AppTest) -> set[str]:
    return {button.key for button in run.button}


def choice(run: AppTest):
    return next(box for box in run.selectbox if box.key.startswith("months-choice"))


def press(run: AppTest, key: str) -> AppTest:
    """Press a button that starts work in the background, and look again when that is over."""
    run.button(key=key).click().run()
    assert not run.exception, run.exception
    wiring.close_job().wait(30)
    return run.run()


def accepted(run: AppTest, cause: str) -> AppTest:
    next(box for box in run.checkbox if box.key.endswith(f"-{cause}")).check().run()
    return run


def linked(run: AppTest) -> list[tuple[str, str]]:
    return [(link.proto.label.replace("\\", ""), link.proto.query_string) for link in run.get("page_link")]


# ── who sees what ────────────────────────────────────────────────────────────────────────────────


def test_months_are_for_finance_and_admins():
    run = opened("analyst")
    assert not run.title
    assert not run.dataframe
    assert [error.value for error in run.error] == [r"You need the admin or finance role to view this page\."]


def test_people_limited_to_organizations_are_told_that_months_are_not_for_them(monkeypatch):
    limited = Principal("fin-a", Role.FINANCE, frozenset({"org_a"}))
    monkeypatch.setattr(sign_in, "_principal", lambda: limited)
    run = opened()
    assert "only accounts that can see all of them have access" in texts(run)
    assert not run.dataframe


def test_everything_that_runs_on_its_own_asks_first_who_is_reading():
    """Fragments and dialogs run without `main.py`; a role taken away must count at once."""
    readers, admins = "sign_in.guard(Role.FINANCE, Role.ADMIN)", "sign_in.guard(Role.ADMIN)"
    found: dict[str, str] = {}
    for path in sorted(
        one for part in ("months", "what_if", "audit") for one in (ROOT / "components" / part).glob("*.py")
    ):
        tree = ast.parse(path.read_text())
        functions = {one.name: one for one in tree.body if isinstance(one, ast.FunctionDef)}
        for call in (one for one in ast.walk(tree) if isinstance(one, ast.Call) and one.args):
            name, called = ast.unparse(call.args[0]), ast.unparse(call.func)
            if (called == "st.fragment" or called.startswith("st.dialog(")) and name in functions:
                body = functions[name].body
                first = body[1] if isinstance(getattr(body[0], "value", None), ast.Constant) else body[0]
                found[f"{path.parent.name}.{path.stem}.{name}"] = ast.unparse(first).removeprefix("principal = ")
    assert found == {
        "months.panel._watch": readers,
        "months.close._confirm": readers,
        "months.closed._confirm": readers,
        "what_if.panel._watch": readers,
        "what_if.panel._confirm": admins,
        "audit.panel._chain": admins,
    }


# ── the table ────────────────────────────────────────────────────────────────────────────────────


def test_months_stand_newest_first_with_state_and_figures_in_the_reporting_timezone():
    run = opened()
    table = frame(run, "State")
    assert list(table["Month"]) == ["November 2026", "October 2026"]
    assert list(table["State"]) == ["○ in progress", "● to close"]
    assert list(table["Events"]) == ["1", "2"]
    assert list(table["Credits"]) == ["150.00", "300.00"]
    assert "Months follow the reporting timezone, UTC." in texts(run)


def test_the_month_that_waits_is_looked_at_first_and_the_url_may_ask_for_another():
    assert choice(opened()).value == "2026-10"
    run = opened(month="2026-11")
    assert choice(run).value == "2026-11"
    assert choice(opened(month="1999-13")).value == "2026-10"


def test_choosing_a_month_changes_the_address():
    run = opened()
    choice(run).set_value("2026-11").run()
    assert run.query_params["month"] in ("2026-11", ["2026-11"])
    assert "November 2026 ends at 2026-12-01 00:00 (UTC)." in texts(run)
    assert "months-check" not in keys(run)


# ── checking ─────────────────────────────────────────────────────────────────────────────────────


def test_nothing_is_read_before_somebody_asks(world):
    opened()
    assert world.books.asked == []


def test_a_month_against_which_nothing_stands_is_closed_after_a_confirmation(world):
    run = press(opened(), "months-check")
    assert "Nothing blocks closing October 2026." in texts(run)
    run.button(key="months-close").click().run()
    assert "October 2026 has 2 events, 300 credits ($0.01)." in texts(run)
    assert world.states()[OCTOBER] == "over"
    run = press(run, "months-close-confirm")
    assert world.states()[OCTOBER] == "closed"
    shown = texts(run)
    assert "October 2026 is closed: 2 events, 300 credits ($0.01)." in shown
    assert "Closed 2026-11-03 09:00:00 by finance" in shown
    assert world.rows("SELECT sha256 FROM closes")[0][0] in shown
    assert choice(run).value == OCTOBER


def test_every_cause_stands_with_its_figures_what_to_do_and_the_way_to_its_events(world):
    world.set_status("pending", "a1")
    run = press(opened(), "months-check")
    shown = texts(run)
    assert "1 issue blocks closing October 2026." in shown
    assert "**Not sent**" in shown
    assert "1 event · 150.00 credits · $0.0060" in shown
    assert "Not sent to Stripe yet: push, then close again." in shown
    links = dict(linked(run))
    assert "status=pending" in links["Usage events with status pending"]
    assert "first_day=2026-10-01" in links["Usage events with status pending"]
    assert "event=a1" in links["a1"]


def test_a_cause_is_accepted_only_with_a_tick_and_a_reason_and_the_manifest_names_both(world):
    world.set_status("pending", "a1")
    run = press(opened(), "months-check")
    assert run.button(key="months-close").disabled
    accepted(run, "unsent")
    assert run.button(key="months-close").disabled
    run.text_input(key="months-reason-2026-10").set_value("agreed *with* accounting").run()
    run.button(key="months-close").click().run()
    assert "Not sent: 1 event · 150.00 credits · $0.0060" in texts(run)
    run = press(run, "months-close-confirm")
    rows = frame(run, "Accepted by")
    assert list(rows["Cause"]) == ["Not sent"]
    assert list(rows["Accepted by"]) == ["finance"]
    assert list(rows["Reason"]) == ["agreed *with* accounting"]


def test_what_was_accepted_of_one_check_is_not_accepted_of_the_next(world):
    world.set_status("pending", "a1")
    run = accepted(press(opened(), "months-check"), "unsent")
    world.set_status("pending", "a2")
    run = run.run()
    assert "The ledger has changed since: check again" in texts(run)
    run = press(run, "months-check")
    assert "2 events · 300.00 credits · $0.01" in texts(run)
    assert not any(box.value for box in run.checkbox)


def test_a_close_that_finds_something_new_does_not_happen_and_says_what(world):
    run = press(opened(), "months-check")
    world.books.rows = (lost("a1"),)
    run.button(key="months-close").click().run()
    run = press(run, "months-close-confirm")
    shown = texts(run)
    assert world.states()[OCTOBER] == "over"
    assert "October 2026 was not closed." in shown
    assert "Lost at Stripe" in shown
    assert run.button(key="months-close").disabled


def lost(event_id: str) -> CustomerDay:
    part = DifferencePart(ComparisonStep.SENT_STRIPE, Cause.LOST_AT_STRIPE, Decimal(7), (event_id,), ())
    return CustomerDay(
        "cus_a",
        datetime(2026, 10, 5, tzinfo=UTC).date(),
        Decimal(150),
        Decimal(150),
        Decimal(150),
        Decimal(143),
        (part,),
    )


def test_unexplained_credits_lead_to_stripe_sync(world):
    world.books.rows = (lost("a1"),)
    run = press(opened(), "months-check")
    assert "**Lost at Stripe**" in texts(run)
    assert "7.00 credits" in texts(run)
    assert "Stripe Sync" in [label for label, _ in linked(run)]


def test_a_book_that_cannot_be_read_is_said_calmly_and_can_be_tried_again(world, monkeypatch):
    def fail(*_args, **_options):
        raise UpstreamError("Langfuse did not answer; try again later")

    with monkeypatch.context() as patch:
        patch.setattr(world.books, "reconcile", fail)
        run = press(opened(), "months-check")
    assert "The check of October 2026 stopped: Langfuse did not answer; try again later" in texts(run)
    assert "months-close" not in keys(run)
    assert "Nothing blocks" in texts(press(run, "months-check"))


def test_a_failed_close_says_that_the_month_is_not_closed(world, monkeypatch):
    run = press(opened(), "months-check")

    def fail(*_args, **_options):
        raise UpstreamError("Stripe did not answer; try again later")

    monkeypatch.setattr(world.books, "reconcile", fail)
    run.button(key="months-close").click().run()
    run = press(run, "months-close-confirm")
    assert "October 2026 was not closed: Stripe did not answer; try again later" in texts(run)


def test_work_of_somebody_else_is_watched_and_not_disturbed(world, monkeypatch):
    monkeypatch.setattr(jobs, "threading", threading)
    reading, go = threading.Event(), threading.Event()
    reconcile = world.books.reconcile

    def slowly(*args, progress, **options):
        progress(0.5, "reading *observations*")
        reading.set()
        assert go.wait(20)
        return reconcile(*args, **options)

    monkeypatch.setattr(world.books, "reconcile", slowly)
    run = opened()
    assert wiring.close_job().check(world.service, FINANCE, OCTOBER)
    assert reading.wait(10)
    late = run.button(key="months-check").click().run()
    assert "Somebody is checking, closing or verifying a month." in texts(late)
    assert late.button(key="months-check").disabled
    bar = late.get("progress")[0].proto
    assert bar.text.replace("\\", "") == "Checking October 2026 (fay): reading *observations*"
    assert bar.value == 30
    go.set()
    wiring.close_job().wait(20)
    assert "Checked 2026-11-03 09:00:00 (UTC) by fay." in texts(late.run())


# ── a closed month ───────────────────────────────────────────────────────────────────────────────


def test_the_manifest_is_shown_with_its_tables_and_its_file(world):
    world.close()
    run = opened()
    totals = frame(run, "Figure")
    assert dict(zip(totals["Total"], totals["Figure"], strict=True))["Credits"] == "300"
    assert list(frame(run, "Status")["Status"]) == ["processed"]
    assert "Usage events as CSV" in list(frame(run, "Export")["Export"])
    assert all(len(one) == 64 for one in frame(run, "Entries")["SHA-256"])
    addresses = [button.proto.url for button in run.get("link_button")]
    assert "/download/manifest/2026-10.json" in addresses


def test_finance_finds_amount_cost_margin_and_plan_of_each_organization(world):
    shown = frame(opened(), "Plan")
    assert list(shown["Organization"])[-1] == "All"
    amounts = [float(text.lstrip("$")) for text in shown["Amount"]]
    assert sum(amounts[:-1]) == pytest.approx(amounts[-1], abs=0.005)  # shown to the cent
    assert set(shown) >= {"Customer", "Events", "Credits", "Cost", "Margin"}
    assert "organization_stats" not in " ".join(target for _, target in linked(opened()))


def test_verifying_says_that_a_month_is_as_it_was_closed(world):
    world.close()
    run = press(opened(), "months-verify")
    assert "October 2026 is unchanged since it was closed. Compared: manifest, entries" in texts(run)


def test_an_edit_of_the_ledgers_file_is_found_and_named(world):
    world.close()
    with world.service._ledger.engine.transaction() as writer:
        writer.rows("UPDATE events SET credits_total = credits_total + 1 WHERE id = 'a1'")
    run = press(opened(), "months-verify")
    assert "October 2026 has changed since it was closed" in texts(run)
    assert any("a1" in finding for finding in frame(run, "Finding")["Finding"])


def test_nothing_of_an_edited_manifest_is_shown(world):
    world.close()
    ((text,),) = world.rows("SELECT manifest FROM closes")
    edited = {**json.loads(text), "totals": "<b>not a table</b>"}
    with world.service._ledger.engine.transaction() as writer:
        writer.rows("UPDATE closes SET manifest = ?", [json.dumps(edited)])
    run = opened()
    assert "the ledger's file was edited" in texts(run)
    assert not any("Figure" in one.value.columns for one in run.dataframe)
    assert "months-verify" in keys(run)


def test_a_month_is_reopened_only_with_a_reason_which_the_page_then_tells(world):
    world.close()
    run = opened()
    run.button(key="months-reopen").click().run()
    assert "October 2026 will no longer count as closed" in texts(run)
    assert run.button(key="months-reopen-confirm").disabled
    run.text_input(key="months-reopen-reason-2026-10").set_value("one more *customer*").run()
    run.button(key="months-reopen-confirm").click().run()
    shown = texts(run)
    assert world.states()[OCTOBER] == "reopened"
    assert "October 2026 is reopened. Close it again once everything is resolved." in shown
    assert "reopened 2026-11-03 09:00:00 by finance: one more *customer*" in shown
    assert "months-check" in keys(run)


def test_a_month_before_a_closed_one_says_why_it_cannot_be_reopened(world, monkeypatch):
    world.close()
    monkeypatch.setattr(world.months, "_clock", lambda: NOW + timedelta(days=40))
    assert world.months.close("2026-11", FINANCE, accept=["unsent"], reason="agreed").ok
    run = opened(month=OCTOBER)
    run.button(key="months-reopen").click().run()
    run.text_input(key="months-reopen-reason-2026-10").set_value("a mistake").run()
    run.button(key="months-reopen-confirm").click().run()
    assert "Not reopened: period: '2026-10' is not accepted" in texts(run)
    assert world.states()[OCTOBER] == "closed"


def test_what_came_late_is_told_where_it_counts(world):
    world.close()
    world.service._ledger.book(events_table([trace("late")]), run_id="test")
    run = opened(month=f"{clock.now():%Y-%m}")  # when it was booked
    late = list(frame(run, "State")["Late events"])
    assert sorted(late) == [*[""] * (len(late) - 1), "1"]
    assert "1 event with 150 credits arrived or changed after their own month was closed" in texts(run)


def test_a_verdict_about_an_earlier_close_is_not_shown_for_the_next_one(world, monkeypatch):
    world.close()
    press(opened(), "months-verify")
    world.months.reopen(OCTOBER, FINANCE, "a test")
    later = clock.now() + timedelta(seconds=1)
    monkeypatch.setattr(world.months, "_clock", lambda: later)
    world.close()
    assert "is unchanged since it was closed" not in texts(opened(month=OCTOBER))
    assert wiring.close_job().last(MonthTask.VERIFY, OCTOBER) is not None


def test_looking_again_asks_the_ledger_only_after_a_change(world, monkeypatch):
    asked = []
    months = MonthCloseService.months
    replace_method(monkeypatch, MonthCloseService, "months", lambda self, who: asked.append(who) or months(self, who))
    monkeypatch.setattr(wiring.service(), "now", lambda: NOW)  # a minute that does not end
    run = opened()
    run.run()
    assert len(asked) == 1
    world.set_status("error", "a1")
    run.run()
    assert len(asked) == 2
