"""What tests and demonstrations can turn on the sandbox's Stripe: one flat document."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

ProfileName = Literal[
    "pro", "free", "past_due", "canceled", "trialing", "unknown_price", "flat_fee_only", "no_subscription"
]


class Switches(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Everything off: a Stripe without lag, limits and surprises, on its own clock.

    clock_offset_seconds: Added to the clock: ages identifiers, moves billing periods, finalizes invoices.
    summary_lag_seconds: How long after its acceptance an event shows up in summaries, drafts and previews.
    rate_limit_per_second: Calls a second before 429; null: none.
    meter_event_latency_seconds: How long a v1 or v2 meter event call takes; the event is accepted at the beginning. A
        second call for the same customer and meter meanwhile is a 409.
    async_errors: Customer id, or beginning of an identifier, to the code of an error report: such events get 2xx, never
        count.
    async_validation: Events that would be refused get 2xx and are rejected later, in an error report.
    async_error_delay_seconds: From the acceptance of an event to the report that rejects it.
    error_sample_cap: The most samples an error report names per code; its count tells of all.
    old_error_shape: Samples name `request{id, idempotency_key}` in place of `request{identifier}`.
    report_idempotency_key: The `identifier` of samples is the request's Idempotency-Key, as the reference calls it,
        where there was one.
    meters: The meters, each a list of differences to the usual one (`{}`); objects inside are merged.
    deleted_customers: Ids that are stubs now.
    extra_customers: More customers, on the Pro plan.
    profiles: Customer id to the kind of subscription it has.
    anchors: Customer id to the start of its subscription in Unix seconds.
    currencies: Customer id to the currency it pays in, where that is not US dollars.
    test_clocks: Customers on a test clock: lists leave them and what is theirs out unless they are asked for by
        customer.
    second_subscriptions: Customers with a second subscription like their first.
    archive_meters_after: Received meter events after which every meter is inactive; null: never.
    subscription_items_page: Most items inside a subscription object before `has_more`.
    """

    clock_offset_seconds: float = 0.0
    summary_lag_seconds: float = 0.0
    rate_limit_per_second: int | None = None
    meter_event_latency_seconds: float = 0.0
    async_errors: dict[str, str] = {}
    async_validation: bool = False
    async_error_delay_seconds: float = 0.0
    error_sample_cap: int = 5
    old_error_shape: bool = False
    report_idempotency_key: bool = False
    meters: list[dict[str, Any]] = msgspec.field(default_factory=lambda: [{}])
    deleted_customers: list[str] = []
    extra_customers: list[str] = []
    profiles: dict[str, ProfileName] = {}
    anchors: dict[str, int] = {}
    currencies: dict[str, str] = {}
    test_clocks: list[str] = []
    second_subscriptions: list[str] = []
    archive_meters_after: int | None = None
    subscription_items_page: int = 10


def patched(switches: Switches, body: bytes) -> Switches:
    """`switches` with the keys of a JSON object replaced.

    Raises msgspec.MsgspecError: for an unknown switch or a value of the wrong kind.
    """
    given = msgspec.json.decode(body, type=dict[str, Any])
    return msgspec.convert({**msgspec.to_builtins(switches), **given}, Switches)
