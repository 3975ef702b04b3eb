"""What every state machine over a push does: usage comes, pushes succeed, fail and die, time passes.

`PUSHING_EXAMPLES=2000` (and `PUSHING_STEPS`) searches longer than a run of the suite does, `PUSHING_SHRINK=1` for the
shortest history that goes wrong.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.examples import examples
from tests.stripe_sync.push.stripe_server import StripeServer
from tests.stripe_sync.push.world import FLAT, HALF_PAST, ON_THE_HOUR, START, SWITCHES, World

EXAMPLES = int(os.environ.get("PUSHING_EXAMPLES", examples(5)))
STEPS = int(os.environ.get("PUSHING_STEPS", "25"))
TIMEOUT = 0 if "PUSHING_EXAMPLES" in os.environ else 600

WHO = st.sampled_from([HALF_PAST, HALF_PAST, ON_THE_HOUR, FLAT, "cus_unknown", None])
PAYING = st.sampled_from([HALF_PAST, ON_THE_HOUR, FLAT])
TOKENS = st.one_of(st.integers(1, 12), st.integers(1, 400))
MICROSECONDS = st.sampled_from([0, 0, 1, 40_000, 1_234_567, 120_000_000])
RECENT = st.one_of(
    st.integers(0, 3 * 3600).map(lambda seconds: timedelta(seconds=seconds)),
    st.integers(0, 3 * 24).map(lambda hours: timedelta(hours=hours)),
)
AGES = st.one_of(
    RECENT, st.sampled_from([timedelta(days=34, hours=23, minutes=50), timedelta(days=36), timedelta(days=20)])
)
WAITS = st.sampled_from(
    [
        timedelta(minutes=1),
        timedelta(minutes=20),
        timedelta(minutes=35),
        timedelta(hours=1),
        timedelta(hours=3),
        timedelta(hours=19, minutes=50),
        timedelta(hours=21),
        timedelta(hours=26),
        timedelta(days=2),
    ]
)
UNANSWERED = st.sampled_from(["after_success_cut", "after_success_500", "reset", "504_html", "500_timeout"])
FAULTS = st.sampled_from(["429", "html", "409", "cut", "broken_json", "401", "after_success_500", "reset"])


class Machine(RuleBasedStateMachine):
    """A ledger, a Stripe and a clock, and what happens to them; what has to be true is each test's own."""

    stripe: StripeServer
    template: Path
    environment: dict[str, str]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="pushing-"))
        self.stripe.reset(START, **SWITCHES)
        self.world = World(self.template, self.folder, self.stripe, **self.environment)
        self.names = 0

    def close(self) -> None:
        """Leave nothing behind."""
        self.world.close()
        shutil.rmtree(self.folder)

    # ── usage ────────────────────────────────────────────────────────────────────────────────────

    def book_new(self, customer: str | None, age: timedelta, tokens: int, microseconds: int = 0) -> None:
        """Usage that began so long ago."""
        self.names += 1
        time = self.stripe.now - age
        self.world.book(f"trace-{self.names}", customer, time, tokens, microseconds, as_pulled=True)

    def something_to_send(self, customer: str | None) -> None:
        """Settled usage of whole credits."""
        self.book_new(customer, timedelta(minutes=40), 35)

    def one(self, data: Any) -> tuple[str, Any]:
        """Any usage there is, and its name."""
        name = data.draw(st.sampled_from(sorted(self.world.usage)))
        return name, self.world.usage[name]

    @initialize(ages=st.lists(AGES, max_size=4), customer=PAYING)
    def start_with_usage(self, ages: list[timedelta], customer: str) -> None:
        for age in ages:
            self.book_new(customer, age, 7)

    @rule(customer=PAYING, ages=st.lists(AGES, min_size=2, max_size=5), tokens=TOKENS)
    def use_often(self, customer: str, ages: list[timedelta], tokens: int) -> None:
        for age in ages:
            self.book_new(customer, age, tokens)

    # ── pushes ───────────────────────────────────────────────────────────────────────────────────

    @rule()
    def push(self) -> None:
        self.world.push()

    @rule(faults=st.lists(st.tuples(FAULTS, st.integers(1, 3)), min_size=1, max_size=3), customer=PAYING)
    def push_while_sending_fails(self, faults: list[tuple[str, int]], customer: str) -> None:
        self.something_to_send(customer)
        for kind, times in faults:
            self.stripe.fault(kind, times=times)
        self.world.push()
        self.stripe.heal()

    @rule(kind=UNANSWERED, customer=PAYING, times=st.sampled_from([2, 4, None]), then=WAITS)
    def push_without_an_answer(self, kind: str, customer: str, times: int | None, then: timedelta) -> None:
        self.something_to_send(customer)
        self.stripe.fault(kind, times=times)
        self.world.push()
        self.stripe.heal()
        self.later(then)

    @rule(sends=st.integers(0, 3), steps=st.sampled_from([0, 0, 0, 1, 2, 4, 7, 10, 12]), customer=PAYING, then=WAITS)
    def push_and_die(self, sends: int, steps: int, customer: str, then: timedelta) -> None:
        self.something_to_send(customer)
        self.world.push_and_die(steps, after_sends=sends)
        self.later(then)

    # ── time ─────────────────────────────────────────────────────────────────────────────────────

    @rule(duration=WAITS)
    def wait(self, duration: timedelta) -> None:
        self.later(duration)

    def later(self, duration: timedelta) -> None:
        """Let time pass."""
        self.stripe.now += duration


def search(kind: type[Machine], stripe: StripeServer, template: Path, granularity: str) -> None:
    """Run a state machine over many histories."""
    parts = {"stripe": stripe, "template": template, "environment": {"BILLING_PUSH_GRANULARITY": granularity}}
    profile = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        derandomize=EXAMPLES <= 100,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        phases=[Phase.generate, Phase.shrink] if os.environ.get("PUSHING_SHRINK") == "1" else [Phase.generate],
    )
    run_state_machine_as_test(type(kind.__name__, (kind,), parts), settings=profile)
