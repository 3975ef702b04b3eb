"""Stripe's JSON becomes plain values; oddities become words, never a wrong number."""

import pytest

from billing_core.stripe import shapes
from tests.stripe import objects


def errors_of(**changes):
    return shapes.error_report(objects.report(**changes)).errors


class TestAnErrorReport:
    def test_of_the_older_shape_names_the_idempotency_key(self):
        (found,) = errors_of(samples=[{"error_message": "no", "request": {"id": "req_1", "idempotency_key": "abc"}}])
        assert found.identifiers == ("abc",)

    def test_names_the_identifier_also_where_a_later_key_replaced_a_stored_failure(self):
        (found,) = errors_of(samples=[{"error_message": "no", "request": {"idempotency_key": "abc#2"}}])
        assert found.identifiers == ("abc",)

    def test_says_how_many_even_if_it_names_fewer(self):
        (found,) = errors_of(count=250)
        assert (found.count, found.identifiers) == (250, ("abc",))

    def test_of_a_code_nobody_knows_is_kept(self):
        (found,) = errors_of(code="meter_event_on_the_moon")
        assert found.code == "meter_event_on_the_moon"

    def test_names_each_event_once(self):
        sample = {"error_message": "no", "request": {"identifier": "abc"}}
        (found,) = errors_of(samples=[sample, sample, {"error_message": "no"}])
        assert found.identifiers == ("abc",)

    def test_without_samples_keeps_its_summary(self):
        (found,) = errors_of(samples=[], count=3)
        assert (found.count, found.message, found.identifiers) == (3, "There is 1 invalid event", ())

    @pytest.mark.parametrize("data", [{}, {"reason": None}, {"reason": {"error_types": "many"}}, {"reason": {}}])
    def test_that_nobody_can_read_asks_for_a_person(self, data):
        (found,) = shapes.error_report({**objects.report(), "data": data}).errors
        assert (found.code, found.count) == ("unreadable", 1)

    def test_of_a_missing_meter_has_no_related_object(self):
        found = shapes.error_report(objects.report(type="v1.billing.meter.no_meter_found", code="no_meter"))
        assert (found.type, found.errors[0].code) == ("v1.billing.meter.no_meter_found", "no_meter")


def test_an_item_is_metered_only_if_its_price_is():
    licensed = objects.item()
    licensed["price"]["recurring"]["usage_type"] = "licensed"
    found = shapes.subscription(objects.subscription(), [licensed, objects.item()])
    assert [item.meter_id for item in found.items] == [None, "mtr_1"]
    assert [item.is_unsaid for item in found.items] == [False, False]


def test_an_item_whose_price_says_nothing_of_metering_may_be_metered():
    silent, without_meter = objects.item(), objects.item()
    del silent["price"]["recurring"]
    without_meter["price"]["recurring"] = {"usage_type": "metered"}
    found = shapes.subscription(objects.subscription(), [silent, without_meter])
    assert [(item.meter_id, item.is_unsaid) for item in found.items] == [(None, True), (None, True)]


@pytest.mark.parametrize(
    ("shape", "raw", "says"),
    [
        (shapes.customer, {"object": "customer"}, "customer without id: id is missing"),
        (shapes.meter, {"id": "mtr_1", "object": "billing.meter"}, "billing.meter mtr_1: event_name is missing"),
        (shapes.summary, objects.summary(0, "many"), "aggregated_value is not a number"),
        (shapes.summary, objects.summary("soon", 1, end=3600), "start_time is not a time"),
        (shapes.summary, objects.summary(10**18, 1), "start_time is not a time"),
        (shapes.error_report, objects.report(created="soon"), "created is not a time"),
        (lambda raw: shapes.subscription(raw, []), {"id": "sub_1", "object": "subscription"}, "sub_1: customer is mi"),
    ],
)
def test_what_the_house_cannot_do_without_is_demanded_by_name(shape, raw, says):
    with pytest.raises(shapes.UnexpectedShape, match=says):
        shape(raw)
