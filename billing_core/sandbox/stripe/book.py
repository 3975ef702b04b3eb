"""The meter events Stripe has received: who sent what, what counts, what was rejected or cancelled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from decimal import Context, Decimal
from pathlib import Path

from billing_core.sandbox.stripe.events import InvoiceItem, ReceivedEvent
from billing_core.sandbox.stripe.journal import (
    Entry,
    EventCancelled,
    EventLost,
    EventReceived,
    ItemWritten,
    Journal,
    Reported,
)
from billing_core.sandbox.stripe.reports import Report, group

HOUR = 3600
REMEMBERED_MILLISECONDS = 24 * HOUR * 1000
"""How long an identifier is refused, and an event can be cancelled, after its receipt."""

EXACT = Context(prec=200)
"""Sums of decimals as they are."""

Key = tuple[str, str]
"""Event name and identifier: what Stripe deduplicates by."""


class ReceivedEvents:
    """Received events, indexed by event name, customer and hour. Moments are milliseconds since 1970."""

    def __init__(self, journal: Path | None = None) -> None:
        self.events: list[ReceivedEvent] = []
        """In the order of their receipt; lost ones are not among them."""
        self.reports: list[Report] = []
        """Error reports that went out, oldest first."""
        self.items: dict[str, InvoiceItem] = {}
        """Invoice items by id, in the order of their creation; deleted ones are among them."""
        self._received: dict[Key, int] = {}
        self._latest: dict[Key, ReceivedEvent] = {}
        self._hours: dict[Key, dict[int, list[ReceivedEvent]]] = defaultdict(lambda: defaultdict(list))
        self._rejected: list[ReceivedEvent] = []
        self._journal = None if journal is None else Journal(journal)
        self.catch_up()

    def catch_up(self) -> None:
        """Learn what was written to the journal since, by this process or another."""
        if self._journal is None:
            return
        if self._journal.was_cleared():
            self._forget()
        for entry in self._journal.unread():
            self._apply(entry)

    def add(self, event: ReceivedEvent) -> None:
        """Book an event as received."""
        self._do(EventReceived(event))

    def cancel(self, event: ReceivedEvent, at: int) -> None:
        """It does not count from `at` on."""
        self._do(EventCancelled(event.event_name, event.identifier, at))

    def drop(self, event: ReceivedEvent) -> None:
        """Lose it without a trace; its identifier stays refused."""
        self._do(EventLost(event.event_name, event.identifier))

    def add_item(self, item: InvoiceItem) -> None:
        """Write an invoice item down, or what has become of it."""
        self._do(ItemWritten(item))

    def report(self, now: int, meter_ids: Mapping[str, str]) -> None:
        """Send out reports about the rejections that are due."""
        due = [event for event in self._rejected if event.due is not None and event.due <= now]
        for report in group(due, dict(meter_ids)):
            self._do(Reported(report))

    def clear(self) -> None:
        """Forget everything, the journal included."""
        self._forget()
        if self._journal is not None:
            self._journal.clear()

    def is_remembered(self, event_name: str, identifier: str, now: int) -> bool:
        """Whether an event of that identifier came within the last 24 hours."""
        received = self._received.get((event_name, identifier))
        return received is not None and now - received < REMEMBERED_MILLISECONDS

    def find(self, identifier: str, event_name: str | None = None) -> ReceivedEvent | None:
        """The latest event of that identifier that is not lost."""
        if event_name is not None:
            return self._latest.get((event_name, identifier))
        return next((event for event in reversed(self.events) if event.identifier == identifier), None)

    def counted(self, event_name: str, customer: str, start: int, end: int, as_of: int) -> Iterator[ReceivedEvent]:
        """Events of one customer with a timestamp in `[start, end)` (Unix seconds) that count at `as_of`."""
        by_hour = self._hours.get((event_name, customer), {})
        asked = range(start // HOUR, -(-end // HOUR))
        for hour in asked if len(asked) <= len(by_hour) else [hour for hour in by_hour if hour in asked]:
            for event in by_hour.get(hour, ()):
                if start <= event.timestamp < end and event.counts_at(as_of):
                    yield event

    def sums(self, as_of: int) -> dict[str, Decimal]:
        """By customer, over all event names: what counts at `as_of`."""
        totals: dict[str, Decimal] = {}
        for event in self.events:
            if event.counts_at(as_of) and event.customer is not None and event.amount is not None:
                totals[event.customer] = EXACT.add(totals.get(event.customer, Decimal(0)), event.amount)
        return totals

    def _do(self, entry: Entry) -> None:
        if self._journal is None:
            self._apply(entry)
        else:
            self._journal.write(entry)
            self.catch_up()

    def _forget(self) -> None:
        for kept in (self.events, self.reports, self.items, self._received, self._latest, self._hours, self._rejected):
            kept.clear()

    def _apply(self, entry: Entry) -> None:
        match entry:
            case EventReceived(event):
                self._insert(event)
            case EventCancelled(event_name, identifier, at):
                if (cancelled := self._latest.get((event_name, identifier))) is not None:
                    cancelled.cancelled = at
            case EventLost(event_name, identifier):
                if (lost := self._latest.pop((event_name, identifier), None)) is not None:
                    self._remove(lost)
            case ItemWritten(item):
                self.items[item.id] = item
            case Reported(report):
                self.reports.append(report)
                for rejection in report.rejections:
                    rejected = self._latest.get((rejection.event_name, rejection.identifier))
                    if rejected is not None:
                        rejected.reported = report.created
                self._rejected = [event for event in self._rejected if event.reported is None]

    def _insert(self, event: ReceivedEvent) -> None:
        key = event.event_name, event.identifier
        self.events.append(event)
        self._received[key] = event.received
        self._latest[key] = event
        if event.code is not None:
            self._rejected.append(event)
        elif event.customer is not None and event.amount is not None:
            self._hours[(event.event_name, event.customer)][event.timestamp // HOUR].append(event)

    def _remove(self, event: ReceivedEvent) -> None:
        self.events.remove(event)
        if event in self._rejected:
            self._rejected.remove(event)
        if event.customer is not None:
            hour = self._hours.get((event.event_name, event.customer), {}).get(event.timestamp // HOUR, [])
            if event in hour:
                hour.remove(event)
