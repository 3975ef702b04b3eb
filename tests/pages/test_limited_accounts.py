"""Pages as accounts limited to organizations see them: no cost and no margin, and what asks for some is told."""

from __future__ import annotations

from datetime import timedelta

import pytest

from billing_core.access import Principal, Role
from billing_core.runtime import clock
from billing_core.web import wiring
from components.shared import sign_in
from components.usage_events.texts import COSTS_HIDDEN, COSTS_NOT_EXPLORED
from tests.factories import ledger_at, usage_row
from tests.pages.opening import opened_at

LIMITED = Principal("admin-acme", Role.ADMIN, frozenset({"org_acme"}))


@pytest.fixture(autouse=True)
def ledger(demo):
    row = usage_row(id="a1", organization_id="org_acme", timestamp=clock.now() - timedelta(hours=2))
    ledger_at(wiring.settings().warehouse_path, [row]).engine.close()


def everything_on(run) -> str:
    """What can be read on a page: texts, tiles, headings of tables, options of choices."""
    kinds = ("caption", "markdown", "text", "info", "metric", "warning")
    said = [str(element) for kind in kinds for element in run.get(kind)]
    said += [" ".join(map(str, table.value.columns)) for table in run.dataframe]
    said += [" ".join(map(str, box.options)) for box in (*run.selectbox, *run.multiselect)]
    return "\n".join(said).lower()


@pytest.mark.parametrize("query", [{}, {"columns": ["Time", "Credits"]}, {"event": "a1"}, {"view": "explore"}])
def test_usage_events_names_no_cost(query):
    seen = everything_on(opened_at("analyst-acme", **query))
    assert "langfuse cost" not in seen
    assert "margin" not in seen
    assert "langfuse cost" in everything_on(opened_at("analyst", **query)) or "event" in query


def test_a_view_that_asks_for_costs_is_shown_without_them_and_says_so():
    run = opened_at("analyst-acme", sort="Langfuse cost", columns=["Time", "Langfuse cost", "Credits"])
    assert [one.value for one in run.info] == [COSTS_HIDDEN]
    assert {"timestamp", "credits_total"} <= set(run.dataframe[0].value.columns)
    assert "cost_usd" not in run.dataframe[0].value.columns


def test_exploring_costs_is_answered_in_words():
    run = opened_at("analyst-acme", view="explore", metric="cost_usd")
    assert [one.value for one in run.info] == [COSTS_NOT_EXPLORED]
    assert not run.dataframe


@pytest.mark.parametrize("query", [{}, {"more": "yes"}, {"open": "org_acme"}])
def test_organization_stats_of_a_limited_admin_name_no_cost(monkeypatch, query):
    whole = everything_on(opened_at("admin", "organization_stats.py", **query))
    assert "margin" in whole
    monkeypatch.setattr(sign_in, "_principal", lambda: LIMITED)
    seen = everything_on(opened_at("admin", "organization_stats.py", **query))
    assert "amount" in seen
    assert "margin" not in seen
    assert "langfuse cost" not in seen
