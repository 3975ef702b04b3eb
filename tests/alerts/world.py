"""A service over a ledger of its own, on a clock that the test holds, with receivers of what it tells."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from billing_core.access import Principal, Role
from billing_core.alerts.model import Terms
from billing_core.service import BillingService
from billing_core.settings import load_settings
from tests.factories import events_table, new_ledger_at
from tests.stripe_sync.push_world import use

NOW = datetime(2026, 11, 20, 9, 30, tzinfo=UTC)
"""A Friday."""

FINANCE = Principal("fay", Role.FINANCE)
ONLY_A = Principal("ada", Role.FINANCE, frozenset({"org_a"}))


class AlertWorld:
    """`now` is what the clock says; `tell` names the receivers."""

    def __init__(self, folder: Any, **environment: str) -> None:
        self.path = folder / "billing.duckdb"
        new_ledger_at(self.path)
        self.now = NOW
        self.environment = {
            "BILLING_MODE": "live",
            "BILLING_WAREHOUSE_URL": f"duckdb:///{self.path}",
            "BILLING_TIMEZONE": "Europe/Berlin",
            "BILLING_PUBLIC_URL": "https://billing.example.com",
            **environment,
        }
        self.service = self._service()

    def _service(self) -> BillingService:
        settings = load_settings(self.environment, env_file=None)
        service = BillingService(settings, clock=lambda: self.now)
        service.alerts._outbox._pause = lambda seconds: None
        return service

    def reopen(self, **environment: str) -> None:
        """Go on with other settings, as another process would."""
        self.service.close()
        self.environment |= environment
        self.service = self._service()

    @property
    def alerts(self) -> Any:
        return self.service.alerts

    def book(self, *rows: dict[str, Any]) -> None:
        self.service._ledger.book(events_table(rows), run_id="pull")

    def rule(self, owner: Principal = FINANCE, /, **terms: Any) -> Any:
        """A rule of these terms; a threshold of 100 credits in one day unless they say otherwise."""
        usual = {"kind": "threshold", "measure": "credits", "above": 100}
        anyway = terms.pop("anyway", False)
        return self.alerts.add(owner, terms.pop("name", "the rule"), Terms.parse({**usual, **terms}), anyway=anyway)

    def check(self) -> Any:
        """The titles of what a check tells anew, oldest window first."""
        fired = set(self.alerts.check(FINANCE).fired)
        found = [one for one in self.alerts.history(FINANCE, limit=None) if one.id in fired]
        return [one.title for one in sorted(found, key=lambda one: (one.start, one.title))]


def used(id_: str, credits_: Any, days_ago: float = 0, organization: str = "org_a", **facts: Any) -> dict[str, Any]:
    """An event of so many credits, so many days before `NOW`."""
    return use(id_, NOW - timedelta(days=days_ago), str(credits_), organization_id=organization, **facts)
