"""The account behind Stripe's face: clock and switches, customers and meters, and what becomes of meter events."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from billing_core.sandbox.stripe.answers import IdempotentResponses
from billing_core.sandbox.stripe.book import REMEMBERED_MILLISECONDS, ReceivedEvents
from billing_core.sandbox.stripe.catalog import customer, deleted_customer, meter, organization_customers
from billing_core.sandbox.stripe.events import BrokenRule, InvoiceItem, ReceivedEvent, Source, examine
from billing_core.sandbox.stripe.invoices import SandboxInvoice, invoices_of
from billing_core.sandbox.stripe.reports import Report
from billing_core.sandbox.stripe.subscriptions import SandboxSubscription
from billing_core.sandbox.stripe.summaries import aggregate
from billing_core.sandbox.stripe.switches import Switches

SESSION_MILLISECONDS = 15 * 60 * 1000
SECOND = 1000


class Refused(Exception):
    """A meter event that was not accepted; each API version words it in its own way.

    `broken` is `None` for a duplicate.
    """

    def __init__(self, message: str, broken: BrokenRule | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.broken = broken


class Account:
    """What the Stripe account holds. `clock` returns milliseconds since 1970.

    With a `journal`, received events and reports are remembered from one start to the next, and shared with other
    processes that use it; what follows from the clock and the switches needs no remembering.
    """

    def __init__(self, clock: Callable[[], int], journal: Path | None = None) -> None:
        self._clock = clock
        self._organizations = organization_customers()
        self.switches = Switches()
        self.book = ReceivedEvents(journal)
        self.answers = IdempotentResponses()
        self.sessions: dict[str, int] = {}
        """Tokens of meter event sessions, with their end in milliseconds since 1970."""
        self.meters: list[dict[str, Any]] = []
        self._in_flight: set[tuple[str, str | None]] = set()
        self._calls: deque[float] = deque()
        self._requests = 0
        self._extra: dict[str, None] = {}
        self._deleted: frozenset[str] = frozenset()
        self.switch(self.switches)

    def now(self) -> int:
        """Stripe's clock, milliseconds since 1970."""
        return self._clock() + round(self.switches.clock_offset_seconds * SECOND)

    def now_seconds(self) -> int:
        """Stripe's clock in Unix seconds, for v1."""
        return self.now() // SECOND

    def visible(self) -> int:
        """Events received up to this moment (milliseconds since 1970) are in summaries by now."""
        return self.now() - round(self.switches.summary_lag_seconds * SECOND)

    def request_id(self) -> str:
        """A new one for each answer."""
        self._requests += 1
        return f"req_test_{self._requests:08d}"

    def switch(self, switches: Switches) -> None:
        """Obey other switches from now on."""
        self.switches = switches
        self._extra = dict.fromkeys(switches.extra_customers)
        self._deleted = frozenset(switches.deleted_customers)
        self.meters = [meter(changes) for changes in switches.meters]

    def clear(self) -> None:
        """As on the first day: no events, no keys, no switches."""
        self.book.clear()
        self.answers.clear()
        self.sessions.clear()
        self._calls.clear()
        self.switch(Switches())

    # customers and what they have

    def customer_ids(self) -> list[str]:
        """Those that are not deleted, in a fixed order."""
        return [id_ for id_ in {**dict.fromkeys(self._organizations), **self._extra} if id_ not in self._deleted]

    def state_of(self, customer_id: str) -> Literal["known", "deleted", "unknown"]:
        """Whether a customer exists."""
        if customer_id in self._deleted:
            return "deleted"
        return "known" if customer_id in self._organizations or customer_id in self._extra else "unknown"

    def customer(self, customer_id: str) -> dict[str, Any] | None:
        """The customer, or the stub of a deleted one."""
        match self.state_of(customer_id):
            case "deleted":
                return deleted_customer(customer_id)
            case "known":
                found = self._organizations.get(customer_id) or customer(customer_id, customer_id.removeprefix("cus_"))
                return {**found, "currency": self.currency_of(customer_id)}
            case _:
                return None

    def currency_of(self, customer_id: str) -> str:
        """The currency a customer pays in."""
        return self.switches.currencies.get(customer_id, "usd")

    def subscription_of(self, customer_id: str) -> SandboxSubscription | None:
        """Its subscription; deleting a customer ends and hides it."""
        if self.state_of(customer_id) != "known":
            return None
        return SandboxSubscription.of(customer_id, self.switches, self.now_seconds())

    def subscriptions(self, customer_id: str | None = None) -> list[SandboxSubscription]:
        """All that lists show, in the order of the customers; of one customer those on a test clock as well."""
        customers = self.listed_customers() if customer_id is None else [customer_id]
        return [found for one in customers for found in self._subscriptions_of(one)]

    def _subscriptions_of(self, customer_id: str) -> list[SandboxSubscription]:
        first = self.subscription_of(customer_id)
        if first is None:
            return []
        return [first, replace(first, number=2)] if customer_id in self.switches.second_subscriptions else [first]

    def listed_customers(self) -> list[str]:
        """Customers without those on a test clock, whom lists leave out."""
        return [id_ for id_ in self.customer_ids() if id_ not in self.switches.test_clocks]

    def invoices(self, subscription: SandboxSubscription) -> list[SandboxInvoice]:
        """Newest first."""
        return invoices_of(subscription, self.now_seconds())

    def invoice_of(self, item: InvoiceItem) -> SandboxInvoice | None:
        """The invoice an item is on: the first that was opened after its creation; `None` while it waits for one."""
        subscription = self.subscription_of(item.customer)
        invoices = [] if subscription is None else self.invoices(subscription)
        after = (one for one in invoices if one.opened > item.created)
        return min(after, key=lambda invoice: invoice.opened, default=None)

    def items_on(self, invoice: SandboxInvoice | None, customer_id: str) -> list[InvoiceItem]:
        """The items on an invoice of a customer, oldest first; without an invoice those that wait for one."""
        mine = (one for one in self.book.items.values() if one.customer == customer_id and not one.is_deleted)
        return [one for one in mine if self.invoice_of(one) == invoice]

    def usage(self, customer_id: str) -> Callable[[str, int, int, int | None], Decimal]:
        """What invoices bill of a customer's events; a total below zero is billed as zero."""

        def used(meter_id: str, start: int, end: int, until: int | None) -> Decimal:
            found = next((one for one in self.meters if one["id"] == meter_id), None)
            if found is None:
                return Decimal(0)
            as_of = self.visible() if until is None else until * SECOND
            events = self.book.counted(found["event_name"], customer_id, start, end, as_of)
            return max(aggregate(events, found), Decimal(0))

        return used

    # meter events

    def accept(
        self,
        event_name: str,
        payload: dict[str, str],
        timestamp: int,
        identifier: str | None,
        *,
        source: Source,
        idempotency_key: str | None = None,
    ) -> ReceivedEvent:
        """Take one event with everything but the duplicate rule subject to the switches; `timestamp` in Unix seconds.

        Raises Refused: if it breaks a rule that is checked at once, or is a duplicate.
        """
        now, most = self.now(), self.switches.archive_meters_after
        if most is not None and len(self.book.events) >= most:
            self.meters = [{**one, "status": "inactive"} for one in self.meters]
        facts = examine(event_name, payload, timestamp, now=now // SECOND, meters=self.meters, state_of=self.state_of)
        later = source == "stream" or self.switches.async_validation
        if facts.broken is not None and not later:
            raise Refused(facts.broken.message, facts.broken)
        made_up = hashlib.sha256(f"{now}/{len(self.book.events)}".encode()).hexdigest()[:32]
        identifier = identifier or made_up
        if self.book.is_remembered(event_name, identifier, now):
            raise Refused(f"An event already exists with identifier {identifier}.")
        code = facts.broken.report_code if facts.broken is not None else self._planted(facts.customer, identifier)
        event = ReceivedEvent(
            identifier=identifier,
            event_name=event_name,
            payload=payload,
            customer=facts.customer,
            amount=facts.amount,
            timestamp=timestamp,
            received=now,
            source=source,
            idempotency_key=idempotency_key,
            code=code,
            message=None if facts.broken is None else facts.broken.message,
            due=None if code is None else now + round(self.switches.async_error_delay_seconds * SECOND),
        )
        self.book.add(event)
        return event

    def _planted(self, customer_id: str | None, identifier: str) -> str | None:
        """The code under which the switches have this event rejected later."""
        for what, code in self.switches.async_errors.items():
            if what == customer_id or identifier.startswith(what):
                return code
        return None

    def cancel(self, event_name: str, identifier: str) -> None:
        """Cancel one event.

        Raises Refused: if there is none, it is cancelled already, or it came more than 24 hours ago.
        """
        event, now = self.book.find(identifier, event_name), self.now()
        if event is None:
            raise Refused(f"No meter event exists with identifier {identifier}.")
        if event.cancelled is not None:
            raise Refused(f"The meter event {identifier} is cancelled already.")
        if now - event.received >= REMEMBERED_MILLISECONDS:
            raise Refused(f"The meter event {identifier} was received more than 24 hours ago.")
        self.book.cancel(event, now)

    @contextmanager
    def one_in_flight(self, event_name: str, payload: Mapping[str, str]) -> Iterator[None]:
        """One call at a time per meter and customer.

        Raises BlockingIOError: while there is another.
        """
        key = event_name, self._customer_named(event_name, payload)
        if key in self._in_flight:
            raise BlockingIOError
        self._in_flight.add(key)
        try:
            yield
        finally:
            self._in_flight.discard(key)

    def _customer_named(self, event_name: str, payload: Mapping[str, str]) -> str | None:
        meter = next((one for one in self.meters if one["event_name"] == event_name), None)
        return None if meter is None else payload.get(meter["customer_mapping"]["event_payload_key"])

    def reports(self) -> list[Report]:
        """Error reports up to now, newest first."""
        self.book.report(self.now(), {one["event_name"]: one["id"] for one in reversed(self.meters)})
        return list(reversed(self.book.reports))

    # calls

    def may_call(self) -> bool:
        """Whether the rate limit lets one more call in."""
        limit = self.switches.rate_limit_per_second
        if limit is None:
            return True
        now = time.monotonic()  # calls a real second: who is refused waits, whatever the account's clock says
        while self._calls and self._calls[0] <= now - 1:
            self._calls.popleft()
        if len(self._calls) >= limit:
            return False
        self._calls.append(now)
        return True

    def open_session(self) -> tuple[str, int]:
        """A token for the stream and its end in milliseconds since 1970."""
        now = self.now()
        token = f"token_test_{hashlib.sha256(f'{now}/{len(self.sessions)}'.encode()).hexdigest()[:40]}"
        self.sessions[token] = now + SESSION_MILLISECONDS
        return token, self.sessions[token]
