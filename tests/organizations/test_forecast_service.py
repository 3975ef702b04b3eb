"""Forecasts, drivers and anomalies as the service answers them, over a ledger."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from billing_core.access import Principal, Role
from billing_core.errors import AccessDenied, BadParameter, NotFound
from billing_core.organizations.forecast import Forecast, NotEnough
from billing_core.organizations.forecast_service import ForecastService
from billing_core.organizations.limits import Limit
from billing_core.settings import load_settings
from billing_core.values.usage_frame import Window
from tests.factories import EVERYONE, events_table, ledger_at, model_usage, usage_row

NOW = datetime(2026, 11, 10, 12, tzinfo=UTC)
TODAY = date(2026, 11, 10)
DAY = timedelta(days=1)
ONLY_A = Principal("anna", Role.ADMIN, frozenset({"org_a"}))


def used(days_ago: int, credits_used: int, *, hour: int = 10, **facts) -> dict:
    """An event of so many AI credits, so many days before 10 November 2026."""
    at = datetime(2026, 11, 10, hour, tzinfo=UTC) - days_ago * DAY
    tokens = credits_used * 10
    name = "-".join(map(str, (facts.get("organization_id", "org_a"), facts.get("chatflow_id", "f"), at.isoformat())))
    return usage_row(
        **{
            "id": name,
            "timestamp": at,
            "latency_seconds": 0,
            "tokens_in": tokens,
            "tokens_out": 0,
            "tokens_total": tokens,
            "usage": [model_usage(input=tokens)],
            **facts,
        }
    )


def daily(days: int, credits_used: int, **facts) -> list[dict]:
    """The same every day for so many complete days."""
    return [used(ago, credits_used, **facts) for ago in range(1, days + 1)]


def limit(organization: str | None = "org_a", customer: str | None = "cus_a", **facts) -> Limit:
    start, end = datetime(2026, 11, 5, tzinfo=UTC), datetime(2026, 12, 5, tzinfo=UTC)
    known = {
        "plan": "Pro",
        "state": "active",
        "included": 500_000,
        "used": Decimal(60_000),
        "own_used": Decimal(60_000),
        "sharing": (organization,),
        "period_start": start,
        "period_end": end,
    }
    return Limit(organization, customer, **{**known, **facts})


@dataclass(frozen=True)
class Known:
    """Limits as somebody else read them."""

    rows: tuple[Limit, ...] = ()

    def read(self, principal):
        return self


@pytest.fixture
def desk(tmp_path):
    """Makes the part of the service over a ledger with these rows; everything until noon of 10 November is read."""
    opened = []

    def make(rows, limits=(), *, timezone="UTC", now=NOW, read_until=NOW, floor="0") -> ForecastService:
        path = tmp_path / f"{len(opened)}.duckdb"
        ledger = ledger_at(path, rows)
        opened.append(ledger)
        if read_until is not None:
            window = Window(read_until - 200 * DAY, read_until)
            ledger.start_run("run", actor="tester", window=window, incremental=True)
            ledger.end_run("run", actor="tester", action="pull", values={"outcome": "done"})
        settings = load_settings(
            {
                "BILLING_WAREHOUSE_URL": f"duckdb:///{path}",
                "BILLING_TIMEZONE": timezone,
                "BILLING_MODE": "live",
                "BILLING_ANOMALY_MINIMUM_USD": floor,
            },
            env_file=None,
        )
        return ForecastService(settings, ledger, lambda: now, Known(tuple(limits)))

    yield make
    for ledger in opened:
        ledger.engine.close()


def midnight(days_ago: int) -> datetime:
    return datetime(2026, 11, 10, tzinfo=UTC) - days_ago * DAY


# ── who may ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("role", [Role.ANALYST, Role.FINANCE])
def test_only_admins_may_ask(desk, role):
    part, reader = desk([]), Principal("ann", role)
    for ask in (
        lambda: part.forecast(reader, "org_a"),
        lambda: part.driver(reader, "org_a"),
        lambda: part.anomalies(reader, None, None),
        lambda: part.anomalies_csv(reader, None, None),
        lambda: part.mark(reader, "org_a", TODAY),
        lambda: part.unmark(reader, "org_a", TODAY),
    ):
        with pytest.raises(AccessDenied):
            ask()


def test_an_admin_limited_to_one_organization_hears_of_no_other(desk):
    rows = [
        *daily(70, 2000),
        *daily(70, 5000, organization_id="org_b"),
        used(3, 90_000, hour=11),
        used(2, 90_000, hour=11, organization_id="org_b"),
        *daily(70, 1000, organization_id=None),
        used(4, 90_000, hour=11, organization_id=None),
    ]
    part = desk(rows)
    assert {row.organization_id for row in part.anomalies(EVERYONE, midnight(10), None).rows} == {
        "org_a",
        "org_b",
        None,
    }
    assert {row.organization_id for row in part.anomalies(ONLY_A, midnight(10), None).rows} == {"org_a"}
    for foreign in ("org_b", "org_that_is_not_there", None):
        for ask in (part.forecast, part.driver):
            with pytest.raises(AccessDenied):
                ask(ONLY_A, foreign)
        with pytest.raises(AccessDenied):
            part.mark(ONLY_A, foreign, TODAY - 2 * DAY)
        with pytest.raises(AccessDenied):
            part.unmark(ONLY_A, foreign, TODAY - 2 * DAY)
    with pytest.raises(AccessDenied):
        part.anomalies(ONLY_A, None, None, "org_b")
    text = b"".join(part.anomalies_csv(ONLY_A, midnight(10), None)).decode()
    assert "org_a" in text
    assert "org_b" not in text


# ── forecast ─────────────────────────────────────────────────────────────────────────────────────


def test_the_forecast_is_about_the_subscriptions_period(desk):
    part = desk([*daily(70, 10_000), used(0, 5000)], [limit()])
    found = part.forecast(EVERYONE, "org_a")
    assert found.asked.period_end == datetime(2026, 12, 5, tzinfo=UTC)
    assert found.expected == 60_000 + 5_000 + 24 * 10_000  # half of today and 24 days
    assert found.exhaustion.already is False
    assert found.exhaustion.expected is None
    assert found.notes == ()
    assert (found.days[0].day, found.days[0].credits) == (TODAY, 10_000)


def test_a_plan_that_runs_out_has_a_date(desk):
    part = desk(daily(70, 10_000), [limit(included=100_000)])
    assert part.forecast(EVERYONE, "org_a").exhaustion.expected == date(2026, 11, 14)  # 5,000 + 4 × 10,000


def test_without_a_known_period_it_is_about_the_calendar_month_and_says_so(desk):
    part = desk([*daily(70, 10_000), used(0, 4000)], [limit(period_start=None, period_end=None, used=None)])
    found = part.forecast(EVERYONE, "org_a")
    assert found.asked.period_end == datetime(2026, 12, 1, tzinfo=UTC)
    assert found.asked.used == 94_000  # nine days and today
    assert found.expected == 94_000 + 5_000 + 20 * 10_000
    assert found.exhaustion is None
    assert found.notes == ("No billing period is known, so this covers the calendar month (UTC).",)


def test_of_several_customers_the_one_with_the_largest_use_counts_and_its_own_days_alone(desk):
    rows = [*daily(70, 10_000), *daily(70, 400, customer_id="cus_small", hour=9)]
    limits = [limit(customer="cus_small", used=Decimal(2_000)), limit(used=Decimal(60_000))]
    found = desk(rows, limits).forecast(EVERYONE, "org_a")
    assert found.expected == 60_000 + 5_000 + 24 * 10_000
    assert found.notes == ("The organization has other customers too: this covers cus_a alone.",)


def test_a_customer_of_several_organizations_says_nothing_about_when_the_plan_runs_out(desk):
    rows = [*daily(70, 10_000), *daily(70, 10_000, organization_id="org_b")]
    shared = limit(used=Decimal(120_000), own_used=Decimal(60_000), sharing=("org_a", "org_b"), included=100_000)
    found = desk(rows, [shared]).forecast(EVERYONE, "org_a")
    assert found.expected == 60_000 + 5_000 + 24 * 10_000
    assert found.exhaustion is None
    assert "cus_a is the customer of other organizations too" in found.notes[0]


def test_events_of_the_customer_that_name_no_organization_use_up_its_plan_too(desk):
    rows = [*daily(70, 10_000), *daily(70, 1_000, organization_id=None)]
    found = desk(rows, [limit(used=Decimal(66_000)), limit(None)]).forecast(EVERYONE, "org_a")
    assert found.expected == 66_000 + 5_500 + 24 * 11_000
    assert found.notes == ("Credits of cus_a whose events name no organization are counted in.",)


def test_events_without_an_organization_are_forecast_for_the_calendar_month(desk):
    found = desk(daily(70, 1_000, organization_id=None), [limit(None)]).forecast(EVERYONE, None)
    assert found.expected == 9_000 + 500 + 20_000
    assert found.notes == ("Events without an organization have no plan: this covers the calendar month (UTC).",)


def test_days_are_those_of_the_reporting_timezone(desk):
    late = [used(ago, 10_000, hour=23) for ago in range(1, 71)]  # 00:00 of the next day in Berlin
    found = desk(late, timezone="Europe/Berlin").forecast(EVERYONE, "org_a")
    assert found.days[0].credits == 10_000 + Decimal("4583.333333")  # what was used, and 11 of 24 hours to come
    assert found.asked.days[-1] == 10_000


def test_the_day_on_which_usage_began_is_no_whole_day_of_history(desk):
    found = desk([*daily(69, 10_000), used(70, 4_000)], [limit()]).forecast(EVERYONE, "org_a")
    assert set(found.asked.days) == {10_000}
    assert len(found.asked.days) == 69


def test_too_little_history_is_said_and_not_guessed(desk):
    part = desk(daily(9, 100), [limit()])
    answer = part.forecast(EVERYONE, "org_a")
    assert isinstance(answer, NotEnough)
    assert answer.reason == "8 days of history; a forecast needs 21 complete ones."  # the first was no whole one
    assert isinstance(part.forecast(EVERYONE, "org_unknown"), NotEnough)
    assert isinstance(part.forecast(EVERYONE, None), NotEnough)


def test_an_empty_ledger_has_no_forecast(desk):
    assert desk([], read_until=None).forecast(EVERYONE, "org_a") == NotEnough("No usage is known yet.")


def test_usage_that_was_last_read_days_ago_is_forecast_from_there(desk):
    rows = daily(70, 10_000)[5:]
    part = desk(rows, [limit(used=Decimal(0))], read_until=datetime(2026, 11, 5, 0, tzinfo=UTC))
    found = part.forecast(EVERYONE, "org_a")
    assert isinstance(found, Forecast)
    assert found.expected == 300_000  # 5 November to 4 December, nothing taken for silence
    assert found.notes == ("Usage is known until 2026-11-05 00:00 UTC; the forecast starts there.",)


def test_a_forecast_follows_new_bookings(desk):
    part = desk(daily(70, 10_000), [limit()])
    before = part.forecast(EVERYONE, "org_a")
    assert part.forecast(EVERYONE, "org_a") == before
    part._ledger.book(events_table([used(0, 5000)]), run_id="later")
    assert part.forecast(EVERYONE, "org_a").days[0].credits == before.days[0].credits + 5000


# ── driver ───────────────────────────────────────────────────────────────────────────────────────


def test_the_chatflow_behind_a_rise_is_named_as_people_know_it(desk):
    steady = daily(40, 1000, chatflow_id="steady", chatflow_name="Steady", user_id="u1")
    risen = daily(14, 3000, chatflow_id="risen", chatflow_name="Risen", user_id="u1", models=["gpt-5"])
    found = desk([*steady, *risen]).driver(EVERYONE, "org_a")
    assert (found.before, found.now, found.change) == (14_000, 56_000, 42_000)
    assert (found.driver.dimension, found.driver.value, found.driver.name) == ("chatflow", "risen", "Risen")
    assert found.driver.credits == 42_000


def test_a_set_of_models_is_one_value(desk):
    before = [used(ago, 1000, models=["gpt-5"], chatflow_id="f") for ago in range(15, 29)]
    now = [used(ago, 5000, models=["claude", "gpt-5"], chatflow_id="f") for ago in range(1, 15)]
    found = desk([*before, *now, used(40, 1)]).driver(EVERYONE, "org_a")
    assert (found.driver.dimension, found.driver.value) == ("model", "claude + gpt-5")


def test_an_organization_younger_than_four_weeks_has_no_slope_yet(desk):
    assert desk(daily(20, 1000)).driver(EVERYONE, "org_a") is None


def test_a_steady_use_has_no_driver(desk):
    assert desk(daily(40, 1000)).driver(EVERYONE, "org_a") is None


def test_events_without_an_organization_have_a_driver_too(desk):
    rows = [
        *daily(40, 1000, organization_id=None, user_id="u1"),
        *daily(14, 1000, organization_id=None, user_id="u2", hour=9),
    ]
    assert desk(rows).driver(EVERYONE, None).driver.value == "u2"


# ── anomalies ────────────────────────────────────────────────────────────────────────────────────


def test_an_unusual_day_is_found_with_its_range(desk):
    part = desk([*daily(70, 10_000), used(3, 30_000, hour=11)])
    report = part.anomalies(EVERYONE, midnight(10), None)
    [row] = report.rows
    assert (row.organization_id, row.day, row.credits) == ("org_a", date(2026, 11, 7), 40_000)
    assert (row.expected.level, row.expected.low, row.expected.high) == (10_000, 7_500, 12_500)
    assert (row.credits_at_stake, row.usd_at_stake) == (30_000, Decimal("1.2"))
    assert (report.first_day, report.last_day) == (date(2026, 10, 31), date(2026, 11, 9))
    assert report.unseen == 1


def test_a_day_below_the_floor_of_the_settings_is_counted_and_not_listed(desk):
    rows = [*daily(70, 10_000), used(3, 30_000, hour=11)]
    assert desk(rows, floor="1.2").anomalies(EVERYONE, midnight(10), None).unseen == 1
    report = desk(rows, floor="1.21").anomalies(EVERYONE, midnight(10), None)
    assert (report.rows, report.minor) == ((), 1)


def test_today_is_not_over_and_never_judged(desk):
    part = desk([*daily(70, 10_000), used(0, 90_000)])
    assert part.anomalies(EVERYONE, midnight(10), NOW + DAY).rows == ()
    empty = part.anomalies(EVERYONE, midnight(0), NOW + DAY)
    assert (empty.first_day, empty.note) == (None, "No day of this window is over and completely read yet.")


def test_days_that_were_not_read_yet_are_not_silence(desk):
    part = desk(daily(70, 10_000)[5:], read_until=datetime(2026, 11, 5, 0, tzinfo=UTC))
    report = part.anomalies(EVERYONE, midnight(10), None)
    assert (report.rows, report.last_day) == ((), date(2026, 11, 4))


def test_usage_that_stopped_is_an_anomaly_of_each_silent_day(desk):
    part = desk(daily(70, 10_000)[3:])
    report = part.anomalies(EVERYONE, midnight(10), None)
    assert [(row.day.day, row.credits == 0, row.credits_at_stake) for row in report.rows] == [
        (9, True, 10_000),
        (8, True, 10_000),
        (7, True, 10_000),
    ]


def test_a_window_is_judged_by_its_whole_days_alone(desk):
    part = desk(daily(70, 10_000))
    report = part.anomalies(EVERYONE, midnight(5) + timedelta(hours=1), midnight(2) + timedelta(hours=1))
    assert (report.first_day, report.last_day) == (date(2026, 11, 6), date(2026, 11, 7))


def test_a_window_without_a_beginning_is_judged_for_its_last_92_days(desk):
    report = desk(daily(70, 10_000)).anomalies(EVERYONE, None, None)
    assert (report.first_day, report.last_day) == (date(2026, 8, 10), date(2026, 11, 9))
    assert report.note == "The last 92 days are assessed."


def test_the_day_of_a_clock_change_is_a_day(desk):
    rows = [used(ago, 10_000, hour=hour) for ago in range(1, 71) for hour in (0, 22)]
    report = desk(rows, timezone="Europe/Berlin").anomalies(EVERYONE, midnight(30), None)
    changed = date(2026, 10, 25)  # until then 22:00 UTC is the next day in Berlin
    assert [(row.day, row.credits) for row in report.rows] == [(changed, 30_000)]


def test_the_split_says_what_the_difference_is_made_of(desk):
    usual = [*daily(70, 10_000, chatflow_id="a"), *daily(70, 2_000, chatflow_id="b")]
    odd = [used(3, 10_000, chatflow_id="a", hour=hour) for hour in (11, 12, 13)]
    part = desk([*usual, *odd])
    report = part.anomalies(EVERYONE, midnight(10), None)
    [row] = part.explained(EVERYONE, report, report.rows)
    # 5 events instead of 2, at 6,000 on average; 4 of them are of the dear kind: 42,000 instead of 30,000
    assert (row.split.baseline, row.split.difference) == (12_000, 30_000)
    assert (row.split.volume, row.split.price, row.split.mix) == (18_000, 0, 12_000)


def test_a_silent_day_is_split_too_and_excluded_events_are_no_usage(desk):
    rows = [*daily(70, 10_000)[1:], used(1, 500, environment="langfuse-evaluation")]
    part = desk(rows)
    report = part.anomalies(EVERYONE, midnight(3), None)
    [row] = part.explained(EVERYONE, report, report.rows)
    assert (row.split.volume, row.split.price, row.split.mix) == (-10_000, 0, 0)


def test_events_without_an_organization_are_judged_split_and_marked_as_well(desk):
    part = desk([*daily(70, 10_000, organization_id=None), used(3, 30_000, hour=11, organization_id=None)])
    report = part.anomalies(EVERYONE, midnight(10), None)
    [row] = part.explained(EVERYONE, report, report.rows)
    assert row.organization_id is None
    assert row.split.volume == 10_000
    assert row.split.price == 20_000
    part.mark(EVERYONE, None, row.day)
    assert part.anomalies(EVERYONE, midnight(10), None).unseen == 0
    part.unmark(EVERYONE, None, row.day)
    assert part.anomalies(EVERYONE, midnight(10), None).unseen == 1


def test_one_organization_can_be_asked_about_alone(desk):
    rows = [
        *daily(70, 10_000),
        *daily(70, 10_000, organization_id="org_b"),
        used(3, 30_000, hour=11),
        used(3, 30_000, hour=11, organization_id="org_b"),
    ]
    report = desk(rows).anomalies(EVERYONE, midnight(10), None, "org_b")
    assert [row.organization_id for row in report.rows] == ["org_b"]


# ── marks ────────────────────────────────────────────────────────────────────────────────────────

ODD = date(2026, 11, 7)


@pytest.fixture
def odd(desk):
    return desk([*daily(70, 10_000), used(3, 30_000, hour=11)])


def audited(part: ForecastService) -> list[tuple]:
    entries = part._ledger.audit_entries()
    return [
        (entry["actor"], entry["action"], json.loads(entry["detail"]))
        for entry in entries
        if entry["action"].startswith("anomaly")
    ]


def test_an_anomaly_can_be_marked_as_seen_and_the_mark_taken_back(odd):
    odd.mark(ONLY_A, "org_a", ODD, "a load\ntest")
    [row] = odd.anomalies(EVERYONE, midnight(10), None).rows
    assert row.is_seen
    assert (row.mark.seen_by, row.mark.note, row.mark.credits, row.mark.seen_at) == ("anna", "a load test", 40_000, NOW)
    odd.unmark(EVERYONE, "org_a", ODD)
    assert odd.anomalies(EVERYONE, midnight(10), None).rows[0].mark is None
    assert audited(odd) == [
        ("tester", "anomaly_unseen", {"organization": "org_a", "day": "2026-11-07"}),
        (
            "anna",
            "anomaly_seen",
            {"organization": "org_a", "day": "2026-11-07", "credits": "40000.000000", "note": "a load test"},
        ),
    ]


def test_marking_twice_keeps_the_newer_mark(odd):
    odd.mark(ONLY_A, "org_a", ODD, "first")
    odd.mark(EVERYONE, "org_a", ODD, "second")
    assert odd.anomalies(EVERYONE, midnight(10), None).rows[0].mark.note == "second"
    assert len(odd._ledger.engine.rows("SELECT * FROM anomaly_marks")) == 1


def test_a_day_whose_credits_changed_since_is_not_seen_any_more(odd):
    odd.mark(EVERYONE, "org_a", ODD)
    odd._ledger.book(events_table([used(3, 1000, hour=12)]), run_id="late")
    [row] = odd.anomalies(EVERYONE, midnight(10), None).rows
    assert (row.is_seen, row.has_changed, row.credits) == (False, True, 41_000)


def test_a_mark_is_about_what_its_reader_saw(odd):
    odd.mark(EVERYONE, "org_a", ODD, credits_shown=Decimal(39_000))
    assert odd.anomalies(EVERYONE, midnight(10), None).rows[0].has_changed


def test_only_anomalies_can_be_marked(odd):
    for day in (ODD - DAY, TODAY, date(2030, 1, 1)):
        with pytest.raises(NotFound, match="is not an anomaly"):
            odd.mark(EVERYONE, "org_a", day)
    with pytest.raises(NotFound, match="is not an anomaly"):
        odd.mark(EVERYONE, "org_unknown", ODD)
    with pytest.raises(NotFound, match="is not marked as seen"):
        odd.unmark(EVERYONE, "org_a", ODD)
    with pytest.raises(BadParameter, match="at most 300 characters"):
        odd.mark(EVERYONE, "org_a", ODD, "x" * 301)
    assert audited(odd) == []


def test_the_csv_has_every_anomaly_with_its_split_and_runs_in_no_spreadsheet(odd):
    odd.mark(EVERYONE, "org_a", ODD, "=1+1")
    text = b"".join(odd.anomalies_csv(EVERYONE, midnight(10), None)).decode()
    [row] = csv.DictReader(io.StringIO(text))
    assert row == {
        "organization_id": "org_a",
        "day": "2026-11-07",
        "credits": "40000",
        "expected_credits": "10000",
        "expected_low": "7500",
        "expected_high": "12500",
        "credits_at_stake": "30000",
        "usd_at_stake": "1.2",
        "baseline_credits": "10000",
        "volume_credits": "10000",
        "price_credits": "20000",
        "mix_credits": "0",
        "state": "seen",
        "seen_at": "2026-11-10T12:00:00.000Z",
        "seen_by": "tester",
        "note": "'=1+1",
    }
