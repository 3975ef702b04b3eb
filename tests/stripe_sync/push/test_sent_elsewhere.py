"""A ledger that does not remember what was sent (restored, lost, a second copy) bills nothing twice.

`PUSHING_EXAMPLES=2000` (and `PUSHING_STEPS`) searches longer than a run of the suite does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from datetime import timedelta
from decimal import Decimal
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

from billing_core.errors import UpstreamError
from billing_core.stripe_sync.pipeline import Action
from billing_core.stripe_sync.sent_elsewhere import MEMORY
from billing_core.types import Flag, GetUsageEventsParams
from tests.factories import EVERYONE
from tests.stripe_sync.push.stripe_server import StripeServer
from tests.stripe_sync.push.test_stateful import AGES, EXAMPLES, FAULTS, PAYING, STEPS, TOKENS, UNANSWERED, WAITS
from tests.stripe_sync.push.world import FLAT, ON_THE_HOUR, START, SWITCHES, World

SUMS = "/v1/billing/meters/"
AN_HOUR_AGO = START - timedelta(hours=1)
FORGOTTEN = timedelta(hours=30)
"""By then Stripe takes an identifier it had before for a new one."""


@pytest.fixture
def world(stripe, template, tmp_path):
    """An empty ledger, and a Stripe that has received nothing; the ledger need not know of all it receives."""
    stripe.reset(START, **SWITCHES)
    made = World(template, tmp_path, stripe)
    yield made
    made.close()


def flags(world, name):
    events = world.service.get_usage_events(GetUsageEventsParams(limit=1000), EVERYONE).events
    return next(event.flags for event in events if event.id == name)


def looks(world):
    """Looks at customers' sums since the last call of this."""
    requests = world.stripe._layer.requests
    count = sum("event_summaries" in call["path"] for call in requests)
    requests.clear()
    return count


# ── a ledger that was restored or lost ───────────────────────────────────────────────────────────


@pytest.mark.parametrize("later", [timedelta(minutes=5), timedelta(hours=21), FORGOTTEN, timedelta(days=3)])
def test_a_ledger_that_is_lost_and_pulled_anew_bills_nothing_again(world, later):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=9000)
    world.push()
    world.stripe.wait(seconds=later.total_seconds())
    world.lose()
    result = world.push()
    assert (world.stripe.sums, result.newly_held) == ({FLAT: 900}, 1)
    assert world.held() == {"a": "sent_elsewhere"}
    assert Flag.SENT_ELSEWHERE in flags(world, "a")
    reason = world.events()["a"]["sync_error"]
    assert "900 credits in the hour from 2026-11-15 08:00 UTC, of which 0 are known" in reason
    assert world.push().newly_held == 0


def test_a_ledger_restored_from_yesterday_sends_only_what_nobody_sent(world):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=100)
    world.push()
    world.back_up()
    world.book("b", FLAT, AN_HOUR_AGO + timedelta(minutes=20), tokens=200)
    world.push()
    world.stripe.wait(hours=30)
    world.book("c", FLAT, world.now() - timedelta(hours=2), tokens=400)
    world.restore()
    world.push()
    assert world.stripe.sums == {FLAT: 70}
    assert world.held() == {"b": "sent_elsewhere"}


def test_a_correction_that_was_sent_before_a_backup_came_back_is_not_sent_again(world):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=100)
    world.push()
    world.back_up()
    world.book("a", FLAT, AN_HOUR_AGO, tokens=150)
    world.push()
    assert world.stripe.sums == {FLAT: 15}
    world.stripe.wait(hours=30)
    world.restore()
    world.push()
    assert (world.stripe.sums, world.held()) == ({FLAT: 15}, {"a": "sent_elsewhere"})
    assert world.events()["a"]["sync_status"] in {"processed", "confirmed"}
    assert world.decide(Action.RELEASE) == 1
    world.push()
    assert (world.stripe.sums, world.held()) == ({FLAT: 20}, {})


def test_fractions_that_the_lost_ledger_had_carried_are_not_sent_again(world):
    world.book("a", FLAT, AN_HOUR_AGO - timedelta(hours=3), tokens=107)
    world.push()
    world.back_up()
    world.book("b", FLAT, AN_HOUR_AGO, tokens=6)
    world.push()
    assert world.stripe.sums == {FLAT: 11}
    world.stripe.wait(hours=30)
    world.restore()
    world.push()
    for number, tokens in enumerate([8, 6, 3, 9, 7]):
        world.book(f"later-{number}", FLAT, world.now() - timedelta(hours=2), tokens=tokens)
        world.stripe.wait(hours=1)
        world.push()
        used = sum(usage.tokens for usage in world.usage.values())
        assert world.stripe.sums == {FLAT: used // 10}


def test_what_an_earlier_push_wrote_down_and_another_ledger_sent_is_withdrawn(world):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=100)
    world.stripe.fault("401", times=None)
    world.push()
    world.back_up()
    world.stripe.heal()
    world.push()
    world.stripe.wait(hours=30)
    world.restore()
    result = world.push()
    assert (world.stripe.sums, result.newly_held, world.held()) == ({FLAT: 10}, 1, {"a": "sent_elsewhere"})
    assert [i["state"] for i in world.intents().values()] == ["void"]


# ── what a person decides ────────────────────────────────────────────────────────────────────────


def test_what_is_released_is_sent_once_and_stays_released_until_stripe_counts_more(world):
    world.stripe.plant(FLAT, 40, AN_HOUR_AGO)
    world.book("a", FLAT, AN_HOUR_AGO, tokens=100)
    assert world.push().newly_held == 1
    world.decide(Action.RELEASE)
    assert Flag.SENT_ELSEWHERE not in flags(world, "a")
    world.push()
    world.book("b", FLAT, AN_HOUR_AGO, tokens=20)
    world.stripe.wait(hours=30)
    world.push()
    assert (world.stripe.sums, world.held()) == ({FLAT: 52}, {})
    world.stripe.plant(FLAT, 5, AN_HOUR_AGO)
    world.stripe.wait(hours=30)
    world.book("c", FLAT, AN_HOUR_AGO, tokens=30)
    world.push()
    assert (world.stripe.sums, world.held()) == ({FLAT: 57}, {"c": "sent_elsewhere"})


def test_while_some_of_it_is_kept_back_late_usage_waits_with_it(world):
    world.stripe.plant(FLAT, 40, AN_HOUR_AGO)
    world.book("a", FLAT, AN_HOUR_AGO, tokens=100)
    world.push()
    world.book("late", FLAT, AN_HOUR_AGO - timedelta(hours=5), tokens=30)
    world.push()
    assert world.held() == {"a": "sent_elsewhere", "late": "sent_elsewhere"}
    assert world.stripe.sums == {FLAT: 40}


def test_usage_after_the_hour_and_of_other_customers_is_sent(world):
    world.stripe.plant(FLAT, 40, AN_HOUR_AGO - timedelta(hours=2))
    world.book("a", FLAT, AN_HOUR_AGO - timedelta(hours=2), tokens=100)
    world.book("b", FLAT, AN_HOUR_AGO, tokens=50)
    world.book("c", ON_THE_HOUR, AN_HOUR_AGO - timedelta(hours=2), tokens=20)
    world.push()
    assert world.stripe.sums == {FLAT: 45, ON_THE_HOUR: 2}


# ── what it costs to ask, and what happens when nobody answers ───────────────────────────────────


def test_the_first_push_of_a_new_ledger_asks_once_per_customer_and_sends_everything(world):
    for hour in range(24 * 12):
        world.book(f"a{hour}", FLAT, AN_HOUR_AGO - timedelta(hours=hour), tokens=20)
    looks(world)
    result = world.push()
    assert (result.sent, result.newly_held) == (24 * 12, 0)
    before_sending, confirming = 1, 3  # pages of a hundred hours
    assert looks(world) == before_sending + confirming


def test_nothing_is_sent_for_a_customer_whose_sums_cannot_be_read_and_everything_for_the_others(world):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=100)
    world.book("b", ON_THE_HOUR, AN_HOUR_AGO, tokens=50)
    world.stripe.fault("503", SUMS, times=None, body_contains=FLAT)
    with pytest.raises(UpstreamError, match=f"nothing was sent for {FLAT} into hours that Stripe may count already"):
        world.service.stripe.push(EVERYONE)
    assert world.stripe.sums == {ON_THE_HOUR: 5}
    world.stripe.heal()
    world.push()
    assert world.stripe.sums == {FLAT: 10, ON_THE_HOUR: 5}


def test_hours_this_ledger_sent_into_lately_are_not_asked_about(world):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=100)
    world.push()
    world.book("a", FLAT, AN_HOUR_AGO, tokens=150)
    looks(world)
    world.push()
    assert looks(world) == 0
    world.stripe.wait(seconds=MEMORY.total_seconds())
    world.book("a", FLAT, AN_HOUR_AGO, tokens=170)
    world.push()
    assert looks(world) >= 1
    assert world.stripe.sums == {FLAT: 17}


# ── identifiers that Stripe had before ───────────────────────────────────────────────────────────


def other_copy_sends(world, tokens, *, value):
    """Another copy of the ledger has sent the hour's first meter event, with a value of its own; nobody sees it yet."""
    world.book("a", FLAT, AN_HOUR_AGO, tokens=tokens)
    (request,) = world.service.stripe.push(EVERYONE, dry_run=True).requests
    world.stripe.plant(FLAT, value, AN_HOUR_AGO, identifier=request["idempotency_key"])
    world.stripe.switch(summary_lag_seconds=3600)
    assert world.push().credits_sent == 0
    assert world.events()["a"]["sync_status"] == "sending"
    world.stripe.switch(summary_lag_seconds=0)


def test_a_duplicate_nobody_here_sent_is_a_delivery_once_the_sum_is_what_was_to_be_sent(world):
    other_copy_sends(world, 1500, value=150)
    result = world.push()
    assert (result.duplicates, result.credits_sent, result.unknown) == (1, 150, 0)
    assert world.events()["a"]["sync_status"] == "confirmed"
    assert world.stripe.sums == {FLAT: 150}


def test_a_duplicate_with_another_value_is_named_with_both_figures_and_not_delivered(world):
    other_copy_sends(world, 1500, value=100)
    result = world.push()
    assert (result.duplicates, result.credits_sent, result.newly_held) == (0, 0, 1)
    assert "Stripe counts 100 credits in the hour from 2026-11-15 08:00 UTC, of which 0 are known" in result.failures[0]
    assert world.held() == {"a": "sent_elsewhere"}
    assert world.push().newly_held == 0
    world.decide(Action.RELEASE)
    world.push()
    assert world.stripe.sums == {FLAT: 250}


def test_while_the_sum_may_lag_a_duplicate_nobody_here_sent_is_neither_delivered_nor_sent_again(world):
    other_copy_sends(world, 1500, value=100)
    world.stripe.switch(summary_lag_seconds=6 * 3600)
    result = world.push()
    assert (result.unknown, len(result.problems)) == (1, 1)
    assert "before 150 credits were sent from here" in result.problems[0]
    assert len(world.stripe.received) == 1


def test_what_stripe_had_and_does_not_count_is_sent_under_an_identifier_of_its_own(world):
    other_copy_sends(world, 1500, value=100)
    world.stripe.account.book.drop(world.stripe.received[0])
    world.stripe.wait(hours=5)
    world.push()
    world.push()
    assert world.stripe.sums == {FLAT: 150}


def test_an_identifier_that_stripe_knows_with_other_bytes_is_looked_into_before_a_retry_sends(world):
    world.book("a", FLAT, AN_HOUR_AGO, tokens=1000)
    world.back_up()
    world.push()
    world.restore()
    world.book("a", FLAT, AN_HOUR_AGO, tokens=1500)
    world.stripe.switch(summary_lag_seconds=6 * 3600)
    assert world.push().rejected == 1  # the idempotency key had another body
    for _ in range(3):
        world.decide(Action.RETRY)
        world.push()
    assert (world.stripe.sums, world.held()) == ({FLAT: 100}, {"a": "sent_elsewhere"})


# ── whatever happens ─────────────────────────────────────────────────────────────────────────────


class Forgetting(RuleBasedStateMachine):
    """Usage comes and grows, pushes succeed, fail and die, time passes; and the ledger is restored from an old copy, or
    lost and pulled anew."""

    stripe: StripeServer
    template: Path
    environment: dict[str, str]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="forgetting-"))
        self.stripe.reset(START, **SWITCHES)
        self.world = World(self.template, self.folder, self.stripe, **self.environment)
        self.names = 0

    @initialize(ages=st.lists(AGES, max_size=4), customer=PAYING)
    def start_with_usage(self, ages, customer):
        for age in ages:
            self._use(customer, age, 7)

    @rule(customer=PAYING, age=AGES, tokens=TOKENS)
    def use(self, customer, age, tokens):
        self._use(customer, age, tokens)

    @rule(customer=PAYING, ages=st.lists(AGES, min_size=2, max_size=5), tokens=TOKENS)
    def use_often(self, customer, ages, tokens):
        for age in ages:
            self._use(customer, age, tokens)

    def _use(self, customer, age, tokens):
        self.names += 1
        self.world.book(f"trace-{self.names}", customer, self.stripe.now - age, tokens, as_pulled=True)

    @precondition(lambda self: self.world.usage)
    @rule(data=st.data(), tokens=TOKENS)
    def grow(self, data, tokens):
        name = data.draw(st.sampled_from(sorted(self.world.usage)))
        usage = self.world.usage[name]
        self.world.book(name, usage.customer, usage.timestamp, usage.tokens + tokens, as_pulled=True)

    @rule()
    def push(self):
        self.world.push()

    @rule(faults=st.lists(st.tuples(FAULTS, st.integers(1, 3)), min_size=1, max_size=2), customer=PAYING)
    def push_while_sending_fails(self, faults, customer):
        self._use(customer, timedelta(minutes=40), 35)
        for kind, times in faults:
            self.stripe.fault(kind, times=times)
        self.world.push()
        self.stripe.heal()

    @rule(kind=UNANSWERED, customer=PAYING, times=st.sampled_from([2, 4, None]), then=WAITS)
    def push_without_an_answer(self, kind, customer, times, then):
        self._use(customer, timedelta(minutes=40), 35)
        self.stripe.fault(kind, times=times)
        self.world.push()
        self.stripe.heal()
        self.stripe.now += then

    @rule(times=st.sampled_from([2, None]))
    def push_while_sums_cannot_be_read(self, times):
        self.stripe.fault("503", SUMS, times=times)
        self.world.push()
        self.stripe.heal()

    @rule(sends=st.integers(0, 3), steps=st.sampled_from([0, 0, 1, 2, 4, 7, 10, 12]), customer=PAYING, then=WAITS)
    def push_and_die(self, sends, steps, customer, then):
        self._use(customer, timedelta(minutes=40), 35)
        self.world.push_and_die(steps, after_sends=sends)
        self.stripe.now += then

    @rule()
    def back_up(self):
        self.world.back_up()

    @rule(then=WAITS)
    def restore(self, then):
        self.world.restore()
        self.stripe.now += then

    @rule(then=WAITS)
    def lose_the_ledger_and_pull_anew(self, then):
        self.world.lose()
        self.stripe.now += then

    @rule()
    def retry(self):
        self.world.decide(Action.RETRY)

    @rule(duration=WAITS)
    def wait(self, duration):
        self.stripe.now += duration

    @invariant()
    def stripe_never_counts_more_than_was_used(self):
        used: dict[str, int] = defaultdict(int)
        for usage in self.world.usage.values():
            used[usage.customer] += usage.tokens
        for customer, counted in self.stripe.sums.items():
            assert counted <= Decimal(used[customer] // 10), f"{customer} used {used[customer] / 10}, billed {counted}"

    def teardown(self) -> None:
        try:
            self.world.come_to_rest()
            self.stripe_never_counts_more_than_was_used()
            self._everything_is_sent_or_kept_back()
        finally:
            self.world.close()
            shutil.rmtree(self.folder)

    def _everything_is_sent_or_kept_back(self):
        """Nothing is lost: what is not at Stripe has a reason."""
        for name, event in self.world.events().items():
            if event["sync_status"] == "pending":
                assert name in self.world.held() or "carried" in event["marks"], event


@pytest.mark.timeout(0 if "PUSHING_EXAMPLES" in os.environ else 180)
@pytest.mark.parametrize("granularity", ["hour", "event"])
def test_stripe_never_counts_more_than_was_used_whatever_the_ledger_forgets(stripe, template, granularity):
    machine = type(
        "Forgetting", (Forgetting,),
        {"stripe": stripe, "template": template, "environment": {"BILLING_PUSH_GRANULARITY": granularity}},
    )  # fmt: skip
    profile = settings(
        max_examples=EXAMPLES, stateful_step_count=STEPS, derandomize=EXAMPLES <= 100, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), print_blob=False,
        phases=[Phase.generate, Phase.shrink] if os.environ.get("PUSHING_SHRINK") == "1" else [Phase.generate],
    )  # fmt: skip
    run_state_machine_as_test(machine, settings=profile)
