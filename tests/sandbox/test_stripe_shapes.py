"""The SDK's own types say which fields an object has: the sandbox leaves out none that is promised and adds none."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, ClassVar, Union, get_args, get_origin

import pytest
import stripe
from stripe import billing
from stripe.v2 import billing as v2_billing

from tests.sandbox.stripe_world import ACME, CUSTOMERS, GLOBEX, World


def promised(kind: type[Any]) -> dict[str, bool]:
    """The fields of an SDK class; whether they may be null or absent."""
    fields = {}
    for part in reversed(kind.__mro__):
        for name, annotation in inspect.get_annotations(part).items():
            if get_origin(annotation) is not ClassVar and not name.startswith("_"):
                fields[name] = get_origin(annotation) is Union and type(None) in get_args(annotation)
    return fields


def differences(found: Any, kind: type[Any], path: str) -> Iterator[str]:
    fields = promised(kind)
    yield from (f"{path}.{name} is not in the SDK" for name in found.to_dict() if name not in fields)
    for name, optional in fields.items():
        value = getattr(found, name, None)
        if value is None and not optional:
            yield f"{path}.{name} is missing"
        if name in getattr(kind, "_inner_class_types", {}) and value is not None:
            inner = kind._inner_class_types[name]
            for one in value if isinstance(value, list) else [value]:
                yield from differences(one, inner, f"{path}.{name}")


@pytest.fixture
def world():
    return World()


@pytest.fixture
def same():
    """Fails where an object differs from the SDK's class for it."""

    def check(objects: list[Any], kind: type[Any]) -> None:
        assert objects
        found = {difference for one in objects for difference in differences(one, kind, kind.__name__)}
        assert not found, sorted(found)

    return check


def test_the_check_sees_what_is_missing_and_what_is_too_much(world):
    world.switch(meters=[{"status": None, "colour": "blue", "default_aggregation": {"formula": None}}])
    (meter,) = world.stripe.v1.billing.meters.list().data
    assert set(differences(meter, billing.Meter, "meter")) == {
        "meter.status is missing",
        "meter.colour is not in the SDK",
        "meter.default_aggregation.formula is missing",
    }


def test_customers_products_prices_and_meters(world, same):
    v1 = world.stripe.v1
    same(v1.customers.list({"limit": 100}).data, stripe.Customer)
    same(v1.products.list().data, stripe.Product)
    same(v1.prices.list().data, stripe.Price)
    same(v1.billing.meters.list().data, billing.Meter)


def test_subscriptions_and_their_items(world, same):
    subscriptions = world.stripe.v1.subscriptions.list({"status": "all", "limit": 100}).data
    items = [item for subscription in subscriptions for item in subscription["items"].data]
    same(subscriptions, stripe.Subscription)
    same(items, stripe.SubscriptionItem)
    same([item.price for item in items], stripe.Price)
    same([item.plan for item in items], stripe.Plan)


def test_invoices_previews_and_their_lines(world, same):
    invoices = world.stripe.v1.invoices
    previews = [invoices.create_preview({"customer": CUSTOMERS[name]}) for name in ("Acme", "Hooli", "Tyrell")]
    found = [*invoices.list({"limit": 100}).data, *previews]
    same(found, stripe.Invoice)
    same([line for invoice in found for line in invoice.lines.data], stripe.InvoiceLineItem)


def test_invoice_items_and_their_lines(world, same):
    item = world.stripe.v1.invoice_items.create({"customer": ACME, "amount": 5, "currency": "usd", "description": "x"})
    same([item], stripe.InvoiceItem)
    preview = world.stripe.v1.invoices.create_preview({"customer": ACME})
    same([line for line in preview.lines.data if line.description == "x"], stripe.InvoiceLineItem)


def test_meter_events_summaries_and_adjustments(world, same):
    same([world.send("one")], billing.MeterEvent)
    same(world.summaries("2026-11-20", "2026-11-21"), billing.MeterEventSummary)
    cancel = {"event_name": "credits", "type": "cancel", "cancel": {"identifier": "one"}}
    same([world.stripe.v1.billing.meter_event_adjustments.create(cancel)], billing.MeterEventAdjustment)


def test_v2_meter_events_sessions_and_adjustments(world, same):
    v2 = world.stripe.v2.billing
    event = {"event_name": "credits", "identifier": "one", "payload": {"stripe_customer_id": ACME, "value": "1"}}
    same([v2.meter_events.create(event)], v2_billing.MeterEvent)
    same([v2.meter_event_session.create()], v2_billing.MeterEventSession)
    cancel = {"event_name": "credits", "type": "cancel", "cancel": {"identifier": "one"}}
    same([v2.meter_event_adjustments.create(cancel)], v2_billing.MeterEventAdjustment)


def test_error_reports(world, same):
    world.switch(async_errors={ACME: "archived_meter", GLOBEX: "no_meter"})
    world.send("one")
    world.send("two", customer=GLOBEX)
    without_meter, triggered = world.reports()
    assert (type(without_meter).LOOKUP_TYPE, type(triggered).LOOKUP_TYPE) == (
        "v1.billing.meter.no_meter_found",
        "v1.billing.meter.error_report_triggered",
    )
    for report in (without_meter, triggered):
        same([report], type(report))
        same([report.data], type(report.data))
    same([triggered.related_object], type(triggered).RelatedObject)
