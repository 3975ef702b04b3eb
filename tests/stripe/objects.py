"""Literal Stripe objects in the shapes of 2026-10-28.endive, as little of them as matters."""

from datetime import UTC, datetime


def seconds(*moment):
    return int(datetime(*moment, tzinfo=UTC).timestamp())


def meter(**changes):
    return {
        "id": "mtr_1",
        "object": "billing.meter",
        "event_name": "credits",
        "status": "active",
        "livemode": False,
        "default_aggregation": {"formula": "sum"},
        "event_time_window": None,
        "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
        "value_settings": {"event_payload_key": "value"},
        **changes,
    }


def item(id_="si_1", price="price_pro", meter_id="mtr_1", **changes):
    recurring = {"interval": "month", "usage_type": "metered" if meter_id else "licensed", "meter": meter_id}
    return {
        "id": id_,
        "object": "subscription_item",
        "price": {"id": price, "lookup_key": None, "product": "prod_1", "recurring": recurring},
        "current_period_start": seconds(2026, 11, 3, 8, 15, 30),
        "current_period_end": seconds(2026, 12, 3, 8, 15, 30),
        **changes,
    }


def subscription(id_="sub_1", items=None, has_more=False, **changes):
    return {
        "id": id_,
        "object": "subscription",
        "customer": "cus_1",
        "status": "active",
        "items": {"object": "list", "data": [item()] if items is None else items, "has_more": has_more},
        "start_date": seconds(2026, 1, 3, 8, 15, 30),
        "ended_at": None,
        "cancel_at": None,
        "trial_end": None,
        **changes,
    }


def line(id_="il_1", price="price_pro", quantity="1500.250000000001", **changes):
    return {
        "id": id_,
        "object": "line_item",
        "amount": 6,
        "description": "Credits",
        "quantity": 1500,
        "quantity_decimal": quantity,
        "pricing": {"type": "price_details", "price_details": {"price": price}},
        "period": {"start": seconds(2026, 10, 3), "end": seconds(2026, 11, 3)},
        **changes,
    }


def invoice(id_="in_1", lines=None, has_more=False, **changes):
    return {
        "id": id_,
        "object": "invoice",
        "customer": "cus_1",
        "status": "draft",
        "amount_due": 6,
        "currency": "usd",
        "parent": {"type": "subscription_details", "subscription_details": {"subscription": "sub_1"}},
        "period_start": seconds(2026, 10, 3),
        "period_end": seconds(2026, 11, 3),
        "automatically_finalizes_at": seconds(2026, 11, 3, 1),
        "lines": {"object": "list", "data": [line()] if lines is None else lines, "has_more": has_more},
        **changes,
    }


def report(id_="evt_1", samples=None, count=1, code="meter_event_customer_not_found", **changes):
    samples = [{"error_message": "No such customer", "request": {"identifier": "abc"}}] if samples is None else samples
    return {
        "id": id_,
        "object": "v2.core.event",
        "type": "v1.billing.meter.error_report_triggered",
        "created": "2026-11-22T10:00:00.123Z",
        "data": {
            "developer_message_summary": "There is 1 invalid event",
            "validation_start": "2026-11-22T09:59:50Z",
            "validation_end": "2026-11-22T10:00:00Z",
            "reason": {
                "error_count": count,
                "error_types": [{"code": code, "error_count": count, "sample_errors": samples}],
            },
        },
        **changes,
    }


def summary(start, value, end=None, id_=None):
    return {
        "id": id_ or f"mtrusg_{start}",
        "object": "billing.meter_event_summary",
        "meter": "mtr_1",
        "livemode": False,
        "start_time": start,
        "end_time": end or start + 3600,
        "aggregated_value": value,
    }
