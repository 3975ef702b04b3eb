"""Whatever happens in whatever order, Stripe counts what the ledger says was sent, and that is what is owed.

`PUSHING_EXAMPLES=2000` (and `PUSHING_STEPS`) searches longer than a run of the suite does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from billing_core.stripe_sync.pipeline import Action
from tests.examples import examples
from tests.stripe_sync.push.stripe_server import StripeServer, at
from tests.stripe_sync.push.world import FLAT, HALF_PAST, ON_THE_HOUR, START, SWITCHES, World

EXAMPLES = int(os.environ.get("PUSHING_EXAMPLES", examples(12)))
STEPS = int(os.environ.get("PUSHING_STEPS", "25"))

WHO = st.sampled_from([HALF_PAST, HALF_PAST, ON_THE_HOUR, FLAT, "cus_unknown", None])
PAYING = st.sampled_from([HALF_PAST, ON_THE_HOUR, FLAT])
TOKENS = st.one_of(st.integers(1, 12), st.integers(1, 400))
MICROSECONDS = st.sampled_from([0, 0, 1, 40_000, 1_234_567, 120_000_000])
AGES = st.one_of(
    st.integers(0, 3 * 3600).map(lambda seconds: timedelta(seconds=seconds)),
    st.integers(0, 3 * 24).map(lambda hours: timedelta(hours=hours)),
    st.sampled_from([timedelta(days=34, hours=23, minutes=50), timedelta(days=36), timedelta(days=20)]),
)
WAITS = st.sampled_from(
    [
        timedelta(minutes=1), timedelta(minutes=20), timedelta(minutes=35), timedelta(hours=1), timedelta(hours=3),
        timedelta(hours=19, minutes=50), timedelta(hours=21), timedelta(hours=26), timedelta(days=2),
    ]
)  # fmt: skip
UNANSWERED = st.sampled_from(["after_success_cut", "after_success_500", "reset", "504_html", "500_timeout"])
FAULTS = st.sampled_from(["429", "html", "409", "cut", "broken_json", "401", "after_success_500", "reset"])
READS = st.sampled_from(
    ["/v1/billing/meters", "/v1/subscriptions", "/v1/invoices", "/v1/customers", "/v2/core/events"]
)  # fmt: skip


class Pushing(RuleBasedStateMachine):
    """Usage comes and changes, who pays for it too; pushes succeed, fail and die, time passes."""

    stripe: StripeServer
    template: Path
    environment: dict[str, str]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="pushing-"))
        self.stripe.reset(START, **SWITCHES)
        self.world = World(self.template, self.folder, self.stripe, **self.environment)
        self.names = 0

    # ── usage ────────────────────────────────────────────────────────────────────────────────────

    @initialize(ages=st.lists(AGES, max_size=4), customer=PAYING)
    def start_with_usage(self, ages, customer):
        for age in ages:
            self._book_new(customer, age, 7, 0)

    @rule(customer=WHO, age=AGES, tokens=TOKENS, microseconds=MICROSECONDS)
    def use(self, customer, age, tokens, microseconds):
        self._book_new(customer, age, tokens, microseconds)

    @rule(customer=PAYING, ages=st.lists(AGES, min_size=2, max_size=5), tokens=TOKENS)
    def use_often(self, customer, ages, tokens):
        for age in ages:
            self._book_new(customer, age, tokens, 0)

    @rule(customer=PAYING, tokens=TOKENS, microseconds=st.sampled_from([-1_000_000, -1, 0, 1, 600_000_000]))
    def use_around_the_edge_of_the_period(self, customer, tokens, microseconds):
        edge = at("2026-11-16T00:00:00") if customer == ON_THE_HOUR else at("2026-11-15T10:20:30")
        time = edge + timedelta(microseconds=microseconds)
        if time <= self.stripe.now:
            self._book_new(customer, self.stripe.now - time, tokens, 0)

    def _book_new(self, customer, age, tokens, microseconds):
        self.names += 1
        self.world.book(f"trace-{self.names}", customer, self.stripe.now - age, tokens, microseconds, as_pulled=True)

    @precondition(lambda self: self.world.usage)
    @rule(data=st.data(), tokens=st.one_of(st.just(0), TOKENS))
    def grow_or_shrink(self, data, tokens):
        name, usage = self._one(data)
        self.world.book(name, usage.customer, usage.timestamp, tokens, 0, as_pulled=True)

    @precondition(lambda self: self.world.usage)
    @rule(data=st.data(), customer=WHO)
    def change_customer(self, data, customer):
        name, usage = self._one(data)
        self.world.book(name, customer, usage.timestamp, usage.tokens, usage.microseconds)

    @precondition(lambda self: self.world.usage)
    @rule(data=st.data(), age=AGES, customer=WHO)
    def change_time(self, data, age, customer):
        name, usage = self._one(data)
        self.world.book(name, customer, self.stripe.now - age, usage.tokens + 1, usage.microseconds)

    def _one(self, data):
        name = data.draw(st.sampled_from(sorted(self.world.usage)))
        return name, self.world.usage[name]

    # ── pushes ───────────────────────────────────────────────────────────────────────────────────

    def _something_to_send(self, customer):
        self._book_new(customer, timedelta(minutes=40), 35, 0)

    @rule()
    def push(self):
        self.world.push()

    @rule(faults=st.lists(st.tuples(FAULTS, st.integers(1, 3)), min_size=1, max_size=3), customer=PAYING)
    def push_while_sending_fails(self, faults, customer):
        self._something_to_send(customer)
        for kind, times in faults:
            self.stripe.fault(kind, times=times)
        self.world.push()
        self.stripe.heal()

    @rule(kind=UNANSWERED, customer=PAYING, times=st.sampled_from([2, 4, None]), then=WAITS)
    def push_without_an_answer(self, kind, customer, times, then):
        self._something_to_send(customer)
        self.stripe.fault(kind, times=times)
        self.world.push()
        self.stripe.heal()
        self.world.check_always()
        self.stripe.now += then

    @rule(path=READS, kind=st.sampled_from(["503", "html", "403", "reset"]))
    def push_while_reading_fails(self, path, kind):
        self.stripe.fault(kind, path, times=None)
        self.world.push()
        self.stripe.heal()

    @rule(sends=st.integers(0, 3), steps=st.sampled_from([0, 0, 0, 1, 2, 4, 7, 10, 12]), customer=PAYING, then=WAITS)
    def push_and_die(self, sends, steps, customer, then):
        self._something_to_send(customer)
        self.world.push_and_die(steps, after_sends=sends)
        self.world.check_always()
        self.stripe.now += then

    @rule(customer=PAYING, delay=st.sampled_from([0.0, 60.0, 7200.0]), steps=st.integers(3, 10))
    def push_what_stripe_takes_back_later(self, customer, delay, steps):
        self._something_to_send(customer)
        self.stripe.switch(async_errors={customer: "meter_event_invalid_value"}, async_error_delay_seconds=delay)
        self.world.push()
        self.stripe.switch(async_errors={})
        self.stripe.wait(seconds=delay)
        self.world.push_and_die(steps)

    # ── people ───────────────────────────────────────────────────────────────────────────────────

    @rule(customer=st.sampled_from([HALF_PAST, ON_THE_HOUR, "cus_unknown", None]))
    def map_organization(self, customer):
        self.world.map_to(customer)

    @rule(action=st.sampled_from(Action), customer=PAYING)
    def decide(self, action, customer):
        self.world.decide(action, customer)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────

    @rule(duration=WAITS)
    def wait(self, duration):
        self.stripe.now += duration

    @rule(seconds=st.sampled_from([0.0, 600.0, 3600.0]))
    def summaries_lag(self, seconds):
        self.stripe.switch(summary_lag_seconds=seconds)

    # ── truth ────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def stripe_counts_what_the_ledger_says(self):
        self.world.check_always()
        self.world.check_nothing_came_too_late()

    def teardown(self) -> None:
        try:
            self.world.come_to_rest()
            self.world.check_always()
            self.world.check_quiet()
            self.world.decide(Action.RELEASE)
            self.world.decide(Action.RETRY)
            self.world.push()
            self.world.come_to_rest()
            self.world.check_always()
            self.world.check_quiet()
        finally:
            self.world.close()
            shutil.rmtree(self.folder)


@pytest.mark.timeout(0 if "PUSHING_EXAMPLES" in os.environ else 180)
@pytest.mark.parametrize("granularity", ["hour", "event"])
def test_stripe_counts_what_is_owed_whatever_happens(stripe, template, granularity):
    machine = type(
        "Pushing", (Pushing,),
        {"stripe": stripe, "template": template, "environment": {"BILLING_PUSH_GRANULARITY": granularity}},
    )  # fmt: skip
    profile = settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, derandomize=EXAMPLES <= 100, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), print_blob=False,
        phases=[Phase.generate, Phase.shrink] if os.environ.get("PUSHING_SHRINK") == "1" else [Phase.generate],
    )  # fmt: skip
    run_state_machine_as_test(machine, settings=profile)
