"""Names of organizations on the page, those of the directory; several of one name are told apart by their ids."""

from __future__ import annotations

from collections.abc import Mapping

from billing_core.access import Principal
from billing_core.organizations.table import distinct
from billing_core.service import BillingService


def names(service: BillingService, principal: Principal) -> Mapping[str, str]:
    """Organization id → name for people, of those `principal` may see; ids without a name are absent."""
    return distinct(service.organizations.directory.names(principal))
