"""The tile of customers that are about to use up their plans."""

from __future__ import annotations

from billing_core.access import Principal
from billing_core.errors import BillingError
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
    """The number of customers at risk as a tile; unknown until plans were read, and where limits cannot be read."""
    thresholds = service.settings.limit_thresholds
    note = texts.AT_RISK_NOTE.format(threshold=min(thresholds))
    query = {"view": OrganizationView.LIMITS.value}
    try:
        reading = service.organizations.limits.read(principal)
    except BillingError as error:  # the page's other figures do not depend on it
        return MetricTile(texts.AT_RISK, UNKNOWN, f"unknown: {error}", note)
    if reading.read_at is None:
        return MetricTile(
            texts.AT_RISK, UNKNOWN, texts.PLANS_NOT_READ, note, link=TileLink(texts.SHOW_PLANS, PAGE, query)
        )
    found = at_risk(reading.rows, thresholds)
    link = TileLink(texts.SHOW_CUSTOMERS, PAGE, {**query, AT_RISK: "1"}) if found else None
    return MetricTile(texts.AT_RISK, count(len(found)), count_of(len(found), "customer"), note, link=link)
