"""Explore: usage grouped by anything, adding up to what Usage Events shows for the same filter."""

from datetime import UTC, datetime
from decimal import Decimal
from itertools import combinations

import pytest

from billing_core.access import Principal, Role
from billing_core.errors import AccessDenied, BadParameter
from billing_core.types import GetUsageEventsParams
from billing_core.usage_events.explore_model import METRICS_OF_PARTS, Dimension, ExploreQuestion, Metric, PeriodLength
from billing_core.values.decimals import exact_sum
from tests.factories import EVERYONE, NOON, events_table, ledger_at, model_usage, service_over, usage_row
from tests.lived_in import ACME, WINDOWS, copied, service_at
from tests.month_close.world import FINANCE, MonthWorld, trace

NOBODY = Principal("no", Role.ANALYST, frozenset({"org_x"}))
NO_USAGE = {
    "usage": [],
    "models": [],
    "cost_usd": None,
    "tokens_in": None,
    "tokens_out": None,
    "tokens_total": None,
    "latency_seconds": 0,
}

TWO_MODELS = {
    "user_id": "user-2",
    "models": ["claude", "gpt-5"],
    "usage": [model_usage("claude", None, output=100, cache_read=100), model_usage("gpt-5", "0.003", input=300)],
    "tokens_total": 500,
    "cost_usd": Decimal("0.003"),
    "latency_seconds": 120,
}
FOUR = [
    usage_row(id="one model"),
    usage_row(id="two models", **TWO_MODELS),
    usage_row(id="own key", organization_id=None, ai_credentials_ownership="user"),
    usage_row(id="storage", organization_id="org_b", user_id="", storage_gb=Decimal("0.2"), **NO_USAGE),
]
"""100 + 50, 50 + 100, 0 + 50 and 0 + 100 credits: AI tokens + compute or storage."""


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    service = service_over(tmp_path_factory.mktemp("four") / "l.duckdb", FOUR)
    yield service
    service.close()


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explored")
    ledger_at(folder / "empty" / "billing.duckdb").engine.close()
    made = {
        "empty": service_at(folder / "empty" / "billing.duckdb"),
        "lived in": service_at(copied(tmp_path_factory, folder)),
    }
    yield made
    for service in made.values():
        service.close()


def explore(service, by, metric="credits", who=EVERYONE, grain=None, compare=None, top=None, **filters):
    question = ExploreQuestion.parse({"by": by, "metric": metric, "grain": grain, "compare": compare, "top": top})
    return service.explore(GetUsageEventsParams.parse(filters), question, who)


def table(found):
    """Value per group, in order."""
    return {row.values if len(row.values) > 1 else row.values[0]: row.value for row in found.rows}


def money(text):
    return Decimal(text)


# ── by hand ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("by", "metric", "expected", "total"),
    [
        ("model", "credits", {None: 300, "gpt-5": 130, "claude": 20}, 450),
        ("model", "tokens", {"gpt-5": 2300, "claude": 200, None: None}, 2500),
        ("model", "cost_usd", {"gpt-5": money("0.023"), "claude": None, None: None}, money("0.023")),
        (
            "model",
            "margin_usd",
            {None: money("0.008"), "claude": money("0.0008"), "gpt-5": money("-0.0078")},
            money("0.001"),
        ),
        ("model", "amount_usd", {None: money("0.012"), "gpt-5": money("0.0052"), "claude": money("0.0008")}, "0.018"),
        ("model", "events", {"gpt-5": 3, "claude": 1, None: 1}, 4),
        ("model", "users", {"gpt-5": 2, "claude": 1, None: 0}, 2),
        ("token class", "credits", {None: 300, "input": 90, "output": 50, "cache_read": 10}, 450),
        ("token-class", "tokens", {"input": 1500, "output": 900, "cache_read": 100, None: None}, 2500),
        ("credit_type", "credits", {"compute": 200, "ai_tokens": 150, "storage": 100}, 450),
        ("organization", "events", {"org_a": 2, "org_b": 1, None: 1}, 4),
        ("organization", "users", {"org_a": 2, None: 1, "org_b": 0}, 2),
        ("organization", "latency", {"org_a": 90, None: 60, "org_b": 0}, 60),
        ("organization", "margin_usd", {None: money("0.002"), "org_a": money("-0.001"), "org_b": None}, "0.001"),
        ("user", "credits", {"user-1": 200, "user-2": 150, None: 100}, 450),
        (
            "organization,credit_type",
            "credits",
            {("org_a", "ai_tokens"): 150, ("org_a", "compute"): 150, ("org_b", "storage"): 100, (None, "compute"): 50},
            450,
        ),
        (
            "model,token_class",
            "credits",
            {
                (None, None): 300,
                ("gpt-5", "input"): 90,
                ("gpt-5", "output"): 40,
                ("claude", "cache_read"): 10,
                ("claude", "output"): 10,
            },
            450,
        ),
        (
            "credit_type,model",
            "credits",
            {("compute", None): 200, ("ai_tokens", "gpt-5"): 130, ("storage", None): 100, ("ai_tokens", "claude"): 20},
            450,
        ),
    ],
)
def test_groups_by_hand_largest_first_ties_by_name_unknown_last(four, by, metric, expected, total):
    found = explore(four, by, metric)
    shown = [(values, value) for values, value in table(found).items() if values in expected]
    assert shown == list(expected.items())
    assert [values for values in table(found) if values not in expected] in ([], [("gpt-5", None)])
    assert found.totals.value == Decimal(total)


def test_cost_and_margin_say_which_amount_they_leave_out(four):
    found = explore(four, "organization", "margin_usd")
    assert {row.values[0]: row.unknown_cost_amount_usd for row in found.rows} == {
        "org_a": 0,
        "org_b": money("0.004"),
        None: 0,
    }
    assert found.totals.unknown_cost_share == money("0.222222")
    assert explore(four, "organization", "cost_usd").totals.unknown_cost_amount_usd == money("0.004")


def test_with_the_customers_own_key_the_margin_is_known_whatever_it_cost_them(tmp_path):
    service = service_over(tmp_path / "l.duckdb", [usage_row(ai_credentials_ownership="user", cost_usd=None)])
    margin = explore(service, "organization", "margin_usd").totals
    assert (margin.value, margin.unknown_cost_amount_usd) == (money("0.002"), 0)
    cost = explore(service, "organization", "cost_usd").totals
    assert (cost.value, cost.unknown_cost_amount_usd) == (None, money("0.002"))
    service.close()


def test_latency_is_average_and_95th_percentile_in_seconds(four):
    found = explore(four, "organization", "latency")
    assert (found.rows[0].values[0], found.rows[0].value, found.rows[0].p95) == ("org_a", 90, 117)
    assert found.to_json()["totals"] == {"latency_seconds": "60", "latency_p95_seconds": "111"}
    assert not found.to_json()["additive"]


def test_a_filter_on_a_model_selects_whole_events_with_the_other_models_they_used(four):
    found = explore(four, "model", model="claude")
    assert table(found) == {None: 100, "gpt-5": 30, "claude": 20}
    assert found.totals.value == 150


def test_the_rest_below_the_top_is_one_row(four):
    found = explore(four, "organization", top="1")
    assert [(row.values, row.value, row.others) for row in found.rows] == [(("org_a",), 300, None), ((None,), 150, 2)]
    assert found.to_json()["rows"][1] == {"organization": None, "others": 2, "credits": "150"}
    assert explore(four, "organization", "users", top="1").rows[1].value == 1  # not 0 of org_b and 1 of none added up
    assert explore(four, "model", "users", top="1").rows[1].value is None
    assert explore(four, "organization,user", "latency", top="1").rows[1].value == 40
    assert [row.others for row in explore(four, "organization", top="3").rows] == [None] * 3


@pytest.mark.parametrize(
    ("asked", "named", "says"),
    [
        ({"by": ""}, "by", "one or two of organization"),
        ({"by": "planet"}, "by", "organization, customer"),
        ({"by": "user,user"}, "by", "two different"),
        ({"by": "user,model,status"}, "by", "two different"),
        ({"by": "user", "metric": "profit"}, "metric", "credits, amount_usd"),
        ({"by": "token_class", "metric": "users"}, "metric", "credits, amount_usd or tokens by token_class"),
        ({"by": "user,credit_type", "metric": "tokens"}, "metric", "credits or amount_usd by credit_type"),
        ({"by": "user", "grain": "hour"}, "grain", "day, week, month"),
        ({"by": "user", "top": "0"}, "top", "from 1 to 1,000"),
        ({"by": "user", "top": "many"}, "top", "from 1 to 1,000"),
        ({"by": "user", "compare": "previous"}, "compare", "begins somewhere"),
        ({"by": "user", "compare": "last year"}, "compare", "FROM..TO"),
        ({"by": "user", "compare": "2026-10-02..2026-10-01"}, "compare", "TO after FROM"),
        ({"by": "user", "compare": "2026-10-01..2026-10-02", "grain": "day"}, "compare", "begins somewhere"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_what_is_accepted(four, asked, named, says):
    with pytest.raises(BadParameter) as refused:
        explore(four, **asked)
    assert refused.value.parameter == named
    assert says in str(refused.value)


# ── periods and comparisons ──────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def months(tmp_path_factory):
    """One event of 150 credits per hour named, in Berlin, whose clocks go back on 25 October."""
    hours = {
        "old": datetime(2026, 9, 1, 10, tzinfo=UTC),
        "sep": datetime(2026, 9, 30, 21, 30, tzinfo=UTC),  # 23:30
        "first": datetime(2026, 9, 30, 22, 30, tzinfo=UTC),  # 0:30 of 1 October
        "long day": datetime(2026, 10, 24, 22, tzinfo=UTC),  # 25 October, 0:00
        "its end": datetime(2026, 10, 25, 22, 59, tzinfo=UTC),  # 25 October, 23:59
        "monday": datetime(2026, 10, 25, 23, tzinfo=UTC),  # 26 October, 0:00
    }
    rows = [
        usage_row(id=name, timestamp=at, organization_id="gone" if name == "old" else "org_a")
        for name, at in hours.items()
    ]
    path = tmp_path_factory.mktemp("months") / "l.duckdb"
    service = service_over(path, rows, BILLING_TIMEZONE="Europe/Berlin")
    yield service
    service.close()


@pytest.mark.parametrize(
    ("grain", "expected"),
    [
        ("day", {"2026-09-01": 1, "2026-09-30": 1, "2026-10-01": 1, "2026-10-25": 2, "2026-10-26": 1}),
        ("week", {"2026-08-31": 1, "2026-09-28": 2, "2026-10-19": 2, "2026-10-26": 1}),
        ("month", {"2026-09-01": 2, "2026-10-01": 4}),
    ],
)
@pytest.mark.parametrize("metric", ["events", "users"])
def test_periods_are_days_monday_weeks_and_months_of_the_reporting_timezone(months, grain, expected, metric):
    found = explore(months, "environment", metric, grain=grain)
    periods = {row.period.isoformat(): row.value for row in found.rows}
    assert periods == (expected if metric == "events" else dict.fromkeys(expected, 1))


def test_a_group_is_compared_with_itself_in_the_period_before(months):
    october = {"from": "2026-10-01", "to": "2026-11-01"}
    found = explore(months, "organization", compare="previous", **october)
    rows = {row.values[0]: (row.value, row.previous, row.change, row.change_share) for row in found.rows}
    assert rows == {"org_a": (600, 150, 450, 3), "gone": (0, 150, -150, -1)}
    assert (found.totals.value, found.totals.previous, found.totals.change) == (600, 300, 300)
    other = explore(months, "organization", compare="2026-09-30..2026-10-01", **october)
    assert {row.values[0]: row.previous for row in other.rows} == {"org_a": 150}
    assert explore(months, "organization", compare="2020-01-01..2020-02-01", **october).rows[0].change is None


def test_periods_are_compared_in_their_order_across_a_change_of_clocks(months):
    week = {"from": "2026-10-26", "to": "2026-11-02", "grain": "day"}
    found = explore(months, "organization", compare="previous", **week)
    rows = [(row.period.isoformat(), row.value, row.previous) for row in found.rows]
    assert rows == [("2026-10-26", 150, None), ("2026-11-01", 0, 300)]
    by_month = explore(
        months, "environment", compare="previous", grain="month", **{"from": "2026-10-01"}, to="2026-11-01"
    )
    assert [(row.period.isoformat(), row.value, row.previous) for row in by_month.rows] == [("2026-10-01", 600, 300)]


def test_the_rest_below_the_top_is_compared_period_by_period(months):
    october = {"from": "2026-10-01", "to": "2026-11-01"}
    found = explore(months, "organization", compare="previous", grain="month", top="1", **october)
    assert [(row.others, row.value, row.previous) for row in found.rows] == [(None, 600, 150), (1, 0, 150)]


# ── adding up ────────────────────────────────────────────────────────────────────────────────────

ALWAYS_KNOWN = {Metric.CREDITS, Metric.AMOUNT_USD, Metric.EVENTS}
PAIRS = [*((one,) for one in Dimension), *combinations(Dimension, 2)]


def metrics_of(by):
    accepted = [set(METRICS_OF_PARTS.get(one, Metric)) for one in by]
    return [metric for metric in Metric if all(metric in some for some in accepted)]


def checked(service, by, metric, who, grain=None, **window):
    """Rows of an additive metric make the totals, and these are what Usage Events or Organization Stats shows."""
    params = GetUsageEventsParams.parse(window)
    question = ExploreQuestion(by, metric, grain)
    found = service.explore(params, question, who)
    known = [row.value for row in found.rows if row.value is not None]
    if question.is_additive and (known or metric in ALWAYS_KNOWN):
        assert exact_sum(known) == found.totals.value
    shown = service.get_usage_events(params, who)
    expected = {
        Metric.CREDITS: shown.totals.credits.total,
        Metric.AMOUNT_USD: shown.totals.amount_usd,
        Metric.COST_USD: shown.totals.cost_usd,
        Metric.TOKENS: shown.totals.tokens_total,
        Metric.EVENTS: shown.pagination.total_items,
    }
    if metric in expected:
        assert found.totals.value == expected[metric]
    else:
        admin = Principal("adm", Role.ADMIN, who.organizations)
        stats = service.organizations.statistics(params, admin).total
        if metric is Metric.MARGIN_USD:
            assert found.totals.value == stats.margin_usd
        if metric is Metric.LATENCY:
            assert (found.totals.value, found.totals.p95) == (stats.latency_average, stats.latency_p95)


@pytest.mark.parametrize("by", PAIRS, ids=lambda by: "+".join(by))
def test_every_pair_of_dimensions_adds_up_to_what_other_pages_show(services, by):
    place, metrics = PAIRS.index(by), metrics_of(by)
    grain = [None, *PeriodLength][place % 4]
    is_whole = by in {(Dimension.ORGANIZATION,), (Dimension.MODEL,)}
    for metric in metrics if is_whole else {metrics[place % len(metrics)]}:
        checked(services["lived in"], by, metric, EVERYONE, grain, **WINDOWS["across a close"])


@pytest.mark.parametrize("by", ["organization,status", "customer", "model", "status,credit_type"])
@pytest.mark.parametrize("metric", ["amount_usd", "credits"])
def test_the_largest_groups_and_the_rest_make_the_whole_now_and_before(services, by, metric):
    asked = {"grain": "month", "compare": "2026-09-01..2026-10-01", **WINDOWS["closed month"]}
    whole = explore(services["lived in"], by, metric, **asked)
    for top in ("1", "2", "50"):
        found = explore(services["lived in"], by, metric, top=top, **asked)
        assert found.totals == whole.totals
        assert exact_sum(row.value for row in found.rows) == whole.totals.value
        assert exact_sum(row.previous or Decimal(0) for row in found.rows) == whole.totals.previous
        groups = list(dict.fromkeys(row.values for row in whole.rows))
        assert {row.others for row in found.rows} - {None} == (
            {len(groups) - int(top)} if len(groups) > int(top) else set()
        )
        assert list(dict.fromkeys(row.values for row in found.rows if row.others is None)) == groups[: int(top)]


@pytest.mark.parametrize(
    ("window", "who"),
    [
        *((window, EVERYONE) for window in WINDOWS),
        ("everything", ACME),
        ("across a close", ACME),
        ("everything", NOBODY),
    ],
    ids=lambda one: one if isinstance(one, str) else one.name,
)
@pytest.mark.parametrize("ledger", ["empty", "lived in"])
def test_whoever_asks_of_any_window_gets_sums_of_their_own_events(services, ledger, who, window):
    metric = Metric.COST_USD if who.sees_costs else Metric.TOKENS
    checked(services[ledger], (Dimension.MODEL, Dimension.ORGANIZATION), metric, who, None, **WINDOWS[window])
    if who.organizations is not None:
        found = explore(services[ledger], "organization", who=who, **WINDOWS[window])
        assert {row.values[0] for row in found.rows} <= who.organizations


def test_another_organization_is_refused(four):
    with pytest.raises(AccessDenied):
        explore(four, "model", who=ACME, organization="org_b")


def test_events_by_model_are_those_that_the_filter_on_the_model_finds(services):
    service = services["lived in"]
    for row in explore(service, "model", "events").rows:
        asked = {"without": "model"} if row.values[0] is None else {"model": row.values[0]}
        assert row.value == service.get_usage_events(GetUsageEventsParams.parse(asked), EVERYONE).pagination.total_items


def test_what_a_closed_month_takes_back_it_takes_back_of_every_model(tmp_path):
    world = MonthWorld(tmp_path / "l.duckdb", [trace("t", **TWO_MODELS)])
    world.months.close("2026-10", FINANCE, accept=("unsent", "error", "unexplained"), reason="agreed")
    more = [model_usage("claude", None, output=300), model_usage("gpt-5", "0.004", input=400)]
    changed = {**TWO_MODELS, "usage": more, "tokens_total": 700, "cost_usd": Decimal("0.004")}
    world.ledger.book(events_table([trace("t", **changed)]), run_id="late")
    november = {"from": "2026-11-01", "to": "2026-12-01"}
    assert table(explore(world.service, "model", "credits", **november)) == {"claude": 10, "gpt-5": 10}
    assert table(explore(world.service, "model", "tokens", **november)) == {"claude": 100, "gpt-5": 100}
    classes = {"output": 200, "input": 100, "cache_read": -100}
    assert table(explore(world.service, "token_class", "tokens", **november)) == classes
    stats = world.service.organizations.statistics(GetUsageEventsParams.parse(november), EVERYONE)
    assert {name: getattr(stats.total.tokens_by_class, name) for name in classes} == classes
    world.service.close()


def test_what_is_booked_while_questions_are_asked_is_in_none_of_the_answers(tmp_path, monkeypatch):
    path = tmp_path / "l.duckdb"
    service = service_over(path, FOUR)
    ledger, read = service._ledger, service._ledger.read_rows
    late = [usage_row(id="new", timestamp=NOON)]

    def read_rows(question):
        if late:
            ledger.book(events_table([late.pop()]), run_id="meanwhile")
        return read(question)

    monkeypatch.setattr(ledger, "read_rows", read_rows)
    found = explore(service, "model")
    assert not late
    assert (table(found), found.totals.value) == ({None: 300, "gpt-5": 130, "claude": 20}, 450)
    service.close()
