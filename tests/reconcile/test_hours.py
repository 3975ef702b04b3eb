"""One customer, one hour: what was sent beside what Stripe counts."""

from decimal import Decimal

import pytest

from billing_core.reconcile.hours import HourIntent, KeptBack, LegacyEvent, explain_hour
from billing_core.values.decimals import EXACT

D = Decimal


def intent(identifier, value, *, unknown=False, recent=False):
    return HourIntent(identifier, value, unknown, recent, (f"event-of-{identifier}",))


def explained(difference, intents=(), legacy=()):
    parts = list(explain_hour(D(difference), intents, legacy))
    assert sum((part.credits for part in parts), D(0)) == D(difference)
    return [(str(part.cause), part.credits, part.meter_events) for part in parts]


def test_an_unknown_intent_arrived_whole_or_not_at_all():
    unknown = [intent("m1", 100, unknown=True)]
    assert explained(-100, unknown) == [("unknown_outcome", -100, ("m1",))]
    assert explained(-130, unknown) == [("unknown_outcome", -100, ("m1",)), ("not_ours", -30, ())]
    assert explained(-30, unknown) == [("not_ours", -30, ())]


def test_of_several_unknown_intents_those_that_fit_best_arrived():
    unknown = [intent("m1", 50, unknown=True), intent("m2", 40, unknown=True), intent("m3", 30, unknown=True)]
    assert explained(-70, unknown) == [("unknown_outcome", -70, ("m2", "m3"))]
    assert explained(-120, unknown) == [("unknown_outcome", -120, ("m1", "m2", "m3"))]


def test_many_unknown_intents_are_still_told_apart_from_foreign_credits():
    unknown = [intent(f"m{n:03}", 1000 + n, unknown=True) for n in range(300)]
    total = sum(i.value for i in unknown)
    assert explained(-total - 7, unknown)[1:] == [("not_ours", -7, ())]


def test_an_unknown_correction_that_arrived_makes_stripe_count_less():
    assert explained(8, [intent("m1", -8, unknown=True)]) == [("unknown_outcome", 8, ("m1",))]


def test_an_unknown_intent_does_not_explain_missing_credits():
    assert explained(100, [intent("m1", 100, unknown=True)]) == [("lost_at_stripe", 100, ())]


def test_only_as_much_lags_as_was_accepted_lately():
    intents = [intent("old", 100), intent("new", 30, recent=True)]
    assert explained(130, intents) == [("summary_lag", 30, ("new",)), ("lost_at_stripe", 100, ("old",))]
    assert explained(20, intents) == [("summary_lag", 20, ("new",))]


def test_a_correction_accepted_lately_does_not_make_missing_credits_lag():
    assert explained(30, [intent("m1", -30, recent=True)]) == [("lost_at_stripe", 30, ())]


def test_a_meter_event_accepted_lately_is_not_suspected_of_being_lost():
    intents = [intent("old", 50), intent("older", 60), intent("new", 5, recent=True)]
    assert explained(20, intents) == [("summary_lag", 5, ("new",)), ("lost_at_stripe", 15, ("old", "older"))]


def test_of_several_meter_events_of_the_lost_size_none_is_singled_out():
    intents = [intent("m1", 40), intent("m2", 40), intent("m3", 60)]
    assert explained(40, intents) == [("lost_at_stripe", 40, ("m1", "m2", "m3"))]


def test_a_lost_meter_event_is_named_where_its_size_tells():
    intents = [intent("m1", 100), intent("m2", 40), intent("m3", 60)]
    assert explained(40, intents) == [("lost_at_stripe", 40, ("m2",))]
    assert explained(41, intents) == [("lost_at_stripe", 41, ("m1", "m2", "m3"))]


def test_the_earlier_system_rounded_every_event_up():
    legacy = [LegacyEvent("e1", D("10.2")), LegacyEvent("e2", D("3"))]
    assert explained(-14, (), legacy) == [("legacy_billed", -14, ())]
    assert explained("-14.5", (), legacy) == [("legacy_billed", -14, ()), ("not_ours", D("-0.5"), ())]


def test_the_earlier_system_explains_no_missing_credits():
    assert explained(10, (), [LegacyEvent("e1", D(10))]) == [("lost_at_stripe", 10, ())]


def test_what_is_kept_back_because_stripe_may_count_it_explains_as_much_of_what_stripe_counts_more():
    parts = explain_hour(D(-25), [], (), [KeptBack("e1", D("10.2")), KeptBack("e2", D("3"))])
    assert [(part.cause, part.credits, part.event_ids) for part in parts] == [
        ("sent_elsewhere", -14, ("e1", "e2")),
        ("not_ours", -11, ()),
    ]


def test_corrections_that_are_kept_back_explain_as_much_of_what_stripe_counts_less():
    parts = explain_hour(D(25), [intent("m1", 90)], (), [KeptBack("e1", D("-10.2")), KeptBack("e2", D("3"))])
    assert [(part.cause, part.credits, part.event_ids) for part in parts] == [
        ("sent_elsewhere", 11, ("e1",)),
        ("lost_at_stripe", 14, ("event-of-m1",)),
    ]


def test_no_difference_has_no_parts():
    assert explained(0, [intent("m1", 5, recent=True)]) == []


@pytest.mark.parametrize("size", [D("0.000000000001"), D(10) ** 15])
def test_tiny_and_huge_differences_stay_exact(size):
    parts = list(explain_hour(EXACT.subtract(D(0), size), []))
    assert [part.credits for part in parts] == [-size]
