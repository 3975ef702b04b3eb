"""What people read of anomalies, and the view in which they mark them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from streamlit.testing.v1 import AppTest

from billing_core.access import Principal, Role
from billing_core.errors import NotFound
from billing_core.ledger.anomaly_marks import AnomalyMark
from billing_core.organizations.anomalies import Anomaly, AnomalyReport, NotJudged, PeriodAnomaly, UsualRange
from billing_core.organizations.forecast_service import ForecastService
from billing_core.organizations.variance import Variance
from components.organizations.anomalies import CSV_PATH
from components.organizations.anomaly_charts import split_figure
from components.organizations.anomaly_rows import AnomalyFilter, anomaly_rows, chosen, split_rows
from components.organizations.texts import anomaly_word, mark_text, story, summary_text
from components.shared import sign_in
from components.shared.data_grid import list_key
from tests.factories import EVERYONE
from tests.stand_ins import called_as

pytestmark = pytest.mark.usefixtures("packages_scanned_once")

UTC_ZONE = ZoneInfo("UTC")
NAMES = {"org_a": "Acme"}
SEEN_AT = datetime(2026, 11, 9, 8, tzinfo=UTC)
USUAL = UsualRange(Decimal(10_000), Decimal(7_500), Decimal(12_500), (0, 7, 14, 21), is_weekday=True)
PARTS = Variance(Decimal(10_100), Decimal(29_900), Decimal(20_000), Decimal(10_000), Decimal(-100))


def anomaly(organization: str | None = "org_a", day: date = date(2026, 11, 7), **facts) -> Anomaly:
    known = {
        "credits": Decimal(40_000),
        "expected": USUAL,
        "compared": tuple(day - n * timedelta(days=7) for n in (4, 3, 2, 1)),
        "credits_at_stake": Decimal(30_000),
        "usd_at_stake": Decimal("1.2"),
        "split": PARTS,
    }
    return Anomaly(organization, day, **{**known, **facts})


def mark(held: int = 40_000, note: str = "") -> AnomalyMark:
    return AnomalyMark(Decimal(held), SEEN_AT, "ann", note)


def report(*rows: Anomaly, **facts) -> AnomalyReport:
    known = {"periods": (), "not_judged": (), "first_day": date(2026, 11, 1), "last_day": date(2026, 11, 9), "as_of": 1}
    return AnomalyReport(rows, **{**known, **facts})


# ── words ────────────────────────────────────────────────────────────────────────────────────────


def test_the_table_has_the_day_the_range_and_what_is_at_stake():
    assert {name: column[0] for name, column in anomaly_rows([anomaly()], NAMES).items()} == {
        "Organization": "Acme",
        "Day": "2026-11-07",
        "What": "more than usual",
        "Deviation (credits)": "30,000.00",
        "Deviation (USD)": "$1.20",
        "Credits": "40,000.00",
        "Usual range": "7,500.00 – 12,500.00",
        "State": "new",
    }


def test_what_happened_is_named():
    assert anomaly_word(anomaly(credits=Decimal(0))) == "no usage"
    assert anomaly_word(anomaly(credits=Decimal(5))) == "less than usual"


def test_the_state_says_who_has_seen_it_and_whether_it_changed_since():
    assert mark_text(anomaly(mark=mark())) == "seen by ann"
    assert mark_text(anomaly(mark=mark(39_999))) == "changed since seen by ann"


def test_what_changed_since_somebody_saw_it_counts_as_not_seen():
    rows = [anomaly(), anomaly(mark=mark()), anomaly(mark=mark(1))]
    assert chosen(rows, AnomalyFilter.NEW) == [rows[0], rows[2]]
    assert chosen(rows, AnomalyFilter.SEEN) == [rows[1]]
    assert chosen(rows, AnomalyFilter.ALL) == rows
    assert summary_text(report(*rows), UTC_ZONE) == (
        "3 unusual days, 2 not seen. Days assessed: 1 Nov 2026 – 9 Nov 2026, complete days in UTC."
    )


def test_deviations_that_nobody_needs_to_act_on_are_counted():
    assert "no unusual day. " in summary_text(report(minor=1), UTC_ZONE)
    assert "1 smaller deviation not listed." in summary_text(report(minor=1), UTC_ZONE)
    assert "1,234 smaller deviations not listed." in summary_text(report(minor=1234), UTC_ZONE)


def test_a_window_without_a_day_to_judge_says_why():
    empty = report(first_day=None, last_day=None, note="No day of this window is over and completely read yet.")
    assert summary_text(empty, UTC_ZONE) == "No day of this window is over and completely read yet."


def test_the_parts_are_signed_and_tied_to_the_difference():
    assert {name: column[0] for name, column in split_rows([anomaly()], NAMES).items()} == {
        "Organization": "Acme",
        "Day": "2026-11-07",
        "Volume": "+20,000.00",
        "Price": "+10,000.00",
        "Mix": "−100.00",
        "Difference": "+29,900.00",
        "Average day before": "10,100.00",
    }


def test_an_anomaly_is_told_in_sentences():
    used, split, seen = story(anomaly(mark=mark(39_000, "a load test")), NAMES, UTC_ZONE)
    assert used == (
        "Acme used 40,000.00 credits on 7 Nov 2026. By the same weekday of the 4 weeks before, 7,500.00 to "
        "12,500.00 is usual; the median is 10,000.00."
    )
    assert split == (
        "Compared with an average of those days (10,100.00 credits) the difference is +29,900.00: volume +20,000.00, "
        "price +10,000.00, "
        "mix −100.00."
    )
    assert seen == "Seen by ann at 2026-11-09 08:00:00 UTC, when it was 39,000.00 credits: a load test"


def test_the_figure_stacks_the_parts_and_shows_names_as_text():
    figure = split_figure([anomaly("<b>x</b>")], {}, "light")
    assert [trace.x[0] for trace in figure.data] == [20_000.0, 10_000.0, -100.0]
    assert figure.layout.barmode == "relative"
    assert figure.layout.yaxis.ticktext[0] == "&lt;b&gt;x&lt;/b&gt; · 7 Nov"


# ── the view ─────────────────────────────────────────────────────────────────────────────────────


class Desk:
    """Stands in for the service's part: answers with a report, remembers what it was told."""

    def __init__(self, answer: AnomalyReport, refuses: bool = False) -> None:
        self.answer, self.refuses, self.told = answer, refuses, []

    def anomalies(self, principal, start, end):
        return self.answer

    def explained(self, principal, answer, rows):
        return tuple(rows)

    def mark(self, principal, organization_id, day, note, *, credits_shown):
        if self.refuses:
            raise NotFound("2026-11-07 of org_a is not an anomaly; reload the page")
        self.told.append(("seen", principal.name, organization_id, day, note, credits_shown))

    def unmark(self, principal, organization_id, day):
        self.told.append(("unseen", principal.name, organization_id, day))


@pytest.fixture
def view(monkeypatch):
    """Draws the view over a stand-in desk, with rows of the table picked; returns the run, the desk and its links."""
    links: list[dict] = []
    monkeypatch.setattr(sign_in, "_principal", lambda: EVERYONE)
    monkeypatch.setattr(
        "components.organizations.anomalies.organization_link", lambda name, one: links.append({"open": one})
    )
    monkeypatch.setattr("components.organizations.anomalies.usage_link", lambda name, **query: links.append(query))

    def script(service, principal, now, window):
        from components.organizations.anomalies import anomalies_view

        anomalies_view(service, principal, now, window)

    def draw(answer: AnomalyReport, *, refuses: bool = False, picked: tuple[int, ...] = (), **query: str):
        desk = Desk(answer, refuses)
        service = SimpleNamespace(
            organizations=SimpleNamespace(
                forecasting=called_as(ForecastService, desk), directory=SimpleNamespace(names=lambda principal: NAMES)
            ),
            settings=SimpleNamespace(zone=UTC_ZONE),
        )
        window = (datetime(2026, 11, 1, tzinfo=UTC), None)
        run = AppTest.from_function(script, args=(service, EVERYONE, SEEN_AT, window), default_timeout=30)
        for name, value in query.items():
            run.query_params[name] = value
        if picked:
            key = list_key("org-anomalies", [(row.organization_id, row.day, row.mark) for row in answer.rows])
            run.session_state[key] = {"selection": {"rows": list(picked), "columns": [], "cells": []}}
        run.run()
        assert not run.exception, run.exception
        return run, desk, links

    return draw


def texts(run: AppTest) -> str:
    kinds = ("caption", "markdown", "text", "info", "success", "error")
    return "\n".join(str(element.value) for kind in kinds for element in run.get(kind)).replace("\\", "")


def test_the_view_lists_what_nobody_has_seen(view):
    run, _, _ = view(report(anomaly(), anomaly("org_b", mark=mark())))
    assert "2 unusual days, 1 not seen." in texts(run)
    assert run.dataframe[0].value["Organization"].tolist() == ["Acme"]
    assert [button.key for button in run.button] == []


@pytest.mark.parametrize(("shown", "listed"), [("Seen", ["org_b"]), ("All", ["Acme", "org_b"]), ("x", ["Acme"])])
def test_the_address_says_which_are_shown(view, shown, listed):
    run, _, _ = view(report(anomaly(), anomaly("org_b", mark=mark())), seen=shown)
    assert run.dataframe[0].value["Organization"].tolist() == listed


def test_picked_rows_are_told_linked_and_marked_with_what_was_shown(view):
    run, desk, links = view(report(anomaly(), anomaly(None, date(2026, 11, 5))), picked=(0, 1))
    assert "Acme used 40,000.00 credits on 7 Nov 2026." in texts(run)
    assert links[0] == {
        "period": "Custom",
        "first_day": "2026-11-07",
        "last_day": "2026-11-07",
        "organization": "org_a",
    }
    assert links[1] == {"open": "org_a"}
    assert links[2]["without"] == "organization"
    run.text_input(key="org-anomaly-note").set_value("a load test")
    run.button(key="org-anomaly-mark").click().run()
    assert desk.told == [
        ("seen", "tester", "org_a", date(2026, 11, 7), "a load test", 40_000),
        ("seen", "tester", None, date(2026, 11, 5), "a load test", 40_000),
    ]
    assert "Marked 2 days as seen." in texts(run)


def test_a_mark_can_be_taken_back(view):
    run, desk, _ = view(report(anomaly(mark=mark())), picked=(0,), seen="Seen")
    assert "org-anomaly-mark" not in {button.key for button in run.button}
    run.button(key="org-anomaly-unmark").click().run()
    assert desk.told == [("unseen", "tester", "org_a", date(2026, 11, 7))]


def test_a_refused_mark_is_said_in_one_line(view):
    run, _, _ = view(report(anomaly()), refuses=True, picked=(0,))
    run.button(key="org-anomaly-mark").click().run()
    assert run.error[0].value.replace("\\", "") == (
        "Not all marked: 2026-11-07 of org_a is not an anomaly; reload the page"
    )


def test_only_25_rows_are_drawn_at_once(view):
    run, _, _ = view(report(*(anomaly(f"org_{n}") for n in range(60))), part="3")
    assert len(run.dataframe[0].value) == 10


def test_periods_and_organizations_without_a_judgement_have_tables_of_their_own(view):
    period = PeriodAnomaly(
        "org_a", date(2026, 11, 1), date(2026, 11, 9), Decimal(90_000), USUAL, Decimal(80_000), Decimal("3.2")
    )
    left_out = NotJudged("org_new", "6 days of history; 14 are needed.")
    run, _, _ = view(report(periods=(period,), not_judged=(left_out,)))
    assert "No assessed day needs a look." in texts(run)
    assert [frame.value.iloc[0]["Organization"] for frame in run.dataframe] == ["Acme", "org_new"]


def test_the_file_holds_the_window_of_the_view(view):
    run, _, _ = view(report(anomaly()))
    [link] = run.get("link_button")
    assert link.proto.url == f"{CSV_PATH}?from=2026-11-01T00%3A00%3A00.000Z"


def test_analysts_see_none_of_it(view, monkeypatch):
    monkeypatch.setattr(sign_in, "_principal", lambda: Principal("ann", Role.ANALYST))
    run, _, _ = view(report(anomaly()))
    assert "the admin role" in run.error[0].value
    assert not run.dataframe
