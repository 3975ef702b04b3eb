"""Saved views as people use them on a page."""

from __future__ import annotations

import pytest

from billing_core.access import Principal, Role
from billing_core.runtime import clock
from billing_core.web import wiring
from components.shared import saved_views, texts
from tests.factories import ledger_at, usage_row
from tests.pages.opening import opened_at

ANALYST = Principal("analyst", Role.ANALYST)


@pytest.fixture(autouse=True)
def ledger():
    rows = [usage_row(id=f"e-{one}", organization_id=one, timestamp=clock.now()) for one in ("org_acme", "org_b")]
    ledger_at(wiring.settings().warehouse_path, rows).engine.close()


def button(run, label):
    return next(one for one in run.button if one.label == label)


def organizations(run):
    return sorted(run.dataframe[0].value["organization_id"])


def save_as(run, name, role=""):
    run.text_input(key=saved_views.NAME).set_value(name)
    run.selectbox(key=saved_views.ROLE).set_value(role)
    return button(run, "Save").click().run()


def saved(**how):
    service = wiring.service()
    return service.views.save(ANALYST, **{"page": "usage_events", "name": "acme", "query": "", **how})


def test_what_a_page_shows_is_saved_under_a_name_and_opened_by_whom_it_is_shared_with():
    run = save_as(opened_at("analyst", organization="org_acme"), "Only acme", Role.FINANCE)
    assert [toast.value for toast in run.toast] == [texts.VIEW_SAVED.format(name="Only acme")]
    assert run.text_input(key=saved_views.NAME).value == ""
    colleague = opened_at("finance")
    assert organizations(colleague) == ["org_acme", "org_b"]
    assert organizations(button(colleague, "Only acme").click().run()) == ["org_acme"]
    assert not [one for one in opened_at("admin").button if one.label == "Only acme"]


def test_a_name_that_is_not_accepted_is_told_there_and_stays_in_its_field():
    run = opened_at("analyst")
    run = save_as(run, "\u200b")
    assert [box.value for box in run.error]
    assert run.text_input(key=saved_views.NAME).value == "\u200b"
    assert wiring.service().views.views(ANALYST) == []


def test_the_dashboard_opens_on_the_view_somebody_starts_with_unless_the_address_asks_for_another():
    view = saved(query="organization=org_b")
    button(opened_at("analyst"), "Start page").click().run()
    assert wiring.service().views.start(ANALYST).id == view.id
    run = opened_at("analyst")
    assert organizations(run) == ["org_b"]
    assert organizations(button(run, "Reset").click().run()) == ["org_acme", "org_b"]
    assert organizations(opened_at("analyst", organization="org_acme")) == ["org_acme"]
    assert organizations(opened_at("finance")) == ["org_acme", "org_b"]


def test_a_view_of_what_its_reader_may_not_see_or_what_is_gone_is_told_and_the_rest_stays():
    saved(query="organization=org_b&columns=Margin&sort=Nothing&rows=25", shared_with=Role.ANALYST)
    run = button(opened_at("analyst-acme"), "acme").click().run()
    assert not run.exception
    assert not run.dataframe
    told = " ".join(box.value for box in run.warning)
    assert "columns" in told
    assert "sort" in told


def test_deleting_a_view_takes_it_from_everybody():
    saved(shared_with=Role.FINANCE)
    assert [one for one in opened_at("finance").button if one.label == "acme"]
    assert not [one for one in opened_at("finance").button if one.label == "Delete"]
    button(opened_at("analyst"), "Delete").click().run()
    assert not [one for one in opened_at("finance").button if one.label == "acme"]


def test_the_link_to_copy_is_the_address_of_what_is_shown():
    run = opened_at("analyst", organization="org_acme")
    assert run.code[0].value.endswith("/?organization=org_acme")
