from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.month_close.model import Closing, Difference, Month, MonthState, window_of
from billing_core.month_close.rules import ACCEPTABLE, Obstacle, ObstacleGroup, not_over
from billing_core.types import Credits
from billing_core.web.jobs import CloseProgress, MonthTask
from components.months import texts
from components.months.causes import by_cause, cause_label, status_query, stuck_query, suggested
from components.months.rows import difference_rows, month_rows
from components.months.texts import (
    STATE_MARKS,
    accepted_text,
    check_text,
    checked_text,
    closed_line,
    closed_text,
    late_text,
    open_text,
    progress_text,
    refused_text,
    verified_text,
    way_out,
)

BERLIN = ZoneInfo("Europe/Berlin")
PARTS = Credits(ai_tokens=Decimal(1000), compute=Decimal("234.5"), storage=Decimal(0), total=Decimal("1234.5"))
OCTOBER = Month("2026-10", window_of("2026-10", BERLIN), MonthState.OVER, 12, PARTS, Decimal("0.04938"))
CLOSED = replace(
    OCTOBER,
    state=MonthState.CLOSED,
    closed_at=datetime(2026, 11, 3, 8, tzinfo=UTC),
    closed_by="fay",
    sha256="ab" * 32,
    timezone="Europe/Berlin",
)
NOVEMBER = replace(
    OCTOBER,
    period="2026-11",
    window=window_of("2026-11", BERLIN),
    state=MonthState.OPEN,
    late_events=1,
    late_credits=Decimal("-150.000001"),
)
NOBODY = Obstacle("no_customer", ObstacleGroup.ERROR, "no customer assigned", 2, Decimal("300.5"), ("a", "b"))
UNSENT = Obstacle("unsent", ObstacleGroup.UNSENT, "not sent to Stripe yet: push", 1000, Decimal(5), ("c",))
ON_HOLD = Obstacle("held", ObstacleGroup.UNSENT, "on hold: release them", 3, Decimal(3), ("d",))
FINAL = Obstacle("held", ObstacleGroup.ERROR, "the invoice is final", 4, Decimal(4), ("e", "d"))
LOST = Obstacle("lost_at_stripe", ObstacleGroup.UNEXPLAINED, "Stripe does not count them", 0, Decimal(7))
UNKNOWN = Obstacle("not_connected", ObstacleGroup.UNEXPLAINED, "Stripe is not connected", credits=None)


def test_the_table_names_month_state_and_figures_and_nothing_that_no_month_has():
    assert month_rows([OCTOBER], BERLIN) == {
        "Month": ["October 2026"],
        "State": ["● to close"],
        "Events": ["12"],
        "Credits": ["1,234.50"],
        "Amount (USD)": ["$0.05"],
    }


def test_the_table_tells_late_usage_and_who_closed_what():
    rows = month_rows([NOVEMBER, CLOSED], BERLIN)
    assert rows["Late events"] == ["1", ""]
    assert rows["Late credits"] == ["−150.00", ""]
    assert rows["Closed (Europe/Berlin)"] == ["", "2026-11-03 09:00:00"]
    assert rows["By"] == ["", "fay"]
    assert "SHA-256" not in rows


def test_a_reopened_month_shows_no_close_in_the_table():
    reopened = replace(CLOSED, state=MonthState.REOPENED)
    assert month_rows([reopened], BERLIN)["State"] == ["↺ reopened"]
    assert "By" not in month_rows([reopened], BERLIN)


def test_every_state_has_a_word_so_that_colour_never_carries_it_alone():
    assert set(STATE_MARKS) == set(MonthState)
    assert len({mark.text for mark in STATE_MARKS.values()}) == len(MonthState)


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([MonthState.OPEN, MonthState.OVER, MonthState.REOPENED, MonthState.CLOSED], "2026-02"),
        ([MonthState.OPEN, MonthState.CLOSED, MonthState.CLOSED], "2026-02"),
        ([MonthState.OPEN], "2026-01"),
    ],
)
def test_the_oldest_month_that_waits_comes_first_then_the_newest_closed_one(states, expected):
    newest_first = [f"2026-{number:02}" for number in range(len(states), 0, -1)]
    months = [replace(OCTOBER, period=name, state=state) for name, state in zip(newest_first, states, strict=True)]
    assert suggested(months) == expected


def test_late_usage_is_explained_only_where_there_is_some():
    assert late_text(OCTOBER) is None
    assert late_text(NOVEMBER).startswith("1 event with −150 credits arrived or changed after their own month")


def test_a_month_that_lasts_on_says_when_it_can_be_closed_on_the_clocks_of_the_zone():
    told = open_text(NOVEMBER, BERLIN, 30)
    assert all(time in told for time in ("2026-12-01 00:00 (Europe/Berlin)", "2026-12-01 00:30"))


def test_progress_names_the_month_the_person_and_the_step():
    def said(doing: str) -> str:
        progress = CloseProgress(MonthTask.CHECK, "2026-10", 0.5, doing)
        return progress_text(SimpleNamespace(progress=progress, started_by="fay"))

    assert said("reading observations") == "Checking October 2026 (fay): reading observations"
    assert said("done") == "Checking October 2026 (fay): comparing with the ledger and Stripe"


# ── what stands against a close ──────────────────────────────────────────────────────────────────


def test_obstacles_of_one_cause_are_accepted_together_and_the_largest_comes_first():
    groups = by_cause([NOBODY, ON_HOLD, UNSENT, FINAL])
    assert [(one.label, one.figures) for one in groups] == [
        ("Not sent", "1,000 events · 5.00 credits"),
        ("Held", "7 events · 7.00 credits"),
        ("No customer", "2 events · 300.50 credits"),
    ]
    assert groups[1].obstacles == (ON_HOLD, FINAL)
    assert groups[1].event_ids == ("d", "e")


def test_unknown_credits_stay_unknown_beside_known_ones():
    (group,) = by_cause([replace(UNKNOWN, credits=Decimal(5)), UNKNOWN])
    assert group.credits is None
    assert group.figures == "credits unknown"
    assert by_cause([LOST])[0].figures == "7.00 credits"


def test_that_a_month_is_not_over_cannot_be_accepted_and_stands_first():
    early = not_over("2026-10", OCTOBER.window.end, OCTOBER.window.end, OCTOBER.window.start)
    groups = by_cause([UNSENT, early])
    assert [one.is_acceptable for one in groups] == [False, True]


@given(st.lists(st.sampled_from([NOBODY, UNSENT, ON_HOLD, FINAL, LOST]), max_size=8))
def test_no_obstacle_is_lost_or_told_twice(obstacles):
    groups = by_cause(obstacles)
    assert sorted(map(id, obstacles)) == sorted(id(one) for group in groups for one in group.obstacles)
    assert len({group.cause for group in groups}) == len(groups)
    assert sum(group.events for group in groups) == sum(one.events for one in obstacles)


@pytest.mark.parametrize("cause", sorted(ACCEPTABLE))
def test_every_cause_has_words(cause):
    assert cause_label(cause)[0].isupper()
    assert "_" not in cause_label(cause)


DAYS = {"period": "Custom", "first_day": "2026-10-01", "last_day": "2026-10-31"}


def test_stuck_events_are_found_on_usage_events_by_their_causes_within_the_month():
    stuck = [replace(ON_HOLD, stuck_for=("on_hold",)), replace(FINAL, stuck_for=("closed_period",))]
    (group,) = by_cause(stuck)
    assert stuck_query(group, OCTOBER, BERLIN) == {**DAYS, "cause": ["closed_period", "on_hold"]}
    (mixed,) = by_cause([stuck[0], FINAL])
    assert stuck_query(mixed, OCTOBER, BERLIN) is None


def test_events_that_wait_are_found_on_usage_events_by_status_within_the_month():
    assert status_query(UNSENT, OCTOBER, BERLIN) == {**DAYS, "status": "pending"}
    assert status_query(LOST, OCTOBER, BERLIN) is None
    assert status_query(replace(UNSENT, events=0), OCTOBER, BERLIN) is None


def test_a_cause_has_its_money_where_all_of_it_has_a_price():
    priced = [replace(ON_HOLD, amount_usd=Decimal("0.12")), replace(FINAL, amount_usd=Decimal(3))]
    assert by_cause(priced)[0].figures == "7 events · 7.00 credits · $3.12"
    assert by_cause([priced[0], FINAL])[0].figures == "7 events · 7.00 credits"


@pytest.mark.parametrize(("cause", "said"), [("unsent", "Push"), ("too_old", "Resolve"), ("not_ours", "Stripe Sync")])
def test_the_way_to_stripe_sync_says_what_is_done_there(cause, said):
    assert way_out(cause).startswith(said)


def test_the_verdict_counts_causes():
    assert check_text(OCTOBER, []) == "Nothing blocks closing October 2026."
    assert check_text(OCTOBER, by_cause([UNSENT])) == f"1 issue blocks closing October 2026. {texts.ONE_ISSUE}"
    assert check_text(OCTOBER, by_cause([UNSENT, LOST])).startswith("2 issues block")


def test_a_check_of_an_older_ledger_says_that_it_may_not_hold_any_more():
    at = datetime(2026, 11, 3, 8, tzinfo=UTC)
    assert checked_text(at, "fay", BERLIN, is_current=True) == "Checked 2026-11-03 09:00:00 (Europe/Berlin) by fay."
    assert checked_text(at, "fay", BERLIN, is_current=False).endswith(texts.CHECK_AGAIN)


def test_the_confirmation_lists_what_is_accepted_and_nothing_else():
    assert accepted_text(by_cause([UNSENT, NOBODY, LOST]), ["unsent", "lost_at_stripe"]) == [
        "Not sent: 1,000 events · 5.00 credits",
        "Lost at Stripe: 7.00 credits",
    ]


MANIFEST = {"period": "2026-10", "totals": {"events": 12, "credits_total": "1234.5", "amount_usd": "0.04938"}}


def test_a_close_says_what_it_froze():
    assert closed_text(Closing(MANIFEST)) == "October 2026 is closed: 12 events, 1,234.5 credits ($0.05)."
    assert closed_text(Closing(MANIFEST, was_closed=True)) != closed_text(Closing(MANIFEST))


def test_a_refused_close_names_the_causes():
    text = refused_text("2026-10", Closing(None, (UNSENT, LOST)))
    assert text.startswith("October 2026 was not closed.")
    assert text.endswith(": Not sent, Lost at Stripe.")


# ── closed ───────────────────────────────────────────────────────────────────────────────────────


def test_a_closed_month_says_who_when_and_in_which_timezone():
    assert closed_line(CLOSED, BERLIN) == "Closed 2026-11-03 09:00:00 by fay · month and times in Europe/Berlin"
    moved = closed_line(CLOSED, ZoneInfo("UTC"))
    assert moved == "Closed 2026-11-03 08:00:00 by fay · the month was closed in Europe/Berlin, times here are in UTC"


def test_a_verification_says_what_it_compared_or_how_much_differs():
    assert verified_text("2026-10", (), ("totals", "exports")).endswith("Compared: totals, exports.")
    found = (Difference("totals", "events was 3 when it was closed and is 4", "3", "4"), Difference("events", "gone"))
    assert verified_text("2026-10", found, ()).endswith("2 differences.")
    assert difference_rows(found) == {
        "What": ["totals", "events"],
        "Finding": ["events was 3 when it was closed and is 4", "gone"],
        "When it was closed": ["3", ""],
        "Now": ["4", ""],
    }
