"""Three books beside each other: every difference has a cause, and causes add up."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest

from billing_core.reconcile.compare import compare
from billing_core.values.usage_frame import Window
from tests.reconcile.literal import NOW, at, books, causes, meter_event, sent, the_row, usage

SENT = "ledger_sent"
D = Decimal


def compared(*args, **kwargs):
    found = compare(books(*args, **kwargs), now=NOW)
    for row in found.rows:
        assert_it_adds_up(row)
    return found


def assert_it_adds_up(row):
    """The identity of every row: step by step, so also from Langfuse to Stripe."""
    chain = {
        "langfuse_ledger": (row.langfuse_credits, row.ledger_credits),
        "ledger_sent": (row.ledger_credits, row.sent_credits),
        "sent_stripe": (row.sent_credits, row.stripe_credits),
    }
    for step, (earlier, later) in chain.items():
        parts = sum((part.credits for part in row.parts if part.step == step), D(0))
        assert parts == (0 if earlier is None or later is None else earlier - later)


# ── what agrees ──────────────────────────────────────────────────────────────────────────────────


def test_books_that_agree_have_rows_without_causes():
    event, intent = sent("e1", 150)
    found = compared([event], [intent])
    row = the_row(found)
    assert (row.langfuse_credits, row.ledger_credits, row.sent_credits, row.stripe_credits) == (150,) * 4
    assert (row.parts, row.differs, found.unexplained_credits) == ((), False, 0)
    assert found.only_differences().rows == ()


def test_every_customer_and_utc_day_active_in_any_book_has_a_row():
    late = usage("booked", "1", "cus_a", hour=23.9)
    only_upstream = usage("fresh", "1", "cus_b", hour=24)
    nobody = usage("nobody", "1", None, hour=47)
    found = compared([late, nobody], [], {("cus_c", 30): 7}, [late, nobody, only_upstream])
    assert [(row.customer_id, row.day) for row in found.rows] == [
        ("cus_a", date(2026, 11, 1)),
        ("cus_b", date(2026, 11, 2)),
        ("cus_c", date(2026, 11, 2)),
        (None, date(2026, 11, 2)),
    ]


def test_nothing_anywhere_is_no_row():
    found = compared()
    assert (found.rows, found.unexplained_credits) == ((), 0)


def test_credits_are_exact_to_the_last_digit():
    rows = [usage(f"e{n}", "0.000001") for n in range(7)] + [usage("big", "999999999999.999999")]
    row = the_row(compared(rows))
    assert row.ledger_credits == D("1000000000000.000006")
    assert causes(row) == [(SENT, "late", D("1000000000000.000006"))]


# ── Langfuse and ledger ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("marks", ["missing_at_source", "changed_after_sending,missing_at_source"])
def test_usage_whose_trace_langfuse_no_longer_has_is_missing_at_source(marks):
    event, intent = sent("e1", 150)
    row = the_row(compared([event | {"marks": marks}], [intent], upstream=[]))
    assert (row.langfuse_credits, row.ledger_credits, row.unexplained_credits) == (0, 150, 0)
    assert causes(row) == [("langfuse_ledger", "missing_at_source", -150)]


def test_a_mark_that_is_out_of_date_explains_nothing():
    event = usage("e1", "150", marks="missing_at_source")
    assert causes(the_row(compared([event], upstream=[usage("e1", "100")]))) == [
        ("langfuse_ledger", "late", -50),
        (SENT, "late", 150),
    ]


def test_usage_that_was_not_pulled_yet_is_late():
    row = the_row(compared(upstream=[usage("e1", "20")]))
    assert (row.langfuse_credits, row.ledger_credits) == (20, 0)
    assert causes(row) == [("langfuse_ledger", "late", 20)]
    assert row.parts[0].event_ids == ("e1",)


def test_usage_that_grew_before_it_was_sent_is_late():
    row = the_row(compared([usage("e1", "20")], upstream=[usage("e1", "25")]))
    assert causes(row) == [("langfuse_ledger", "late", 5), (SENT, "late", 20)]


def test_usage_that_grew_after_it_was_sent_has_changed_after_sending():
    event, intent = sent("e1", 20)
    row = the_row(compared([event], [intent], upstream=[usage("e1", "25")]))
    assert causes(row) == [("langfuse_ledger", "changed_after_sending", 5)]


@pytest.mark.parametrize(
    ("status", "intents"),
    [
        ("error", [meter_event("m1", 20, {"e1": "20"}), meter_event("m2", 1, {"e1": "1"}, state="rejected")]),
        ("sending", [meter_event("m1", 20, {"e1": "20"}, state="open")]),
        ("processed", []),
    ],
)
def test_usage_on_its_way_in_whatever_state_has_changed_after_sending(status, intents):
    found = compared([usage("e1", "20", sync_status=status)], intents, upstream=[usage("e1", "25")])
    assert causes(the_row(found))[0] == ("langfuse_ledger", "changed_after_sending", 5)


def test_usage_whose_only_meter_event_was_rejected_or_withdrawn_is_late_when_it_grows():
    for state in ("rejected", "void"):
        intents = [meter_event("m1", 20, {"e1": "20"}, state=state)]
        found = compared([usage("e1", "20", sync_status="error")], intents, upstream=[usage("e1", "25")])
        assert causes(the_row(found))[0] == ("langfuse_ledger", "late", 5)


def test_usage_that_only_the_ledger_knows_counts_against_it():
    row = the_row(compared([usage("e1", "20")], upstream=[]))
    assert causes(row)[0] == ("langfuse_ledger", "late", -20)


def test_more_of_one_event_and_less_of_another_stay_two_differences():
    found = compared([usage("e1", "20"), usage("e2", "20")], upstream=[usage("e1", "25"), usage("e2", "15")])
    assert causes(the_row(found))[:2] == [("langfuse_ledger", "late", 5), ("langfuse_ledger", "late", -5)]
    assert [part.event_ids for part in the_row(found).parts][:2] == [("e1",), ("e2",)]


def test_usage_that_moved_to_another_day_is_missing_here_and_too_much_there():
    found = compared([usage("e1", "20", hour=10)], upstream=[usage("e1", "20", hour=30)])
    assert causes(the_row(found, day=1))[0] == ("langfuse_ledger", "late", -20)
    assert causes(the_row(found, day=2)) == [("langfuse_ledger", "late", 20)]


def test_usage_that_moved_to_another_customer_is_missing_here_and_too_much_there():
    event, intent = sent("e1", 20)
    found = compared([event], [intent], upstream=[usage("e1", "20", "cus_b")])
    assert causes(the_row(found, "cus_a")) == [("langfuse_ledger", "changed_after_sending", -20)]
    assert causes(the_row(found, "cus_b")) == [("langfuse_ledger", "changed_after_sending", 20)]


def test_usage_that_moved_out_of_the_window_leaves_its_row():
    found = compared([usage("e1", "20")], upstream=[usage("e1", "20", hour=-3)])
    assert causes(the_row(found))[0] == ("langfuse_ledger", "late", -20)
    assert len(found.rows) == 1


def test_what_the_earlier_system_recorded_differently_since_is_not_a_change_after_our_sending():
    booked = usage("e1", "20", sync_status="processed", flags="legacy_billed")
    found = compared([booked], upstream=[usage("e1", "21", flags="legacy_billed")])
    assert causes(the_row(found))[0] == ("langfuse_ledger", "late", 1)


def test_unreadable_langfuse_is_unknown_and_not_0():
    row = the_row(compare(replace(books([usage("e1", "20")]), upstream=None), now=NOW))
    assert row.langfuse_credits is None
    assert causes(row) == [(SENT, "late", 20)]


# ── ledger and sent ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("event", "holds", "cause"),
    [
        (usage("e1", "20"), {}, "late"),
        (usage("e1", "20", sync_status="processed", flags="legacy_billed"), {}, "legacy_billed"),
        (usage("e1", "20", None, sync_status="error", flags="no_customer"), {}, "no_customer"),
        (usage("e1", "20", None, sync_status="error"), {"e1": "no_customer"}, "no_customer"),
        (usage("e1", "20", sync_status="error"), {"e1": "no_customer"}, "no_customer"),
        (usage("e1", "20", sync_status="error"), {"e1": "too_old"}, "too_old"),
        (usage("e1", "20"), {"e1": "closed_period"}, "held"),
        (usage("e1", "20"), {"e1": "on_hold"}, "held"),
        (usage("e1", "20"), {"e1": "sent_elsewhere"}, "sent_elsewhere"),
        (usage("e1", "20"), {"e1": "failed_before"}, "held"),
        (usage("e1", "20", sync_status="error"), {"e1": "failed_before"}, "held"),
        (usage("e1", "20", sync_status="error", sync_error="No such customer"), {}, "held"),
        (usage("e1", "0.4", marks="carried"), {}, "carried_fraction"),
    ],
)
def test_credits_that_were_not_sent_say_why(event, holds, cause):
    row = the_row(compared([event], holds=holds), event["customer_id"])
    assert causes(row) == [(SENT, cause, event["credits_total"])]
    assert row.parts[0].event_ids == ("e1",)


@pytest.mark.parametrize(
    ("state", "status", "cause"),
    [("sending", "sending", "unknown_outcome"), ("open", "sending", "late"), ("rejected", "error", "rejected")],
)
def test_credits_on_their_way_say_how_far_they_got(state, status, cause):
    event = usage("e1", "20", sync_status=status)
    row = the_row(compared([event], [meter_event("m1", 20, {"e1": "20"}, state=state)]))
    assert (row.sent_credits, causes(row)) == (0, [(SENT, cause, 20)])


def test_a_rejected_meter_event_that_is_to_be_tried_again_is_late():
    row = the_row(compared([usage("e1", "20")], [meter_event("m1", 20, {"e1": "20"}, state="rejected")]))
    assert causes(row) == [(SENT, "late", 20)]


def test_what_the_earlier_system_billed_stays_its_own_whatever_was_tried_since():
    event = usage("e1", "20", sync_status="processed", flags="legacy_billed")
    row = the_row(compared([event], [meter_event("m1", 20, {"e1": "20"}, state="sending")]))
    assert causes(row) == [(SENT, "legacy_billed", 20)]


def test_a_withdrawn_meter_event_sent_nothing():
    row = the_row(compared([usage("e1", "20")], [meter_event("m1", 20, {"e1": "20"}, state="void")]))
    assert causes(row) == [(SENT, "late", 20)]


def test_a_correction_whose_outcome_is_unknown_is_only_its_own_size():
    event = usage("e1", "25", sync_status="sending", marks="changed_after_sending")
    intents = [meter_event("m1", 20, {"e1": "20"}), meter_event("m2", 5, {"e1": "5"}, state="sending")]
    assert causes(the_row(compared([event], intents))) == [(SENT, "unknown_outcome", 5)]


@pytest.mark.parametrize("counted", [12, 0])
def test_a_correction_that_is_kept_back_because_stripe_counts_less_explains_both_sides(counted):
    event, intent = sent("e1", 20)
    event |= {"credits_total": D("12"), "marks": "changed_after_sending"}
    row = the_row(compared([event], [intent], {("cus_a", 10): counted}, holds={"e1": "sent_elsewhere"}))
    lost = [("sent_stripe", "lost_at_stripe", 12)] if counted == 0 else []
    assert causes(row) == [(SENT, "sent_elsewhere", -8), ("sent_stripe", "sent_elsewhere", 8), *lost]


def test_what_a_former_customer_is_to_get_back_explains_what_stripe_counts_less_of_it():
    event, intent = sent("e1", 20)
    event |= {"customer_id": "cus_b", "marks": "changed_after_sending"}
    found = compared([event], [intent], {("cus_b", 10): 20}, holds={"e1": "sent_elsewhere"})
    former = the_row(found)
    assert causes(former) == [(SENT, "changed_after_sending", -20), ("sent_stripe", "sent_elsewhere", 20)]
    assert former.unexplained_credits == the_row(found, "cus_b").unexplained_credits == 0


@pytest.mark.parametrize(("now_worth", "difference"), [("25", 5), ("12", -8), ("0", -20)])
def test_usage_booked_differently_after_it_was_sent_has_changed_after_sending(now_worth, difference):
    event, intent = sent("e1", 20)
    event |= {"credits_total": D(now_worth), "marks": "changed_after_sending"}
    assert causes(the_row(compared([event], [intent]))) == [(SENT, "changed_after_sending", difference)]


def test_usage_sent_before_and_pending_again_has_changed_after_sending():
    """Its mark says so, or the intent that covered it."""
    event, intent = sent("e1", 20)
    event |= {"credits_total": D(25), "sync_status": "pending"}
    assert causes(the_row(compared([event], [intent]))) == [(SENT, "changed_after_sending", 5)]
    marked = usage("e1", "20", marks="changed_after_sending")
    withdrawn = meter_event("m1", 20, {"e1": "20"}, state="void")
    assert causes(the_row(compared([marked], [withdrawn]))) == [(SENT, "changed_after_sending", 20)]


CARRIED, CHANGED = "carried_fraction", "changed_after_sending"


@pytest.mark.parametrize(
    ("worth", "marks", "value", "missing", "extra"),
    [
        ("0.6", "", 1, [(SENT, CARRIED, D("0.6"))], [(SENT, CARRIED, -1)]),
        ("0.6", CHANGED, 1, [(SENT, CHANGED, D("0.6"))], [(SENT, CHANGED, D("-0.6")), (SENT, CARRIED, D("-0.4"))]),
        ("20", "", 20, [(SENT, CHANGED, 20)], [(SENT, CHANGED, -20)]),
    ],
)
def test_usage_sent_for_another_day_was_carried_there_only_as_a_fraction(worth, marks, value, missing, extra):
    event = usage("e1", worth, hour=10, sync_status="processed", marks=marks)
    found = compared([event], [meter_event("m1", value, {"e1": worth}, hour=30, carried_before=D("0.5"))])
    assert (causes(the_row(found, day=1)), causes(the_row(found, day=2))) == (missing, extra)
    assert found.unexplained_credits == 0


def test_a_correction_that_was_sent_closes_the_difference():
    event, first = sent("e1", 20)
    event |= {"credits_total": D(12), "marks": "changed_after_sending"}
    row = the_row(compared([event], [first, meter_event("m2", -8, {"e1": "-8"})]))
    assert (row.sent_credits, row.parts) == (12, ())


def test_usage_that_changed_its_customer_after_sending_differs_for_both_until_it_is_corrected():
    event, wrong = sent("e1", 20, "cus_a")
    event |= {"customer_id": "cus_b", "marks": "changed_after_sending"}
    found = compared([event], [wrong])
    assert causes(the_row(found, "cus_a")) == [(SENT, "changed_after_sending", -20)]
    assert causes(the_row(found, "cus_b")) == [(SENT, "changed_after_sending", 20)]
    back = meter_event("m2", -20, {"e1": "-20"}, "cus_a")
    anew = meter_event("m3", 20, {"e1": "20"}, "cus_b")
    corrected = compared([event], [wrong, back, anew])
    assert [row.parts for row in corrected.rows] == [(), ()]


def test_the_fraction_that_was_rounded_down_is_carried():
    event = usage("e1", "20.75", sync_status="processed")
    row = the_row(compared([event], [meter_event("m1", 20, {"e1": "20.75"})]))
    assert causes(row) == [(SENT, "carried_fraction", D("0.75"))]
    assert row.unexplained_credits == 0


def test_a_fraction_that_went_along_with_the_next_day_is_missing_here_and_extra_there():
    waiting = usage("e1", "0.6", hour=10, sync_status="processed")
    bigger = usage("e2", "1.5", hour=30, sync_status="processed")
    found = compared([waiting, bigger], [meter_event("m1", 2, {"e1": "0.6", "e2": "1.5"}, hour=30)])
    assert causes(the_row(found, day=1)) == [(SENT, "carried_fraction", D("0.6"))]
    assert causes(the_row(found, day=2)) == [(SENT, "carried_fraction", D("-0.5"))]
    assert the_row(found, day=2).parts[0].event_ids == ("e1",)


def test_a_fraction_carried_beyond_the_window_is_no_contradiction():
    event = usage("e1", "0.6", hour=47, sync_status="processed")
    found = compared([event], [meter_event("m1", 1, {"e1": "0.6", "later": "0.9"}, hour=50)])
    assert causes(the_row(found, day=2)) == [(SENT, "carried_fraction", D("0.6"))]


def test_excluded_and_unpriced_usage_is_named_and_alone_makes_no_difference():
    events = [
        usage("silent", "0", sync_status="excluded", flags="excluded_environment"),
        usage("free", "0", sync_status="excluded", flags="unpriced"),
    ]
    found = compared(events)
    row = the_row(found)
    assert causes(row) == [(SENT, "excluded", 0), (SENT, "unpriced", 0)]
    assert [part.event_ids for part in row.parts] == [("silent",), ("free",)]
    assert (row.differs, found.only_differences().rows) == (False, ())


def test_unpriced_usage_is_named_even_if_other_parts_of_it_cost_something():
    event = usage("e1", "20", flags="unpriced")
    assert causes(the_row(compared([event]))) == [(SENT, "late", 20), (SENT, "unpriced", 0)]


def test_the_listing_of_differences_leaves_out_causes_worth_nothing():
    found = compared([usage("e1", "20"), usage("free", "0", sync_status="excluded")])
    assert causes(found.only_differences().rows[0]) == [(SENT, "late", 20)]


# ── a ledger that contradicts itself ─────────────────────────────────────────────────────────────


def test_an_event_said_to_be_confirmed_that_no_intent_covers_is_unexplained():
    found = compared([usage("e1", "20", sync_status="confirmed")])
    assert causes(the_row(found)) == [(SENT, None, 20)]
    assert found.unexplained_credits == 20


def test_an_intent_that_sent_more_than_it_covers_is_unexplained():
    event = usage("e1", "20", sync_status="processed")
    found = compared([event], [meter_event("m1", 25, {"e1": "20"})])
    assert causes(the_row(found)) == [(SENT, None, -5)]
    assert (the_row(found).parts[0].meter_events, found.unexplained_credits) == (("m1",), 5)


def test_an_intent_whose_coverage_is_not_its_sum_is_unexplained():
    event = usage("e1", "20", sync_status="processed")
    found = compared([event], [meter_event("m1", 30, {"e1": "20"}, credits=D(30))])
    assert causes(the_row(found)) == [(SENT, None, -10)]


def test_coverage_of_an_event_the_ledger_does_not_have_is_unexplained():
    found = compared([], [meter_event("m1", 20, {"ghost": "20"})])
    assert causes(the_row(found)) == [(SENT, None, -20)]
    assert the_row(found).parts[0].event_ids == ("ghost",)


def test_coverage_by_an_intent_that_is_not_there_is_unexplained():
    given = books([usage("e1", "20", sync_status="confirmed")], [meter_event("m1", 20, {"e1": "20"})], {})
    found = compare(replace(given, ledger=replace(given.ledger, intents=given.ledger.intents.slice(1))), now=NOW)
    assert_it_adds_up(the_row(found))
    assert (causes(the_row(found)), found.unexplained_credits) == ([(SENT, None, 20)], 20)


def test_opposite_contradictions_do_not_cancel():
    events = [usage("e1", "20", sync_status="confirmed")]
    found = compared(events, [meter_event("m1", 20, {"ghost": "20"})])
    assert (the_row(found).ledger_credits, the_row(found).sent_credits) == (20, 20)
    assert found.unexplained_credits == 40


@pytest.mark.parametrize(("carried", "value", "unexplained"), [("0.5", 21, 0), ("0.5", 20, "0.7"), ("0", 21, "0.3")])
def test_an_intent_sends_what_it_covers_and_carries_rounded_down_and_nothing_else(carried, value, unexplained):
    event = usage("e1", "20.7", sync_status="processed")
    found = compared([event], [meter_event("m1", value, {"e1": "20.7"}, carried_before=D(carried))])
    assert found.unexplained_credits == D(unexplained)


def test_a_carry_that_made_up_for_a_rejected_neighbour_is_sound():
    """The first of two intents was rejected after the second had used its 0.7: the third starts at −0.6."""
    event = usage("e1", "5.7", sync_status="processed")
    found = compared([event], [meter_event("m3", 5, {"e1": "5.7"}, carried_before=D("-0.6"))])
    assert causes(the_row(found)) == [(SENT, "carried_fraction", D("0.7"))]
    assert found.unexplained_credits == 0


# ── sent and Stripe ──────────────────────────────────────────────────────────────────────────────


def test_credits_that_stripe_does_not_count_are_lost_and_unexplained():
    event, intent = sent("e1", 150)
    found = compared([event], [intent], {("cus_a", 10): 100})
    part = the_row(found).parts[0]
    assert causes(the_row(found)) == [("sent_stripe", "lost_at_stripe", 50)]
    assert (part.event_ids, part.meter_events, found.unexplained_credits) == (("e1",), ("sent-e1",), 50)


def test_a_meter_event_that_was_never_tried_is_not_suspected_of_being_lost():
    event, intent = sent("e1", 150)
    waiting = meter_event("m2", 20, {"e2": "20"}, state="open")
    found = compared([event, usage("e2", "20", sync_status="sending")], [intent, waiting], {("cus_a", 10): 100})
    assert the_row(found).parts[-1].meter_events == ("sent-e1",)


def test_credits_of_somebody_else_are_not_ours_and_unexplained():
    event, intent = sent("e1", 150)
    found = compared([event], [intent], {("cus_a", 10): 157})
    assert causes(the_row(found)) == [("sent_stripe", "not_ours", -7)]
    assert found.unexplained_credits == 7


def test_opposite_errors_within_a_day_do_not_cancel():
    (early, first), (evening, second) = sent("e1", 100, hour=3), sent("e2", 100, hour=20)
    found = compared([early, evening], [first, second], {("cus_a", 3): 90, ("cus_a", 20): 110})
    row = the_row(found)
    assert (row.sent_credits, row.stripe_credits, row.differs) == (200, 200, True)
    assert causes(row) == [("sent_stripe", "not_ours", -10), ("sent_stripe", "lost_at_stripe", 10)]
    assert found.unexplained_credits == 20
    assert found.only_differences().rows == (row,)


def test_opposite_errors_of_two_customers_do_not_cancel():
    (one, first), (two, second) = sent("e1", 100, "cus_a"), sent("e2", 100, "cus_b")
    found = compared([one, two], [first, second], {("cus_a", 10): 90, ("cus_b", 10): 110})
    assert found.unexplained_credits == 20


@pytest.mark.parametrize(("minutes", "cause"), [(59, "summary_lag"), (61, "lost_at_stripe")])
def test_what_was_accepted_within_the_hour_may_still_be_missing_from_the_summary(minutes, cause):
    event, intent = sent("e1", 150)
    intent["answered_at"] = (NOW - timedelta(minutes=minutes)).replace(tzinfo=None)
    found = compared([event], [intent], {})
    assert causes(the_row(found)) == [("sent_stripe", cause, 150)]


def test_lag_is_counted_from_when_stripe_was_read_not_from_when_it_is_compared():
    event, intent = sent("e1", 150)
    intent["answered_at"] = (NOW - timedelta(minutes=30)).replace(tzinfo=None)
    found = compare(books([event], [intent], {}), now=NOW + timedelta(hours=5))
    assert causes(the_row(found)) == [("sent_stripe", "summary_lag", 150)]


def test_a_confirmed_meter_event_that_disappears_is_lost_however_young():
    event, intent = sent("e1", 150)
    intent |= {"state": "confirmed", "answered_at": NOW.replace(tzinfo=None)}
    assert causes(the_row(compared([event], [intent], {}))) == [("sent_stripe", "lost_at_stripe", 150)]


def test_a_higher_total_than_sent_is_never_lag():
    event, intent = sent("e1", 150)
    intent["answered_at"] = NOW.replace(tzinfo=None)
    assert causes(the_row(compared([event], [intent], {("cus_a", 10): 151}))) == [("sent_stripe", "not_ours", -1)]


def test_credits_given_back_a_moment_ago_may_still_be_counted():
    event, first = sent("e1", 20)
    event |= {"credits_total": D(12)}
    back = meter_event("m2", -8, {"e1": "-8"}, answered_at=NOW.replace(tzinfo=None))
    row = the_row(compared([event], [first, back], {("cus_a", 10): 20}))
    assert causes(row) == [("sent_stripe", "summary_lag", -8)]
    assert row.unexplained_credits == 0


def test_an_unknown_outcome_that_stripe_counts_is_not_blamed_on_others():
    event = usage("e1", "20", sync_status="sending")
    row = the_row(compared([event], [meter_event("m1", 20, {"e1": "20"}, state="sending")], {("cus_a", 10): 20}))
    assert (row.sent_credits, row.stripe_credits) == (0, 20)
    assert causes(row) == [(SENT, "unknown_outcome", 20), ("sent_stripe", "unknown_outcome", -20)]
    assert row.unexplained_credits == 0


def test_an_intent_that_was_never_tried_explains_nothing_stripe_counts():
    event = usage("e1", "20", sync_status="sending")
    found = compared([event], [meter_event("m1", 20, {"e1": "20"}, state="open")], {("cus_a", 10): 20})
    assert causes(the_row(found)) == [(SENT, "late", 20), ("sent_stripe", "not_ours", -20)]


def test_an_unknown_outcome_explains_no_other_amount():
    event = usage("e1", "20", sync_status="sending")
    found = compared([event], [meter_event("m1", 20, {"e1": "20"}, state="sending")], {("cus_a", 10): 15})
    assert ("sent_stripe", "not_ours", -15) in causes(the_row(found))


def test_what_the_earlier_system_billed_explains_what_stripe_counts_beyond_what_was_sent():
    event = usage("e1", "20.2", sync_status="processed", flags="legacy_billed")
    found = compared([event], [], {("cus_a", 10): 25})
    assert causes(the_row(found)) == [
        (SENT, "legacy_billed", D("20.2")),
        ("sent_stripe", "legacy_billed", -21),
        ("sent_stripe", "not_ours", -4),
    ]


def test_what_the_earlier_system_billed_at_another_hour_explains_nothing():
    event = usage("e1", "20", sync_status="processed", flags="legacy_billed", hour=11)
    assert compared([event], [], {("cus_a", 10): 20}).unexplained_credits == 20


def test_a_customer_nobody_here_ever_sent_anything_for_is_found_by_what_stripe_counts():
    found = compared([], [], {("cus_x", 5): "0.5"})
    assert causes(the_row(found, "cus_x")) == [("sent_stripe", "not_ours", D("-0.5"))]


def test_without_stripe_its_credits_are_unknown_and_not_0():
    event, intent = sent("e1", 150)
    row = the_row(compare(replace(books([event], [intent]), stripe=None), now=NOW))
    assert (row.stripe_credits, row.parts, row.differs) == (None, (), False)


def test_one_customer_whose_summary_could_not_be_read_is_unknown_and_the_others_are_compared():
    (one, first), (two, second) = sent("e1", 100, "cus_a"), sent("e2", 100, "cus_b")
    found = compared([one, two], [first, second], {("cus_b", 10): 90}, stripe_unknown=frozenset({"cus_a"}))
    assert the_row(found, "cus_a").stripe_credits is None
    assert the_row(found, "cus_b").stripe_credits == 90
    assert found.unexplained_credits == 10


# ── windows ──────────────────────────────────────────────────────────────────────────────────────


def test_only_whole_hours_inside_the_window_count():
    window = Window(datetime(2026, 11, 1, 10, tzinfo=UTC), datetime(2026, 11, 1, 12, tzinfo=UTC))
    rows = [
        sent("before", 1, hour=9.99),
        sent("first", 2, hour=10),
        sent("last", 4, hour=11.99),
        sent("after", 8, hour=12),
    ]
    events, intents = [event for event, _ in rows], [intent for _, intent in rows]
    found = compared(events, intents, window=window)
    row = the_row(found)
    assert (row.langfuse_credits, row.ledger_credits, row.sent_credits, row.stripe_credits) == (6, 6, 6, 6)
    assert found.unexplained_credits == 0


def test_hours_that_stripe_lists_with_nothing_in_them_make_no_row():
    event, intent = sent("e1", 20, hour=10)
    stripe = {("cus_a", 10.0): 20, ("cus_a", 11.0): 0, ("cus_a", 34.0): 0, ("cus_b", 5.0): 0}
    assert compare(books([event], [intent], stripe), now=NOW) == compare(books([event], [intent]), now=NOW)


def test_a_book_nobody_could_read_leaves_the_unexplained_credits_unknown():
    event, intent = sent("e1", 20, hour=10)
    found = compare(replace(books([event], [intent]), stripe=None), now=NOW)
    assert not found.is_complete
    assert found.to_json()["unexplained_credits"] is None
    assert compare(books([event], [intent]), now=NOW).is_complete


def test_times_with_and_without_an_offset_are_the_same_instants():
    plain = books([usage("e1", "20", hour=23.5)])
    aware = plain.upstream.set_column(2, "timestamp", plain.upstream["timestamp"].cast(pa.timestamp("us", tz="UTC")))
    assert compare(replace(plain, upstream=aware), now=NOW) == compare(plain, now=NOW)


def test_a_meter_event_stamped_at_a_billing_edge_inside_the_hour_belongs_to_that_hour():
    event = usage("e1", "20", hour=10.5, sync_status="processed")
    intent = meter_event("m1", 20, {"e1": "20"}) | {"stamp": at(10) + timedelta(minutes=17, seconds=3)}
    found = compared([event], [intent], {("cus_a", 10): 20})
    assert the_row(found).parts == ()
