"""A ledger, a Stripe (the sandbox's, over real HTTP) and one clock for both, which the test holds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import uvicorn

from billing_core.runtime import clock
from billing_core.sandbox.app import create_app
from billing_core.sandbox.data.catalog import STRIPE_KEY
from billing_core.sandbox.data.dataset import SandboxDataset
from billing_core.service import BillingService
from billing_core.settings import load_settings
from billing_core.stripe.provider import StripeProvider
from billing_core.types import GetUsageEventsParams
from tests.factories import CARD, EVERYONE, events_table, new_ledger_at, usage_row
from tests.stripe.fake import QUICK

MORNING = clock.now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=6)
"""The hour most usage is in. Close to the real time, because Stripe forgets error reports after 30 days."""

METER_EVENTS = "/v1/billing/meter_events"
CUSTOMERS = ("cus_a", "cus_b", "cus_c")


def at(hours: float = 0, minutes: float = 0, seconds: float = 0) -> datetime:
    """`at(1, 30)` is an hour and a half after `MORNING`."""
    return MORNING + timedelta(hours=hours, minutes=minutes, seconds=seconds)


class Stripe:
    """The sandbox's Stripe face on a free port; `offset` moves its clock."""

    def __init__(self) -> None:
        self.offset = timedelta()
        self.url = ""
        app = create_app(SandboxDataset(1, 1), clock=lambda: round(self.now().timestamp() * 1000))
        self._server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="critical"))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._http = httpx.Client(timeout=10)

    def now(self) -> datetime:
        return clock.now() + self.offset

    def start(self) -> None:
        self._thread.start()
        while not self._server.started:
            self._thread.join(0.005)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._http.close()

    def reset(self) -> None:
        """An account with three customers on Pro, whose billing period began ten days before `MORNING`."""
        self.offset = timedelta()
        for path in ("/_sandbox/stripe", "/_sandbox/faults", "/_sandbox/requests"):
            self.control("DELETE", path)
        start = int(at(-240).timestamp())
        self.switch(extra_customers=list(CUSTOMERS), anchors=dict.fromkeys(CUSTOMERS, start))

    def control(self, method: str, path: str, **more: Any) -> Any:
        answer = self._http.request(method, self.url + path, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def switch(self, **switches: Any) -> None:
        """Turn switches of `/_sandbox/stripe`."""
        self.control("PATCH", "/_sandbox/stripe", json=switches)

    def fault(self, kind: str, path_prefix: str = METER_EVENTS, **more: Any) -> None:
        """Plant a fault."""
        self.control("POST", "/_sandbox/faults", json={"kind": kind, "path_prefix": path_prefix, **more})

    def no_faults(self) -> None:
        self.control("DELETE", "/_sandbox/faults")

    def plant(self, customer: str, value: int, time: datetime) -> None:
        """Usage that somebody else sent."""
        event = {"customer": customer, "value": str(value), "timestamp": int(time.timestamp())}
        self.control("POST", "/_sandbox/stripe/events", json=event)

    def lose(self, identifier: str) -> None:
        """As if an event had never counted."""
        self.control("DELETE", f"/_sandbox/stripe/events/{identifier}")

    def sums(self) -> dict[str, int]:
        """Credits that count, by customer."""
        return {customer: int(value) for customer, value in self.control("GET", "/_sandbox/stripe/sums").items()}

    def received(self) -> list[dict[str, Any]]:
        """Every meter event received, in order."""
        found: list[dict[str, Any]] = self.control("GET", "/_sandbox/stripe/events")
        return found

    def posts(self) -> int:
        """Calls that sent a meter event, whatever became of them."""
        return [call["path"] for call in self.control("GET", "/_sandbox/requests")].count(METER_EVENTS)


@contextmanager
def running_stripe() -> Iterator[Stripe]:
    stripe = Stripe()
    stripe.start()
    try:
        yield stripe
    finally:
        stripe.stop()


class World:
    """A service over a ledger file, connected to a `Stripe`."""

    def __init__(self, folder: Any, stripe: Stripe, **environment: str) -> None:
        self.stripe = stripe
        self.path = folder / "billing.duckdb"
        new_ledger_at(self.path)
        self.environment = {
            "BILLING_MODE": "live",
            "BILLING_WAREHOUSE_URL": f"duckdb:///{self.path}",
            "STRIPE_API_KEY": STRIPE_KEY,
            "STRIPE_API_BASE": stripe.url,
            **environment,
        }
        self.connect = lambda settings: StripeProvider.from_settings(settings, QUICK)
        self.service = self._service()

    def _service(self, **environment: str) -> BillingService:
        settings = load_settings({**self.environment, **environment}, env_file=None)
        return BillingService(settings, connect_stripe=lambda s: self.connect(s), clock=self.stripe.now)

    def reopen(self, **environment: str) -> None:
        """Go on with other settings over the same ledger."""
        self.service.close()
        self.service = self._service(**environment)

    def close(self) -> None:
        self.service.close()

    def wait(self, **duration: float) -> None:
        """Let time pass here and at Stripe."""
        self.stripe.offset += timedelta(**duration)

    @property
    def ledger(self) -> Any:
        return self.service._ledger

    @property
    def desk(self) -> Any:
        return self.service.stripe

    def book(self, *rows: dict[str, Any], **facts: Any) -> None:
        """Book usage (`use`), as a pull would."""
        self.ledger.book(events_table(rows, **facts), run_id="pull")

    def push(self, **options: Any) -> Any:
        return self.desk.push(EVERYONE, **options)

    def events(self) -> dict[str, Any]:
        params = GetUsageEventsParams(limit=1000)
        return {event.id: event for event in self.service.get_usage_events(params, EVERYONE).events}

    def statuses(self) -> dict[str, str]:
        return {id_: event.sync_status.value for id_, event in sorted(self.events().items())}

    def intents(self) -> list[dict[str, Any]]:
        """Every intent, in the order of being written down."""
        names = "identifier, customer_id, source, revision, stamp, value, state, attempts, answer, credits"
        rows = self.ledger.engine.rows(f"SELECT {names} FROM intents ORDER BY created_at, stamp, customer_id")
        return [dict(zip(names.split(", "), row, strict=True)) for row in rows]

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self.ledger.engine.rows(query)
        return found

    def content(self) -> dict[str, list[str]]:
        """Every table of the ledger, whole."""
        tables = [row[0] for row in self.rows("SELECT table_name FROM duckdb_tables() ORDER BY table_name")]
        return {table: sorted(map(str, self.rows(f"SELECT * FROM {table}"))) for table in tables}


def use(id_: str, time: datetime, amount: str = "150", customer: str | None = "cus_a", **facts: Any) -> dict[str, Any]:
    """A trace of `amount` credits: as many thousandths of a GB-month as it takes, nothing else."""
    nothing = {"tokens_in": None, "tokens_out": None, "tokens_total": None, "usage": [], "models": [], "cost_usd": None}
    gigabytes = Decimal(amount) / CARD.storage.credits_per_gb_month
    facts = {"latency_seconds": 0, "storage_gb": gigabytes, **nothing, **facts}
    return usage_row(id=id_, timestamp=time, customer_id=customer, **facts)
