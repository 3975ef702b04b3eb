"""Turns a notice of a reached limit into the message that receivers get."""

from __future__ import annotations

from billing_core.ledger.notices import Notice
from billing_core.notify.delivery import Message
from billing_core.organizations.notices import facts_of
from billing_core.types import plain_decimal, utc_text


def message_of(notice: Notice, organization_name: str | None, link: str | None) -> Message:
    """The message of a notice; exact numbers. `link` leads to the plans and limits on the dashboard."""
    who = organization_name or notice.organization_id or notice.customer_id
    end = f"{notice.period_end:%Y-%m-%d %H:%M} UTC"
    text = (
        f"{who} (customer {notice.customer_id}) has used {plain_decimal(notice.used)} of {notice.included:,} credits "
        f"of the plan {notice.plan or 'unknown'} in the period that ends {end}."
    )
    return Message(
        notice.id,
        notice.raised_at,
        f"{notice.customer_id}, {notice.threshold} % ({notice.id})",
        f"{who} has used {notice.threshold} % of its credits",
        text if link is None else f"{text}\nPlans and limits: {link}",
        {"type": "limit.reached", "timestamp": utc_text(notice.raised_at), "data": facts_of(notice, organization_name)},
    )
