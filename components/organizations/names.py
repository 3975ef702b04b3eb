"""Names of organizations on the page: `Name (org_id)` where the directory has a name."""

from __future__ import annotations

from collections.abc import Mapping

from billing_core.access import Principal
from billing_core.service import BillingService


def names(service: BillingService, principal: Principal) -> Mapping[str, str]:
    """Organization id → name for people, of those `principal` may see; ids without a name are absent."""
    return service.organizations.directory.names(principal)
