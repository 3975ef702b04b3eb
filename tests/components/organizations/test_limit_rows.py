"""Limits and notices in words: unknown is said as unknown, and nothing is rounded into another meaning."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from billing_core.ledger.notices import DeliveryOutcome, DeliveryTry, Notice
from billing_core.notify.state import delivery_of
from billing_core.organizations.forecast import BackTest, Exhaustion, Forecast, ForecastInput, NotEnough
from billing_core.organizations.limits import Limit, at_risk, by_customer, by_plan
from billing_core.organizations.notices_service import RaisedNotice
from billing_core.organizations.table import label
from components.organizations.formats import left_text
from components.organizations.limit_charts import ExpectedCredits, bullet
from components.organizations.limit_panel import _expected, _expected_text, bullet_text, legend_text
from components.organizations.limit_rows import (
    arranged,
    events_query,
    forecast_cells,
    notice_rows,
    plan_rows,
    reached_rows,
)
from components.organizations.limit_table import scale_of
from components.organizations.texts import (
    age_text,
    delivery_text,
    organizations_text,
    plan_text,
    share_text,
    subscription_text,
    used_text,
)
from components.shared.formats import credits_text, cut_percent

START, END = datetime(2026, 11, 3, 8, 15, 30, tzinfo=UTC), datetime(2026, 12, 3, 8, 15, 30, tzinfo=UTC)
NOW = datetime(2026, 11, 18, 8, 15, 30, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
ACME = {"org_a": "Acme"}


def limit(used="950.5", included=1000, organization="org_a", customer="cus_a", plan="Pro", state="active", period=True):
    amount = None if used is None else Decimal(used)
    ends = (START, END) if period else (None, None)
    return Limit(organization, customer, plan, state, included, amount, amount, (), *ends)


NONE = limit(None, None, plan=None, state="none", period=False)
UNREAD = limit(None, None, plan=None, state="unknown", period=False)
ENDED = limit(None, None, state="canceled", period=False)
NEW_PRICE = limit("5", None, plan=None)


def test_a_share_is_told_with_what_lies_beyond_the_plan():
    assert share_text(limit("1224")) == "1,224 of 1,000 credits used: 122 %, 224 over the plan"
    assert share_text(limit("999.999999")) == "999.99 of 1,000 credits used: 99.9 %"
    assert share_text(NEW_PRICE) == "5 credits used of unknown included"
    assert share_text(limit("5", 0)) == "5 of 0 credits used, 5 over the plan"
    assert share_text(ENDED).startswith("There is no live subscription")


@pytest.mark.parametrize(
    ("row", "plan", "state", "used"),
    [
        (limit(), "Pro", "active", "950.5 of 1,000"),
        (NEW_PRICE, "unknown", "active", "5 of unknown"),
        (NONE, "no subscription", "no subscription", ""),
        (UNREAD, "unknown", "unknown", "unknown of unknown"),
        (ENDED, "Pro", "canceled", ""),
        (limit(state="past_due"), "Pro", "past due", "950.5 of 1,000"),
        (limit(None, None, customer=None, plan=None, state="none", period=False), "no customer", "", ""),
    ],
)
def test_an_unknown_plan_is_unknown_and_never_free_nor_0(row, plan, state, used):
    assert (plan_text(row), subscription_text(row), used_text(row)) == (plan, state, used)


def test_a_customer_has_one_row_however_many_organizations_it_pays_for():
    shared = [replace(limit(organization=one), sharing=("org_a", "org_b")) for one in (None, "org_a", "org_b")]
    bare = [limit(None, None, organization=one, customer=None, period=False) for one in ("org_c", "org_d")]
    found = by_customer([*shared, *bare])
    assert [(one.organization_id, one.customer_id) for one in found] == [
        ("org_a", "cus_a"),
        ("org_c", None),
        ("org_d", None),
    ]
    assert organizations_text(found[0], ACME) == f"{label('org_a', ACME)}, org_b"
    assert [row.customer_id for row in arranged(found, ACME, NOW, find="org_b")] == ["cus_a"]


def test_the_share_used_is_cut_and_tells_large_ones_from_each_other():
    shares = ("99.99", "100", "305.21", "5433.99", "9", "0.04")
    assert [cut_percent(Decimal(one)) for one in shares] == [
        "99.9 %",
        "100 %",
        "305 %",
        "5,433 %",
        "9 %",
        "under 0.1 %",
    ]
    assert cut_percent(None) == "unknown"


def test_customers_at_risk_have_reached_the_lowest_threshold_and_count_once():
    rows = [limit("750"), limit("750", organization="org_b"), limit("749.99", customer="cus_b"), UNREAD, ENDED]
    assert at_risk(rows, (90, 75)) == ("cus_a",)


def test_time_left_is_in_whole_units_and_cut():
    told = [left_text(timedelta(**left)) for left in ({"days": 12, "hours": 23}, {"hours": 47}, {"minutes": 59}, {})]
    assert told == ["12 days", "47 h", "59 min", "over"]
    assert left_text(None) == "unknown"


def test_the_age_of_what_stripe_said_names_the_timezone():
    assert age_text(NOW, NOW + timedelta(minutes=5), BERLIN) == (
        "Plans read from Stripe 5 min ago (2026-11-18 09:15:30 Europe/Berlin)."
    )
    assert "not been read" in age_text(None, NOW, BERLIN)


def test_a_row_leads_to_the_customers_events_of_the_period_so_far():
    assert events_query(limit(), NOW, BERLIN) == {
        "period": "Custom",
        "first_day": "2026-11-03",
        "last_day": "2026-11-18",
        "customer": "cus_a",
    }
    assert events_query(NONE, NOW, BERLIN) == {"period": "All time", "customer": "cus_a"}
    bare = limit(None, None, customer=None, plan=None, state="none", period=False)
    assert events_query(bare, NOW, BERLIN) == {"period": "All time", "organization": "org_a", "without": "customer"}


# ── order and search ─────────────────────────────────────────────────────────────────────────────


def ids(*rows, **options):
    return [row.customer_id for row in arranged(rows, ACME, NOW, **options)]


def test_who_runs_out_first_stands_first_and_unknown_ones_last():
    rows = (limit("10", customer="cus_1"), UNREAD, limit("2000", customer="cus_2"), limit("900", customer="cus_3"))
    assert ids(*rows) == ["cus_2", "cus_3", "cus_1", "cus_a"]
    assert ids(*rows, sort="end")[-1] == "cus_a"
    early = replace(limit("950", customer="cus_4"), period_start=NOW - timedelta(days=3))  # a pace of 950 %
    assert ids(*rows, early)[:3] == ["cus_2", "cus_4", "cus_3"]
    assert ids(limit("1001", customer="cus_5"), early) == ["cus_5", "cus_4"]
    assert ids(*rows, sort="customer") == ["cus_1", "cus_2", "cus_3", "cus_a"]


def test_the_search_is_blind_to_case_and_knows_names_ids_customers_plans_and_states():
    rows = (limit(), limit(organization="org_b", customer="cus_b", plan="Free", state="past_due"))
    for words, found in {"ACME": "cus_a", "org_B": "cus_b", "CUS_b": "cus_b", "free": "cus_b", "past": "cus_b"}.items():
        assert ids(*rows, find=words) == [found]
    assert ids(*rows, find="%") == []
    assert ids(*rows, plan="Free") == ["cus_b"]


def test_bars_end_at_the_largest_share_but_not_beyond_200_percent():
    assert [scale_of([limit(used)]) for used in ("10", "1000", "1205", "90000")] == [100, 100, 121, 200]
    assert scale_of([UNREAD]) == 100


def test_totals_by_plan_say_what_they_do_not_know():
    rows = plan_rows(
        by_plan(
            [
                limit(),
                limit(None, 1000, customer="c2"),
                limit("5", None, customer="c3", plan=None),
                limit(None, None, customer="c4", plan=None, state="none"),
                limit(None, None, customer="c5", plan=None, state="unknown"),
            ]
        )
    )
    assert list(zip(*rows.values(), strict=True)) == [
        ("Pro", "2", "1,000 (of 1 known)", "950.5 (of 1 known)", "95 %"),
        ("unknown", "1", "unknown", "unknown", "unknown"),
        ("no subscription", "1", "", "", ""),
        ("unknown", "1", "unknown", "unknown", "unknown"),
    ]


# ── forecast ─────────────────────────────────────────────────────────────────────────────────────


def forecast(exhaustion, *, included=1000, error="0.09"):
    asked = ForecastInput(NOW, ZoneInfo("UTC"), (), Decimal(0), START, END, Decimal("950.5"), included)
    test = BackTest(None if error is None else Decimal(error), 4)
    return Forecast(asked, Decimal(1900), Decimal(1500), Decimal(2300), exhaustion, (), "ETS", 60, test)


def test_a_forecast_is_expected_use_with_its_interval_the_day_it_runs_out_and_its_error():
    out = Exhaustion(False, date(2026, 11, 19), date(2026, 11, 20), None)
    assert forecast_cells(forecast(out), limit()) == (
        "1,900.00 (1,500.00 – 2,300.00)",
        "20 Nov 2026 (19 Nov 2026 – later)",
        "9 % (4 tests)",
    )
    assert forecast_cells(forecast(Exhaustion(True)), limit())[1] == "already"
    assert forecast_cells(forecast(Exhaustion(False), error=None), limit())[1:] == ("not in this period", "not tested")


def test_a_limit_repeats_the_forecast_of_the_page_and_makes_none_of_its_own():
    found = forecast(Exhaustion(True))
    (told,) = _expected_text(_expected(found, limit()))
    assert told == f"Expected at period end: {credits_text(found.expected)} credits"
    assert _expected_text(_expected(NotEnough("5 days of history"), limit())) == []


def test_not_enough_data_is_said_and_a_forecast_about_another_customer_is_not_shown():
    assert forecast_cells(NotEnough("5 days of history"), limit()) == ("not enough data", "", "")
    assert forecast_cells(forecast(None, included=5000), limit()) == ("", "", "")
    assert forecast_cells(forecast(None), UNREAD) == ("", "", "")
    assert forecast_cells(None, limit()) == ("", "", "")


# ── notices ──────────────────────────────────────────────────────────────────────────────────────


def raised(*tries, seen=False, has_webhook=True):
    mark = (NOW, "ada") if seen else (None, None)
    notice = Notice("org_a", "cus_a", "Pro", 90, START, END, 1000, Decimal("950.5"), NOW, *mark)
    made = [DeliveryTry(notice.id, *one) for one in tries]
    return RaisedNotice(notice, delivery_of(NOW, made, has_webhook=has_webhook))


def test_a_notice_is_a_row_with_its_way_to_the_webhook():
    rows = notice_rows([raised((1, NOW, DeliveryOutcome.DELIVERED, 204))], ACME, BERLIN)
    assert {name: cells[0] for name, cells in rows.items()} == {
        "Organization": "Acme",
        "Customer": "cus_a",
        "Plan": "Pro",
        "Reached": "90 %",
        "Used": "95 %",
        "Credits": "950.5 of 1,000",
        "Period ends (Europe/Berlin)": "2026-12-03 09:15:30",
        "Raised (Europe/Berlin)": "2026-11-18 09:15:30",
        "Delivery": "delivered 2026-11-18 09:15:30",
    }
    assert notice_rows([raised(seen=True)], ACME, BERLIN)["Seen (Europe/Berlin)"] == ["ada, 2026-11-18 09:15:30"]
    assert "Delivery" not in reached_rows([raised().notice], ACME, BERLIN)


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (raised(), "waiting to be sent"),
        (raised(has_webhook=False), "no address is set"),
        (
            raised((1, NOW, DeliveryOutcome.FAILED, 500, "the receiver answered 500")),
            "failed after 1 try: the receiver answered 500; next try from 2026-11-18 09:20:30",
        ),
        (raised((1, NOW, DeliveryOutcome.GIVEN_UP, 410, "gone")), "given up after 1 try: gone"),
        (
            raised((0, NOW, DeliveryOutcome.COVERED, None, "covered by the notice of 100 %")),
            "covered by the notice of 100 %",
        ),
    ],
)
def test_the_way_to_the_webhook_in_words(one, says):
    assert delivery_text(one.delivery, BERLIN) == says


# ── figure ───────────────────────────────────────────────────────────────────────────────────────


def test_the_figure_shows_used_beyond_the_plan_thresholds_and_what_is_expected():
    expected = ExpectedCredits(Decimal(1900), Decimal(1500), Decimal(2300))
    figure = bullet(Decimal("1224"), 1000, (75, 90, 100, 150, 900), expected, "light")
    bars = {
        trace.name: (trace.base[0] if trace.base else 0, trace.x[0]) for trace in figure.data if trace.type == "bar"
    }
    assert bars == {"included": (0, 1000.0), "used": (0.0, 1000.0), "over the plan": (1000.0, 224.0)}
    assert [shape.x0 for shape in figure.layout.shapes] == [750.0, 900.0, 1000.0]
    assert figure.layout.xaxis.range[1] >= 2300
    (diamond,) = [trace for trace in figure.data if trace.type == "scatter"]
    assert (diamond.x[0], diamond.error_x.array[0], diamond.error_x.arrayminus[0]) == (1900.0, 400.0, 400.0)
    assert "Diamond" in legend_text(expected)
    assert "Diamond" not in legend_text(None)


def test_the_figure_in_words_says_the_same():
    expected = ExpectedCredits(Decimal(1900), Decimal(1500), Decimal(2300))
    assert bullet_text(limit(), (75, 100), expected) == (
        "950.5 of 1,000 credits used: 95 %. Thresholds at 75 %, 100 %. "
        "Expected at the period's end: 1,900.00 (1,500.00 – 2,300.00)."
    )
