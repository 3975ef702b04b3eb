"""Who is behind a changed slope."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from billing_core.organizations.drivers import DIMENSIONS, slope_driver


def slices(chatflow=None, model=None, user=None):
    given = {"chatflow": chatflow or {}, "model": model or {}, "user": user or {}}
    return {name: {value: Decimal(held) for value, held in values.items()} for name, values in given.items()}


BEFORE = slices({"support": 60, "sales": 40}, {"gpt-5": 100}, {"u1": 50, "u2": 50})


def test_the_largest_part_of_a_rise_is_named_with_its_share():
    now = slices({"support": 135, "sales": 15}, {"gpt-5": 150}, {"u1": 80, "u2": 70})
    found = slope_driver(BEFORE, now)
    assert (found.before, found.now, found.change) == (100, 150, 50)
    assert (found.driver.dimension, found.driver.value, found.driver.credits) == ("chatflow", "support", 75)
    assert found.share == Fraction(3, 2)  # sales went the other way
    assert found.relative == Fraction(1, 2)


def test_of_a_fall_the_one_that_fell_most_is_named():
    now = slices({"support": 5, "sales": 45}, {"gpt-5": 50}, {"u1": 20, "u2": 30})
    assert slope_driver(BEFORE, now).driver.value == "support"


def test_the_only_model_of_an_organization_explains_nothing():
    now = slices({"support": 85, "sales": 65}, {"gpt-5": 150}, {"u1": 76, "u2": 74})
    found = slope_driver(BEFORE, now)
    assert (found.driver.dimension, found.driver.value) == ("user", "u1")


def test_an_organization_with_one_of_each_still_names_its_chatflow():
    one = slices({"support": 100}, {"gpt-5": 100}, {"u1": 100})
    assert slope_driver(one, slices({"support": 200}, {"gpt-5": 200}, {"u1": 200})).driver.value == "support"


def test_a_change_under_a_tenth_is_how_usage_breathes():
    assert slope_driver(BEFORE, slices({"support": 109}, {"gpt-5": 109}, {"u1": 109})) is None
    assert slope_driver(BEFORE, slices({"support": 110}, {"gpt-5": 110}, {"u1": 110})) is not None


def test_nothing_before_and_nothing_now_is_no_change():
    assert slope_driver(slices(), slices()) is None


def test_usage_out_of_nothing_has_a_driver_and_no_percentage():
    found = slope_driver(slices(), slices({None: 5}, {None: 5}, {"u1": 5}))
    assert found.relative is None
    assert found.driver.credits == 5


amounts = st.decimals(min_value=0, max_value=10**12, places=6)


@given(
    events=st.lists(
        st.tuples(st.booleans(), st.sampled_from("abc"), st.sampled_from("mn"), st.sampled_from("xyz"), amounts),
        max_size=30,
    )
)
def test_the_contributions_of_each_dimension_add_up_to_the_change(events):
    before, now = slices(), slices()
    for is_now, *values, held in events:
        for dimension, value in zip(DIMENSIONS, values, strict=True):
            side = (now if is_now else before)[dimension]
            side[value] = side.get(value, Decimal(0)) + held
    found = slope_driver(before, now)
    if found is not None:
        for dimension in DIMENSIONS:
            assert sum(one.credits for one in found.contributions if one.dimension == dimension) == found.change
        assert found.driver.credits * found.change > 0
