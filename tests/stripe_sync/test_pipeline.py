"""The pipeline to Stripe at a glance: every event stands in exactly one stage, and what is stuck says why."""

from __future__ import annotations

import json
from datetime import timedelta
from decimal import Decimal

import pytest

from billing_core.access import Principal, Role
from billing_core.stripe_sync.pipeline import Action, Amounts, CarriedFraction, DueBy, _due, urgency
from billing_core.types import PipelineStage
from tests.stripe_sync.push_world import at, use

ADMIN = Principal("ada", Role.ADMIN)
MANY = 1_000
LATER = "meter_event_customer_not_found"


def stages(world):
    """Stage → (events, credits), empty ones left out."""
    found = world.desk.pipeline(ADMIN).stages
    assert set(found) == set(PipelineStage)
    return {stage.value: (a.events, str(a.credits.normalize())) for stage, a in found.items() if a.events}


def preview(world, action, **narrowed):
    return world.desk.preview(ADMIN, action, **narrowed)


@pytest.fixture
def every_stage(world, stripe):
    """One event in every stage (two held), credits in powers of two so that no sum hides another."""
    stripe.switch(summary_lag_seconds=600)
    world.book(use("confirmed", at(0), "1"))
    world.push()
    world.wait(hours=1)
    world.push()
    stripe.fault("reset", times=MANY, body_contains="cus_b")
    world.book(
        use("processed", at(1), "2"),
        use("sending", at(1), "4", customer="cus_b"),
        use("error", at(1), "8", customer="cus_typo"),
        use("held", at(0) - timedelta(days=40), "16"),
        use("excluded", at(1), "32", environment="sdk-experiment"),
        use("nobody's", at(1), "64", customer=None),
    )
    world.push()
    stripe.no_faults()
    world.book(use("pending", at(2), "128"))
    return world


def test_every_event_stands_in_exactly_one_stage_and_the_stages_add_up_to_the_ledger(every_stage):
    pipeline = every_stage.desk.pipeline(ADMIN)
    assert {stage.value: int(amounts.credits) for stage, amounts in pipeline.stages.items()} == {
        "pending": 128,
        "sending": 4,
        "processed": 2,
        "confirmed": 1,
        "error": 8,
        "held": 80,
        "excluded": 0,
        "billed_before": 0,
        "settled": 0,
    }
    assert {stage.value: amounts.events for stage, amounts in pipeline.stages.items()} == {
        "pending": 1,
        "sending": 1,
        "processed": 1,
        "confirmed": 1,
        "error": 1,
        "held": 2,
        "excluded": 1,
        "billed_before": 0,
        "settled": 0,
    }
    events = every_stage.events().values()
    assert pipeline.total == Amounts(
        8, sum(event.credits.total for event in events), sum(event.amount_usd for event in events)
    )


def test_the_oldest_unsent_is_the_start_of_what_is_pending_or_sending(every_stage):
    assert every_stage.desk.pipeline(ADMIN).oldest_unsent == at(1)


def test_a_problem_says_when_the_first_of_its_events_cannot_be_billed_any_more(every_stage):
    """The rejected event is too old 35 days after its start; what is too old already is in time for nothing."""
    due = {problem.cause: problem.due for problem in every_stage.desk.problems(ADMIN)}
    assert due["resource_missing"] == (at(1) + timedelta(days=35), None)
    assert due["too_old"] is None


def test_a_draft_invoice_that_becomes_final_sooner_is_the_deadline():
    start, final = at(1).replace(tzinfo=None), {"cus_a": at(5)}
    assert _due("resource_missing", "cus_a", start, final) == DueBy(at(5), "cus_a")
    assert _due("resource_missing", "cus_b", start, final) == DueBy(at(1) + timedelta(days=35))
    assert _due("closed_period", "cus_a", start, final) is None


def test_what_is_due_within_a_week_comes_first_and_the_rest_by_its_money():
    now, little, much = at(0), Amounts(1, Decimal(1), Decimal(1)), Amounts(1, Decimal(9), Decimal(9))
    rows = {
        "tomorrow": (DueBy(now + timedelta(days=1)), little),
        "in six days": (DueBy(now + timedelta(days=6)), much),
        "much": (None, much),
        "little in a month": (DueBy(now + timedelta(days=30)), little),
    }
    names = list(rows)[::-1]
    assert sorted(names, key=lambda name: urgency(*rows[name], now)) == list(rows)


def test_what_an_earlier_system_billed_is_no_stage_that_stripe_accepted(world):
    world.book(use("before", at(1), "2", legacy_status="processed", legacy_total=Decimal(2)))
    assert stages(world) == {"billed_before": (1, "2")}


def test_an_empty_ledger_has_empty_stages_and_nothing_unsent(world):
    pipeline = world.desk.pipeline(ADMIN)
    assert (stages(world), pipeline.total, pipeline.oldest_unsent) == ({}, Amounts(), None)
    assert (pipeline.corrections, pipeline.carried, world.desk.problems(ADMIN)) == (Amounts(), (), [])


def test_held_is_what_a_rule_or_a_person_keeps_back_and_error_what_stripe_rejected(every_stage):
    every_stage.desk.decide(ADMIN, preview(every_stage, Action.HOLD), reason="dispute")
    found = {problem.cause: (problem.amounts.events, problem.title) for problem in every_stage.desk.problems(ADMIN)}
    assert found == {
        "on_hold": (1, "On hold"),
        "no_customer": (1, "No Stripe customer"),
        "too_old": (1, "Older than 35 days"),
        "resource_missing": (1, "Stripe does not know the customer"),
    }
    assert stages(every_stage)["held"] == (3, "208")


def test_problems_come_with_the_most_credits_first_an_example_and_what_to_do(every_stage):
    first, second, third = every_stage.desk.problems(ADMIN)
    assert [int(p.amounts.credits) for p in (first, second, third)] == [64, 16, 8]
    assert third.example.startswith("Stripe rejected it: No such customer: 'cus_typo'")
    assert (third.customers, third.actions) == (1, (Action.RETRY,))
    assert "retry" in third.what_to_do
    assert (first.customers, first.actions) == (0, ())


# ── corrections and fractions ────────────────────────────────────────────────────────────────────


def test_corrections_are_what_sent_events_owe_beyond_what_was_sent_for_them(world):
    world.book(use("1", at(0), "150"), use("2", at(0), "100"))
    world.push()
    assert world.desk.pipeline(ADMIN).corrections == Amounts(0, Decimal(0), Decimal(0))
    world.book(use("1", at(0), "170.5"), use("2", at(0), "60"))
    corrections = world.desk.pipeline(ADMIN).corrections
    assert (corrections.events, corrections.credits) == (2, Decimal("-19.5"))
    assert corrections.amount_usd == Decimal("-0.00078")
    assert stages(world) == {"confirmed": (2, "230.5")}
    world.push()
    assert world.desk.pipeline(ADMIN).corrections.events == 0


def test_the_fraction_each_customer_carries_is_shown_also_below_0(world, stripe):
    world.book(use("1", at(0), "10.6"), use("b", at(0), "3", customer="cus_b"))
    world.push()
    assert world.desk.pipeline(ADMIN).carried == (CarriedFraction("cus_a", Decimal("0.6")),)
    stripe.switch(async_errors={world.intents()[0]["identifier"]: LATER})
    world.book(use("2", at(1), "10.6"))
    world.push()
    assert world.desk.pipeline(ADMIN).carried == (CarriedFraction("cus_a", Decimal("0.2")),)


def test_after_a_rejection_the_fraction_its_neighbour_used_is_owed_back(world, stripe):
    stripe.switch(async_errors={"usage_": LATER}, async_error_delay_seconds=1)
    world.book(use("1", at(0), "10.6"))
    world.push()
    stripe.switch(async_errors={})
    world.book(use("2", at(1), "10.6"))
    world.push()  # 11, with the fraction of the first one
    world.wait(seconds=5)
    world.push()
    assert world.statuses() == {"1": "error", "2": "processed"}  # its sum was read a moment before
    assert world.desk.pipeline(ADMIN).carried == (CarriedFraction("cus_a", Decimal("-0.4")),)
    world.desk.decide(ADMIN, preview(world, Action.RETRY))
    world.push()
    assert stripe.sums() == {"cus_a": 21}
    assert world.desk.pipeline(ADMIN).carried == (CarriedFraction("cus_a", Decimal("0.2")),)


# ── decisions ────────────────────────────────────────────────────────────────────────────────────


def test_a_preview_states_what_a_decision_would_touch_and_changes_nothing(every_stage):
    before = every_stage.content()
    assert preview(every_stage, Action.HOLD).event_ids == ("pending",)
    assert preview(every_stage, Action.RETRY).event_ids == ("error", "held")
    assert preview(every_stage, Action.RELEASE).event_ids == ()
    assert preview(every_stage, Action.RETRY).amounts == Amounts(2, Decimal(24), Decimal("0.00096"))
    assert every_stage.content() == before


@pytest.mark.parametrize(
    ("narrowed", "chosen"),
    [
        ({"cause": "too_old"}, ("held",)),
        ({"cause": "resource_missing"}, ("error",)),
        ({"cause": "nothing like it"}, ()),
        ({"customer_ids": ["cus_typo"]}, ("error",)),
        ({"customer_ids": ["cus_typo", "cus_a"]}, ("error", "held")),
        ({"event_ids": ["held", "confirmed", "x' OR 1=1"]}, ("held",)),
        ({"cause": "too_old", "customer_ids": ["cus_typo"]}, ()),
    ],
    ids=str,
)
def test_a_preview_is_narrowed_by_cause_customers_and_ids_together(every_stage, narrowed, chosen):
    assert preview(every_stage, Action.RETRY, **narrowed).event_ids == chosen


def test_what_was_rejected_is_sent_again_after_a_retry(world, stripe):
    world.book(use("1", at(0), customer="cus_new"))
    world.push()
    stripe.switch(extra_customers=["cus_a", "cus_new"])
    assert world.desk.decide(ADMIN, preview(world, Action.RETRY)) == 1
    assert stages(world) == {"pending": (1, "1.5E+2")}
    world.push()
    assert stripe.sums() == {"cus_new": 150}


def test_what_is_still_too_old_is_held_again_after_a_retry(every_stage):
    every_stage.desk.decide(ADMIN, preview(every_stage, Action.RETRY, cause="too_old"))
    assert every_stage.push().newly_held == 1
    assert every_stage.statuses()["held"] == "error"


def test_what_a_person_holds_is_kept_back_until_it_is_released(world, stripe):
    world.book(use("1", at(0)), use("2", at(0), "20", customer="cus_b"))
    chosen = preview(world, Action.HOLD, customer_ids=["cus_a"])
    assert world.desk.decide(ADMIN, chosen, reason="dispute") == 1
    world.push()
    assert stripe.sums() == {"cus_b": 20}
    assert stages(world) == {"confirmed": (1, "2E+1"), "held": (1, "1.5E+2")}
    assert world.desk.decide(ADMIN, preview(world, Action.RELEASE, cause="on_hold")) == 1
    world.push()
    assert stripe.sums() == {"cus_a": 150, "cus_b": 20}


def test_a_decision_touches_only_events_that_are_still_as_the_preview_showed_them(world, stripe):
    world.book(use("1", at(0)), use("2", at(0), "20", customer="cus_b"))
    seen = preview(world, Action.HOLD)
    world.push()
    world.book(use("3", at(1)))
    assert world.desk.decide(ADMIN, seen, reason="dispute") == 0
    assert stages(world) == {"confirmed": (2, "1.7E+2"), "pending": (1, "1.5E+2")}


def test_every_decision_is_in_the_audit_log_with_who_what_how_much_and_why(world):
    world.book(use("1", at(0)))
    world.desk.decide(ADMIN, preview(world, Action.HOLD), reason="dispute 42")
    world.desk.decide(ADMIN, preview(world, Action.RELEASE))
    query = "SELECT actor, action, detail FROM audit WHERE action LIKE 'sync%' ORDER BY seq"
    (hold, release) = world.rows(query)
    assert (hold[0], hold[1]) == ("ada", "sync hold")
    assert json.loads(hold[2]) == {
        "events": 1,
        "credits": "150.000000",
        "usd": "0.006000000000000000",
        "reason": "dispute 42",
        "ids": ["1"],
    }
    assert release[1] == "sync release"
