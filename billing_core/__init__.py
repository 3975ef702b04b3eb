"""Usage events, credits, the ledger and the sync to Stripe: everything of the billing system that needs no browser.

The names of CONTRACT section 5 are loaded on first use, so that `import billing_core.settings` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from billing_core.access import Principal as Principal
    from billing_core.langfuse.provider import LangfuseProvider as LangfuseProvider
    from billing_core.service import BillingService as BillingService
    from billing_core.stripe.provider import StripeProvider as StripeProvider
    from billing_core.types import GetUsageEventsParams as GetUsageEventsParams
    from billing_core.types import SyncStatus as SyncStatus
    from billing_core.types import UsageEvent as UsageEvent
    from billing_core.types import UsageEventsResponse as UsageEventsResponse

_HOMES = {
    "BillingService": "billing_core.service",
    "GetUsageEventsParams": "billing_core.types",
    "LangfuseProvider": "billing_core.langfuse.provider",
    "Principal": "billing_core.access",
    "StripeProvider": "billing_core.stripe.provider",
    "SyncStatus": "billing_core.types",
    "UsageEvent": "billing_core.types",
    "UsageEventsResponse": "billing_core.types",
}

__all__ = [
    "BillingService",
    "GetUsageEventsParams",
    "LangfuseProvider",
    "Principal",
    "StripeProvider",
    "SyncStatus",
    "UsageEvent",
    "UsageEventsResponse",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
