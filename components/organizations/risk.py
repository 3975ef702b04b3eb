"""The tile of customers that are about to use up their plans."""

from __future__ import annotations

from billing_core.access import Principal
from billing_core.organizations.limits import at_risk
from billing_core.service import BillingService
from billing_core.values.counts import count_of
from components.organizations import texts
from components.organizations.query import OrganizationView
from components.organizations.state import PAGE
from components.shared.formats import UNKNOWN, count
from components.shared.metric_tiles import MetricTile, TileLink

AT_RISK = "limits_at_risk"
"""Name in the URL of the filter of "Plans and limits" that shows exactly these customers."""


def risk_tile(service: BillingService, principal: Principal) -> MetricTile:
    """The number of customers at risk as a tile; unknown until plans were read from Stripe."""
    thresholds = service.settings.limit_thresholds
    reading = service.organizations.limits.read(principal)
    found = at_risk(reading.rows, thresholds)
    is_known = reading.read_at is not None
    query = {"view": OrganizationView.LIMITS.value, **({AT_RISK: "1"} if found else {})}
    return MetricTile(
        "Customers at risk",
        count(len(found)) if is_known else UNKNOWN,
        count_of(len(found), "customer") if is_known else texts.PLANS_NOT_READ,
        texts.AT_RISK_NOTE.format(threshold=min(thresholds)),
        link=TileLink(texts.SHOW_CUSTOMERS if found else texts.SHOW_PLANS, PAGE, query),
    )
