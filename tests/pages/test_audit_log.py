"""The audit view as a script sees it."""

from __future__ import annotations

import pytest
from streamlit.testing.v1 import AppTest

from billing_core.access import Principal, Role
from billing_core.web import wiring
from components.shared import sign_in
from tests.factories import ledger_at, usage_row
from tests.pages.opening import opened_at
from tests.pages.test_months import frame, keys, texts


@pytest.fixture(autouse=True)
def service(demo):
    ledger_at(wiring.settings().warehouse_path, [usage_row()]).engine.close()
    service = wiring.service()
    service.audit("fay", "close", {"period": "2026-10", "sha256": "ab" * 32})
    service.audit("ada", "import", {"file": "<b>*october*</b>.csv", "counts": {"new": 1200}})
    return service


def opened(name: str = "admin", **query: str | list[str]) -> AppTest:
    return opened_at(name, "audit_log.py", **query)


def address(run: AppTest) -> str:
    return next(button.proto.url for button in run.get("link_button") if "audit.csv" in button.proto.url)


def box(run: AppTest, kind: str, name: str):
    return next(one for one in run.get(kind) if one.key.startswith(f"audit-{name}"))


@pytest.mark.parametrize("name", ["analyst", "finance"])
def test_the_audit_log_is_for_admins(name):
    run = opened(name)
    assert not run.title
    assert [error.value for error in run.error] == [r"You need the admin role to view this page\."]


def test_an_admin_limited_to_organizations_is_told_that_it_is_not_for_them(monkeypatch):
    monkeypatch.setattr(sign_in, "_principal", lambda: Principal("admin-a", Role.ADMIN, frozenset({"org_a"})))
    run = opened()
    assert "only admins who can see all of them have access" in texts(run)
    assert not run.dataframe


def test_entries_stand_newest_first_with_readable_details():
    run = opened()
    rows = frame(run, "Details")
    assert list(rows["Entry"]) == ["3", "2", "1"]
    assert list(rows["Who"]) == ["ada", "fay", "tester"]
    assert list(rows["What"]) == ["import", "close", "rate card"]
    assert list(rows["Details"])[:2] == [
        "counts.new: 1,200 · file: <b>*october*</b>.csv",
        "period: 2026-10 · sha256: abababababab",
    ]
    assert "1–3 of 3 entries" in texts(run)
    assert address(run).endswith("/download/audit.csv")


def test_filters_of_the_url_narrow_the_table_and_the_file():
    run = opened(who="fay")
    assert list(frame(run, "Details")["Entry"]) == ["2"]
    assert address(run).endswith("?actor=fay")
    run = opened(what="import", find="OCTOBER")
    assert list(frame(run, "Details")["Entry"]) == ["3"]
    assert address(run).endswith("?action=import&search=OCTOBER")


def test_a_choice_changes_table_and_address():
    run = opened()
    box(run, "multiselect", "who").set_value(["ada", "fay"]).run()
    assert list(frame(run, "Details")["Entry"]) == ["3", "2"]
    box(run, "text_input", "find").set_value("2026-10").run()
    assert list(frame(run, "Details")["Entry"]) == ["2"]
    assert run.query_params["find"] in ("2026-10", ["2026-10"])


def test_nothing_found_says_so_and_keeps_the_filters():
    run = opened(find="no such thing")
    assert "No entries match these filters." in texts(run)
    assert box(run, "text_input", "find").value == "no such thing"
    run = opened(span="Custom", from_day="2020-01-01", to_day="2020-01-02")
    assert "No entries match these filters." in texts(run)


def test_days_in_the_wrong_order_are_named_and_can_be_corrected():
    run = opened(span="Custom", from_day="2026-02-02", to_day="2026-02-01")
    assert "start date" in texts(run)
    assert [box.label for box in run.get("date_input")] == ["Days"]
    assert not run.dataframe


def test_pages_turn(service):
    for number in range(30):
        service.audit("robot", "test", {"number": number})
    run = opened(part="2")
    assert list(frame(run, "Details")["Entry"])[-1] == "1"
    assert "26–33 of 33 entries" in texts(run)
    assert "no entries" not in texts(opened(part="2", who="robot"))


def test_a_page_beyond_the_last_one_shows_the_last_one(service):
    run = opened(part="999")
    assert list(frame(run, "Details")["Entry"]) == ["3", "2", "1"]


def test_a_chosen_entry_is_shown_whole_with_hashes_to_copy():
    run = opened()
    key = next(one.proto.id for one in run.dataframe).split("-audit-table-")[-1]
    run.session_state[f"audit-table-{key}"] = {"selection": {"rows": [1], "columns": [], "cells": []}}
    run.run()
    assert "**Entry 2: close by fay, " in texts(run)
    assert list(frame(run, "Fact")["Value"]) == ["2026-10", "ab" * 32]
    assert next(one.value for one in run.code) == "ab" * 32
    assert len(run.code) == 3


def test_the_chain_is_verified_on_demand():
    run = opened()
    assert "Not verified in this session yet." in texts(run)
    run.button(key="audit-verify").click().run()
    assert "Verified up to entry 3, " in texts(run)
    assert "audit-verify" in keys(run)


def test_an_edited_entry_is_named(service):
    with service._ledger.engine.transaction() as writer:
        writer.rows("UPDATE audit SET actor = 'ada' WHERE seq = 2")
    run = opened()
    run.button(key="audit-verify").click().run()
    assert "The audit log has been altered" in texts(run)
    assert "Only entries before entry 2 are proven." in texts(run)
