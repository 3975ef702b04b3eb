"""Sentences of the Stripe Sync page: figures exact, with units and plurals; unknown is said as unknown."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from billing_core.ledger.push_log import PushRun
from billing_core.stripe_sync.customer_status import CustomerStatus
from billing_core.stripe_sync.pipeline import Action, Amounts, DecisionPreview, RetryOutlook
from billing_core.stripe_sync.push import PushProgress, PushResult
from billing_core.stripe_sync.service import Deadline
from billing_core.web.jobs import JobState
from components.stripe_sync import texts
from components.stripe_sync.texts import (
    amounts_text,
    credits_and_money,
    deadline_text,
    decision_button,
    decision_text,
    in_words,
    last_push_text,
    outlook_text,
    push_progress_text,
    used_text,
    verdict_text,
)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ONE = Amounts(1, Decimal(1000), Decimal("0.04"))
TWO = Amounts(2, Decimal("1234.5"), Decimal("0.04938"))


def test_credits_have_two_decimals_at_most_and_come_with_their_money():
    assert credits_and_money(Decimal("1234.567891"), Decimal("12.3")) == "1,234.57 credits ($12.30)"
    assert credits_and_money(1, Decimal("0.00004")) == "1 credit (<$0.0001)"
    assert credits_and_money(-300, Decimal("-0.012")) == "−300 credits (−$0.01)"
    assert amounts_text(TWO) == "2 events, 1,234.5 credits ($0.05)"


@pytest.mark.parametrize(
    ("minutes", "said"),
    [(-5, "now"), (0.5, "now"), (5, "in 5 min"), (90, "in 1 h"), (47 * 60, "in 47 h"), (50 * 60, "in 2 days")],
)
def test_a_time_ahead_in_words(minutes, said):
    assert in_words(NOW + minutes * MINUTE, NOW) == said


def test_a_deadline_names_the_customer_the_time_on_our_clocks_and_the_age_of_the_reading():
    deadline = Deadline("cus_a", NOW + 60 * MINUTE, NOW - 12 * MINUTE)
    told = deadline_text(deadline, NOW, ZoneInfo("Europe/Berlin"))
    assert told.startswith("The draft invoice of cus_a finalizes at 2026-11-22 14:00:00 Europe/Berlin")
    assert told.endswith("Read 12 min ago.")


def test_progress_tells_how_many_how_fast_and_how_much():
    state = JobState(1, "ada", NOW, PushProgress(120, 4000, 1_234_567, "sending"))
    assert push_progress_text(state, NOW + timedelta(seconds=2)) == (
        "Push by ada: 120 of 4,000 meter events answered, 60 per second, 1,234,567 credits delivered"
    )
    waiting = JobState(1, "ada", NOW, PushProgress(0, 0, 0, "waiting for another push"))
    assert push_progress_text(waiting, NOW) == "Push by ada: waiting for another push"


def test_a_verdict_names_what_happened_and_leaves_out_what_did_not():
    result = PushResult(sent=3, duplicates=1, rejected=2, unknown=1, waiting=4, held=1, newly_held=1, credits_sent=1500)
    assert verdict_text(result.to_json()) == (
        "3 sent, 1 delivered before, 2 rejected, 1 without an answer, 4 not tried; 1 event held (1 newly); "
        "1,500 credits delivered"
    )
    assert verdict_text(PushResult().to_json()) == "nothing to send"


def run(outcome: str, *, error: str | None = None, minutes: int = 10) -> PushRun:
    ended = None if outcome == "running" else NOW - minutes * MINUTE
    return PushRun("p", NOW - 20 * MINUTE, ended, "ada", outcome, {"sent": 1, "credits_sent": "5"}, error)


@pytest.mark.parametrize(
    ("last", "is_pushing", "said"),
    [
        (None, False, texts.NEVER_PUSHED),
        (run("done"), False, "10 min ago by ada: 1 sent; 5 credits delivered."),
        (run("failed", error="Stripe cannot be reached"), False, "Failed 10 min ago by ada: Stripe cannot be reached"),
        (run("running"), True, "Running: started 20 min ago, by ada."),
        (run("running"), False, "Interrupted: started 20 min ago by ada. The next push continues from there."),
    ],
)
def test_the_last_push_in_words(last, is_pushing, said):
    assert last_push_text(last, NOW, is_pushing=is_pushing) == said


def test_a_decision_tells_what_it_did_and_what_had_moved_on_by_then():
    preview = DecisionPreview(Action.RETRY, TWO, ("a", "b"))
    assert decision_button(Action.RETRY, TWO) == "Retry 2 events: 1,234.5 credits ($0.05)"
    assert decision_button(Action.RETRY, TWO, ONE) == "Retry 2 events: 1,000 credits ($0.04)"
    assert decision_text(preview, 2) == "2 events are pending again."
    assert decision_text(preview, 1) == (
        "1 event is pending again. 1 event had changed since the preview and stays as it is."
    )
    assert decision_text(replace(preview, action=Action.HOLD), 2) == "2 events are on hold: 1,234.5 credits ($0.05)."


def test_the_outlook_of_a_retry_says_what_is_sent_what_waits_and_what_is_held_again():
    outlook = RetryOutlook(ONE, Amounts(), {"too_old": TWO})
    assert outlook_text(outlook) == (
        "The next push would send 1 of these events: 1,000 credits ($0.04). "
        "2 events with 1,234.5 credits ($0.05) would be held again: Older than 35 days."
    )
    nothing = RetryOutlook(Amounts(), ONE, {})
    assert outlook_text(nothing) == (
        "The next push would send none of these. "
        "1 event with 1,000 credits ($0.04) would wait: not settled, or less than a whole credit."
    )


def used(amount: str | None, included: int | None) -> CustomerStatus:
    exact = None if amount is None else Decimal(amount)
    return CustomerStatus("cus_a", "active", None, included, exact, None, None, None, NOW)


@pytest.mark.parametrize(
    ("amount", "included", "said"),
    [
        ("250000", 500_000, "250,000 of 500,000 credits used: 50 %"),
        ("500000.5", 500_000, "500,000.5 of 500,000 credits used: 100 %, 0.5 over the plan"),
        ("10", None, "10 credits used; how many are included is unknown"),
        (None, 500_000, "Credits used: unknown"),
    ],
)
def test_use_of_a_plan_goes_beyond_100_percent_and_unknown_is_not_zero(amount, included, said):
    assert used_text(used(amount, included)) == said
