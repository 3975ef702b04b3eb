"""Turns Stripe's JSON into the values of `model.py`.

Fields the house cannot do without are demanded; absent optional ones become `None`, never an error.
Paths are those of `2026-10-28.endive`: periods on items, prices below `pricing`, quantities as decimals.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from billing_core.stripe.answer import one_line
from billing_core.stripe.meter import Meter
from billing_core.stripe.model import (
    Customer,
    ErrorReport,
    Invoice,
    InvoiceLine,
    ReportedError,
    Subscription,
    SubscriptionItem,
    SummaryBucket,
)

UNREADABLE = "unreadable"
"""Code of an error report that could not be understood: a person has to look at it in the dashboard."""

Raw = dict[str, Any]


class UnexpectedShape(ValueError):
    """An object of Stripe is not shaped as documented; the text names the object and the field."""


def meter(raw: Raw) -> Meter:
    """A billing meter from Stripe's JSON."""
    return Meter(
        id=_text(raw, "id"),
        event_name=_text(raw, "event_name"),
        status=_text(raw, "status"),
        formula=str(part(raw, "default_aggregation").get("formula", "unknown")),
        event_time_window=_optional_text(raw, "event_time_window"),
        customer_key=str(part(raw, "customer_mapping").get("event_payload_key", "stripe_customer_id")),
        value_key=str(part(raw, "value_settings").get("event_payload_key", "value")),
        livemode=raw["livemode"] if isinstance(raw.get("livemode"), bool) else None,
    )


def customer(raw: Raw) -> Customer:
    """A customer from Stripe's JSON, or the stub a deleted one leaves."""
    return Customer(
        id=_text(raw, "id"),
        name=_optional_text(raw, "name"),
        email=_optional_text(raw, "email"),
        currency=_optional_text(raw, "currency"),
        is_deleted=raw.get("deleted") is True,
    )


def subscription(raw: Raw, items: Sequence[Raw]) -> Subscription:
    """A subscription from Stripe's JSON with `items`, which may have come from further pages."""
    found = tuple(_item(item) for item in items)
    cancel_at = _time(raw, "cancel_at")
    if cancel_at is None and raw.get("cancel_at_period_end") is True:
        cancel_at = max((item.period_end for item in found if item.period_end), default=None)
    return Subscription(
        id=_text(raw, "id"),
        customer_id=_reference(raw, "customer"),
        status=_text(raw, "status"),
        items=found,
        started_at=_time(raw, "start_date"),
        ended_at=_time(raw, "ended_at"),
        cancel_at=cancel_at,
        trial_end=_time(raw, "trial_end"),
    )


def _item(raw: Raw) -> SubscriptionItem:
    price = part(raw, "price")
    recurring = part(price, "recurring")
    usage_type, meter = recurring.get("usage_type"), _optional_text(recurring, "meter")
    return SubscriptionItem(
        id=_text(raw, "id"),
        price_id=_text(price, "id"),
        lookup_key=_optional_text(price, "lookup_key"),
        product_id=_optional_reference(price.get("product")),
        meter_id=meter if usage_type == "metered" else None,
        period_start=_time(raw, "current_period_start"),
        period_end=_time(raw, "current_period_end"),
        is_unsaid=usage_type is None or (usage_type == "metered" and meter is None),
    )


def invoice(raw: Raw, lines: Sequence[Raw], *, is_preview: bool = False) -> Invoice:
    """An invoice from Stripe's JSON with `lines`; a preview has no id anybody could look up."""
    details = part(part(raw, "parent"), "subscription_details")
    return Invoice(
        id=None if is_preview else _text(raw, "id"),
        customer_id=_reference(raw, "customer"),
        subscription_id=_optional_reference(details.get("subscription")),
        status=_optional_text(raw, "status"),
        amount_due=_whole(raw, "amount_due"),
        currency=_optional_text(raw, "currency"),
        period_start=_time(raw, "period_start"),
        period_end=_time(raw, "period_end"),
        finalizes_at=_time(raw, "automatically_finalizes_at"),
        lines=tuple(line(found) for found in lines),
    )


def line(raw: Raw) -> InvoiceLine:
    """An invoice line from Stripe's JSON; Stripe cuts `quantity` to an integer, `quantity_decimal` not."""
    period = part(raw, "period")
    quantity = raw.get("quantity_decimal")
    return InvoiceLine(
        description=_optional_text(raw, "description"),
        price_id=_optional_reference(part(part(raw, "pricing"), "price_details").get("price")),
        quantity=_decimal(raw, "quantity" if quantity is None else "quantity_decimal"),
        amount=_whole(raw, "amount"),
        period_start=_time(period, "start"),
        period_end=_time(period, "end"),
    )


def summary(raw: Raw) -> SummaryBucket:
    """One sum of a meter from Stripe's JSON; the number is exact as Stripe wrote it."""
    start, end, value = _time(raw, "start_time"), _time(raw, "end_time"), _decimal(raw, "aggregated_value")
    if start is None or end is None or value is None:
        raise UnexpectedShape(f"{_name(raw)}: start_time, end_time or aggregated_value is missing")
    return SummaryBucket(start, end, value)


def error_report(raw: Raw) -> ErrorReport:
    """A meter error report from Stripe's JSON; data nobody understands is one error of the code `unreadable`. Data
    nobody understands is one error of the code `unreadable`.
    """
    data = part(raw, "data")
    summary_text = one_line(data.get("developer_message_summary") or "no message")
    types = part(data, "reason").get("error_types")
    errors = tuple(_reported(found, summary_text) for found in _objects(types))
    errors = errors or (ReportedError(UNREADABLE, 1, summary_text, ()),)
    return ErrorReport(_text(raw, "id"), _text(raw, "type"), _iso(raw, "created"), errors)


def _reported(raw: Raw, summary_text: str) -> ReportedError:
    samples = _objects(raw.get("sample_errors"))
    names = [name for sample in samples if (name := _identifier(part(sample, "request")))]
    said = [sample["error_message"] for sample in samples if isinstance(sample.get("error_message"), str)]
    count = raw.get("error_count")
    return ReportedError(
        code=_optional_text(raw, "code") or UNREADABLE,
        count=int(str(count)) if str(count).isdecimal() else len(samples),
        message=one_line(said[0]) if said else summary_text,
        identifiers=tuple(dict.fromkeys(names)),
    )


def _identifier(request: Raw) -> str | None:
    """The join to what was sent: newer samples name the identifier, older ones the idempotency key.

    Both are equal here but for the suffix of a key that replaced a stored failure.
    """
    if (name := _optional_text(request, "identifier") or _optional_text(request, "idempotency_key")) is None:
        return None
    head, mark, generation = name.rpartition("#")
    return head if mark and generation.isdecimal() else name


def part(raw: Raw, key: str) -> Raw:
    """A nested object of Stripe's JSON, empty if it is absent or null."""
    found = raw.get(key)
    return found if isinstance(found, dict) else {}


def _name(raw: Raw) -> str:
    return one_line(f"{raw.get('object', 'object')} {raw.get('id', 'without id')}")


def _objects(value: object) -> list[Raw]:
    return [found for found in value if isinstance(found, dict)] if isinstance(value, list) else []


def _text(raw: Raw, key: str) -> str:
    found = raw.get(key)
    if not isinstance(found, str) or not found:
        raise UnexpectedShape(f"{_name(raw)}: {key} is missing")
    return found


def _optional_text(raw: Raw, key: str) -> str | None:
    found = raw.get(key)
    return found if isinstance(found, str) and found else None


def _reference(raw: Raw, key: str) -> str:
    found = _optional_reference(raw.get(key))
    if found is None:
        raise UnexpectedShape(f"{_name(raw)}: {key} is missing")
    return found


def _optional_reference(value: object) -> str | None:
    """An id, or the id of the object standing in its place (expanded)."""
    if isinstance(value, dict):
        value = value.get("id")
    return value if isinstance(value, str) and value else None


def _whole(raw: Raw, key: str) -> int | None:
    found = raw.get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _decimal(raw: Raw, key: str) -> Decimal | None:
    found = raw.get(key)
    if found is None or isinstance(found, bool):
        return None
    try:
        number = Decimal(found)
    except (InvalidOperation, TypeError, ValueError):
        number = Decimal("nan")
    if not number.is_finite():
        raise UnexpectedShape(f"{_name(raw)}: {key} is not a number")
    return number


def _time(raw: Raw, key: str) -> datetime | None:
    """Whole Unix seconds."""
    found = raw.get(key)
    if found is None:
        return None
    try:
        return datetime.fromtimestamp(int(str(found)), UTC)
    except (OverflowError, OSError, ValueError):
        raise UnexpectedShape(f"{_name(raw)}: {key} is not a time") from None


def _iso(raw: Raw, key: str) -> datetime:
    try:
        found = datetime.fromisoformat(_text(raw, key))
    except ValueError:
        raise UnexpectedShape(f"{_name(raw)}: {key} is not a time") from None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
