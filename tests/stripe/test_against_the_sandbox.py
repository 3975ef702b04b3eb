"""Provider and sinks against the sandbox's Stripe: its books say what really arrived."""

from collections import Counter
from datetime import timedelta
from decimal import Decimal

import httpx
import pytest

from billing_core.runtime import clock
from billing_core.sandbox.server import SandboxProcess
from billing_core.settings import load_settings
from billing_core.stripe.delivery import METER_GONE
from billing_core.stripe.limits import RetryLimits
from billing_core.stripe.model import MeterEvent, OutcomeKind
from billing_core.stripe.periods import calendar_of, choose
from billing_core.stripe.provider import StripeProvider

PATIENCE = RetryLimits(answer_seconds=1.0, first_backoff_seconds=0.01)
ACCEPTED, DUPLICATE, REFUSED = OutcomeKind.ACCEPTED, OutcomeKind.DUPLICATE, OutcomeKind.REFUSED
DELIVERED = {ACCEPTED, DUPLICATE}
"""Stripe may give its stored receipt once more instead of calling it a duplicate."""


class World:
    """A sandbox, what only an onlooker sees of it, and a provider connected to it."""

    def __init__(self, process):
        settings = load_settings({"BILLING_MODE": "live", **process.environment}, env_file=None)
        self.provider = StripeProvider.from_settings(settings, PATIENCE)
        self.http = httpx.Client(base_url=process.url, timeout=30)
        self.now = clock.now().replace(microsecond=0)
        self.customers = sorted(customer.id for customer in self.provider.customers())

    def event(self, identifier, value=5, customer=0, **changes):
        given = {"event_name": "credits", "customer_id": self.customers[customer], "timestamp": self.now, **changes}
        return MeterEvent(identifier=identifier, value=value, **given)

    def fault(self, kind, **more):
        fault = {"kind": kind, "path_prefix": "/v1/billing/meter_events", **more}
        self.http.post("/_sandbox/faults", json=fault).raise_for_status()

    def switch(self, **switches):
        self.http.patch("/_sandbox/stripe", json=switches).raise_for_status()

    def sums(self):
        found = self.http.get("/_sandbox/stripe/sums").raise_for_status().json()
        return {customer: Decimal(total) for customer, total in found.items() if Decimal(total)}

    def send(self, *events, meter_api="v1"):
        return list(self.provider.sink(meter_api).send(events))


@pytest.fixture(scope="module")
def process():
    with SandboxProcess(events=50, days=5, seed=7) as running:
        yield running


@pytest.fixture
def world(process):
    with httpx.Client(base_url=process.url) as http:
        http.delete("/_sandbox/faults").raise_for_status()
        http.delete("/_sandbox/stripe").raise_for_status()
    found = World(process)
    yield found
    found.provider.close()
    found.http.close()


@pytest.mark.parametrize("meter_api", ["v1", "v2_stream"])
def test_what_is_accepted_is_counted_once_however_often_it_is_sent(world, meter_api):
    events = [world.event(f"evt-{n}", n + 1, n % 4) for n in range(230)]
    for _ in range(3):
        assert {o.kind for o in world.send(*events, meter_api=meter_api)} <= DELIVERED
    assert sum(world.sums().values()) == sum(range(1, 231))


@pytest.mark.parametrize(
    "kind",
    [
        "after_success_500",
        "after_success_cut",
        "after_success_timeout",
        "reset",
        "cut",
        "broken_json",
        "html",
        "404_html",
        "504_html",
        "503",
        "429",
        "409",
    ],
)
def test_a_fault_that_passes_costs_nothing(world, kind):
    world.fault(kind, body_contains="evt-3", seconds=1.3)
    outcomes = world.send(*(world.event(f"evt-{n}", 10, n) for n in range(6)))
    assert {o.kind for o in outcomes} <= DELIVERED
    assert [o.identifier for o in outcomes if o.tries > 1] == ["evt-3"]
    assert Counter(world.sums().values()) == {Decimal(10): 6}


def test_a_stored_failure_after_success_ends_as_delivered(world):
    world.fault("after_success_500")
    (outcome,) = world.send(world.event("evt-1", 7))
    assert outcome.kind == DUPLICATE
    assert list(world.sums().values()) == [7]


@pytest.mark.parametrize("kind", ["401", "403"])
def test_a_refused_key_sends_nothing(world, kind):
    world.fault(kind, times=None)
    outcomes = world.send(*(world.event(f"evt-{n}") for n in range(20)))
    assert {o.kind for o in outcomes} == {REFUSED}
    assert world.sums() == {}


def test_stripes_refusals_are_rejections_in_its_words(world):
    outcomes = {
        o.identifier: o
        for o in world.send(
            world.event("unknown", customer_id="cus_nobody"),
            world.event("old", timestamp=world.now - timedelta(days=36)),
            world.event("early", timestamp=world.now + timedelta(minutes=10)),
            world.event("good", -3),
        )
    }
    assert [name for name, o in outcomes.items() if o.kind == ACCEPTED] == ["good"]
    assert outcomes["unknown"].code == "resource_missing"
    assert "too far in the past" in outcomes["old"].reason
    assert list(world.sums().values()) == [-3]


def test_without_an_active_meter_nothing_is_rejected_for_good(world):
    [outcome] = world.send(world.event("meterless", event_name="nothing"))
    assert (outcome.kind, outcome.code) == (REFUSED, METER_GONE)
    assert "Stripe has no active meter" in outcome.reason


def test_a_rate_limit_slows_down_and_loses_nothing(world):
    world.switch(rate_limit_per_second=25)
    outcomes = world.send(*(world.event(f"evt-{n}", 1, n % 5) for n in range(60)))
    assert {o.kind for o in outcomes} == {ACCEPTED}
    assert sum(world.sums().values()) == 60


def test_one_call_in_flight_per_customer_meets_no_conflict(world):
    world.switch(meter_event_latency_seconds=0.02)
    outcomes = world.send(*(world.event(f"evt-{n}", 1, n % 3) for n in range(30)))
    assert {(o.kind, o.tries) for o in outcomes} == {(ACCEPTED, 1)}


@pytest.mark.parametrize("old_shape", [False, True])
@pytest.mark.parametrize("meter_api", ["v1", "v2_stream"])
def test_what_is_rejected_later_is_found_in_the_error_reports(world, meter_api, old_shape):
    world.switch(async_errors={"bad": "meter_event_invalid_value"}, old_error_shape=old_shape and meter_api == "v1")
    since = world.now - timedelta(minutes=1)
    outcomes = world.send(world.event("bad-1"), world.event("good", 4), meter_api=meter_api)
    assert {o.kind for o in outcomes} == {ACCEPTED}
    (report,) = world.provider.error_reports(since)
    assert [(e.code, e.count, e.identifiers) for e in report.errors] == [("meter_event_invalid_value", 1, ("bad-1",))]
    assert list(world.sums().values()) == [4]


def test_summaries_tell_what_arrived_hour_by_hour(world):
    meter = world.provider.preflight()
    hour = world.now.replace(minute=0, second=0) - timedelta(hours=130)
    given = [world.event(f"evt-{n}", n + 1, timestamp=hour + timedelta(hours=n, minutes=3)) for n in range(120)]
    world.send(*given)
    found = world.provider.summaries(meter.id, world.customers[0], hour, hour + timedelta(hours=120), "hour")
    assert {bucket.start: bucket.value for bucket in found if bucket.value} == {
        hour + timedelta(hours=n): n + 1 for n in range(120)
    }


def test_every_customer_has_a_calendar_that_fits_its_subscription(world):
    meter = world.provider.preflight()
    subscriptions, drafts = world.provider.subscriptions(), world.provider.invoices("draft")
    statuses = set()
    for customer in world.customers:
        own = [s for s in subscriptions if s.customer_id == customer]
        calendar = calendar_of(own, [d for d in drafts if d.customer_id == customer], meter.id, world.now)
        chosen = choose(own, meter.id)
        statuses.add(chosen and chosen.status)
        if calendar.period is not None:
            start, end = calendar.period
            assert start <= world.now < end
            assert calendar.closed(world.now) is None
        if calendar.billed_by_invoice:
            assert calendar.edges(start - timedelta(seconds=1), start + timedelta(seconds=1)) == (start,)
            upcoming = world.provider.upcoming(customer, chosen.id)
            assert upcoming is not None
            assert upcoming.amount_due is not None
    assert {"active", "past_due", "trialing", "canceled", None} <= statuses


def test_a_period_closes_when_its_invoice_becomes_final(world):
    meter = world.provider.preflight()
    customer = next(s.customer_id for s in world.provider.subscriptions() if s.status == "active" and len(s.items) == 2)

    def calendar_at(moment):
        world.switch(clock_offset_seconds=(moment - clock.now()).total_seconds())
        drafts = world.provider.invoices("draft", customer)
        return calendar_of(world.provider.subscriptions(customer), drafts, meter.id, moment)

    _, edge = calendar_at(world.now).period
    just_before = edge - timedelta(seconds=1)
    in_the_grace_period = calendar_at(edge + timedelta(minutes=30))
    assert in_the_grace_period.closed(just_before) is None
    assert in_the_grace_period.deadline == edge + timedelta(hours=1)
    assert calendar_at(edge + timedelta(minutes=55)).closed(just_before) is not None
    assert calendar_at(edge + timedelta(hours=2)).closed(just_before) is not None
    assert calendar_at(edge + timedelta(hours=2)).closed(edge) is None


def test_further_items_of_a_subscription_are_read_to_the_end(world):
    whole = world.provider.subscriptions()
    world.switch(subscription_items_page=1)
    assert world.provider.subscriptions() == whole


def test_a_deleted_customer_is_a_stub_and_an_unknown_one_is_none(world):
    world.switch(deleted_customers=[world.customers[0]])
    assert world.provider.customer(world.customers[0]).is_deleted
    assert world.provider.customer("cus_nobody") is None
