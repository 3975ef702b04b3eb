"""Pull, push and reconcile over HTTP, against an account in which credits are planted and lost."""

from datetime import timedelta
from decimal import Decimal

import httpx
import pytest

from billing_core.access import system_principal
from billing_core.langfuse.provider import LangfuseProvider
from billing_core.rating.card import builtin_cards
from billing_core.rating.events import Policy
from billing_core.reconcile.report import Cause, added, waterfall
from billing_core.reconcile.run import reconcile
from billing_core.runtime import clock
from billing_core.sandbox.server import SandboxProcess
from billing_core.service import BillingService
from billing_core.settings import load_settings
from billing_core.stripe.provider import StripeProvider
from billing_core.types import GetUsageEventsParams
from billing_core.values.usage_frame import Window

WHO = system_principal("tester")
NOW = clock.now().replace(minute=0, second=0, microsecond=0)
WINDOW = Window(NOW - timedelta(days=12), NOW - timedelta(days=2))
"""Until two days ago: nothing arrives there any more between two reads."""


class World:
    """A sandbox whose usage was pulled and pushed."""

    def __init__(self, sandbox, folder):
        variables = {"BILLING_WAREHOUSE_URL": f"duckdb:///{folder}/billing.duckdb", "BILLING_MODE": "live"}
        settings = load_settings({**sandbox.environment, **variables}, env_file=None)
        self.service = BillingService(settings)
        self.langfuse, self.stripe = LangfuseProvider.from_settings(settings), StripeProvider.from_settings(settings)
        self.account = f"{settings.stripe_api_base}/_sandbox/stripe"
        self.spool = folder / "spool"
        self.service.pull(WHO, start=WINDOW.start, end=WINDOW.end)
        self.service.stripe.push(WHO)

    def reconcile(self, clock=clock.now):
        return reconcile(
            self.service._ledger,
            builtin_cards(),
            Policy(),
            WINDOW,
            langfuse=self.langfuse,
            spool=self.spool,
            stripe=self.stripe,
            meter_id=self.stripe.preflight().id,
            clock=clock,
        )

    def accepted(self):
        """Meter events that count, as the account knows them."""
        return httpx.get(f"{self.account}/events").raise_for_status().json()

    def quiet_hour(self, customer):
        """An hour in which a customer used nothing."""
        params = GetUsageEventsParams(customer=(customer,), limit=1000)
        events = self.service.get_usage_events(params, WHO).events
        used = {event.timestamp.replace(minute=0, second=0, microsecond=0) for event in events}
        return next(hour for n in range(240) if (hour := WINDOW.start + timedelta(hours=n)) not in used)

    def close(self):
        self.langfuse.close()
        self.stripe.close()
        self.service.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with SandboxProcess(events=1000, days=10, seed=7) as sandbox:
        world = World(sandbox, tmp_path_factory.mktemp("reconcile"))
        yield world
        world.close()


def test_after_a_push_nothing_is_unexplained_and_every_book_is_known(world):
    found = world.reconcile()
    assert (found.unexplained_credits, found.problems) == (0, ())
    assert all(row.langfuse_credits == row.ledger_credits for row in found.rows)
    assert all(row.sent_credits == row.stripe_credits for row in found.rows)
    sent = added(row.sent_credits for row in found.rows)
    assert sent == sum(Decimal(event["amount"]) for event in world.accepted()) > 0


def test_every_credit_that_was_not_sent_has_a_cause(world):
    found = world.reconcile()
    causes = {part.cause for row in found.rows for part in row.parts if part.credits}
    assert {Cause.NO_CUSTOMER, Cause.CARRIED_FRACTION, Cause.LEGACY_BILLED} <= causes
    assert None not in causes
    first, *steps, last = waterfall(found)
    assert (first[0], last[0]) == ("langfuse", "stripe")
    assert added([first[1], *(amount for _, amount in steps)]) == last[1]


def test_credits_of_customers_without_a_metered_item_are_found(world):
    kinds = {finding.kind for finding in world.reconcile().findings}
    assert kinds == {"no_metered_item"}


def test_a_planted_and_a_lost_meter_event_are_unexplained_to_the_last_credit(world):
    lost, *_, kept = sorted(world.accepted(), key=lambda event: int(event["amount"]))
    httpx.delete(f"{world.account}/events/{lost['identifier']}").raise_for_status()
    quiet = world.quiet_hour(kept["customer"])
    foreign = {"customer": kept["customer"], "value": "17", "timestamp": int(quiet.timestamp())}
    httpx.post(f"{world.account}/events", json=foreign).raise_for_status()

    found = world.reconcile(clock=lambda: NOW + timedelta(hours=3))  # nothing lags so long
    unexplained = {part.cause: part for row in found.rows for part in row.parts if part.is_unexplained}
    assert {cause: part.credits for cause, part in unexplained.items()} == {
        Cause.LOST_AT_STRIPE: int(lost["amount"]),
        Cause.NOT_OURS: -17,
    }
    assert unexplained[Cause.LOST_AT_STRIPE].meter_events == (lost["identifier"],)
    assert unexplained[Cause.LOST_AT_STRIPE].event_ids
    assert found.unexplained_credits == int(lost["amount"]) + 17
