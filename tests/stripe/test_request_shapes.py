"""Every request as it went over the wire is one that Stripe's own parameter types accept."""

from datetime import UTC, datetime

import pytest
from pydantic import ValidationError
from stripe.params import (
    _customer_list_params,
    _invoice_create_preview_params,
    _invoice_line_item_list_params,
    _invoice_list_params,
    _subscription_item_list_params,
    _subscription_list_params,
)
from stripe.params.billing import _meter_event_create_params, _meter_list_event_summaries_params, _meter_list_params
from stripe.params.v2.billing import _meter_event_stream_create_params
from stripe.params.v2.core import _event_list_params

from billing_core.runtime import clock
from tests.stripe import objects
from tests.stripe.events import event
from tests.stripe.fake import Reply, page, receipt, stripe_that
from tests.stripe.request_shapes import adapter

METER_EVENT = _meter_event_create_params.MeterEventCreateParams
STREAM = _meter_event_stream_create_params.MeterEventStreamCreateParams
DAY = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC)


def answer(asked):
    match asked.path:
        case "/v1/billing/meter_events":
            return receipt(asked)
        case "/v2/billing/meter_event_session":
            return Reply(body={"authentication_token": "t"})
        case "/v1/billing/meters":
            return page(objects.meter())
        case "/v1/subscriptions":
            return page(objects.subscription(has_more=True))
        case "/v1/invoices":
            return page(objects.invoice(has_more=True))
        case "/v1/invoices/create_preview":
            return Reply(body=objects.invoice())
        case "/v2/core/events":
            return Reply(body={"data": [], "next_page_url": None})
        case _:
            return page()


CALLS = {
    "a meter event": (lambda p: list(p.sink().send([event(value=-3)])), "/v1/billing/meter_events", METER_EVENT),
    "a stream batch": (
        lambda p: list(p.sink("v2_stream").send([event(), event("evt-2")])),
        "/v2/billing/meter_event_stream",
        STREAM,
    ),
    "meters": (lambda p: p.preflight(), "/v1/billing/meters", _meter_list_params.MeterListParams),
    "customers": (lambda p: p.customers(), "/v1/customers", _customer_list_params.CustomerListParams),
    "subscriptions": (
        lambda p: p.subscriptions("cus_1"),
        "/v1/subscriptions",
        _subscription_list_params.SubscriptionListParams,
    ),
    "further items": (
        lambda p: p.subscriptions(),
        "/v1/subscription_items",
        _subscription_item_list_params.SubscriptionItemListParams,
    ),
    "invoices": (
        lambda p: p.invoices("draft", "cus_1", DAY[0]),
        "/v1/invoices",
        _invoice_list_params.InvoiceListParams,
    ),
    "further lines": (
        lambda p: p.invoices(),
        "/v1/invoices/in_1/lines",
        _invoice_line_item_list_params.InvoiceLineItemListParams,
    ),
    "a preview": (
        lambda p: p.upcoming("cus_1", "sub_1"),
        "/v1/invoices/create_preview",
        _invoice_create_preview_params.InvoiceCreatePreviewParams,
    ),
    "summaries": (
        lambda p: p.summaries("mtr_1", "cus_1", *DAY, "hour"),
        "/v1/billing/meters/mtr_1/event_summaries",
        _meter_list_event_summaries_params.MeterListEventSummariesParams,
    ),
    "error reports": (lambda p: p.error_reports(clock.now()), "/v2/core/events", _event_list_params.EventListParams),
}


@pytest.mark.parametrize(("call", "path", "accepted"), CALLS.values(), ids=CALLS)
def test_stripes_own_types_accept_the_request_for(call, path, accepted):
    with stripe_that(answer) as fake:
        call(fake.provider())
    (asked,) = [asked for asked in fake.asked if asked.path == path]
    given = asked.body if asked.method == "POST" else asked.query
    # `meter` in the path of summaries, `invoice` in that of lines: the rest is what was given.
    adapter(accepted).validate_python(given)


@pytest.mark.parametrize(
    ("accepted", "changes"),
    [
        (METER_EVENT, {"timestamp": "2026-11-20T12:00:00Z"}),
        (METER_EVENT, {"idempotency_key": "evt-1"}),
        (METER_EVENT, {"payload": {"value": 5}}),
        (STREAM, {"events": [{"event_name": "credits", "payload": {}, "timestamp": 1795176000}]}),
    ],
)
def test_and_would_refuse_the_usual_mistakes(accepted, changes):
    body = {"event_name": "credits", "identifier": "evt-1", "timestamp": 1795176000, "payload": {}}
    good = body if accepted is METER_EVENT else {"events": []}
    adapter(accepted).validate_python(good)
    with pytest.raises(ValidationError):
        adapter(accepted).validate_python({**good, **changes})
