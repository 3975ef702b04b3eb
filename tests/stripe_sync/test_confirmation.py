"""What Stripe's hourly sums say about single meter events: only what they really say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import combinations

from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from billing_core.stripe.model import HourlySum
from billing_core.stripe_sync.confirmation import MOST_UNKNOWN, SETTLED_AFTER, agreeing, judge_duplicates, resolve
from tests.examples import examples

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
TEN = datetime(2026, 11, 18, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
LONG_AGO = NOW - timedelta(hours=30)


def intent(identifier, value, state="accepted", stamp=TEN, **changes):
    unknown = {"unknown_since": LONG_AGO, "last_attempt_at": LONG_AGO} if state == "sending" else {}
    facts = {"unknown_since": None, "answered_at": LONG_AGO, "last_attempt_at": LONG_AGO, **unknown, **changes}
    return {"identifier": identifier, "stamp": stamp, "value": value, "state": state, **facts}


def bucket(value, hour=TEN):
    return HourlySum(hour, Decimal(value))


def fates(intents, *buckets):
    """Identifier → what became of it, for those a sum decides."""
    answers = resolve(intents, buckets, older_than=NOW - timedelta(hours=20), now=NOW)
    return {answer.identifier: answer.state for answer in answers}


# ── confirming ───────────────────────────────────────────────────────────────────────────────────


def test_an_hour_whose_sum_is_what_was_delivered_confirms_its_meter_events():
    rows = [intent("a", 150), intent("b", -20, stamp=TEN + timedelta(minutes=17)), intent("old", 5, "confirmed")]
    assert agreeing(rows, [bucket(135)]) == ["a", "b"]


def test_a_sum_that_differs_confirms_nothing_in_its_hour_and_leaves_other_hours_alone():
    rows = [intent("a", 150), intent("b", 20), intent("next", 7, stamp=TEN + HOUR)]
    assert agreeing(rows, [bucket(150), bucket(7, TEN + HOUR)]) == ["next"]


def test_an_unknown_neighbour_keeps_an_hour_unconfirmed_even_when_the_sum_fits():
    assert agreeing([intent("a", 150), intent("b", 20, "sending")], [bucket(150)]) == []


def test_an_hour_stripe_does_not_mention_counts_nothing():
    assert agreeing([intent("a", 150)], []) == []
    assert agreeing([intent("a", 20), intent("b", -20)], []) == ["a", "b"]


def test_a_sum_with_a_fraction_agrees_with_no_whole_credits():
    assert agreeing([intent("a", 150)], [bucket("150.000001")]) == []


# ── resolving ────────────────────────────────────────────────────────────────────────────────────


def test_a_sum_that_contains_it_says_it_arrived():
    assert fates([intent("a", 150, "sending")], bucket(150)) == {"a": "accepted"}


def test_a_sum_without_it_says_it_never_arrived():
    assert fates([intent("a", 150, "sending")]) == {"a": "void"}
    assert fates([intent("a", 150, "sending"), intent("b", 20)], bucket(20)) == {"a": "void"}


def test_what_is_known_is_taken_off_first():
    rows = [intent("known", 150), intent("confirmed", 5, "confirmed"), intent("a", 20, "sending")]
    assert fates(rows, bucket(175)) == {"a": "accepted"}


def test_several_unknown_ones_are_told_apart_when_only_one_set_explains_the_sum():
    rows = [intent("a", 100, "sending"), intent("b", 20, "sending"), intent("c", -3, "sending")]
    assert fates(rows, bucket(97)) == {"a": "accepted", "b": "void", "c": "accepted"}


def test_equal_values_cannot_be_told_apart_unless_all_or_none_arrived():
    rows = [intent("a", 150, "sending"), intent("b", 150, "sending")]
    assert fates(rows, bucket(150)) == {}
    assert fates(rows, bucket(300)) == {"a": "accepted", "b": "accepted"}
    assert fates(rows) == {"a": "void", "b": "void"}


def test_a_sum_nothing_explains_leaves_everything_unknown():
    assert fates([intent("a", 150, "sending")], bucket(157)) == {}


def test_a_difference_of_0_does_not_say_that_a_correction_and_its_opposite_never_arrived():
    assert fates([intent("a", 20, "sending"), intent("b", -20, "sending")]) == {}


def test_an_hour_with_a_meter_event_that_may_still_be_repeated_is_left_to_the_repetition():
    fresh = intent("b", 20, "sending", unknown_since=NOW - timedelta(hours=19))
    assert fates([intent("a", 150, "sending"), fresh], bucket(150)) == {}
    never_tried = intent("b", 20, "open", unknown_since=None)
    assert fates([intent("a", 150, "sending"), never_tried], bucket(150)) == {}


def test_an_hour_in_which_something_was_accepted_lately_waits_until_the_sum_must_contain_it():
    lately, long_enough = NOW - SETTLED_AFTER + timedelta(minutes=1), NOW - SETTLED_AFTER - timedelta(minutes=1)
    rows = [intent("a", 150, "sending")]
    assert fates([*rows, intent("b", 150, answered_at=lately)], bucket(150)) == {}
    assert fates([*rows, intent("b", 150, answered_at=long_enough)], bucket(150)) == {"a": "void"}
    assert SETTLED_AFTER >= HOUR


def test_hours_are_judged_on_their_own():
    rows = [intent("a", 150, "sending"), intent("b", 20, "sending", stamp=TEN + HOUR)]
    assert fates(rows, bucket(150), bucket(3, TEN + HOUR)) == {"a": "accepted"}


def test_too_many_unknown_ones_of_an_hour_stay_unknown():
    rows = [intent(str(n), 2**n, "sending") for n in range(MOST_UNKNOWN + 1)]
    assert fates(rows, bucket(3)) == {}
    assert len(fates(rows[:-1], bucket(3))) == MOST_UNKNOWN


def test_however_many_are_unknown_none_and_all_are_told():
    rows = [intent(str(n), 5, "sending") for n in range(40)]
    assert set(fates(rows).values()) == {"void"}
    assert set(fates(rows, bucket(200)).values()) == {"accepted"}


def test_the_answer_says_in_words_how_it_is_known():
    arrived = resolve([intent("a", 150, "sending")], [bucket(150)], older_than=NOW, now=NOW)[0]
    lost = resolve([intent("a", 150, "sending")], [], older_than=NOW, now=NOW)[0]
    assert arrived.text == "no answer came, but Stripe's sum for the hour from 2026-11-18 10:00 UTC contains it"
    assert lost.text == "never arrived: Stripe's sum for the hour from 2026-11-18 10:00 UTC does not contain it"


@profile(max_examples=examples(80))
@given(
    st.lists(st.integers(-40, 60).filter(bool), max_size=3),
    st.lists(st.tuples(st.integers(-40, 60).filter(bool), st.booleans()), min_size=1, max_size=6),
)
def test_a_fate_is_only_told_when_it_is_the_true_one(known, doubtful):
    """Whatever truly arrived: every answer is right, and none is given while another truth fits the same sum."""
    rows = [intent(f"known {n}", value) for n, value in enumerate(known)]
    rows += [intent(f"{n}", value, "sending") for n, (value, _) in enumerate(doubtful)]
    total = sum(known) + sum(value for value, arrived in doubtful if arrived)
    found = fates(rows, bucket(total))
    truths = [
        chosen
        for size in range(len(doubtful) + 1)
        for chosen in combinations(range(len(doubtful)), size)
        if sum(doubtful[n][0] for n in chosen) == total - sum(known)
    ]
    if len(truths) > 1:
        assert found == {}
    else:
        assert found == {f"{n}": "accepted" if arrived else "void" for n, (_, arrived) in enumerate(doubtful)}


# ── identifiers that Stripe had before ───────────────────────────────────────────────────────────


VALUES = st.integers(-200, 200).filter(bool)


@given(st.lists(st.tuples(VALUES, st.booleans(), st.booleans()), min_size=2, max_size=5), st.data())
def test_of_a_duplicate_nothing_is_said_while_a_sum_that_lags_explains_it(facts, data):
    """Whatever of what happened lately is in the sum already."""
    rows, in_sum = [], 0
    for number, (value, is_doubtful, is_recent) in enumerate(facts):
        at = NOW - timedelta(minutes=5) if is_recent or is_doubtful else LONG_AGO
        state = {"state": "sending", "code": "duplicate"} if is_doubtful else {"state": "accepted"}
        times = {"answered_at": at, "last_attempt_at": at, "unknown_since": at if is_doubtful else None}
        rows.append(intent(str(number), value, **{**times, **state}))
        in_sum += value if at == LONG_AGO or data.draw(st.booleans()) else 0
    same, other = judge_duplicates(rows, [bucket(in_sum)], now=NOW)
    assert not other
    assert not same or in_sum == sum(value for value, _, _ in facts)


@given(VALUES, VALUES, st.integers(-400, 400))
def test_once_sums_are_settled_a_duplicate_is_what_stripe_has_or_it_is_not(delivered, value, counted):
    doubtful = intent("b", value, "sending", code="duplicate")
    same, other = judge_duplicates([intent("a", delivered), doubtful], [bucket(counted)], now=NOW)
    assert [answer.identifier for answer in same] == (["b"] if counted == delivered + value else [])
    assert [(hour.counted, hour.delivered) for hour in other] == ([] if same else [(counted, delivered)])
