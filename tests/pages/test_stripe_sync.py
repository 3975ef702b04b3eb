"""The Stripe Sync page as a script sees it; clicks on maps and grids are in `tests/browser`."""

from __future__ import annotations

import ast
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from billing_core.access import Principal, Role
from billing_core.errors import UpstreamError
from billing_core.ledger.push_log import PushLog
from billing_core.reconcile.findings import several_subscriptions
from billing_core.reconcile.report import (
    Cause,
    ComparisonStep,
    CrossCheck,
    CustomerDay,
    DifferencePart,
    Reconciliation,
    UnbilledFinding,
)
from billing_core.runtime import clock
from billing_core.stripe.model import Invoice, Subscription, SubscriptionItem
from billing_core.stripe_sync.customer_status import CustomerStatus
from billing_core.stripe_sync.pipeline import Amounts
from billing_core.stripe_sync.push import PushResult
from billing_core.stripe_sync.service import StripeSyncService
from billing_core.stripe_sync.settlement_rules import SettlementKind
from billing_core.types import GetUsageEventsParams
from billing_core.values.usage_frame import Window
from billing_core.web import wiring
from components.shared import sign_in
from components.stripe_sync import overview
from tests.factories import EVERYONE, events_table, ledger_at, usage_row
from tests.pages.opening import opened_at
from tests.stand_ins import replace_method

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "pages" / "stripe_sync.py"
HOUR = timedelta(hours=1)
TODAY = clock.now().date()


def ago(hours: float) -> datetime:
    return clock.now().replace(microsecond=0) - hours * HOUR


def usage() -> list[dict]:
    """Of 150 credits each: two pending of cus_a, one of nobody, one that failed in the earlier system; one excluded."""
    return [
        usage_row(id="a1", timestamp=ago(2)),
        usage_row(id="a2", timestamp=ago(3)),
        usage_row(id="n1", timestamp=ago(4), customer_id=None),
        usage_row(id="f1", timestamp=ago(5), customer_id="cus_f", legacy_error="card declined"),
        usage_row(id="x1", timestamp=ago(6), environment="sdk-experiment"),
    ]


@pytest.fixture(autouse=True)
def booked(demo):
    ledger_at(wiring.settings().warehouse_path, usage()).engine.close()


def opened(name: str = "admin") -> AppTest:
    """The page as `name` sees it."""
    return opened_at(name, "stripe_sync.py")


def texts(run: AppTest) -> str:
    """Everything that can be read, without Markdown's escapes."""
    kinds = ("caption", "markdown", "text", "info", "warning", "error", "success")
    return "\n".join(str(element.value) for kind in kinds for element in run.get(kind)).replace("\\", "")


def keys(run: AppTest) -> set[str]:
    return {button.key for button in run.button}


def statuses() -> dict[str, str]:
    answer = wiring.service().get_usage_events(GetUsageEventsParams(limit=50), EVERYONE)
    return {event.id: str(event.sync_status) for event in answer.events}


def on_hold() -> int:
    """Events that somebody keeps back."""
    problems = wiring.service().stripe.problems(EVERYONE)
    return sum(problem.amounts.events for problem in problems if problem.cause == "on_hold")


def linked(run: AppTest) -> list[tuple[str, str]]:
    """Links to other pages: label and query."""
    return [(link.proto.label.replace("\\", ""), link.proto.query_string) for link in run.get("page_link")]


def shown_frame(run: AppTest, column: str):
    """The first table that has this column."""
    return next(frame.value for frame in run.dataframe if column in frame.value.columns)


# ── who may ──────────────────────────────────────────────────────────────────────────────────────


def test_analysts_are_refused_and_see_no_link():
    run = opened("analyst")
    assert "You need the admin or finance role" in run.error[0].value
    assert not run.title
    assert not run.dataframe


def test_finance_reads_everything_and_is_told_why_there_are_no_buttons():
    run = opened("finance")
    assert run.title[0].value == "Stripe Sync"
    assert "Only admins can push, retry, hold and release" in texts(run)
    assert "**300 credits**" in texts(run)
    assert not {key for key in keys(run) if key.startswith(("sync-preview", "sync-retry", "sync-hold"))}
    assert "sync-reconcile" in keys(run)


def test_people_limited_to_organizations_get_one_calm_sentence(monkeypatch):
    limited = Principal("fin-acme", Role.FINANCE, frozenset({"org_acme"}))
    monkeypatch.setattr(sign_in, "_principal", lambda: limited)
    run = opened("finance")
    (error,) = run.error
    assert "may see some organizations only" in error.value
    assert "credits" not in texts(run)


def test_without_a_session_the_page_shows_nothing():
    run = AppTest.from_file(str(PAGE), default_timeout=30).run()
    assert not run.title
    assert not run.dataframe


def test_the_page_and_everything_that_runs_on_its_own_guard_themselves_first():
    """Fragments and dialogs run without `main.py`; a role taken away must count at once."""
    asked = "sign_in.guard(Role.ADMIN, Role.FINANCE)"
    page = ast.parse(PAGE.read_text())
    first = next(ast.unparse(one) for one in page.body if isinstance(one, (ast.Assign, ast.With)))
    assert first == f"principal = {asked}"
    alone: dict[str, str] = {}
    for path in sorted((ROOT / "components" / "stripe_sync").glob("*.py")):
        tree = ast.parse(path.read_text())
        functions = {one.name: one for one in tree.body if isinstance(one, ast.FunctionDef)}
        for call in (one for one in ast.walk(tree) if isinstance(one, ast.Call) and one.args):
            name = ast.unparse(call.args[0])
            if ast.unparse(call.func) in {"st.fragment", "dialog"} and name in functions:
                body = [one for one in functions[name].body if "(" in ast.unparse(one)]
                body = body[isinstance(getattr(body[0], "value", None), ast.Constant) :]
                alone[name] = ast.unparse(body[0]).removeprefix("principal = ")
    assert alone == {"_watch": asked, "_source_table": asked, "_decision": asked}


# ── the pipeline ─────────────────────────────────────────────────────────────────────────────────


def test_the_stages_add_up_to_the_whole_ledger():
    shown = texts(opened())
    assert "**300 credits**" in shown
    assert "No events: sending, processed, confirmed, held, billed before, settled." in shown
    assert "2 events · $0.01" in shown
    assert "**600 credits**" in shown
    assert "5 events · $0.02" in shown
    assert "✓ equals the whole ledger" in shown


def test_stages_that_do_not_add_up_are_called_out(monkeypatch):
    monkeypatch.setattr(overview, "whole_ledger", lambda *_: Amounts(6, Decimal("750.000001"), Decimal("0.03")))
    shown = texts(opened())
    assert "✕ differs from the ledger" in shown
    assert "The ledger has 6 events with 750.000001 credits ($0.03)" in shown


def test_without_a_stripe_key_everything_else_can_be_read(monkeypatch):
    monkeypatch.setattr(StripeSyncService, "is_connected", property(lambda _: False))
    run = opened()
    assert run.info[0].value.startswith("Not connected to Stripe. Set STRIPE_API_KEY")
    assert "**300 credits**" in texts(run)
    assert "sync-preview" not in keys(run)
    assert run.button(key="sync-customer-read").disabled


def test_no_page_asks_stripe_before_somebody_presses_a_button(monkeypatch):
    def refuse(*_):
        raise AssertionError("Stripe was asked")

    monkeypatch.setattr(wiring.demo_sandbox(), "stripe", refuse)
    wiring.service.forget()
    opened()


def test_a_book_that_cannot_be_read_leaves_the_other_sections_alone(monkeypatch):
    def fail(*_):
        raise UpstreamError("the reconciliation is unreadable")

    replace_method(monkeypatch, StripeSyncService, "last_reconciliation", fail)
    run = opened()
    assert "the reconciliation is unreadable" in texts(run)
    assert [one.value for one in run.header][-2:] == ["Customer status", "Push log"]


# ── push ─────────────────────────────────────────────────────────────────────────────────────────


def request(number: int, value: int) -> dict:
    """A request as the v1 sink would make it."""
    body = {
        "event_name": "credits",
        "identifier": f"usage_{number}",
        "timestamp": 1793023200 + number,
        "payload": {"stripe_customer_id": "cus_a", "value": str(value)},
    }
    return {"method": "POST", "path": "/v1/billing/meter_events", "idempotency_key": f"usage_{number}", "body": body}


class Pushes:
    """Stands in for the desk's push; a dry run returns `requests`, a real one `result`."""

    def __init__(self, requests=(), result=None):
        self.requests, self.result = tuple(requests), result or PushResult(intents=1, sent=1, credits_sent=300)
        self.sent_by: list[str] = []

    def __call__(self, principal, *, dry_run=False, progress=None, on_wait=None):
        if dry_run:
            return PushResult(is_dry_run=True, intents=len(self.requests), held=2, requests=self.requests)
        self.sent_by.append(principal.name)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def previewed(monkeypatch, pushes: Pushes) -> AppTest:
    replace_method(monkeypatch, StripeSyncService, "push", lambda _, *asked, **how: pushes(*asked, **how))
    run = opened()
    run.button(key="sync-preview").click().run()
    return run


def test_a_preview_states_credits_and_money_and_shows_the_exact_requests(monkeypatch):
    run = previewed(monkeypatch, Pushes([request(0, 1200), request(1, -200)]))
    assert (
        "A push would send 2 meter events with 1,000 credits ($0.04) at $0.00004 per credit. "
        "2 events would be held (none newly)."
    ) in texts(run)
    frame = shown_frame(run, "Idempotency key")
    assert list(frame["Credits"]) == ["1,200", "−200"]
    assert frame["Time (UTC)"].iloc[0] == "2026-10-26T14:00:00Z"
    assert json.loads(run.code[0].value) == request(0, 1200)
    assert run.button(key="sync-send").label.replace("\\", "") == "Send 2 meter events: 1,000 credits ($0.04)"


def test_a_long_preview_is_cut_and_says_what_is_left_out(monkeypatch):
    run = previewed(monkeypatch, Pushes(request(number, 10) for number in range(203)))
    assert len(shown_frame(run, "Idempotency key")) == 200
    assert "and 3 more with 30 credits" in texts(run)


def test_nothing_to_send_offers_nothing_to_confirm(monkeypatch):
    run = previewed(monkeypatch, Pushes())
    assert "Nothing to send: no settled usage amounts to a whole credit." in texts(run)
    assert "sync-send" not in keys(run)


def test_a_confirmed_push_runs_in_the_name_of_who_confirmed_it_and_tells_its_result(monkeypatch):
    pushes = Pushes([request(0, 300)])
    run = previewed(monkeypatch, pushes)
    assert pushes.sent_by == []
    run.button(key="sync-send").click().run()
    wiring.push_job().wait(10)
    run.run()
    assert pushes.sent_by == ["admin"]
    assert "The push by admin ended just now: 1 sent; 300 credits delivered." in texts(run)
    assert "sync-send" not in keys(run)


def test_a_push_that_partly_fails_says_what_went_wrong(monkeypatch):
    result = PushResult(intents=2, sent=1, rejected=1, credits_sent=150, failures=("cus_a: Stripe rejected it",))
    run = previewed(monkeypatch, Pushes([request(0, 300)], result))
    run.button(key="sync-send").click().run()
    wiring.push_job().wait(10)
    run.run()
    assert "1 sent, 1 rejected; 150 credits delivered" in run.warning[0].value.replace("\\", "")
    assert "cus_a: Stripe rejected it" in texts(run)


def test_a_push_that_cannot_start_says_why(monkeypatch):
    run = previewed(monkeypatch, Pushes([request(0, 300)], UpstreamError("Stripe cannot be reached: timeout")))
    run.button(key="sync-send").click().run()
    wiring.push_job().wait(10)
    run.run()
    assert "The push by admin stopped just now: Stripe cannot be reached: timeout" in texts(run)


def test_a_preview_of_an_older_ledger_says_so(monkeypatch):
    run = previewed(monkeypatch, Pushes([request(0, 300)]))
    wiring.service()._ledger.book(events_table([usage_row(id="late", timestamp=ago(1))]), run_id="late")
    run.run()
    assert "The ledger has changed since this preview." in texts(run)
    run.button(key="sync-discard").click().run()
    assert "A push would send" not in texts(run)


def test_a_preview_that_fails_is_one_calm_line(monkeypatch):
    def fail(*_, **__):
        raise UpstreamError("Stripe cannot be reached: no route")

    replace_method(monkeypatch, StripeSyncService, "push", fail)
    run = opened()
    run.button(key="sync-preview").click().run()
    assert [one.value.replace("\\", "") for one in run.error] == ["Stripe cannot be reached: no route"]


# ── problems ─────────────────────────────────────────────────────────────────────────────────────


def hold(customer: str = "cus_a", reason: str = "contract under review") -> None:
    desk = wiring.service().stripe
    desk.decide(EVERYONE, desk.preview(EVERYONE, "hold", customer_ids=[customer]), reason=reason)


def test_held_events_are_a_group_with_advice_an_example_and_a_link():
    hold()
    run = opened()
    shown = texts(run)
    assert "**On hold**" in shown
    assert "**$0.01** · 2 events · 1 customer · 300 credits" in shown
    assert "on hold by tester: contract under review" in shown
    assert ("Show 2 events", "period=All+time&cause=on_hold") in linked(run)
    assert ("Show events", "period=All+time&stage=held") in linked(run)
    assert "sync-release-on_hold" in keys(run)


def places_of(headings: list[str], run: AppTest) -> list[int]:
    """Where these headings stand among all bold texts, to see their order."""
    shown = [one.value.replace("\\", "") for one in run.markdown]
    return [shown.index(f"**{heading}**") for heading in headings]


def test_the_page_opens_with_what_needs_action_most_urgent_first():
    """An error of 34 days and a half ago has half a day left; the rest goes by money: 5 pending events, then one."""
    ledger = wiring.service()._ledger
    late = {"legacy_error": "card declined", "customer_id": "cus_f"}
    ledger.book(
        events_table(
            [
                usage_row(id="old", timestamp=ago(34 * 24 + 11.5), **late),
                *(usage_row(id=f"w{n}", timestamp=ago(50), customer_id="cus_a") for n in range(3)),
            ]
        ),
        run_id="late",
    )
    run = opened()
    assert next(one.value for one in run.header) == "Needs action now"
    places = places_of(["Failed in the earlier system", "Usage waits for a push", "No Stripe customer"], run)
    assert places == sorted(places)
    shown = texts(run)
    assert "due in 12 h: 35-day limit" in shown
    assert "**$0.03** · 5 events · 750 credits" in shown
    assert ("Assign customers", "view=Names+and+customers") in linked(run)
    assert ("Show 5 events", "period=All+time&status=pending&held=false") in linked(run)


def test_pending_usage_is_due_before_stripe_refuses_it_and_what_is_too_old_already_is_said():
    rows = [usage_row(id="gone", timestamp=ago(36 * 24)), usage_row(id="next", timestamp=ago(34 * 24 + 11.5))]
    wiring.service()._ledger.book(events_table(rows), run_id="late")
    run = opened()
    assert places_of(["Usage waits for a push", "No Stripe customer"], run) == sorted(
        places_of(["Usage waits for a push", "No Stripe customer"], run)
    )
    assert "due in 12 h: 35-day limit" in texts(run)
    assert "older than the 35 days Stripe accepts" in texts(run)


def test_the_push_that_is_due_is_previewed_from_there(monkeypatch):
    wiring.service()._ledger.book(events_table([usage_row(id="w", timestamp=ago(50))]), run_id="late")
    pushes = Pushes([request(0, 1200)])
    replace_method(monkeypatch, StripeSyncService, "push", lambda _, *asked, **how: pushes(*asked, **how))
    run = opened()
    run.button(key="sync-push-due-preview").click().run()
    assert "A push would send 1 meter event" in texts(run)
    assert "sync-push-due-preview" not in keys(opened("finance"))


def test_when_nothing_needs_action_the_page_says_so(monkeypatch):
    replace_method(monkeypatch, StripeSyncService, "problems", lambda *_: [])
    run = opened()
    assert "Nothing needs action" in run.success[0].value


def test_a_stage_leads_to_its_events_without_held_ones_of_the_same_status():
    hold("cus_a")
    wiring.service()._ledger.book(
        events_table([usage_row(id="b1", timestamp=ago(2), customer_id="cus_b")]), run_id="more"
    )
    assert ("Show events", "period=All+time&stage=pending") in linked(opened())


def test_what_an_earlier_system_billed_is_a_stage_of_its_own_and_leads_to_its_events():
    ledger = wiring.service()._ledger
    before = usage_row(id="l1", timestamp=ago(2), legacy_status="processed", legacy_total=Decimal(40))
    ledger.book(events_table([before]), run_id="before")
    run = opened()
    shown = texts(run)
    assert "billed before" in shown
    assert "**40 credits**" in shown
    assert ("Show events", "period=All+time&stage=billed_before") in linked(run)
    assert "No events: sending, processed, confirmed, held, settled." in shown


def test_a_release_shows_first_what_it_would_touch_and_then_does_exactly_that():
    hold()
    run = opened()
    run.button(key="sync-release-on_hold").click().run()
    assert "This affects 2 events, 300 credits ($0.01)." in texts(run)
    assert on_hold() == 2
    confirm = run.button(key="sync-decide")
    assert confirm.label.replace("\\", "") == "Release 2 events: 300 credits ($0.01)"
    confirm.click().run()
    assert "2 events are released: 300 credits ($0.01)." in texts(run)
    assert on_hold() == 0
    assert "sync-release-on_hold" not in keys(run)


def test_a_retry_makes_events_pending_again():
    run = opened()
    retry = next(key for key in keys(run) if key.startswith("sync-retry"))
    run.button(key=retry).click().run()
    run.button(key="sync-decide").click().run()
    assert statuses()["f1"] == "pending"
    assert "1 event is pending again." in texts(run)


def test_what_is_stuck_is_written_off_with_a_reason_and_taken_back_from_the_list():
    run = opened()
    run.button(key="sync-settle-failed_before").click().run()
    run.radio(key="sync-settle-kind").set_value(SettlementKind.WRITE_OFF).run()
    assert "This settles 1 event, 150 credits ($0.0060)." in texts(run)
    assert run.button(key="sync-settle").disabled
    run.text_input(key="sync-settle-reason").set_value("agreed with them").run()
    confirm = run.button(key="sync-settle")
    assert confirm.label.replace("\\", "") == "Write off 1 event: 150 credits ($0.0060)"
    confirm.click().run()
    assert "1 event, 150 credits ($0.0060), written off." in texts(run)
    assert statuses()["f1"] == "excluded"
    assert "sync-settle-failed_before" not in keys(run)
    (settlement,) = wiring.service().stripe.settlements(EVERYONE)
    run.selectbox(key="sync-take-back").set_value(settlement.id).run()
    run.text_input(key="sync-take-back-reason").set_value("they pay after all").run()
    run.button(key="sync-take-back-do").click().run()
    assert "Taken back: " in texts(run)
    assert statuses()["f1"] == "error"
    assert "sync-settle-failed_before" in keys(run)


def test_the_preview_of_a_settlement_says_what_is_left_out_and_why(monkeypatch):
    run = opened()
    run.button(key="sync-settle-no_customer").click().run()
    run.radio(key="sync-settle-kind").set_value(SettlementKind.INVOICE_ITEM).run()
    assert "Nothing of this can be settled this way." in texts(run)
    assert "1 event left out: nobody to invoice" in texts(run)
    assert run.button(key="sync-settle").disabled
    run.button(key="sync-settle-cancel").click().run()
    assert "sync-settle" not in keys(run)


def test_finance_sees_settlements_and_cannot_make_or_take_back_any():
    wiring.service().stripe.settle(EVERYONE, ["f1"], SettlementKind.WRITE_OFF, reason="agreed")
    run = opened("finance")
    assert "Settlements" in [one.value for one in run.header]
    assert not [key for key in keys(run) if key.startswith(("sync-settle", "sync-take-back"))]


def test_a_hold_needs_a_customer_and_a_reason():
    run = opened()
    assert run.button(key="sync-hold-open").disabled
    run.selectbox(key="sync-hold-customer").set_value("cus_a").run()
    run.button(key="sync-hold-open").click().run()
    assert "This affects 2 events, 300 credits" in texts(run)
    assert run.button(key="sync-decide").disabled
    run.text_input(key="sync-reason").set_value("contract under review").run()
    run.button(key="sync-decide").click().run()
    assert "2 events are on hold: 300 credits ($0.01)." in texts(run)
    assert on_hold() == 2


def test_a_decision_about_some_customers_touches_theirs_only():
    ledger = wiring.service()._ledger
    ledger.book(events_table([usage_row(id="b1", timestamp=ago(2), customer_id="cus_b")]), run_id="more")
    hold("cus_a")
    hold("cus_b")
    run = opened()
    run.button(key="sync-release-on_hold").click().run()
    run.text_input(key="sync-only-customers").set_value("cus_b, ").run()
    assert "This affects 1 event, 150 credits ($0.0060)." in texts(run)
    run.button(key="sync-decide").click().run()
    assert on_hold() == 2


def test_cancelling_changes_nothing():
    hold()
    run = opened()
    run.button(key="sync-release-on_hold").click().run()
    run.button(key="sync-cancel").click().run()
    assert "sync-decide" not in keys(run)
    assert on_hold() == 2


# ── reconciliation ───────────────────────────────────────────────────────────────────────────────


def number(value: str | None) -> Decimal | None:
    return None if value is None else Decimal(value)


def row(
    customer: str | None, books: tuple[str | None, str, str, str | None], *parts: DifferencePart, day: date = TODAY
) -> CustomerDay:
    langfuse, ledger, sent, stripe = books
    return CustomerDay(customer, day, number(langfuse), Decimal(ledger), Decimal(sent), number(stripe), parts)


def reconciled(monkeypatch, *rows: CustomerDay, **more) -> AppTest:
    midnight = datetime.combine(TODAY, datetime.min.time(), UTC)
    window = Window(midnight - timedelta(days=1), midnight + timedelta(days=1))
    found = Reconciliation(window, ago(2), rows, **more)
    replace_method(monkeypatch, StripeSyncService, "last_reconciliation", lambda *_: found)
    return opened("finance")


LATE = DifferencePart(ComparisonStep.LEDGER_SENT, Cause.LATE, Decimal(150), ("a1", "a2"))
LOST = DifferencePart(ComparisonStep.SENT_STRIPE, Cause.LOST_AT_STRIPE, Decimal(50), ("a3",), ("usage_1",))


def test_before_the_first_reconciliation_the_page_says_what_to_do():
    run = opened()
    assert "Nothing has been reconciled yet." in texts(run)
    assert run.date_input(key="sync.days").value == (TODAY - timedelta(days=7), TODAY)


def test_four_books_and_their_verdict_in_words(monkeypatch):
    run = reconciled(monkeypatch, row("cus_a", ("450", "450", "300", "250"), LATE, LOST))
    shown = texts(run)
    assert "compared 2 h ago" in shown
    assert "50 credits are unexplained" in run.error[0].value
    for figure in ("**450**", "**300**", "**250**", "**50**"):
        assert figure in shown


def test_no_unexplained_credits_is_said_in_words_not_only_in_green(monkeypatch):
    run = reconciled(monkeypatch, row("cus_a", ("450", "450", "300", "300"), LATE))
    assert "0 unexplained credits: every difference has its cause." in run.success[0].value.replace("\\", "")


def test_an_unknown_book_is_unknown_and_not_zero(monkeypatch):
    rows = row("cus_a", ("450", "450", "300", None), LATE), row("cus_b", ("1", "1", "1", "1"))
    shown = texts(reconciled(monkeypatch, *rows, problems=("Stripe cannot be reached",)))
    assert "**unknown**" in shown
    assert "Stripe cannot be reached" in shown
    assert "as far as the sources could be read" in shown


def test_a_closer_look_leads_from_a_difference_to_the_events_behind_it(monkeypatch):
    run = reconciled(monkeypatch, row("cus_a", ("450", "450", "300", "250"), LATE, LOST))
    run.selectbox(key="sync.place").set_value(("cus_a", TODAY.isoformat())).run()
    causes = shown_frame(run, "What it means")
    assert list(causes["Cause"]) == ["Late", "Lost at Stripe"]
    assert list(causes["Credits"]) == ["+150", "+50"]
    assert ("a3", "period=All+time&event=a3") in linked(run)
    assert "usage_1" in [one.value for one in run.code]


def test_map_and_waterfall_carry_figures_and_have_names(monkeypatch):
    run = reconciled(monkeypatch, row("cus_a", ("450.000001", "450.000001", "300", "250"), LATE, LOST))
    charts = {chart.proto.alt: json.loads(chart.proto.spec) for chart in run.get("plotly_chart")}
    heat = charts["Langfuse − Stripe in credits, by customer and UTC day"]
    assert any("+200 credits" in text for text in heat["data"][1]["hovertext"])
    assert "!" in str(heat["data"][0]["text"])
    assert "Credits from langfuse to stripe, one step per cause" in charts


def test_every_chart_can_be_read_as_a_table(monkeypatch):
    run = reconciled(monkeypatch, row("cus_a", ("450", "450", "300", "250"), LATE, LOST))
    for toggle in run.toggle:
        toggle.set_value(True)
    run.run()
    assert list(shown_frame(run, "Unexplained")["Langfuse − Stripe"]) == ["+200"]
    assert list(shown_frame(run, "Step")["Step"]) == ["Langfuse", "Late", "Lost at Stripe", "Stripe"]
    assert list(shown_frame(run, "Step")["Credits"]) == ["450", "−150", "−50", "250"]


def test_money_no_invoice_will_bill_and_the_cross_check_are_said(monkeypatch):
    finding = UnbilledFinding("no_metered_item", "cus_a", Decimal(10), "Stripe counts 10 credits that no invoice bills")
    check = CrossCheck(None, "the server offers none")
    shown = texts(reconciled(monkeypatch, row("cus_a", ("1", "1", "1", "1")), findings=(finding,), cross_check=check))
    assert "Stripe counts 10 credits that no invoice bills" in shown
    assert "not made (the server offers none)" in shown


def test_a_customer_whose_usage_two_live_subscriptions_bill_is_shown_with_both_and_what_to_do(monkeypatch):
    item = SubscriptionItem("si_1", "price_credits", None, None, "mtr_1", ago(10), ago(-20))
    both = [Subscription(id_, "cus_a", "active", (item,), ago(10), None, None, None) for id_ in ("sub_1", "sub_2")]
    counted = {("cus_a", ago(1)): Decimal(1500), ("cus_b", ago(1)): Decimal(7)}
    findings = tuple(several_subscriptions(counted, both, "mtr_1", clock.now()))
    shown = texts(reconciled(monkeypatch, row("cus_a", ("1500", "1500", "1500", "1500")), findings=findings))
    assert (
        "cus_a has 2 live subscriptions on the meter (sub_1, sub_2): each bills its usage, 1,500 credits of this time; "
        "end all but one at Stripe"
    ) in shown


def test_a_reconciliation_runs_over_the_chosen_utc_days(monkeypatch):
    asked: list[tuple[datetime, datetime]] = []
    result = Reconciliation(Window(ago(2), ago(1)), ago(0), ())
    replace_method(
        monkeypatch,
        StripeSyncService,
        "reconcile",
        lambda _, who, start, end, *, progress: asked.append((start, end)) or result,
    )
    run = opened("finance")
    run.date_input(key="sync.days").set_value((date(2026, 11, 1), date(2026, 11, 2))).run()
    run.button(key="sync-reconcile").click().run()
    wiring.reconcile_job().wait(10)
    assert asked == [(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 3, tzinfo=UTC))]


# ── customers and log ────────────────────────────────────────────────────────────────────────────


def status(**facts) -> CustomerStatus:
    start = datetime(2026, 11, 1, tzinfo=UTC)
    invoice = Invoice(None, "cus_a", "sub_1", None, 28_341, "usd", None, None, None)
    known = {
        "customer_id": "cus_a",
        "state": "active",
        "plan": "Pro",
        "included": 500_000,
        "used": Decimal(612_000),
        "period_start": start,
        "period_end": start + timedelta(days=30),
        "upcoming": invoice,
        "read_at": ago(3),
    }
    return CustomerStatus(**{**known, **facts})


def looked_up(monkeypatch, found: CustomerStatus) -> AppTest:
    replace_method(monkeypatch, StripeSyncService, "status", lambda *_: found)
    run = opened("finance")
    run.selectbox(key="sync-customer").set_value("cus_a").run()
    run.button(key="sync-customer-read").click().run()
    return run


def test_a_customer_beyond_the_plan_is_shown_beyond_100_percent(monkeypatch):
    run = looked_up(monkeypatch, status())
    shown = texts(run)
    assert "612,000 of 500,000 credits used: 122 %, 112,000 over the plan" in shown
    assert "**283.41 USD**" in shown
    assert "**Pro**" in shown
    bar = next(
        json.loads(c.proto.spec) for c in run.get("plotly_chart") if c.proto.alt.startswith("612,000 of 500,000")
    )
    assert {part["name"]: part["x"][0] for part in bar["data"]} == {
        "within the plan": 500_000,
        "left": 0,
        "over the plan": 112_000,
    }


def test_a_customer_that_could_not_be_read_is_unknown_with_the_last_reading(monkeypatch):
    run = looked_up(monkeypatch, status(state="unknown", problem="Stripe cannot be reached"))
    assert "Unknown: Stripe could not be read (Stripe cannot be reached). Showing data read 3 h ago." in texts(run)
    assert "**Pro**" in texts(run)


def test_unknown_credits_and_invoices_are_not_zero(monkeypatch):
    shown = texts(looked_up(monkeypatch, status(used=None, upcoming=None, plan=None, included=None)))
    assert "Credits used: unknown" in shown
    assert shown.count("**unknown**") == 2


def test_the_log_tells_every_push_with_its_problem():
    log = PushLog(wiring.service().stripe._ledger.engine)
    began = ago(2)
    log.start("p1", actor="ada", now=began)
    result = json.dumps({"sent": 3, "rejected": 1, "credits_sent": "1234", "failures": ["cus_a: rejected"]})
    log.end("p1", now=began + timedelta(seconds=8), outcome="done", result=result, error=None)
    log.start("p2", actor="bob", now=ago(1))
    frame = shown_frame(opened("finance"), "Outcome")
    assert list(frame["Outcome"]) == ["‖ interrupted", "✓ done"]
    assert list(frame["Credits delivered"]) == ["unknown", "1,234"]
    assert list(frame["Took"]) == ["unknown", "8.0 s"]
    assert list(frame["Problem"]) == ["", "cus_a: rejected"]


def test_events_picked_of_one_list_are_not_picked_of_another():
    """Rows are picked by place: a list that changes under the selection must forget it."""
    hold()
    run = opened()
    run.button(key="sync-release-on_hold").click().run()
    (first,) = [frame.proto.id for frame in run.dataframe if "Event id" in frame.value.columns]
    run.text_input(key="sync-only-customers").set_value("cus_nobody").run()
    assert not [frame for frame in run.dataframe if "Event id" in frame.value.columns]
    assert run.button(key="sync-decide").disabled
    wiring.service()._ledger.book(events_table([usage_row(id="a9", timestamp=ago(2))]), run_id="more")
    hold()
    run.text_input(key="sync-only-customers").set_value("").run()
    (second,) = [frame.proto.id for frame in run.dataframe if "Event id" in frame.value.columns]
    assert first != second
