"""The connection to Stripe through its own SDK.

So far it connects and examines the meter; sending credits builds on it. Every host the SDK knows is set from
`STRIPE_API_BASE`: setting only the main one would leave meter-event streams at the real Stripe.
"""

from __future__ import annotations

from dataclasses import dataclass

import stripe

from billing_core.errors import SettingsError, UpstreamError
from billing_core.settings import Settings

__all__ = ["Meter", "StripeProvider"]

TIMEOUT_SECONDS = 20
RETRIES = 2
"""Reads are safe to repeat; the SDK waits between tries as Stripe asks."""

CUSTOMER_KEY = "stripe_customer_id"
VALUE_KEY = "value"
"""Payload keys of a meter event that carries credits."""


@dataclass(frozen=True, slots=True)
class Meter:
    """A Stripe billing meter as far as sending to it matters."""

    id: str
    event_name: str
    status: str
    formula: str
    event_time_window: str | None
    customer_key: str
    value_key: str

    def fault(self) -> str | None:
        """Why credits may not be sent to it, in words; `None` if they may."""
        if self.status != "active":
            return f"it is {self.status}"
        if self.formula != "sum":
            return f"it aggregates by {self.formula}; credits need sum"
        if self.event_time_window:
            return f"events of one {self.event_time_window} overwrite each other (event_time_window)"
        if (self.customer_key, self.value_key) != (CUSTOMER_KEY, VALUE_KEY):
            return f"it reads {self.customer_key} and {self.value_key}; expected {CUSTOMER_KEY} and {VALUE_KEY}"
        return None


class StripeProvider:
    """Stripe as this product uses it. Errors become `UpstreamError` with one line and never the key."""

    def __init__(self, client: stripe.StripeClient, meter_event_name: str) -> None:
        self._client = client
        self._meter_event_name = meter_event_name

    @classmethod
    def from_settings(cls, settings: Settings) -> StripeProvider:
        """Connect as the environment says.

        Raises
        ------
        SettingsError
            Without STRIPE_API_KEY.
        """
        if settings.stripe_api_key is None:
            raise SettingsError("STRIPE_API_KEY: not set; give a restricted key that may read billing meters")
        base = settings.stripe_api_base
        client = stripe.StripeClient(
            settings.stripe_api_key.get_secret_value(),
            base_addresses={} if base is None else {"api": base, "meter_events": base, "files": base, "connect": base},
            max_network_retries=RETRIES,
            http_client=stripe.RequestsClient(timeout=TIMEOUT_SECONDS),
        )
        return cls(client, settings.stripe_meter_event_name)

    def meter(self) -> Meter:
        """The meter credits go to, checked.

        Raises
        ------
        SettingsError
            If there is none or more than one of that event name, or its configuration would miscount credits.
        UpstreamError
            If Stripe could not be reached or refused.
        """
        name = self._meter_event_name
        found = [meter for meter in self._meters() if meter.event_name == name]
        active = [meter for meter in found if meter.status == "active"] or found
        if len(active) != 1:
            count = "no meter" if not active else f"{len(active)} meters"
            raise SettingsError(
                f"STRIPE_METER_EVENT_NAME: Stripe has {count} with the event name {name!r}; expected one"
            )
        if (fault := active[0].fault()) is not None:
            raise SettingsError(f"STRIPE_METER_EVENT_NAME: the meter {name!r} ({active[0].id}) cannot be used: {fault}")
        return active[0]

    def _meters(self) -> list[Meter]:
        try:
            return [_meter(raw) for raw in self._client.v1.billing.meters.list({"limit": 100}).auto_paging_iter()]
        except stripe.StripeError as error:
            status = f"HTTP {error.http_status}" if error.http_status else "no answer"
            request = f", request {error.request_id}" if error.request_id else ""
            reason = " ".join(str(error.user_message or type(error).__name__).split())
            raise UpstreamError(f"Stripe: reading the meters failed ({status}{request}): {reason}") from None


def _meter(raw: stripe.billing.Meter) -> Meter:
    return Meter(
        id=raw.id,
        event_name=raw.event_name,
        status=raw.status,
        formula=raw.default_aggregation.formula,
        event_time_window=raw.event_time_window,
        customer_key=raw.customer_mapping.event_payload_key,
        value_key=raw.value_settings.event_payload_key,
    )
