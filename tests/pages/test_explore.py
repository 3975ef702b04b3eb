"""Explore on the Usage Events page: the same totals as the events, whoever asks, and what is asked wrong is told."""

from __future__ import annotations

from datetime import timedelta

import pytest

from billing_core.runtime import clock
from billing_core.web import wiring
from components.usage_events import texts
from components.usage_events.explore_rows import METRICS
from tests.factories import ledger_at, model_usage, usage_row
from tests.pages.opening import opened_at


@pytest.fixture(autouse=True)
def ledger():
    then = clock.now() - timedelta(hours=30)
    rows = [
        usage_row(id="a1", organization_id="org_acme"),
        usage_row(id="a2", organization_id="org_acme", models=["o4"], usage=[model_usage("o4", input=1000)]),
        usage_row(id="b1", organization_id="org_b"),
        usage_row(id="n1", organization_id=None),
    ]
    ledger_at(wiring.settings().warehouse_path, [{**row, "timestamp": then} for row in rows]).engine.close()


def explored(name="analyst", **query):
    return opened_at(name, view="explore", **query)


def shown(run):
    return {name: list(cells) for name, cells in run.dataframe[0].value.items()}


def box(run, label):
    return next(one for one in run.selectbox if one.label == label)


def test_events_are_grouped_and_the_groups_add_up_to_what_the_events_come_to():
    run = explored()
    assert shown(run)["Organization"] == ["org_acme", "org_b", "no organization", "All"]
    figures = [float(text.replace(",", "")) for text in shown(run)["Credits"]]
    assert sum(figures[:-1]) == figures[-1]
    (events_view,) = [one.value for one in opened_at("analyst").metric if one.label == "Credits"]
    assert float(events_view.replace(",", "")) == figures[-1]
    assert run.get("plotly_chart")


def test_a_limited_account_explores_its_organizations_only():
    assert shown(explored("analyst-acme"))["Organization"] == ["org_acme", "All"]


def test_choosing_groups_and_figures_stands_in_the_address():
    run = explored()
    box(run, "Group by").set_value("model").run()
    box(run, "Figure").set_value("tokens").run()
    box(run, "Per").set_value("day").run()
    assert {"Model", "Day", METRICS["tokens"]} <= set(shown(run))
    asked = {name: "".join(run.query_params[name]) for name in ("by", "metric", "grain")}
    assert asked == {"by": "model", "metric": "tokens", "grain": "day"}


def test_what_the_page_compares_with_stands_beside_each_group():
    assert "Before" in shown(explored())
    assert "Before" not in shown(explored(compare="nothing"))


def test_a_filter_holds_in_explore_too_and_no_event_is_said():
    assert shown(explored(organization="org_b"))["Organization"] == ["org_b", "All"]
    run = explored(organization="org_none")
    assert not run.dataframe
    assert [one.value for one in run.info]


def test_rows_lead_to_their_events_and_where_they_cannot_it_is_said():
    run = explored()
    assert shown(run)["behind"] == ["Show"] * 4
    run = explored(by="token_class", metric="tokens")
    assert shown(run)["behind"] == ["", "", "Show"]
    assert texts.NO_LINK_OF_CLASS in [one.value for one in run.caption]


def test_explore_has_its_own_table_so_its_chart_is_not_switched_to_one():
    assert not [one.label for one in explored().toggle if one.label == "Table"]


@pytest.mark.parametrize(
    "query",
    [
        {"by": "planet"},
        {"metric": "happiness"},
        {"by": "token_class", "metric": "users"},
        {"by": "model", "then": "model"},
        {"grain": "fortnight"},
        {"compare": "last-month", "period": "All time"},
        {"compare": "days"},
        {"compare": "yesterday"},
        {"top": "0"},
        {"shape": "donut"},
    ],
)
def test_what_the_address_has_wrong_is_told(query):
    run = explored(**query)
    assert not run.exception
    assert [one.value for one in (*run.warning, *run.error)] or [one for one in run.caption if ":red[" in one.value]
