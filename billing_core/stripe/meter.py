"""The billing meter credits go to, and what would make it miscount them."""

from __future__ import annotations

from dataclasses import dataclass

from billing_core.stripe.bodies import CUSTOMER_KEY, VALUE_KEY


@dataclass(frozen=True, slots=True)
class Meter:
    """A Stripe billing meter as far as sending to it matters. `livemode` is `None` where Stripe does not say."""

    id: str
    event_name: str
    status: str
    formula: str
    event_time_window: str | None
    customer_key: str
    value_key: str
    livemode: bool | None = None

    def fault(self) -> str | None:
        """The reason why credits may not be sent to this meter, in words; `None` if they may."""
        if self.status != "active":
            return f"it is {self.status}"
        if self.formula != "sum":
            return f"it aggregates by {self.formula}; credits need sum"
        if self.event_time_window:
            return f"events of one {self.event_time_window} overwrite each other (event_time_window)"
        if (self.customer_key, self.value_key) != (CUSTOMER_KEY, VALUE_KEY):
            return f"it reads {self.customer_key} and {self.value_key}; expected {CUSTOMER_KEY} and {VALUE_KEY}"
        return None
