"""Sends meter events one by one through Stripe's v1 API: the default."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from billing_core.stripe.answer import StripeResponse
from billing_core.stripe.bodies import v1_body
from billing_core.stripe.delivery import key_of_try, try_until_known
from billing_core.stripe.limits import RetryLimits
from billing_core.stripe.model import MeterEvent, SendOutcome
from billing_core.stripe.run import SendRun
from billing_core.stripe.threaded_sink import ThreadedSink
from billing_core.stripe.wire import Connection

PATH = "/v1/billing/meter_events"
WORKERS = 32


class V1Sink(ThreadedSink[MeterEvent]):
    """Sends meter events one by one, in a lane for each customer: Stripe allows one call of each in flight."""

    def __init__(
        self,
        connection: Connection,
        per_second: float | None,
        *,
        patience: RetryLimits | None = None,
        workers: int = WORKERS,
    ) -> None:
        super().__init__(connection, per_second, patience, workers)

    def request_of(self, event: MeterEvent) -> dict[str, Any]:
        return {"method": "POST", "path": PATH, "idempotency_key": event.identifier, "body": v1_body(event)}

    def _lanes(self, events: Sequence[MeterEvent]) -> Sequence[deque[MeterEvent]]:
        lanes: dict[str, deque[MeterEvent]] = {}
        for event in events:
            lanes.setdefault(event.customer_id, deque()).append(event)
        return list(lanes.values())

    def _deliver(self, run: SendRun, parcel: MeterEvent) -> Sequence[SendOutcome]:
        request = self.request_of(parcel)

        def call(generation: int) -> StripeResponse:
            key = key_of_try(request["idempotency_key"], generation)
            return self._connection.call("post", request["path"], request["body"], idempotency_key=key)

        def is_receipt(answer: StripeResponse) -> bool:
            found = answer.document
            return (
                found is not None
                and "error" not in found
                and found.get("object", "billing.meter_event") == "billing.meter_event"
                and found.get("identifier", parcel.identifier) == parcel.identifier
            )

        ending = try_until_known(call, is_receipt, run=run, pace=self._pace, patience=self._patience)
        return [self._outcome(parcel, ending)]
