"""The Alerts page as a script sees it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from billing_core.access import Principal, Role
from billing_core.alerts.model import Terms
from billing_core.web import wiring
from components.alerts import texts
from components.shared import sign_in
from tests.factories import EVERYONE, ledger_at, usage_row
from tests.pages.opening import opened_at
from tests.pages.test_months import frame, keys
from tests.pages.test_months import texts as texts_of

LIMIT = Terms.parse({"kind": "threshold", "measure": "credits", "above": 100})
FINANCE = Principal("fay", Role.FINANCE)
ONLY_A = Principal("ada", Role.FINANCE, frozenset({"org_a"}))


@pytest.fixture(autouse=True)
def service(demo):
    from billing_core.runtime import clock

    rows = [usage_row(timestamp=clock.now()), usage_row(id="b", timestamp=clock.now(), organization_id="org_<b>*")]
    ledger_at(wiring.settings().warehouse_path, rows).engine.close()
    return wiring.service()


def opened(name="finance", **query):
    return opened_at(name, "alerts.py", **query)


def box(run, kind, key):
    return next(one for one in run.get(kind) if one.key == f"alert-form-{key}")


def chosen(run, key, value):
    return box(run, "selectbox", key).set_value(value).run()


def test_analysts_are_refused():
    run = opened("analyst")
    assert [one.value for one in run.error] == [r"You need the admin or finance role to view this page\."]


def test_an_empty_page_says_what_is_missing():
    run = opened()
    said = texts_of(run)
    assert texts.NO_RULES in said
    assert "no address is set" in said
    assert "alerts-check" not in keys(run)


def test_the_recommended_rules_are_one_click(service):
    run = opened()
    run.button(key="alerts-recommended").click().run()
    assert list(frame(run, "Alerts when")["Alerts when"]) == [
        "A pull, push, reconciliation or month close fails",
        "Credits stay unsent for more than 24 hours",
        "Usage must reach Stripe within 72 hours",
        "Any organization uses more or less in a day than usual",
    ]
    assert service.alerts.add_recommended(FINANCE) == []


def test_a_rule_is_previewed_before_it_is_saved(service):
    run = opened()
    run.button(key="alerts-add").click().run()
    box(run, "text_input", "name").set_value("Big")
    run = box(run, "text_input", "above").set_value("0.001").run()
    assert r"It would send 2 alerts now\. It watches 2 organizations\." in [one.value for one in run.info]
    run.button(key="alert-form-do").click().run()
    assert not run.exception
    assert list(frame(run, "Alerts when")["Name"]) == ["Big"]
    assert r"Added\: Big" in [one.value for one in run.success]
    (one,) = service.alerts.rules(FINANCE)
    assert (one.rule.created_by, str(one.rule.terms.above)) == ("finance", "0.001")


def test_what_is_typed_wrong_is_said_in_the_dialog(service):
    run = opened()
    run.button(key="alerts-add").click().run()
    run = box(run, "text_input", "above").set_value("lots").run()
    assert any("above" in one.value and "lots" in one.value for one in run.error)
    assert run.button(key="alert-form-do").disabled
    assert service.alerts.rules(FINANCE) == []


def test_what_was_told_stands_in_the_history_as_text(service):
    rule = service.alerts.add(FINANCE, "Big *bold*", LIMIT)
    service.alerts.check(EVERYONE)
    run = opened()
    assert sorted(frame(run, "Rule")["Alert"]) == [
        "org_<b>* used 150 credits in a day, more than 100 credits",
        "org_a used 150 credits in a day, more than 100 credits",
    ]
    assert set(frame(run, "Rule")["Delivery"]) == {"no address was set"}
    assert list(frame(run, "Alerts when")["State"]) == ["on"]
    service.alerts.mute(FINANCE, rule.id, service.now() + timedelta(hours=1), "month end")
    (state,) = frame(opened(rule=rule.id), "Alerts when")["State"]
    assert state == "muted"


def test_a_limited_account_sees_its_own_rules_only(service, monkeypatch):
    service.alerts.add(FINANCE, "everybody's", LIMIT)
    service.alerts.add(ONLY_A, "mine", LIMIT)
    service.alerts.check(EVERYONE)
    monkeypatch.setattr(sign_in, "_principal", lambda: ONLY_A)
    run = opened()
    assert list(frame(run, "Alerts when")["Name"]) == ["mine"]
    assert list(frame(run, "Rule")["Alert"]) == ["org_a used 150 credits in a day, more than 100 credits"]
    assert texts.LIMITED in texts_of(run)
    assert "alerts-check" not in keys(run)
    assert "org_<b>" not in texts_of(run)


@pytest.mark.parametrize("by", ["user", "model"])
def test_the_view_of_an_alert_shows_what_counted(service, by):
    service.alerts.add(FINANCE, by, Terms.parse({**LIMIT.to_json(), "above": 10, "by": by}))
    service.alerts.check(EVERYONE)
    (one,) = service.alerts.history(FINANCE)
    run = opened_at("finance", f"{one.page or 'usage_events'}.py", **one.query)
    assert not run.warning  # nothing in the address is unknown
    shown = f"{texts_of(run)} {[one.value.to_dict() for one in run.dataframe]}"
    assert one.value == ("300" if by == "user" else "200")
    assert one.value in shown
