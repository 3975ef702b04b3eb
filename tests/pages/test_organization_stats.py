"""The Organization Stats page as a script sees it; clicks on grids and charts are in `tests/browser`."""

from __future__ import annotations

import ast
import json
import re
import sys
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from urllib.parse import parse_qs, urlsplit

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from billing_core.access import Principal, Role
from billing_core.errors import WarehouseError
from billing_core.organizations.directory import Directory
from billing_core.organizations.limits_service import LimitsService
from billing_core.organizations.service import OrganizationService
from billing_core.runtime import clock
from billing_core.service import BillingService
from billing_core.stripe_sync.customer_status import CustomerStatus
from billing_core.stripe_sync.service import StripeSyncService
from billing_core.types import SyncStatus
from billing_core.web import wiring
from components.organizations import overview
from components.shared import sign_in
from tests.factories import events_table, ledger_at, model_usage, usage_row
from tests.pages.opening import opened_at
from tests.stand_ins import replace_method

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "pages" / "organization_stats.py"
MONTH = "period=Last+30+days"


def ago(days: int, hour: int = 12) -> datetime:
    """So many days ago, at that hour: which day an event is on must not depend on when the test runs."""
    return datetime.combine(clock.now().date() - timedelta(days=days), time(hour), UTC)


def usage() -> list[dict]:
    """Now 900 credits of org_acme, 300 of org_b, 150 of nobody; before them 300 of org_acme and 150 of org_gone."""
    return [
        usage_row(id="a1", timestamp=ago(1), organization_id="org_acme", customer_id="cus_acme", user_id="ann"),
        usage_row(
            id="a2",
            timestamp=ago(2),
            organization_id="org_acme",
            customer_id="cus_acme",
            latency_seconds=600,
            user_id="bob",
            chatflow_id="flow-2",
            chatflow_name="Search",
            models=["gpt-5", "o4"],
        ),
        usage_row(id="a3", timestamp=ago(2, 11), organization_id="org_acme", customer_id="cus_2", user_id="bob"),
        usage_row(
            id="b1",
            timestamp=ago(1, 10),
            organization_id="org_b",
            customer_id="cus_b",
            models=["o4"],
            usage=[model_usage("o4", cost_usd=None, input=1000)],
            cost_usd=None,
        ),
        usage_row(id="b2", timestamp=ago(1, 9), organization_id="org_b", customer_id=None),
        usage_row(id="n1", timestamp=ago(1, 8), organization_id=None, customer_id=None),
        usage_row(id="a0", timestamp=ago(40), organization_id="org_acme", customer_id="cus_acme"),
        usage_row(id="a00", timestamp=ago(41), organization_id="org_acme", customer_id="cus_acme"),
        usage_row(id="g0", timestamp=ago(40), organization_id="org_gone", customer_id="cus_gone"),
        usage_row(id="o0", timestamp=ago(200), organization_id="org_old", customer_id="cus_old"),
    ]


def book(rows: list[dict]) -> None:
    ledger_at(wiring.settings().warehouse_path, rows).engine.close()


class Others:
    """Stands in for the parts of the page that have tests of their own: each draws one line that says what it got."""

    def __init__(self, monkeypatch):
        for module, function in (
            ("limits", "limits_view"),
            ("limit_panel", "limit_panel"),
            ("forecast", "forecast_panel"),
            ("anomalies", "anomalies_view"),
            ("directory", "directory_view"),
        ):
            stand_in = sys.modules.get(f"components.organizations.{module}")
            if not getattr(stand_in, "is_stand_in", False):
                stand_in = ModuleType(f"components.organizations.{module}")
                stand_in.is_stand_in = True
                monkeypatch.setitem(sys.modules, f"components.organizations.{module}", stand_in)
            setattr(stand_in, function, self._line(function))

    def _line(self, name: str):
        def draw(service, principal, *rest) -> None:
            shown = [one for one in rest if isinstance(one, str) or one is None]
            st.text(" ".join([name, principal.name, *map(str, shown)]))

        return draw


@pytest.fixture(autouse=True)
def others(demo, monkeypatch):
    return Others(monkeypatch)


def opened(name: str = "admin", **query: str | list[str]) -> AppTest:
    """The page as `name` sees it after opening this address."""
    return opened_at(name, "organization_stats.py", **query)


def limited(monkeypatch, *organizations: str) -> None:
    """From here on everybody who signs in is an admin limited to these organizations."""
    principal = Principal("ada-limited", Role.ADMIN, frozenset(organizations))
    monkeypatch.setattr(sign_in, "_principal", lambda: principal)


def texts(run: AppTest) -> str:
    """Everything that can be read, without Markdown's escapes."""
    kinds = ("title", "header", "caption", "markdown", "text", "info", "warning", "error")
    return "\n".join(str(element.value) for kind in kinds for element in run.get(kind)).replace("\\", "")


def links(run: AppTest) -> dict[str, str]:
    """Links to pages: label → query."""
    return {link.proto.label.replace("\\", ""): link.proto.query_string for link in run.get("page_link")}


def figures(run: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in run.get("plotly_chart")]


def tiles(run: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in run.metric}


def changes(run: AppTest) -> dict[str, str]:
    return {metric.label: metric.delta for metric in run.metric}


def grid(run: AppTest):
    return next(frame.value for frame in run.dataframe if "organization" in frame.value.columns)


def names_in(run: AppTest) -> list[str]:
    return list(grid(run)["organization"])


def everything(run: AppTest) -> str:
    """All that reaches the browser, as text: what may not be told must not be in it."""
    parts = [texts(run), json.dumps(figures(run)), *(frame.value.to_json() for frame in run.dataframe)]
    parts += [json.dumps(links(run)), *(str(box.options) + str(box.value) for box in run.multiselect)]
    parts += [link.proto.url for link in run.get("link_button")]
    return "\n".join(parts)


# ── who may ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["analyst", "finance", "analyst-acme"])
def test_only_admins_see_the_page(name):
    book(usage())
    run = opened(name, view="Charts")
    assert "the admin role" in run.error[0].value
    assert not run.title
    assert not run.dataframe
    assert not run.get("plotly_chart")


def test_without_a_session_the_page_shows_nothing():
    book(usage())
    run = AppTest.from_file(str(PAGE), default_timeout=30).run()
    assert not run.title
    assert not run.dataframe


def test_the_page_and_everything_that_runs_on_its_own_guard_themselves_first():
    """Fragments run without `main.py`; a role taken away must count at once."""
    asked = "sign_in.guard(Role.ADMIN)"
    page = ast.parse(PAGE.read_text())
    assert next(ast.unparse(one) for one in page.body if isinstance(one, (ast.Assign, ast.With))) == (
        f"principal = {asked}"
    )
    alone: dict[str, str] = {}
    for name in ("table", "compare", "chart_panel", "page", "overview", "movers", "bar"):
        tree = ast.parse((ROOT / "components" / "organizations" / f"{name}.py").read_text())
        functions = {one.name: one for one in tree.body if isinstance(one, ast.FunctionDef)}
        for call in (one for one in ast.walk(tree) if isinstance(one, ast.Call) and one.args):
            called = ast.unparse(call.args[0])
            if ast.unparse(call.func) == "st.fragment" and called in functions:
                alone[called] = ast.unparse(functions[called].body[0]).removeprefix("principal = ")
    assert alone == {"_table": asked, "_panel": asked, "_charts": asked}


# ── overview ─────────────────────────────────────────────────────────────────────────────────────


def test_tiles_table_and_footer_show_the_same_figures_and_tie_out_with_usage_events():
    book(usage())
    run = opened(more="1")
    shown = tiles(run)
    # 150 + 600 + 150, 150 + 150, 150
    assert (shown["Credits"], shown["Amount"], shown["Events"]) == ("1,350", "$0.05", "6")
    assert (shown["Not yet in Stripe"], shown["Failed"]) == ("1,350", "300.00")
    assert (
        "**All 4 rows matching this filter:** AI tokens 600.00 + Compute 750.00 + Storage 0 = **1,350.00 credits**"
        in (texts(run))
    )
    assert links(run)["✓ reconciles to Usage Events: 1,350.00 credits"] == MONTH
    summary = wiring.service().summary(_params(), Principal("t", Role.ADMIN))
    assert summary.totals.totals.credits.total == 1350


def _params():
    from components.organizations.query import Address, question

    return question(Address(), at=clock.now(), zone=wiring.service().settings.zone, as_of=1)


def test_figures_that_do_not_tie_out_are_called_out(monkeypatch):
    book(usage())
    monkeypatch.setattr(OrganizationService, "_ties_out", lambda *_: False)
    run = opened()
    (warning,) = run.warning
    assert "do not reconcile" in warning.value
    assert "✓" not in "".join(links(run))


def test_every_organization_has_a_row_and_events_without_one_have_theirs():
    book(usage())
    run = opened()
    assert names_in(run) == ["org_acme", "org_b", "No organization", "org_gone"]
    frame = grid(run)
    assert list(frame["credits_total"]) == ["900.00", "300.00", "150.00", "0"]
    assert list(frame["change"]) == ["+200 %", "new", "new", "became inactive"]
    assert list(frame["customers"]) == ["cus_2, cus_acme", "cus_b", "unknown", "unknown"]
    assert [len(daily) for daily in frame["daily"]] == [30] * 4
    assert sum(sum(daily) for daily in frame["daily"]) == 1350
    assert frame["share"].iloc[0] == pytest.approx(200 / 3)


def test_unknown_figures_are_unknown_and_not_zero():
    book(
        [
            usage_row(
                timestamp=ago(1),
                cost_usd=None,
                tokens_total=None,
                tokens_in=None,
                tokens_out=None,
                usage=[],
                has_error=None,
            )
        ]
    )
    run = opened()
    shown = tiles(run)
    for name in ("Langfuse cost", "Margin"):
        assert shown[name] == "unknown"
    assert "The margin is unknown" in texts(run)
    shown = tiles(opened(more="1"))
    for name in ("Margin %", "Tokens", "Error share"):
        assert shown[name] == "unknown"
    frame = grid(run)
    assert list(frame["cost_usd"]) == list(frame["tokens_total"]) == list(frame["error_share"]) == ["unknown"]


def test_a_period_is_compared_with_the_one_before_it():
    book(usage())
    moved = changes(opened(more="1"))
    assert moved["Credits"] == "+200 %"
    assert moved["Events"] == "+100 %"
    assert set(changes(opened(span="All time")).values()) == {""}
    compared = changes(opened(span="Custom", from_day="2001-01-01", to_day="2001-01-02"))
    assert compared.pop("Customers at risk") == ""  # of now, whatever the period
    assert set(compared.values()) == {"no earlier data"}


def test_a_period_is_compared_with_any_chosen_days_in_tiles_table_and_file():
    book(usage())
    days = {"against": "days", "against_from": str(ago(200).date()), "against_to": str(ago(200).date())}
    run = opened(more="1", show=["before", "change"], **days)
    assert changes(run)["Credits"] == "+800 %"  # 1,350 credits to 150 of org_old
    assert dict(zip(grid(run)["organization"], grid(run)["before"], strict=True))["org_old"] == "150.00"
    (link,) = [one.proto.url for one in run.get("link_button") if "organizations.csv" in one.proto.url]
    assert f"compare={ago(200).date()}T00" in link
    wrong = opened(more="1", **{**days, "against_to": "2001-01-01"})
    assert "must be on or after the start date" in texts(wrong)
    assert changes(wrong)["Credits"] == ""


def test_the_page_opens_with_five_figures_and_keeps_the_rest_folded():
    book(usage())
    run = opened()
    assert list(tiles(run)) == ["Amount", "Langfuse cost", "Margin", "Not yet in Stripe", "Customers at risk"]
    assert "Top movers" not in texts(run)
    assert [fold.label for fold in run.expander] == ["More figures, comparison and top movers"]
    unfolded = opened(more="1")
    assert len(tiles(unfolded)) == 17
    assert "Top movers" in texts(unfolded)


def test_amount_and_cost_on_the_tiles_lead_to_the_margin():
    book(usage())
    line = next(one for one in texts(opened()).splitlines() if one.endswith(" margin"))
    assert "of events with unknown cost" in line


def test_customers_at_risk_are_unknown_until_plans_were_read():
    book(usage())
    run = opened()
    assert tiles(run)["Customers at risk"] == "unknown"
    assert links(run)["Read plans"] == "view=Plans+and+limits"


def test_limits_that_cannot_be_read_leave_the_other_figures_alone(monkeypatch):
    def fail(*_):
        raise WarehouseError("the limits are unreadable")

    book(usage())
    replace_method(monkeypatch, LimitsService, "read", fail)
    run = opened()
    assert tiles(run)["Customers at risk"] == "unknown"
    assert tiles(run)["Amount"] == "$0.05"
    assert not run.error


def test_credits_not_yet_in_stripe_lead_to_exactly_those_events():
    book(usage())
    query = parse_qs(links(opened())["Show events"])
    assert query["status"] == ["pending", "sending", "error"]
    asked = _params().model_copy(update={"status": tuple(map(SyncStatus, query["status"]))})
    shown = wiring.service().summary(asked, Principal("t", Role.ADMIN)).totals.totals
    assert shown.credits.total == 1350


def test_the_longest_traces_are_one_click_away():
    book(usage())
    assert links(opened(more="1"))["Longest traces first"] == f"{MONTH}&sort=Latency"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ({"find": "ORG_"}, ["org_acme", "org_b", "org_gone"]),
        ({"find": "no org"}, ["No organization"]),
        ({"by": "organization", "up": "1"}, ["org_acme", "org_b", "org_gone", "No organization"]),
        ({"by": "credits_total", "up": "1"}, ["org_gone", "No organization", "org_b", "org_acme"]),
        ({"by": "nonsense", "size": "3", "part": "x"}, ["org_acme", "org_b", "No organization", "org_gone"]),
        ({"span": "All time", "find": "old"}, ["org_old"]),
    ],
)
def test_an_address_opens_the_table_it_names(address, expected):
    book(usage())
    assert names_in(opened(**address)) == expected


def test_pages_of_the_table_and_a_page_behind_the_last():
    book([usage_row(id=f"e{n}", timestamp=ago(1), organization_id=f"org_{n:02}") for n in range(12)])
    run = opened(size="5", part="3")
    assert names_in(run) == ["org_10", "org_11"]
    assert "11–12 of 12 rows" in texts(run)
    assert names_in(opened(size="5", part="99")) == ["org_10", "org_11"]
    next(one for one in run.text_input if one.label == "Search").set_value("org_0").run()
    assert names_in(run) == [f"org_0{n}" for n in range(5)]
    assert run.query_params["find"] == "org_0"
    assert "part" not in run.query_params


def test_the_footer_of_a_search_says_of_how_much():
    book(usage())
    assert "**300.00 credits** of 1,350.00 in all" in texts(opened(find="org_b"))


def test_a_search_without_hits_says_so_and_has_a_way_out():
    book(usage())
    run = opened(find="nobody like this")
    assert "No organization matches this search." in texts(run)
    run.button(key="org-clear-find").click().run()
    assert len(names_in(run)) == 4


def test_columns_can_be_chosen_and_stand_in_the_address():
    book(usage())
    run = opened(show=["tokens_reasoning", "nonsense"])
    assert list(grid(run).columns) == ["open", "organization", "tokens_reasoning"]


def test_the_download_asks_for_the_rows_of_the_table():
    book(usage())
    run = opened(find="org_", by="events", up="1")
    (url,) = [urlsplit(element.proto.url) for element in run.get("link_button")]
    assert url.path == "/download/organizations.csv"
    query = parse_qs(url.query)
    assert (query["find"], query["sort"], query["order"], query["as_of"]) == (["org_"], ["events"], ["asc"], ["1"])
    assert set(query) == {"find", "sort", "order", "as_of", "from", "to", "compare"}


def test_top_movers_lead_to_their_organizations_and_name_who_is_new_or_silent():
    book(usage())
    found = links(opened(span="Last 30 days", find="x", more="1"))
    assert found["org_acme: +600.00 credits (+200 %)"] == "find=x&more=1&open=org_acme"
    assert found["org_b: new: +300.00 credits"] == "find=x&more=1&open=org_b"
    assert found["No organization: new: +150.00 credits"] == "find=x&more=1&open_none=1"
    assert found["org_gone: became inactive: −150.00 credits"] == "find=x&more=1&open=org_gone"


def test_two_organizations_stand_beside_each_other():
    book(usage())
    run = opened(compare=["org_b", "org_acme", "org_nowhere"])
    (frame,) = [one.value for one in run.dataframe if "Figure" in one.value.columns]
    assert list(frame.columns) == ["Figure", "org_b", "org_acme"]
    assert list(frame.iloc[0]) == ["Credits", "300.00", "900.00"]
    (lines,) = figures(run)
    assert [sum(line["y"]) for line in lines["data"]] == [300, 900]
    alone = opened(compare="org_b")
    assert not figures(alone)


def test_text_from_outside_is_shown_as_it_is():
    evil = "[x](javascript:alert) :red[y] <b>"
    book([usage_row(timestamp=ago(1), organization_id=evil, chatflow_name=evil)])
    run = opened(open=evil)
    assert run.header[0].value.startswith(r"\[x\]\(javascript\:alert\)")
    assert "<b>" not in json.dumps(
        [trace.get("y") for chart in figures(opened(view="Charts")) for trace in chart["data"]]
    )
    assert any(label.startswith(r"\[x\]\(") for label in (one.proto.label for one in opened(more="1").get("page_link")))


def test_organizations_with_a_name_are_called_by_it_everywhere(monkeypatch):
    book(usage())
    replace_method(monkeypatch, Directory, "names", lambda *_: {"org_b": "Babel"})
    assert names_in(opened(find="babel")) == names_in(opened(find="org_b")) == ["Babel"]
    run = opened(open="org_b")
    assert run.header[0].value == "Babel"
    assert "org_b" in texts(run).splitlines()  # the id is below the name
    assert "Babel: new: +300.00 credits" in links(opened(more="1"))
    assert [bar["name"] for bar in figures(opened(view="Charts"))[0]["data"]][1] == "Babel"


# ── charts ───────────────────────────────────────────────────────────────────────────────────────


def test_every_chart_adds_up_to_usage_events():
    book(usage())
    run = opened(view="Charts")
    trend, tree, users, active = figures(run)
    assert sum(sum(bar["y"]) for bar in trend["data"]) == 1350
    assert sum(tree["data"][0]["values"]) == 1350
    assert sum(sum(bar["x"]) for bar in users["data"]) == 1350
    assert sum(active["data"][0]["y"]) == 4  # bob; a day later ann, and user-1 of org_b and of nobody
    assert links(run)["✓ reconciles to Usage Events: 1,350.00 credits"] == MONTH


def test_a_chart_that_does_not_add_up_is_called_out(monkeypatch):
    book(usage())
    genuine = BillingService.breakdown
    monkeypatch.setattr(
        BillingService,
        "breakdown",
        lambda *asked, **how: genuine(*asked, **how)[1:] if asked[-1] == "user" else genuine(*asked, **how),
    )
    run = opened(view="Charts")
    assert "users" in run.warning[0].value
    assert "✓" not in "".join(links(run))


def test_every_chart_has_a_name_and_a_table_of_its_figures():
    book(usage())
    run = opened(view="Charts")
    assert all(chart.proto.alt.strip() for chart in run.get("plotly_chart"))
    for toggle in [toggle for toggle in run.toggle if toggle.label == "Table"]:
        toggle.set_value(True)
    run.run()
    assert not run.get("plotly_chart")
    trend, tree, users, active = [frame.value for frame in run.dataframe]
    assert list(trend.columns) == ["Day", "org_acme", "org_b", "No organization", "Total credits"]
    assert list(tree["Organization"])[-1] == "No organization"
    assert Decimal(users["Total credits"].str.replace(",", "").astype(float).sum()) == 1350
    assert list(active.columns) == ["Day", "Active users", "New users", "7-day average"]


def test_charts_of_one_organization_lead_to_its_events():
    book(usage())
    run = opened(view="Charts", only=["org_acme", "org_nowhere"])
    assert sum(sum(bar["y"]) for bar in figures(run)[0]["data"]) == 900
    assert links(run)["✓ reconciles to Usage Events: 900.00 credits"] == f"{MONTH}&organization=org_acme"
    assert links(run)["Search · org_acme"] == f"{MONTH}&organization=org_acme&chatflow=flow-2"


# ── one organization ─────────────────────────────────────────────────────────────────────────────


def test_an_organization_has_its_own_page_with_links_into_usage_events():
    book(usage())
    run = opened(open="org_acme", view="Charts", more="1")
    assert run.header[0].value.replace("\\", "") == "org_acme"
    assert tiles(run)["Credits"] == "900.00"
    assert "Billed to cus_2, cus_acme in this period." in texts(run)
    found = links(run)
    mine = f"{MONTH}&organization=org_acme"
    assert found["✓ reconciles to Usage Events: 900.00 credits"] == mine
    assert (found["ann"], found["Search"], found["gpt-5"]) == (
        f"{mine}&user=ann",
        f"{mine}&chatflow=flow-2",
        f"{mine}&model=gpt-5",
    )
    assert not [label for label in found if "+" in label and "gpt" in label]
    assert found["All organizations"] == "view=Charts&more=1"
    days, users, chatflows, models = figures(run)
    for chart, axis in ((days, "y"), (users, "x"), (chatflows, "x"), (models, "x")):
        assert sum(sum(bar[axis]) for bar in chart["data"] if bar["name"] != "Before") == 900


def test_plan_and_forecast_are_those_of_the_organization():
    book(usage())
    shown = texts(opened(open="org_acme"))
    assert "limit_panel admin org_acme" in shown
    assert "forecast_panel admin org_acme" in shown


def test_events_without_an_organization_have_their_own_page():
    book(usage())
    run = opened(open_none="1", more="1")
    assert run.header[0].value == "No organization"
    assert tiles(run)["Credits"] == "150.00"
    assert links(run)["✓ reconciles to Usage Events: 150.00 credits"] == f"{MONTH}&without=organization"
    assert sum(sum(bar["y"]) for bar in figures(run)[0]["data"]) == 150
    assert "limit_panel" not in texts(run)
    assert "forecast_panel admin None" in texts(run)


def test_figures_of_an_organization_that_differ_from_usage_events_are_called_out(monkeypatch):
    book(usage())
    genuine = BillingService.summary
    monkeypatch.setattr(
        BillingService,
        "summary",
        lambda self, params, *asked: genuine(self, params.model_copy(update={"organization": ()}), *asked),
    )
    assert "do not reconcile" in opened(open="org_acme").warning[0].value


def test_an_organization_that_went_silent_or_was_quiet_for_long_says_so():
    book(usage())
    silent = texts(opened(open="org_gone"))
    assert "It became inactive" in silent
    assert "limit_panel admin org_gone" in silent
    quiet = texts(opened(open="org_old"))
    assert "It had no events in this period or the one it is compared with." in quiet
    assert "limit_panel admin org_old" in quiet


def test_an_unknown_organization_is_one_calm_sentence():
    book(usage())
    run = opened(open="org_nowhere")
    assert [info.value.replace("\\", "") for info in run.info] == [
        "There are no events of organization org_nowhere that you may see."
    ]
    assert not run.metric


def test_stripe_is_asked_only_when_somebody_presses_the_button(monkeypatch):
    book(usage())
    asked: list[str] = []

    def status(self, principal, customer):
        asked.append(customer)
        return CustomerStatus(customer, "active", "Pro", 500_000, Decimal(7), None, None, None, clock.now())

    replace_method(monkeypatch, StripeSyncService, "status", status)
    run = opened(open="org_acme")
    assert "cus_2 has not been read from Stripe yet." in texts(run)
    assert asked == []
    run.selectbox(key="org-customer").set_value("cus_acme").run()
    run.button(key="org-customer-read").click().run()
    assert asked == ["cus_acme"]
    assert "500,000 credits included" in texts(run)


# ── admins limited to organizations ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "address",
    [
        {},
        {"view": "Charts"},
        {"open": "org_acme"},
        {"compare": ["org_acme", "org_b"]},
        {"span": "All time"},
        {"view": "Charts", "only": ["org_b", "org_acme"]},
    ],
)
def test_an_admin_limited_to_an_organization_learns_nothing_of_others(monkeypatch, address):
    book(usage())
    limited(monkeypatch, "org_acme")
    run = opened(**address)
    shown = re.sub("(only|compare)=org_b", "", everything(run))  # links repeat what the reader's own address says
    for foreign in ("org_b", "org_gone", "org_old", "cus_b", "No organization", "1,350"):
        assert foreign not in shown
    assert "org_acme" in shown


@pytest.mark.parametrize("open_", [{"open": "org_b"}, {"open_none": "1"}])
def test_a_link_to_a_foreign_organization_reads_like_one_to_none(monkeypatch, open_):
    book(usage())
    limited(monkeypatch, "org_acme")
    refused = texts(opened(**open_))
    nowhere = texts(opened(open="org_nowhere"))
    assert refused.replace("organization org_b", "X").replace("events without an organization", "events of X") == (
        nowhere.replace("organization org_nowhere", "X")
    )


def test_charts_of_a_foreign_organization_read_like_charts_of_none(monkeypatch):
    book(usage())
    limited(monkeypatch, "org_acme")
    assert texts(opened(view="Charts", only="org_b")) == texts(opened(view="Charts", only="org_nowhere"))


def test_invoices_are_for_accounts_that_see_everything(monkeypatch):
    book(usage())
    limited(monkeypatch, "org_acme")
    run = opened(open="org_acme")
    assert "only accounts that see all organizations can view them" in texts(run)
    assert "org-customer-read" not in {button.key for button in run.button}


# ── the other views, nothing, and nothing works ──────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("view", "line"),
    [
        ("Plans and limits", "limits_view admin"),
        ("Anomalies", "anomalies_view admin"),
        ("Names and customers", "directory_view admin"),
    ],
)
def test_only_the_chosen_view_runs(monkeypatch, view, line):
    book(usage())

    def refuse(*_):
        raise AssertionError("statistics were asked for")

    replace_method(monkeypatch, OrganizationService, "statistics", refuse)
    assert line in texts(opened(view=view))


def test_statistics_are_asked_for_once_per_run(monkeypatch):
    book(usage())
    asked: list[object] = []
    genuine = OrganizationService.statistics
    replace_method(monkeypatch, OrganizationService, "statistics", lambda *who: asked.append(who) or genuine(*who))
    opened()
    assert len(asked) == 1


def test_an_empty_ledger_says_what_to_do():
    book([])
    run = opened()
    assert run.info[0].value.startswith("No usage events yet. Press “Refresh from Langfuse”")
    assert not run.metric


def test_a_period_without_events_says_so():
    book(usage())
    run = opened(span="Custom", from_day="2001-01-01", to_day="2001-01-02")
    assert "No usage events in this period." in texts(run)
    assert tiles(run)["Amount"] == "$0"


def test_days_in_the_wrong_order_are_one_calm_line_under_the_bar():
    book(usage())
    run = opened(span="Custom", from_day="2026-02-01", to_day="2026-01-01")
    (error,) = run.error
    assert error.value.startswith("End date must be on or after the start date")
    assert len(run.date_input) == 1


def test_a_ledger_that_cannot_be_read_is_one_calm_line(monkeypatch):
    book(usage())

    def refuse(*_):
        raise WarehouseError("the ledger is busy: another process holds it; try again in a moment")

    replace_method(monkeypatch, OrganizationService, "statistics", refuse)
    run = opened()
    (error,) = run.error
    assert error.value.startswith(r"the ledger is busy\:")
    assert not run.dataframe


def test_figures_of_one_run_are_of_one_state_of_the_ledger(monkeypatch):
    """A pull that books in the middle of a run must not make table and tiles differ."""
    book(usage())
    genuine = overview.organizations_table

    def booked_in_between(*shown):
        late = usage_row(id="late", timestamp=ago(1), organization_id="org_new")
        wiring.service()._ledger.book(events_table([late]), run_id="late")
        genuine(*shown)

    monkeypatch.setattr(overview, "organizations_table", booked_in_between)
    assert "org_new" not in names_in(opened())
