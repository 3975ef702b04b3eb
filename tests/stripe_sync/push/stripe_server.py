"""The sandbox's Stripe over real HTTP in a thread of this process, on a clock the test holds."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

import uvicorn

from billing_core.sandbox.app import create_app
from billing_core.sandbox.data.dataset import SandboxDataset
from billing_core.sandbox.faults.faults import Fault
from billing_core.sandbox.server import environment_for
from billing_core.sandbox.stripe.account import Account
from billing_core.sandbox.stripe.events import ReceivedEvent
from billing_core.sandbox.stripe.switches import Switches
from tests.stripe_sync.push.mortal import METER_EVENTS


class StripeServer:
    """Stripe as the pusher sees it (`url`), and what only an onlooker sees."""

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.bodies: dict[str, set[tuple[tuple[str, str], ...]]] = defaultdict(set)
        """Every different body ever sent, by identifier."""
        self.url = ""
        self.knocked = threading.Event()
        """Somebody waits at the closed gate."""
        self._gate = threading.Event()
        self.open_the_gate()
        self._layer: Any = create_app(SandboxDataset(1, 1, now=now), clock=lambda: round(self.now.timestamp() * 1000))
        self.account: Account = self._layer._app.state.stripe

    def reset(self, now: datetime, **switches: Any) -> None:
        """As on the first day, at another time."""
        self.now = now
        self.account.clear()
        self.bodies.clear()
        self.heal()
        self.switch(**switches)

    def wait(self, **duration: float) -> None:
        """Let time pass."""
        self.now += timedelta(**duration)

    def switch(self, **switches: Any) -> None:
        """Turn switches; the others stay."""
        current = {name: getattr(self.account.switches, name) for name in Switches.__struct_fields__}
        self.account.switch(Switches(**{**current, **switches}))

    def fault(self, kind: Any, path_prefix: str = METER_EVENTS, **more: Any) -> None:
        """Plant a fault."""
        self._layer.faults.append(Fault(path_prefix, kind, **more))

    def heal(self) -> None:
        """Take away every fault."""
        self._layer.faults.clear()

    def plant(self, customer: str, value: int, time: datetime, *, identifier: str | None = None) -> None:
        """Book usage that somebody else sent."""
        stamp, number = int(time.timestamp()), len(self.account.book.events)
        payload = {"stripe_customer_id": customer, "value": str(value)}
        event = ReceivedEvent(
            identifier or f"planted-{number}",
            "credits",
            payload,
            customer,
            Decimal(value),
            stamp,
            self.account.now(),
            "planted",
        )
        self.account.book.add(event)

    def close_the_gate(self) -> None:
        """Let meter events wait before they are taken."""
        self.knocked.clear()
        self._gate.clear()

    def open_the_gate(self) -> None:
        """Take them."""
        self._gate.set()

    @property
    def sums(self) -> dict[str, Decimal]:
        """What Stripe counts by customer, exactly and without lag; customers with 0 are left out."""
        return {customer: total for customer, total in self.account.book.sums(self.account.now()).items() if total}

    @property
    def received(self) -> list[ReceivedEvent]:
        """Every event taken, in order; also those rejected afterwards."""
        return self.account.book.events

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve a request, noting what was asked of the meter."""
        if scope["type"] != "http" or scope["path"] != METER_EVENTS:
            await self._layer(scope, receive, send)
            return
        while not self._gate.is_set():
            self.knocked.set()
            await asyncio.sleep(0.01)
        body = b""

        async def noted() -> Any:
            nonlocal body
            message = await receive()
            body += message.get("body", b"")
            return message

        # The connection's own object has to stay visible: faults that reset it look for it.
        noted.__self__ = receive.__self__  # type: ignore[attr-defined]
        try:
            await self._layer(scope, noted, send)
        finally:
            fields = tuple(sorted(parse_qsl(body.decode())))
            if identifier := dict(fields).get("identifier"):
                self.bodies[identifier].add(fields)


@contextmanager
def serving(now: datetime) -> Iterator[StripeServer]:
    """A server that listens on a free port."""
    server = StripeServer(now)
    listens = threading.Event()

    class Announced(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            listens.set()

    config = uvicorn.Config(
        server, port=0, lifespan="off", log_level="critical", access_log=False, timeout_graceful_shutdown=1
    )
    running = Announced(config)
    thread = threading.Thread(target=running.run, name="stripe-server", daemon=True)
    thread.start()
    assert listens.wait(20)
    server.url = f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        running.should_exit = True
        thread.join(10)


def environment_of(server: StripeServer) -> dict[str, str]:
    """What makes the pusher talk to it; nothing leads to Langfuse."""
    return {name: value for name, value in environment_for(server.url).items() if name.startswith("STRIPE")}


def at(text: str) -> datetime:
    """An ISO time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
