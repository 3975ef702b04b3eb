"""What people read of a forecast, and the panel on an organization's page."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from streamlit.testing.v1 import AppTest

from billing_core.organizations.drivers import Contribution, UsageChange
from billing_core.organizations.forecast import BackTest, Exhaustion, ForecastInput, NotEnough, forecast
from billing_core.organizations.forecast_service import ForecastService
from components.organizations.forecast_charts import days_figure, history_figure, sum_figure
from components.organizations.forecast_rows import forecast_rows, sum_rows
from components.organizations.texts import driver_text, error_text, exhaustion_text, interval_text, period_text
from components.shared.formats import percent
from tests.factories import EVERYONE
from tests.stand_ins import called_as

pytestmark = pytest.mark.usefixtures("packages_scanned_once")

UTC_ZONE = ZoneInfo("UTC")


def question(days=60, **facts) -> ForecastInput:
    """100 credits on each day until 10 November, 18:00; the period began on 8 November at noon."""
    known = {
        "at": datetime(2026, 11, 10, 18, tzinfo=UTC),
        "zone": UTC_ZONE,
        "days": (Decimal(100),) * days,
        "today": Decimal(80),
        "period_start": datetime(2026, 11, 8, 12, tzinfo=UTC),
        "period_end": datetime(2026, 11, 13, tzinfo=UTC),
        "used": Decimal(230),
        "included": 1000,
    }
    return ForecastInput(**{**known, **facts})


FOUND = forecast(question())


# ── sentences ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("share", "text"),
    [(Decimal("0.0912"), "9.1 %"), (Decimal("0.09"), "9 %"), (Fraction(62, 100), "62 %"), (Fraction(-3, 2), "−150 %")],
)
def test_shares_are_written_as_percentages(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("exhaustion", "headline", "sentence"),
    [
        (None, "unknown", "No plan limit is known."),
        (Exhaustion(already=True), "already", "The 1,000 included credits are used up."),
        (Exhaustion(False), "not in this period", "The 1,000 included credits last until the period ends."),
        (
            Exhaustion(False, date(2026, 11, 30)),
            "probably not",
            "The 1,000 included credits probably last; with high usage they run out on 30 Nov 2026.",
        ),
        (
            Exhaustion(False, date(2026, 11, 18), date(2026, 11, 20)),
            "20 Nov 2026",
            "The 1,000 included credits may run out as early as 18 Nov 2026, or not before the period ends.",
        ),
        (
            Exhaustion(False, date(2026, 11, 18), date(2026, 11, 20), date(2026, 11, 21)),
            "20 Nov 2026",
            "The 1,000 included credits may run out as early as 18 Nov 2026, or as late as 21 Nov 2026.",
        ),
    ],
)
def test_when_the_plan_runs_out_is_said_in_words(exhaustion, headline, sentence):
    assert exhaustion_text(exhaustion, 1000) == (headline, sentence)


def test_how_good_earlier_forecasts_were_is_said_in_words():
    assert error_text(BackTest(Decimal("0.0900"), 4)) == (
        "In back-tests 7-day sums were off by 9 % on average (4 tests)."
    )
    assert "unknown" in error_text(BackTest(None, 0))


def test_the_period_and_the_interval_are_named():
    assert period_text(FOUND, ZoneInfo("Europe/Berlin")) == "The period ends at 2026-11-13 01:00 Europe/Berlin."
    assert interval_text(FOUND) == "no day of the history differed from the weekly pattern"


def slope(**facts) -> UsageChange:
    driver = Contribution("chatflow", "flow-1", Decimal(75), "Support")
    return UsageChange(
        **{
            "before": Decimal(100),
            "now": Decimal(150),
            "change": Decimal(50),
            "driver": driver,
            "contributions": (driver,),
            **facts,
        }
    )


def test_the_driver_is_named_with_its_share():
    assert driver_text(slope()) == (
        "Credits of the last 14 complete days rose by 50 % compared with the 14 before, from 100.00 to 150.00. Main "
        "driver: "
        "chatflow Support (flow-1), 150 % of the change."
    )
    assert driver_text(None) == "No change of 10 % or more in the last 14 complete days compared with the 14 before."


def test_a_driver_nobody_named_and_one_with_an_endless_name_can_be_read():
    nobody = Contribution("user", None, Decimal(50))
    assert "events without a user, 100 % of the change" in driver_text(slope(driver=nobody))
    endless = Contribution("chatflow", "f", Decimal(50), "x" * 500)
    assert len(driver_text(slope(driver=endless))) < 260


# ── tables and figures ───────────────────────────────────────────────────────────────────────────


def test_the_table_of_days_joins_what_was_and_what_is_expected():
    rows = forecast_rows(FOUND, 2)
    assert rows["Day"] == ["2026-11-08", "2026-11-09", "2026-11-10", "2026-11-11", "2026-11-12"]
    assert rows["Credits"] == ["100.00", "100.00", "", "", ""]
    assert rows["Expected"] == ["", "", "105.00", "100.00", "100.00"]  # 80 so far, a quarter of the day left


def test_the_sum_of_the_period_is_counted_back_from_what_is_used_now():
    rows = sum_rows(FOUND)
    assert rows["Day"] == ["2026-11-08", "2026-11-09", "2026-11-10", "2026-11-11", "2026-11-12"]
    assert rows["Used"][:2] == ["50.00", "150.00"]  # half of the first day belongs to the period before
    assert rows["Expected"][2:] == ["255.00", "355.00", "455.00"]


def test_the_figures_draw_the_same_numbers():
    days, sums = days_figure(FOUND, "light"), sum_figure(FOUND, "dark")
    assert list(days.data[0].y)[-2:] == [100.0, 100.0]
    assert list(days.data[3].y) == [105.0, 100.0, 100.0]
    assert list(sums.data[0].y) == [50.0, 150.0]
    assert list(sums.data[3].y) == [255.0, 355.0, 455.0]
    assert list(sums.data[4].y) == [1000, 1000]
    assert len(sum_figure(forecast(question(included=None)), "light").data) == 4  # no line without a limit
    assert list(history_figure(question(3), "light").data[0].y) == [100.0] * 3


# ── the panel ────────────────────────────────────────────────────────────────────────────────────


def panel(answer, driver=None) -> AppTest:
    """The section as a page draws it."""

    def script(service, principal, now):
        from components.organizations.forecast import forecast_panel

        forecast_panel(service, principal, "org_a", now)

    forecasting = called_as(ForecastService, SimpleNamespace(forecast=lambda *_: answer, driver=lambda *_: driver))
    service = SimpleNamespace(
        organizations=SimpleNamespace(forecasting=forecasting), settings=SimpleNamespace(zone=UTC_ZONE)
    )
    now = datetime(2026, 11, 10, 18, 30, tzinfo=UTC)
    run = AppTest.from_function(script, args=(service, EVERYONE, now), default_timeout=30).run()
    assert not run.exception, run.exception
    return run


def texts(run: AppTest) -> str:
    kinds = ("caption", "markdown", "text", "info")
    return "\n".join(str(element.value) for kind in kinds for element in run.get(kind)).replace("\\", "")


def test_the_panel_shows_sum_limit_error_and_driver(monkeypatch):
    links = []
    monkeypatch.setattr("components.organizations.forecast.usage_link", lambda label, **query: links.append(query))
    run = panel(FOUND, slope(driver=Contribution("user", "[x](http://evil)", Decimal(50))))
    told = texts(run)
    assert "**455.00 credits**" in told
    assert "The 1,000 included credits last until the period ends." in told
    assert "7-day sums were off by 0 % on average (4 tests)" in told
    assert "Usage known until 30 min ago." in told
    assert "60 complete days of history" in told
    assert [text.value for text in run.text if "[x](http://evil)" in text.value]  # as text, not as Markdown
    assert links == [{"period": "Last 30 days", "organization": "org_a", "user": "[x](http://evil)"}]
    assert len(run.get("plotly_chart")) == 2


def test_the_panel_says_why_there_is_no_forecast_and_shows_what_there_is():
    asked = question(9)
    run = panel(NotEnough("9 days of history; a forecast needs 21 complete ones.", asked))
    assert "Not enough data for a forecast. 9 days of history" in texts(run)
    [drawn] = run.get("plotly_chart")
    assert len(json.loads(drawn.proto.spec)["data"]) == 1


def test_a_table_stands_in_for_each_chart():
    run = panel(FOUND)
    run.toggle(key="as-table-org-forecast-sum").set_value(True).run()
    assert not run.exception
    assert run.dataframe[0].value["Expected"].tolist()[-1] == "455.00"
