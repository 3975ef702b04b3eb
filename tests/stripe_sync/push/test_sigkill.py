"""A pusher that is killed at any moment, and two pushers at the same time: nothing is sent twice, nothing is lost."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from itertools import count

import msgspec
import pytest

from tests.factories import EVERYONE
from tests.stripe_sync.push.kill_at_step import PROCESSES, start_push
from tests.stripe_sync.push.stripe_server import serving
from tests.stripe_sync.push.world import HALF_PAST, ON_THE_HOUR, SWITCHES, World
from tests.stripe_sync.push.world import START as NOW

WORKERS = 2
PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def servers():
    with serving(NOW) as first, serving(NOW) as second:
        yield first, second


@pytest.fixture(scope="module")
def before(servers, template, tmp_path_factory):
    """A ledger with 10 credits sent that have grown to 15.5, and 7.2 that are new; what Stripe has; the usage."""
    folder = tmp_path_factory.mktemp("before")
    stripe = servers[0]
    stripe.reset(NOW, **SWITCHES)
    world = World(template, folder, stripe)
    world.book("sent", HALF_PAST, NOW - timedelta(hours=5), tokens=100)
    world.push()
    world.book("sent", HALF_PAST, NOW - timedelta(hours=5), tokens=155)
    world.book("new", HALF_PAST, NOW - timedelta(hours=3), tokens=52)
    world.book("other", ON_THE_HOUR, NOW - timedelta(hours=3), tokens=20)
    world.close()
    return world.settings.warehouse_path, list(stripe.received), world.usage


def world_as(before, folder, stripe):
    """That ledger once more, with a Stripe as it was."""
    ledger, received, usage = before
    stripe.reset(NOW, **SWITCHES)
    for event in received:
        stripe.account.book.add(msgspec.structs.replace(event))
    folder.mkdir()
    world = World(ledger, folder, stripe)
    world.usage = dict(usage)
    return world


def must_not_wait():
    raise AssertionError("the push waited for one that is dead")


def test_a_pusher_killed_at_any_step_leaves_a_push_that_the_next_one_continues(servers, before, tmp_path):
    def kill_at_every_other_step(worker):
        for step in count(worker, WORKERS):
            world = world_as(before, tmp_path / f"killed-at-{step}", servers[worker])
            process = start_push(world.environment, NOW, kill_at=step)
            process.join(PATIENCE_SECONDS)
            world.check_always()
            world.stripe.wait(hours=1)  # between two looks at a customer
            world.service.stripe.push(EVERYONE, on_wait=must_not_wait)
            world.check_always()
            world.check_quiet()
            assert world.stripe.sums == {HALF_PAST: Decimal(20), ON_THE_HOUR: Decimal(2)}, f"killed at step {step}"
            assert all(intent["state"] == "confirmed" for intent in world.intents().values())
            world.close()
            if process.exitcode == 0:
                return step
            assert process.exitcode == -signal.SIGKILL
        raise AssertionError

    with ThreadPoolExecutor(WORKERS) as workers:
        steps = list(workers.map(kill_at_every_other_step, range(WORKERS)))
    assert min(steps) > 15, "the push was killed at fewer steps than it has"


@pytest.mark.parametrize("kill_at", [6, 12])
@pytest.mark.parametrize("goes_on_with", ["nothing", "an old copy"])
def test_what_a_killed_push_sent_is_not_sent_again_by_a_ledger_that_was_lost_with_it(
    servers, before, tmp_path, kill_at, goes_on_with
):
    world = world_as(before, tmp_path / "killed", servers[0])
    if goes_on_with == "an old copy":
        world.back_up()
    start_push(world.environment, NOW, kill_at=kill_at).join(PATIENCE_SECONDS)
    world.stripe.wait(hours=30)
    world.lose() if goes_on_with == "nothing" else world.restore()
    world.push()
    assert world.stripe.sums[HALF_PAST] <= Decimal(20)
    assert world.stripe.sums.get(ON_THE_HOUR, 0) <= Decimal(2)
    unsent = [event for event in world.events().values() if event["sync_status"] in {"pending", "processed"}]
    assert all(event["sync_error"] for event in unsent if "sent_elsewhere" in event["marks"])
    world.close()


def test_a_push_that_starts_during_another_waits_and_sends_nothing_twice(servers, before, tmp_path):
    world = world_as(before, tmp_path / "two", servers[0])
    world.stripe.close_the_gate()
    told, tell = PROCESSES.Pipe(duplex=False)
    try:
        first = start_push(world.environment, NOW)
        assert world.stripe.knocked.wait(PATIENCE_SECONDS)
        second = start_push(world.environment, NOW, waiting=tell)
        assert told.poll(PATIENCE_SECONDS)
        assert world.service.stripe.is_pushing()
    finally:
        world.stripe.open_the_gate()
    for process in (first, second):
        process.join(PATIENCE_SECONDS)
        assert process.exitcode == 0
    world.check_always()
    world.check_quiet()
    assert world.stripe.sums == {HALF_PAST: Decimal(20), ON_THE_HOUR: Decimal(2)}
    assert [run.outcome for run in world.service.stripe.pushes(EVERYONE)] == ["done"] * 3
    sent = [run.result["sent"] for run in world.service.stripe.pushes(EVERYONE)]
    assert sorted(sent) == [0, 1, 3]
    world.close()
