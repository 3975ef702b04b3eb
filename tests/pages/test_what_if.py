"""The what-if view as a script sees it, over a ledger that is really re-rated."""

from __future__ import annotations

import threading
from datetime import timedelta
from decimal import Decimal
from types import SimpleNamespace

import pytest
from streamlit.testing.v1 import AppTest

from billing_core.access import Principal, Role
from billing_core.errors import RateCardError
from billing_core.rerating.service import ReratingService
from billing_core.web import jobs, wiring
from components.shared import sign_in
from components.what_if.state import ANSWER
from tests.factories import EVERYONE, NOON, ledger_at, usage_row
from tests.pages.opening import opened_at
from tests.pages.test_months import Later, frame, keys, texts
from tests.stand_ins import replace_method

DEARER = """id: dearer
effective_from: 2000-01-01
credit_price_usd: 0.00004
ai: {rates: [{credits_per_1000_tokens: 200}]}
compute: {credits_per_minute: 50}
storage: {credits_per_gb_month: 500}
"""
"""Twice the price of tokens: 250 credits instead of 150."""


@pytest.fixture(autouse=True)
def service(demo, monkeypatch):
    monkeypatch.setattr(jobs, "threading", SimpleNamespace(Lock=threading.Lock, Thread=Later))
    rows = [
        usage_row(id="a1"),
        usage_row(id="a2", timestamp=NOON + timedelta(days=3)),
        usage_row(id="b1", organization_id="org_<b>b</b>"),
        usage_row(id="l1", organization_id="org_l", legacy_status="processed", legacy_total=Decimal(7)),
    ]
    ledger_at(wiring.settings().warehouse_path, rows).engine.close()
    return wiring.service()


def opened(name: str = "admin", **query: str) -> AppTest:
    return opened_at(name, "what_if.py", **query)


def asked(run: AppTest | None = None, text: str = DEARER) -> AppTest:
    """With the answer for cards somebody wrote."""
    run = run or opened()
    run.text_area(key="what-if-text").set_value(text).run()
    run.button(key="what-if-ask").click().run()
    assert not run.exception, run.exception
    return run


def confirming(run: AppTest, typed: str) -> AppTest:
    run.button(key="what-if-apply").click().run()
    next(box for box in run.text_input if box.key.startswith("what-if-typed")).set_value(typed).run()
    return run


def stored(service) -> list[tuple]:
    return service._ledger.engine.rows("SELECT id, credits_total, rate_card_version FROM events ORDER BY id")


# ── who may ──────────────────────────────────────────────────────────────────────────────────────


def test_what_if_is_for_finance_and_admins():
    run = opened("analyst")
    assert not run.title
    assert [error.value for error in run.error] == [r"You need the admin or finance role to view this page\."]


def test_people_limited_to_organizations_are_told_that_it_is_not_for_them(monkeypatch):
    monkeypatch.setattr(sign_in, "_principal", lambda: Principal("fin-a", Role.FINANCE, frozenset({"org_a"})))
    run = opened("finance")
    assert "only accounts that can see all of them have access" in texts(run)
    assert "what-if-ask" not in keys(run)


def test_finance_works_it_out_and_cannot_apply_it():
    run = asked(opened("finance"))
    assert "3 of 4 events would change: +300 credits" in texts(run)
    assert "Only admins can apply them." in texts(run)
    assert "what-if-apply" not in keys(run)


# ── the question ─────────────────────────────────────────────────────────────────────────────────


def test_it_says_where_to_ask_about_the_settings_in_force():
    assert "rerate --settings" in texts(opened())


def test_it_starts_with_the_cards_in_force_as_text_that_gives_what_the_ledger_has(service):
    run = opened()
    assert "credits_per_minute: 50" in run.text_area(key="what-if-text").value
    run.button(key="what-if-ask").click().run()
    assert "No event would change: these cards give the same figures as the ledger." in texts(run)
    assert "what-if-apply" not in keys(run)


def test_the_cards_in_force_can_be_chosen_by_the_url(service):
    run = opened(source="current")
    assert not run.text_area
    run.button(key="what-if-ask").click().run()
    assert "The cards in force, on 4 events of all time." in texts(run)


@pytest.mark.parametrize(("name", "value"), [("source", "current"), ("span", "Last 7 days")])
def test_a_link_that_changes_the_url_changes_what_the_widget_shows(name, value):
    run = opened()
    run.query_params[name] = value
    run.run()
    (widget,) = (one for one in (*run.radio, *run.selectbox) if one.key.startswith(f"what-if-{name}"))
    assert widget.value == value


@pytest.mark.parametrize("who", ["admin", "finance"])
def test_whoever_may_ask_may_upload_a_card(who):
    assert len(opened(who, source="file").file_uploader) == 1


def test_an_uploaded_card_is_priced():
    run = opened(source="file")
    run.file_uploader[0].upload("dearer.yaml", DEARER.encode(), "application/yaml").run()
    assert "dearer: from 2000-01-01 00:00:00 (UTC), 1 credit = $0.00004, margin 1" in texts(run)
    run.button(key="what-if-ask").click().run()
    assert "Dearer.yaml, on 4 events of all time." in texts(run)
    assert "+300 credits" in texts(run)


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"\xff\xfe\x00", "not UTF-8 text"), (b"a: &x 1\nb: *x\n", "YAML aliases"), (b"[]", "expected a mapping")],
)
def test_a_file_that_is_no_card_is_refused_calmly(data, says):
    run = opened(source="file")
    run.file_uploader[0].upload("*bad*.yaml", data, "application/yaml").run()
    (error,) = run.error
    assert error.value.replace("\\", "").startswith("rate card *bad*.yaml: ")
    assert says in error.value.replace("\\", "")
    assert run.button(key="what-if-ask").disabled


def test_the_period_of_the_url_cuts_by_the_events_own_time():
    day = (NOON + timedelta(days=3)).date().isoformat()
    run = asked(opened(span="Custom", from_day=day, to_day=day))
    assert "1 of 1 event would change: +100 credits" in texts(run)


def test_a_period_without_events_says_so():
    run = asked(opened(span="Custom", from_day="2020-01-01", to_day="2020-01-02"))
    assert "There are no events in this period." in texts(run)
    assert not run.metric


def test_days_in_the_wrong_order_are_named_and_nothing_is_asked():
    run = asked(opened(span="Custom", from_day="2026-02-02", to_day="2026-02-01"))
    assert "start date" in texts(run)
    assert ANSWER.get() is None


def test_a_desk_that_fails_is_said_calmly(monkeypatch):
    def fail(*_args, **_options):
        raise RateCardError("no card is in force")

    replace_method(monkeypatch, ReratingService, "what_if", fail)
    assert "Not calculated: no card is in force" in texts(asked())


# ── the answer ───────────────────────────────────────────────────────────────────────────────────


def test_nothing_changes_by_working_it_out(service):
    before = stored(service), service.version()
    run = asked()
    assert "Nothing has changed, and nothing changes until somebody applies it." in texts(run)
    assert (stored(service), service.version()) == before


def test_organizations_stand_with_the_largest_difference_first_and_tie_out():
    run = asked()
    rows = frame(run, "Difference")
    assert list(rows["Organization"]) == ["org_a", "org_<b>b</b>", "org_l"]
    assert list(rows["Old credits"]) == ["300", "150", "7"]
    assert list(rows["Difference"]) == ["+200", "+100", "0"]
    shown = texts(run)
    assert "All 3 organizations: 457 credits ($0.02) now, 757 ($0.03) under these cards, difference +300" in shown
    assert "✓ The old credits reconcile to Usage Events for this period." in shown
    assert list(frame(run, "Reason")["Events"]) == ["1"]
    assert "None of it has been sent to Stripe yet" in shown


def test_an_answer_about_an_older_ledger_cannot_be_applied(service):
    run = asked()
    with service._ledger.engine.transaction() as writer:
        writer.advance("other")
    run.run()
    assert "The ledger has changed since this" in texts(run)
    assert run.button(key="what-if-apply").disabled


def test_an_answer_can_be_put_away():
    run = asked()
    run.button(key="what-if-discard").click().run()
    assert not run.metric


# ── applying ─────────────────────────────────────────────────────────────────────────────────────


def test_applying_needs_the_number_of_events_typed(service):
    run = confirming(asked(), "4")
    assert "3 events would get new figures: +300 credits" in texts(run)
    assert run.button(key="what-if-confirm").disabled
    run = confirming(run, "3")
    assert not run.button(key="what-if-confirm").disabled
    assert {version for _, _, version in stored(service)} == {"builtin-1", "legacy"}


def test_what_is_applied_is_booked_once_and_told(service):
    run = confirming(asked(), "3")
    run.button(key="what-if-confirm").click().run()
    assert "Somebody" not in texts(run)
    wiring.rerate_job().wait(30)
    run.run()
    shown = texts(run)
    assert not run.exception
    assert "3 events, +300 credits, +$0.01." in shown
    assert "3 of 4 events changed: +300 credits" in shown
    assert "what-if-apply" not in keys(run)
    assert [(one, total) for one, total, _ in stored(service)] == [("a1", 250), ("a2", 250), ("b1", 250), ("l1", 7)]
    audited = service._ledger.engine.rows("SELECT actor FROM audit WHERE action = 'rerate'")
    assert audited == [("admin",)]


def test_a_refusal_while_applying_is_said_and_nothing_is_booked(service):
    text = DEARER.replace("id: dearer", "id: builtin-1")
    run = confirming(asked(text=text), "3")
    before = stored(service)
    run.button(key="what-if-confirm").click().run()
    wiring.rerate_job().wait(30)
    run.run()
    assert "rate card 'builtin-1' was changed" in texts(run)
    assert stored(service) == before


def test_somebody_elses_applying_is_watched_and_nothing_else_begins(service):
    run = asked()
    kept = run.session_state["what-if.answer"]
    assert wiring.rerate_job().start(service, EVERYONE, kept.cards, None, None)
    run.run()
    assert run.get("progress")[0].proto.text.replace("\\", "") == "Re-rating by tester: reading events"
    assert run.button(key="what-if-ask").disabled
    assert run.button(key="what-if-apply").disabled
    wiring.rerate_job().wait(30)
