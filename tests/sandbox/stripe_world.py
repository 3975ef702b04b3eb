"""The sandbox's Stripe in this process, on a clock the test holds, with the official SDK in front of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import stripe

from billing_core.sandbox.app import create_app
from billing_core.sandbox.data.catalog import ORGANIZATIONS, STRIPE_KEY
from billing_core.sandbox.data.dataset import SandboxDataset

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
CUSTOMERS = {o.name: o.customer for o in ORGANIZATIONS if o.customer}
ACME, GLOBEX = CUSTOMERS["Acme"], CUSTOMERS["Globex"]
METER = "mtr_test_sandbox"
BEARER = {"Authorization": f"Bearer {STRIPE_KEY}"}


def unix(text: str) -> int:
    """Unix seconds of an ISO time in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def form(identifier: str, value: str = "5", customer: str = ACME, **more: Any) -> dict[str, Any]:
    """The form fields of a v1 meter event."""
    payload = {"payload[stripe_customer_id]": customer, "payload[value]": value}
    return {"event_name": "credits", "identifier": identifier, **payload, **more}


class World:
    """One sandbox, its clock and its clients."""

    def __init__(self, at: datetime = NOON, **options: Any) -> None:
        self.now = at
        self._app = create_app(
            SandboxDataset(1, 1, now=at), clock=lambda: round(self.now.timestamp() * 1000), **options
        )
        self.stripe = stripe.StripeClient(STRIPE_KEY, http_client=_InProcess(self))

    def wait(self, **duration: float) -> None:
        """Let time pass."""
        self.now += timedelta(**duration)

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request."""
        transport = httpx.ASGITransport(self._app)
        async with httpx.AsyncClient(transport=transport, base_url="https://api.stripe.com") as client:
            return await client.request(method, path, **more)

    def http(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request with the key, unless it brings headers of its own."""
        return asyncio.run(self.ask(method, path, **{"headers": BEARER, **more}))

    def control(self, method: str, path: str = "", **more: Any) -> Any:
        """What the onlooker's routes answer."""
        answer = self.http(method, f"/_sandbox/stripe{path}", **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def switch(self, **switches: Any) -> None:
        """Turn switches."""
        self.control("PATCH", json=switches)

    def fault(self, kind: str, path_prefix: str = "/v1/billing/meter_events", **more: Any) -> None:
        """Plant a fault."""
        body = {"kind": kind, "path_prefix": path_prefix, **more}
        assert self.http("POST", "/_sandbox/faults", json=body).status_code == 200

    def send(self, identifier: str, value: str = "5", customer: str = ACME, key: str | None = None, **more: Any) -> Any:
        """Send a v1 meter event through the SDK; `key` is its Idempotency-Key."""
        payload = {"stripe_customer_id": customer, "value": value}
        event = {"event_name": "credits", "identifier": identifier, "payload": payload, **more}
        return self.stripe.v1.billing.meter_events.create(event, {} if key is None else {"idempotency_key": key})

    def refusal(self, *given: Any, **more: Any) -> stripe.StripeError:
        """The error that `send` raises."""
        try:
            self.send(*given, **more)
        except stripe.StripeError as error:
            return error
        raise AssertionError("it was accepted")

    def reports(self, **parameters: Any) -> list[Any]:
        """Error reports, as the SDK reads them."""
        return list(self.stripe.v2.core.events.list(parameters).auto_paging_iter())

    def summaries(self, start: str, end: str, customer: str = ACME, **more: Any) -> list[Any]:
        """Summary rows of `[start, end)`, every page of them, oldest first."""
        window = {"customer": customer, "start_time": unix(start), "end_time": unix(end), **more}
        rows = self.stripe.v1.billing.meters.event_summaries.list(METER, window).auto_paging_iter()
        return sorted(rows, key=lambda row: row.start_time)

    def used(self, customer: str = ACME, start: str = "2026-10-01", end: str = "2026-12-01") -> float:
        """One customer's sum in the summaries of a window."""
        return sum(row.aggregated_value for row in self.summaries(start, end, customer))


class _InProcess(stripe.HTTPClient):
    """Carries the SDK's requests to an application in this process."""

    name = "in process"

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def request(
        self, method: str, url: str, headers: Any, post_data: Any = None, *, _usage: Any = None
    ) -> tuple[str, int, Any]:
        path = url.removeprefix("https://api.stripe.com").removeprefix("https://meter-events.stripe.com")
        answer = asyncio.run(self._world.ask(method.upper(), path, headers=headers, content=post_data))
        return answer.text, answer.status_code, dict(answer.headers)
