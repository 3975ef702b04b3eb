"""A Stripe account as billing uses it: the meter, customers and invoices, metered sums, and a sink for credits.

Plain values in, plain values out: no SDK object and no key leaves this package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar
from urllib.parse import quote

from billing_core.errors import BadParameter, NotFound, SettingsError, UpstreamError
from billing_core.runtime.clock import Clock, now
from billing_core.runtime.pacing import Pace
from billing_core.settings import MeterApi, Settings
from billing_core.stripe import shapes
from billing_core.stripe.invoice_items import InvoiceItems
from billing_core.stripe.limits import LIVE_PER_SECOND, STREAM_LIVE_PER_SECOND, TEST_PER_SECOND, RetryLimits
from billing_core.stripe.meter import Meter
from billing_core.stripe.model import Customer, ErrorReport, Invoice, Sink, Subscription, SummaryBucket
from billing_core.stripe.reading import JsonReader, ReadFailed
from billing_core.stripe.stream_sink import StreamSink
from billing_core.stripe.v1_sink import V1Sink
from billing_core.stripe.wire import Connection

ERROR_EVENT_TYPES = ("v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found")

EVENTS_KEPT = timedelta(days=30) - timedelta(minutes=1)
"""Stripe forgets events after thirty days; a question that arrives late should not be refused."""

ALIGNMENT: dict[str | None, tuple[int, str]] = {
    None: (60, "a whole minute"),
    "hour": (3600, "a whole hour (UTC)"),
    "day": (86400, "midnight (UTC)"),
}
"""Seconds that both ends of a summary must be multiples of, by grouping."""

MISSING = "resource_missing"
NO_UPCOMING = "invoice_upcoming_none"

Shaped = TypeVar("Shaped")


class StripeProvider:
    """Reads a Stripe account and makes sinks that send to it.

    Every read raises `UpstreamError` in one line that names what was read, the status, Stripe's request id and the
    reason; `NotFound` where a customer named by the caller does not exist.
    """

    def __init__(
        self,
        connection: Connection,
        meter_event_name: str,
        *,
        is_live: bool | None = None,
        account: str | None = None,
        paces_itself: bool = True,
        patience: RetryLimits | None = None,
    ) -> None:
        self.is_live = is_live
        """Whether the key says live; `None` if it says nothing."""
        self.account = account
        """Tells one key and address from another without saying either; `None`: it cannot be told."""
        self._connection = connection
        self._meter_event_name = meter_event_name
        self._paces_itself = paces_itself
        self._patience = patience or RetryLimits()
        self._reader = JsonReader(connection, self._patience)

    @classmethod
    def from_settings(
        cls, settings: Settings, patience: RetryLimits | None = None, clock: Clock = now
    ) -> StripeProvider:
        """A provider of the Stripe account the settings name.

        Only Stripe itself is sent at a pace of our own; another base limits by 429 if it wants to.

        Raises SettingsError: without STRIPE_API_KEY, or with one that cannot be a key.
        """
        if settings.stripe_api_key is None:
            raise SettingsError("STRIPE_API_KEY: not set; give a restricted key that may read billing meters")
        key = settings.stripe_api_key.get_secret_value()
        if not key.isascii() or not key.isprintable() or " " in key:
            raise SettingsError("STRIPE_API_KEY: contains blanks or characters no key has; copy it again")
        patience = patience or RetryLimits()
        base = settings.stripe_api_base
        return cls(
            Connection(key, base, (patience.connect_seconds, patience.answer_seconds), clock=clock),
            settings.stripe_meter_event_name,
            is_live=_is_live(key),
            account=hashlib.sha256(f"{key}\n{base}\n{settings.stripe_meter_event_name}".encode()).hexdigest()[:16],
            paces_itself=base is None,
            patience=patience,
        )

    @property
    def calls(self) -> int:
        """GET requests made so far: Stripe rations them (about 10,000 a month at least)."""
        return self._connection.gets

    def close(self) -> None:
        """Close the connections and end every wait."""
        self._reader.close()
        self._connection.close()

    def sink(self, meter_api: MeterApi | Literal["v1", "v2_stream"] = MeterApi.V1) -> Sink:
        """A sender of meter events; `v2_stream` is for volume."""
        if meter_api == MeterApi.V2_STREAM:
            return StreamSink(self._connection, self._pace(STREAM_LIVE_PER_SECOND), patience=self._patience)
        return V1Sink(self._connection, self._pace(LIVE_PER_SECOND), patience=self._patience)

    def invoice_items(self) -> InvoiceItems:
        """The account's invoice items."""
        pace = Pace(TEST_PER_SECOND if self._paces_itself else None)
        return InvoiceItems(self._connection, self._reader, pace, self._patience)

    def preflight(self) -> Meter:
        """The meter that credits go to, checked; to be called before anything is sent.

        Raises SettingsError: if there is none or more than one of that event name, if its configuration would miscount
        credits, or if it belongs to the other mode than the key. UpstreamError: if Stripe could not be reached or
        refused.
        """
        name = self._meter_event_name
        found = [meter for meter in self._meters() if meter.event_name == name]
        active = [meter for meter in found if meter.status == "active"] or found
        if len(active) != 1:
            count = "no meter" if not active else f"{len(active)} meters"
            raise SettingsError(
                f"STRIPE_METER_EVENT_NAME: Stripe has {count} with the event name {name!r}; expected one"
            )
        meter = active[0]
        if (fault := meter.fault()) is not None:
            raise SettingsError(f"STRIPE_METER_EVENT_NAME: the meter {name!r} ({meter.id}) cannot be used: {fault}")
        if None not in (self.is_live, meter.livemode) and self.is_live != meter.livemode:
            raise SettingsError(
                f"STRIPE_API_KEY: a {_mode(self.is_live)} key, but the meter {name!r} ({meter.id}) is in "
                f"{_mode(meter.livemode)} mode; check STRIPE_API_KEY and STRIPE_API_BASE"
            )
        return meter

    def customers(self) -> list[Customer]:
        """Every customer of the account; deleted ones are not listed by Stripe."""
        what = "customers"
        return [_shaped(what, shapes.customer, raw) for raw in self._reader.pages(what, "/v1/customers")]

    def customer(self, customer_id: str) -> Customer | None:
        """One customer, deleted ones as stubs; `None` if Stripe does not know the id."""
        if not customer_id.strip("."):
            return None  # would be another address
        what = f"the customer {customer_id!r}"
        try:
            raw = self._reader.one(what, f"/v1/customers/{_segment(customer_id)}")
        except ReadFailed as failure:
            if failure.code == MISSING:
                return None
            raise
        return _shaped(what, shapes.customer, raw)

    def subscriptions(self, customer_id: str | None = None) -> list[Subscription]:
        """Every subscription in every status, of one customer or of all (one sweep is cheaper than a call for each)."""
        what = "subscriptions" if customer_id is None else f"the subscriptions of {customer_id!r}"
        params = {"status": "all"} | _named(customer=customer_id)
        with _naming(customer_id):
            return [
                _shaped(what, lambda found: shapes.subscription(found, self._items(found)), raw)
                for raw in self._reader.pages(what, "/v1/subscriptions", params)
            ]

    def invoices(
        self, status: str | None = None, customer_id: str | None = None, created_since: datetime | None = None
    ) -> list[Invoice]:
        """Invoices with every line, of one status (`draft`, `open`, `paid`, `uncollectible`, `void`) or of all."""
        what = f"{status or 'all'} invoices" if customer_id is None else f"the invoices of {customer_id!r}"
        params: dict[str, Any] = dict(_named(status=status, customer=customer_id))
        if created_since is not None:
            params["created"] = {"gte": int(_aware("created_since", created_since).timestamp())}
        with _naming(customer_id):
            return [
                _shaped(what, lambda found: shapes.invoice(found, self._lines(found)), raw)
                for raw in self._reader.pages(what, "/v1/invoices", params)
            ]

    def upcoming(self, customer_id: str, subscription_id: str) -> Invoice | None:
        """A preview of a customer's next invoice as of now, provisional; `None` if Stripe says there will be none."""
        what = f"the upcoming invoice of {customer_id!r}"
        params = {"customer": customer_id, "subscription": subscription_id}
        try:
            with _naming(customer_id):
                raw = self._reader.one(what, "/v1/invoices/create_preview", params, method="post")
        except ReadFailed as failure:
            if failure.code == NO_UPCOMING:
                return None
            raise
        # Further lines of a preview have no address: what does not fit the first page is not listed.
        lines = self._reader.rows(what, shapes.part(raw, "lines") or {"data": []})
        named = {"customer": customer_id, **raw}
        return _shaped(what, lambda found: shapes.invoice(found, lines, is_preview=True), named)

    def summaries(
        self,
        meter_id: str,
        customer_id: str,
        start: datetime,
        end: datetime,
        grouping: Literal["hour", "day"] | None = None,
    ) -> list[SummaryBucket]:
        """The credits Stripe counts for one customer in `[start, end)`; spans without usage may be absent.

        The numbers lag behind what was accepted, without a published limit. Every bucket must be summed.

        Raises BadParameter: if the ends are not on whole minutes, hours or UTC days as `grouping` needs. NotFound: if
        Stripe does not know the customer. UpstreamError: as everywhere.
        """
        seconds, accepted = ALIGNMENT[grouping]
        for name, moment in (("start", start), ("end", end)):
            if _aware(name, moment).timestamp() % seconds:
                raise BadParameter(name, moment.isoformat(), accepted)
        if start >= end:
            raise BadParameter("end", end.isoformat(), f"a time after start ({start.isoformat()})")
        what = f"what Stripe counts for {customer_id!r}"
        params = {
            "customer": customer_id,
            "start_time": int(start.timestamp()),
            "end_time": int(end.timestamp()),
            **_named(value_grouping_window=grouping),
        }
        path = f"/v1/billing/meters/{_segment(meter_id)}/event_summaries"
        with _naming(customer_id):
            return [_shaped(what, shapes.summary, raw) for raw in self._reader.pages(what, path, params)]

    def error_reports(self, since: datetime) -> list[ErrorReport]:
        """Stripe's reports of meter events rejected after accepting them, oldest first, each report once.

        Reports older than 30 days are gone at Stripe. The list is eventually consistent: ask again from a little
        before the last answer.
        """
        what = "meter error reports"
        oldest = max(_aware("since", since), self._connection.clock() - EVENTS_KEPT)
        moment = oldest.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        params = {"types": list(ERROR_EVENT_TYPES), "created": {"gte": moment}}
        found: dict[str, ErrorReport] = {}
        for raw in self._reader.v2_pages(what, "/v2/core/events", params):
            whole = raw if isinstance(raw.get("data"), dict) else self._event(what, raw)
            report = _shaped(what, shapes.error_report, whole)
            found.setdefault(report.id, report)
        return sorted(found.values(), key=lambda report: (report.created, report.id))

    def _event(self, what: str, thin: dict[str, Any]) -> dict[str, Any]:
        """The event with its data, which a list may leave out."""
        id_ = thin.get("id")
        return {**thin, **self._reader.one(what, f"/v2/core/events/{_segment(id_)}")} if isinstance(id_, str) else thin

    def _meters(self) -> Iterator[Meter]:
        for raw in self._reader.pages("the meters", "/v1/billing/meters"):
            yield _shaped("the meters", shapes.meter, raw)

    def _items(self, subscription: dict[str, Any]) -> list[dict[str, Any]]:
        what = "subscription items"
        params = {"subscription": subscription.get("id")}
        return self._whole_list(what, shapes.part(subscription, "items"), "/v1/subscription_items", params)

    def _lines(self, invoice: dict[str, Any]) -> list[dict[str, Any]]:
        path = f"/v1/invoices/{_segment(str(invoice.get('id')))}/lines"
        return self._whole_list("invoice lines", shapes.part(invoice, "lines"), path, {})

    def _whole_list(self, what: str, inner: dict[str, Any], path: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        """A list inside an object; read anew as a list of its own if it goes on."""
        if inner.get("has_more"):
            return list(self._reader.pages(what, path, params))
        return self._reader.rows(what, inner) if inner else []

    def _pace(self, live: float) -> float | None:
        if not self._paces_itself:
            return None
        return live if self.is_live else TEST_PER_SECOND


def _is_live(key: str) -> bool | None:
    if key.startswith(("rk_live_", "sk_live_")):
        return True
    return False if key.startswith(("rk_test_", "sk_test_")) else None


def _mode(is_live: bool | None) -> str:
    return "live" if is_live else "test"


def _segment(text: str) -> str:
    """Text as one part of a path."""
    return quote(text, safe="")


def _named(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None}


def _aware(name: str, moment: datetime) -> datetime:
    if moment.utcoffset() is None:
        raise BadParameter(name, moment.isoformat(), "a time with its offset from UTC")
    return moment


@contextmanager
def _naming(customer_id: str | None) -> Iterator[None]:
    """A customer the caller named and Stripe does not know is `NotFound`; other missing things are not."""
    try:
        yield
    except ReadFailed as failure:
        if customer_id is not None and failure.code == MISSING and failure.param in {"customer", None}:
            raise NotFound(f"customer {customer_id!r}: Stripe does not know it in this account and mode") from None
        raise


def _shaped(what: str, shape: Callable[[dict[str, Any]], Shaped], raw: dict[str, Any]) -> Shaped:
    try:
        return shape(raw)
    except shapes.UnexpectedShape as odd:
        raise UpstreamError(f"Stripe: reading {what} failed: {odd}") from None
