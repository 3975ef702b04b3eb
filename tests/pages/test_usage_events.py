"""The Usage Events page as a script sees it; clicks on grids and charts are in `tests/browser`."""

from __future__ import annotations

import ast
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from streamlit.testing.v1.element_tree import Selectbox

from billing_core.errors import WarehouseError
from billing_core.runtime import clock
from billing_core.service import BillingService
from billing_core.web import wiring
from components.usage_events.texts import NO_EVENTS_REFRESH, NOTHING_FOUND
from tests.factories import events_table, ledger_at, model_usage, usage_row
from tests.pages.opening import opened_at, signed_in
from tests.stand_ins import replace_method

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "pages" / "usage_events.py"
COMPONENTS = ROOT / "components"
HOUR = timedelta(hours=1)


def ago(hours: float) -> datetime:
    return clock.now().replace(microsecond=0) - hours * HOUR


def month() -> list[dict]:
    """Six events of this and yesterday's day: four of org_acme, two of org_b, one of which names no customer."""
    return [
        usage_row(id="a1", timestamp=ago(1), organization_id="org_acme", customer_id="cus_acme", user_id="ann"),
        usage_row(id="a2", timestamp=ago(2), organization_id="org_acme", customer_id="cus_acme", user_id="bob"),
        usage_row(id="a3", timestamp=ago(3), organization_id="org_acme", customer_id="cus_acme", latency_seconds=600),
        usage_row(
            id="a4",
            timestamp=ago(30),
            organization_id="org_acme",
            customer_id="cus_acme",
            models=["o4"],
            usage=[model_usage("o4", input=5_000)],
            tokens_in=5_000,
            tokens_out=0,
            tokens_total=5_000,
        ),
        usage_row(id="b1", timestamp=ago(4), organization_id="org_b", customer_id="cus_b", chatflow_id="flow-2"),
        usage_row(id="b2", timestamp=ago(5), organization_id="org_b", customer_id=None, environment="staging"),
    ]


def book(rows: list[dict]) -> None:
    ledger_at(wiring.settings().warehouse_path, rows).engine.close()


def opened(name: str = "analyst", **query: str | list[str]) -> AppTest:
    """The page as `name` sees it after opening this address."""
    return opened_at(name, **query)


def ids(run: AppTest) -> list[str]:
    """The events in the table; the column is asked for by `ids_shown`."""
    return list(grid(run)["id"])


def grid(run: AppTest):
    return run.dataframe[0].value


COLUMNS = ["Time", "Credits", "Amount", "Event id", "Status", "Error"]


def texts(run: AppTest) -> str:
    return "\n".join(
        str(element.value) for kind in ("caption", "markdown", "text", "info") for element in run.get(kind)
    )


def figures(run: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in run.get("plotly_chart")]


def period_box(run: AppTest) -> Selectbox:
    return next(box for box in run.selectbox if box.label == "Period")


def metrics(run: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in run.metric}


# ── what stands there ────────────────────────────────────────────────────────────────────────────


def test_header_table_and_charts_show_the_same_credits():
    book(month())
    run = opened(columns=COLUMNS)
    # 3 × (100 + 50), 100 + 500, 500 + 50, 150
    assert metrics(run) == {
        "Credits": "1,750",
        "Amount": r"$0.07",
        "Events": "6",
        "Tokens": "10.0K",
        "Not yet in Stripe": "1,750",
        "Errors": "1",
    }
    assert (
        "All 6 events matching this filter:** AI tokens 1,000.00 + Compute 750.00 + Storage 0 = **1,750.00 credits**"
        in (texts(run))
    )
    assert "✓ charts, table and header agree: 1,750.00 credits" in texts(run)
    per_day, top = figures(run)
    assert sum(sum(bar["y"]) for bar in per_day["data"]) == 1750
    assert sum(sum(bar["x"]) for bar in top["data"]) == 1750
    run.selectbox(key="usage.rank").set_value("Hours of the week").run()
    _, heat = figures(run)
    assert sum(cell or 0 for row in heat["data"][0]["z"] for cell in row) == 1750


def test_a_chart_that_does_not_add_up_is_called_out(monkeypatch):
    book(month())
    genuine = BillingService.by_hour_of_week
    monkeypatch.setattr(
        BillingService, "by_hour_of_week", lambda *asked: {**genuine(*asked), (0, 0): Decimal("0.000001")}
    )
    run = opened()
    run.selectbox(key="usage.rank").set_value("Hours of the week").run()
    (warning,) = [element.value for element in run.warning]
    assert "hours of the week" in warning
    assert "✓ charts" not in texts(run)


def test_the_newest_event_comes_first_with_its_figures_for_people():
    book(month())
    rows = grid(opened(columns=COLUMNS))
    assert list(rows["id"]) == ["a1", "a2", "a3", "b1", "b2", "a4"]
    assert list(rows["credits_total"]) == ["150.00", "150.00", "600.00", "150.00", "150.00", "550.00"]
    assert list(rows["amount_usd"])[:3] == ["$0.0060", "$0.0060", "$0.02"]
    assert list(rows["sync_status"]) == ["pending"] * 4 + ["error", "pending"]
    assert list(rows["sync_error"])[4].startswith("no customer")


def test_every_chart_and_table_has_a_name_for_screen_readers():
    book(month())
    run = opened()
    charts = run.get("plotly_chart")
    assert len(charts) == 2
    assert all(chart.proto.alt.strip() for chart in charts)
    assert [frame.proto.alt for frame in run.dataframe] == ["Usage events"]


def test_every_chart_can_be_read_as_a_table():
    book(month())
    run = opened()
    toggles = [toggle for toggle in run.toggle if toggle.label == "Table"]
    assert len(toggles) == 2
    for toggle in toggles:
        toggle.set_value(True)
    run.run()
    assert not run.get("plotly_chart")
    per_day, top = (frame.value for frame in list(run.dataframe)[:2])
    assert list(per_day["Total credits"]) == ["550.00", "1,200.00"]
    assert list(top["Total credits"]) == ["1,600.00", "150.00"]


def test_charts_can_be_folded_and_a_link_keeps_them_so():
    book(month())
    run = opened(page="1")
    run.button(key="hide-charts").click().run()
    assert run.query_params.get("charts") == "hidden"
    run = opened(charts="hidden")
    assert not run.get("plotly_chart")
    run.button(key="show-charts").click().run()
    assert len(figures(run)) == 2
    assert "charts" not in run.query_params


def test_a_figure_of_the_header_shows_exactly_its_events():
    book(month())
    run = opened(columns=COLUMNS, organization="org_b")
    assert metrics(run)["Errors"] == "1"
    run.button(key="show-kpi-tiles-Errors").click().run()
    assert (ids(run), metrics(run)["Events"]) == (["b2"], "1")
    run = opened(columns=COLUMNS, status="error")
    run.button(key="show-kpi-tiles-Not yet in Stripe").click().run()
    assert ids(run) == ["b2"]


def test_a_chatflow_is_chosen_and_shown_by_its_name():
    book([usage_row(id="a1", timestamp=ago(1), chatflow_id="flow-1", chatflow_name="Support")])
    run = opened(chatflow="flow-1")
    chip = run.button(key="chip-0")
    assert (chip.label, chip.help) == (r"Chatflow\: Support", r"flow\-1 · Remove this filter")
    run.session_state["filters-open"] = True
    run.run()
    (choice,) = [select for select in run.multiselect if select.label == "Chatflow"]
    assert choice.options == ["Support"]


def test_a_custom_period_is_chosen_as_a_range_that_has_no_wrong_order():
    noon = datetime(2026, 5, 4, 12, tzinfo=UTC)
    book([usage_row(id=f"d{n}", timestamp=noon + timedelta(days=n)) for n in range(4)])
    run = opened(columns=COLUMNS, period="Custom")
    assert len(ids(run)) == 4
    run.date_input[0].set_value([noon.date()]).run()  # the first of two clicks
    assert "first_day" not in run.query_params
    run.date_input[0].set_value([noon.date(), noon.date() + timedelta(days=1)]).run()
    assert (run.query_params.get("first_day"), run.query_params.get("last_day")) == ("2026-05-04", "2026-05-05")
    assert ids(run) == ["d1", "d0"]


def test_what_is_left_out_of_a_ranking_is_accounted_for():
    rows = [usage_row(id=f"e{n}", timestamp=ago(1), user_id=f"u{n:02}") for n in range(14)]
    book(rows)
    run = opened()
    run.selectbox(key="usage.rank").set_value("Users").run()
    assert "All others \\(4 users\\)\\: 600\\.00 credits" in texts(run)


def test_a_period_without_an_earlier_one_says_so_instead_of_infinity():
    book(month())
    assert {metric.delta for metric in opened().metric} == {"no earlier data"}


def test_all_time_is_compared_with_nothing():
    book(month())
    assert {metric.delta for metric in opened(period="All time").metric} == {""}


def test_tiles_and_charts_are_compared_with_any_chosen_days_and_what_is_wrong_is_told_beside_them():
    book([*month(), usage_row(id="old", timestamp=ago(24 * 60))])
    day = str(ago(24 * 60).date())
    run = opened(compare="days", compare_from=day, compare_to=day)
    assert {one.label: one.delta for one in run.metric}["Credits"] == r"+1,067 %"  # 150 credits before
    assert {"Before"} <= {trace["name"] for trace in figures(run)[1]["data"]}
    wrong = opened(compare="days", compare_from=day, compare_to="2001-01-01")
    assert "must be on or after the start date" in texts(wrong)
    assert {one.delta for one in wrong.metric} == {""}
    assert len(grid(wrong)) == 6
    box = next(one for one in wrong.selectbox if one.label == "Compare with")
    box.set_value("nothing").run()
    assert "compare_to" not in wrong.query_params
    assert "start date" not in texts(wrong)


def test_unknown_tokens_are_unknown_and_not_zero():
    book([usage_row(timestamp=ago(1), tokens_in=None, tokens_out=None, tokens_total=None, usage=[])])
    assert metrics(opened())["Tokens"] == "unknown"


def test_text_from_outside_is_shown_as_it_is():
    evil = "[x](javascript:alert) :red[y] <b>"
    book([usage_row(timestamp=ago(1), organization_id=evil, chatflow_name=evil)])
    run = opened(organization=evil)
    chip = next(button for button in run.button if button.key == "chip-0")
    assert chip.label.startswith(r"Organization\: \[x\]\(javascript\:alert\)")
    assert r"&lt;b&gt;" in json.dumps(figures(run)[1])


# ── filters and address ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ({"organization": "org_b"}, ["b1", "b2"]),
        ({"organization": ["org_b", "org_acme"], "user": "ann"}, ["a1"]),
        ({"status": "error"}, ["b2"]),
        ({"environment": "staging"}, ["b2"]),
        ({"model": "o4"}, ["a4"]),
        ({"chatflow": "flow-2"}, ["b1"]),
        ({"customer": "cus_b"}, ["b1"]),
        ({"without": "customer"}, ["b2"]),
        ({"without": "customer", "organization": "org_b"}, ["b2"]),
        ({"cause": "no_customer"}, ["b2"]),
        ({"status": "error", "held": "false"}, ["b2"]),
        ({"search": "ANN"}, ["a1"]),
        ({"amount_min": "0.02"}, ["a3", "a4"]),
        ({"amount_min": "0.02", "amount_max": "$0.023"}, ["a4"]),
        ({"sort": "Credits", "order": "Ascending", "rows": "5", "page": "2"}, ["a3"]),
        ({"sort": "Event id", "order": "Ascending"}, ["a1", "a2", "a3", "a4", "b1", "b2"]),
    ],
)
def test_an_address_opens_the_view_it_names(address, found):
    book(month())
    assert ids(opened(columns=COLUMNS, **address)) == found


def test_a_custom_period_takes_both_days_whole():
    noon = datetime(2026, 5, 4, 12, tzinfo=UTC)
    book([usage_row(id=f"d{n}", timestamp=noon + timedelta(days=n)) for n in range(4)])
    run = opened(columns=COLUMNS, period="Custom", first_day="2026-05-05", last_day="2026-05-06")
    assert ids(run) == ["d2", "d1"]


def test_values_that_nobody_has_stay_visible_and_find_nothing():
    book(month())
    run = opened(organization="org_gone")
    assert [info.value for info in run.info] == [NOTHING_FOUND]
    assert "Organization\\: org\\_gone" in [button.label for button in run.button]


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ({"status": "lost"}, r"status\: \'lost\' is not accepted"),
        ({"without": "wings"}, r"without\: \'wings\' is not accepted"),
        ({"amount_min": "much"}, r"amount\_min\: \'much\' is not accepted"),
        (
            {"period": "Custom", "first_day": "2026-02-01", "last_day": "2026-01-01"},
            "End date must be on or after the start date",
        ),
    ],
)
def test_a_wrong_address_is_one_calm_line_with_a_way_out(address, says):
    book(month())
    run = opened(**address)
    (error,) = run.error
    assert error.value.startswith(says)
    run.button(key="remedy-reset").click().run()
    assert not run.error
    assert len(grid(run)) == 6


@pytest.mark.parametrize("address", [{"page": "abc"}, {"rows": "7"}, {"sort": "x; DROP"}, {"period": "Someday"}])
def test_nonsense_in_the_address_falls_back_to_the_default(address):
    book(month())
    run = opened(**address)
    assert len(grid(run)) == 6
    ((name, value),) = address.items()
    (warning,) = [element.value for element in run.warning]
    assert warning.startswith(
        rf"In the address\, {name}\: \'{value}" if value.isalpha() else f"In the address\\, {name}"
    )


def test_a_page_that_there_is_not_falls_back_to_the_first():
    book(month())
    for page in ("99", "-3", "0", "x", "99999999999999999999"):
        run = opened(rows="5", page=page)
        assert "1–5 of 6 events" in texts(run)
        assert len(grid(run)) == 5


def test_any_filter_starts_on_the_first_page_again():
    book(month())
    run = opened(rows="5", page="2")
    assert len(grid(run)) == 1
    period_box(run).set_value("All time").run()
    assert len(grid(run)) == 5


def test_a_chip_removes_its_filter_and_reset_removes_all():
    book(month())
    run = opened(organization=["org_acme", "org_b"], status="error", search="trace")
    labels = [button.label for button in run.button if str(button.key).startswith("chip")]
    assert labels == [r"Organization\: org\_acme", r"Organization\: org\_b", r"Sync status\: error", r"Search\: trace"]
    run.button(key="chip-3").click().run()
    run.button(key="chip-0").click().run()
    assert run.query_params.get("organization") == "org_b"
    assert len(grid(run)) == 1
    run.button(key="reset-filters").click().run()
    assert "organization" not in run.query_params
    assert len(grid(run)) == 6


def test_what_events_lack_is_chosen_in_the_panel_and_left_by_its_chip():
    book(month())
    run = opened(columns=COLUMNS)
    (without,) = [select for select in run.multiselect if select.label == "Without"]
    assert without.options == ["organization", "customer", "user", "session", "chatflow", "model", "environment"]
    without.set_value(["customer"]).run()
    assert (run.query_params.get("without"), ids(run)) == ("customer", ["b2"])
    (link,) = [element.proto for element in run.get("link_button")]
    assert "&without=customer&" in link.url
    chip = run.button(key="chip-0")
    assert chip.label == "Without customer"
    chip.click().run()
    assert "without" not in run.query_params
    assert len(grid(run)) == 6


def test_why_events_are_not_in_stripe_is_chosen_in_words_and_left_by_its_chip():
    book(month())
    run = opened(columns=COLUMNS)
    (cause,) = [select for select in run.multiselect if select.label == "Cause"]
    assert "Older than 35 days" in cause.options
    cause.set_value(["no_customer"]).run()
    assert (run.query_params.get("cause"), ids(run)) == ("no_customer", ["b2"])
    (held,) = [select for select in run.selectbox if select.label == "Held back"]
    held.set_value(False).run()
    assert run.query_params.get("held") == "false"
    (link,) = [element.proto for element in run.get("link_button")]
    assert "&cause=no_customer&held=false&" in link.url
    assert [run.button(key=f"chip-{n}").label for n in range(2)] == [r"Cause\: No Stripe customer", "Not held back"]
    run.button(key="chip-1").click().run()
    run.button(key="chip-0").click().run()
    assert not {"cause", "held"} & set(run.query_params)
    assert len(grid(run)) == 6


def test_stages_and_types_of_credits_are_chosen_in_words_and_in_the_download():
    book(month())
    run = opened(stage=["pending", "error"], credit_type="ai_tokens")
    assert [run.button(key=f"chip-{n}").label for n in range(3)] == [
        r"Stage\: pending",
        r"Stage\: error",
        "Credits for AI tokens",
    ]
    (link,) = [element.proto for element in run.get("link_button")]
    assert "&credit_type=ai_tokens&stage=pending&stage=error&" in link.url
    (chosen,) = [select for select in run.multiselect if select.label == "Stage"]
    chosen.set_value(["billed_before"]).run()
    assert [one.value for one in run.info] == [NOTHING_FOUND]


def test_the_download_link_asks_for_this_filter():
    book(month())
    run = opened(organization="org_b", search="user")
    (link,) = [element.proto for element in run.get("link_button")]
    assert link.url.startswith("/download/usage-events.csv?from=")
    assert "&organization=org_b&search=user&as_of=1" in link.url


# ── who sees what ────────────────────────────────────────────────────────────────────────────────


def test_people_limited_to_an_organization_see_its_figures_only():
    book(month())
    run = opened("analyst-acme", columns=COLUMNS)
    assert sorted(ids(run)) == ["a1", "a2", "a3", "a4"]
    assert metrics(run)["Events"] == "4"
    everything_shown = json.dumps(figures(run)) + texts(run)
    assert "org_b" not in everything_shown
    assert "cus_b" not in everything_shown


def test_the_values_offered_for_filtering_are_their_own():
    book(month())
    run = signed_in("analyst-acme")
    run.session_state["filters-open"] = True
    run.run()
    offered = {select.label: select.options for select in run.multiselect}
    assert offered["Organization"] == ["org_acme"]
    assert offered["Customer"] == ["cus_acme"]
    assert "org\\_acme 4" in texts(run)


def test_another_organization_in_the_address_is_refused_without_saying_whether_it_exists():
    book(month())
    for organization in ("org_b", "org_nowhere"):
        run = opened("analyst-acme", organization=organization)
        (error,) = run.error
        assert "has no access to" in error.value
        assert not run.dataframe


def test_the_passport_of_another_organization_reads_as_if_it_did_not_exist():
    book(month())
    refusals = [opened("analyst-acme", event=event).error[0].value for event in ("b1", "never")]
    assert refusals[0].replace("b1", "never") == refusals[1]


# ── the explanation ─────────────────────────────────────────────────────────────────────────────────


def test_a_link_to_an_event_opens_its_passport_with_the_arithmetic():
    book([usage_row(id="a1", timestamp=ago(1), metadata='{"plan": "pro"}')])
    run = opened(event="a1")
    shown = "\n".join(element.value for element in run.code)
    assert "gpt-5, input: 600 × 100 ÷ 1,000 = 60" in shown
    assert "60 s ÷ 60 × 50 per minute" in shown
    assert "100 + 50 + 0 = 150 credits" in shown
    assert run.json[0].value == '{"plan": "pro"}' or json.loads(run.json[0].value) == {"plan": "pro"}
    assert any(link.proto.url.endswith("/traces/a1") for link in run.get("link_button"))


def test_the_drawer_reads_from_what_was_used_over_what_it_costs_to_where_it_is():
    book([usage_row(id="a1", timestamp=ago(1), user_id="frances.fischer@analytics.tyrell.example")])
    run = opened(event="a1")
    heads = [element.value for element in run.subheader]
    assert heads == ["What was used", "What it costs", "Where it is"]
    assert run.markdown[[one.value.startswith("### 150") for one in run.markdown].index(True)].value == (
        r"### 150\.00 credits · \$0\.0060"
    )
    shown = [element.value for element in run.text]
    assert "frances.fischer@analytics.tyrell.example" in shown
    assert "1,000 (600 in, 400 out)" in shown
    assert any("100 + 50 + 0 = 150 credits" in text for text in shown)
    assert "Pending. Not sent to Stripe yet." in shown
    (raw,) = [fold for fold in run.expander if fold.label == "Every step and the raw form"]
    assert len(raw.code) > 5


def test_a_passport_explains_its_flags_and_its_error():
    book([usage_row(id="a1", timestamp=ago(1), customer_id=None)])
    run = opened(event="a1")
    assert any("no customer" in error.value for error in run.error)
    assert "The trace names no Stripe customer, its organization is not mapped and there is no default." in texts(run)


def test_an_event_that_is_not_there_is_one_calm_line():
    book(month())
    (error,) = opened(event="never").error
    assert error.value.startswith("event \\'never\\' is not in the ledger")


# ── data that moves ──────────────────────────────────────────────────────────────────────────────


def test_while_somebody_reads_new_events_wait_until_they_are_asked_for():
    book(month())
    run = opened(columns=COLUMNS)
    late = usage_row(id="a0", timestamp=ago(0.5), organization_id="org_acme")
    ledger = wiring.service()._ledger
    ledger.book(events_table([late]), run_id="late")
    run.run()
    assert ids(run)[0] == "a1"
    assert metrics(run)["Events"] == "6"
    run.button(key="show-new").click().run()
    assert ids(run)[0] == "a0"
    assert metrics(run)["Events"] == "7"


def test_news_of_other_organizations_are_no_news():
    book(month())
    run = opened("analyst-acme")
    wiring.service()._ledger.book(
        events_table([usage_row(id="b9", timestamp=ago(1), organization_id="org_b")]), run_id="late"
    )
    run.run()
    assert "show-new" not in [button.key for button in run.button]


def test_a_filter_change_shows_the_newest():
    book(month())
    run = opened(columns=COLUMNS)
    wiring.service()._ledger.book(events_table([usage_row(id="a0", timestamp=ago(0.5))]), run_id="late")
    period_box(run).set_value("Last 7 days").run()
    assert ids(run)[0] == "a0"


# ── nothing, and nothing works ───────────────────────────────────────────────────────────────────


def test_an_empty_ledger_says_what_to_do():
    book([])
    run = opened()
    assert run.info[0].value.startswith("No usage events yet. Press “Refresh from Langfuse”")
    assert not run.metric
    assert run.button(key="refresh")


def test_a_ledger_that_cannot_be_read_is_one_calm_line(monkeypatch):
    book(month())

    def refuse(*_):
        raise WarehouseError("the ledger is busy: another process holds it; try again in a moment")

    replace_method(monkeypatch, BillingService, "get_usage_events", refuse)
    run = opened()
    (error,) = run.error
    assert error.value.startswith(r"the ledger is busy\:")
    assert run.button(key="remedy-again")
    assert not run.dataframe


def test_without_a_session_the_page_shows_nothing():
    book(month())
    run = AppTest.from_file(str(PAGE), default_timeout=30).run()
    assert not run.dataframe
    assert not run.metric
    assert not run.get("plotly_chart")


def test_guard_is_the_first_thing_the_page_and_everything_that_runs_on_its_own_do():
    def first_call(body: list[ast.stmt]) -> str:
        declared = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
        statements = (one for one in body if not isinstance(one, declared))
        return next(
            text
            for one in statements
            if "(" in (text := ast.unparse(one)).strip("'\"") and ("=" in text or "guard" in text)
        )

    trees = {path: ast.parse(path.read_text()) for path in (PAGE, *COMPONENTS.rglob("*.py"))}
    assert first_call(trees[PAGE].body) == "principal = sign_in.guard()"
    alone = [
        function
        for tree in trees.values()
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        and any("st.fragment" in (d := ast.unparse(one)) or "st.dialog" in d for one in function.decorator_list)
    ]
    assert {function.name for function in alone} >= {"events_view", "chart_strip", "show_event"}
    for function in alone:
        assert first_call(function.body).removeprefix("principal = ") == "sign_in.guard()", function.name


def test_an_empty_page_follows_when_a_first_pull_begins():
    run = opened()
    assert NO_EVENTS_REFRESH in [box.value for box in run.info]
    book(month())
    assert run.run().dataframe
