"""A difference taken apart into volume, price and mix."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from billing_core.organizations.variance import Segment, averaged, split


def day(**segments):
    return {name: Segment(Fraction(events), Fraction(str(held))) for name, (events, held) in segments.items()}


def parts(found):
    return found.volume, found.price, found.mix


def test_twice_the_events_at_the_same_price_is_volume():
    assert parts(split(day(a=(20, 200)), day(a=(10, 100)))) == (100, 0, 0)


def test_the_same_events_at_twice_the_price_is_price():
    assert parts(split(day(a=(10, 200)), day(a=(10, 100)))) == (0, 100, 0)


def test_the_same_number_of_events_of_a_dearer_kind_is_mix():
    usual = day(cheap=(10, 10), dear=(10, 100))
    assert parts(split(day(cheap=(5, 5), dear=(15, 150)), usual)) == (0, 0, 45)


def test_all_three_at_once():
    usual = day(cheap=(10, 10), dear=(10, 110))  # 6 credits an event on average
    found = split(day(cheap=(10, 20), dear=(30, 330)), usual)
    assert found.difference == 230
    assert parts(found) == (120, 10, 100)  # 20 events × 6; cheap ones at 2 instead of 1; 340 − 40 × 6


def test_a_kind_that_was_not_there_before_is_expected_to_cost_the_average():
    found = split(day(a=(10, 100), new=(5, 75)), day(a=(10, 100)))
    assert parts(found) == (50, 25, 0)


def test_silence_is_volume():
    assert parts(split({}, day(a=(10, 100)))) == (-100, 0, 0)


def test_without_a_baseline_everything_is_volume():
    assert parts(split(day(a=(10, 100)), {})) == (100, 0, 0)


def test_an_average_day_may_have_parts_of_events_and_the_sum_is_still_exact():
    usual = averaged(day(a=(10, 100), b=(3, 1)), days=7)
    found = split(day(a=(2, 30)), usual)
    assert found.baseline == Decimal("14.428571")
    assert found.difference == Decimal("15.571429")
    assert sum(parts(found)) == found.difference
    assert {value.as_tuple().exponent for value in parts(found)} == {-6}


segments = st.dictionaries(
    st.sampled_from("abcdef"),
    st.tuples(st.integers(0, 10**6), st.decimals(min_value=0, max_value=10**9, places=6)),
    max_size=6,
)


@given(actual=segments, usual=segments, days=st.integers(1, 28))
def test_volume_price_and_mix_add_up_to_the_difference_to_the_last_digit(actual, usual, days):
    found = split(day(**actual), averaged(day(**usual), days))
    assert found.volume + found.price + found.mix == found.difference
    held = sum((value for _, value in actual.values()), Decimal(0))
    assert found.baseline + found.difference == held
    assert all(value == value.quantize(Decimal("0.000001")) for value in parts(found))
