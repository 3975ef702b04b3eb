"""A settlement, and its being taken back, killed at any moment: one item for each, or none, and it is known which."""

import shutil
import signal
from datetime import timedelta
from itertools import count

import msgspec
import pytest

from billing_core.stripe_sync.settlement_rules import SettlementKind
from tests.factories import EVERYONE
from tests.stripe_sync.push import kill_at_step
from tests.stripe_sync.push.kill_at_step import start
from tests.stripe_sync.push.world import HALF_PAST, ON_THE_HOUR, SWITCHES, World
from tests.stripe_sync.push.world import START as NOW

PATIENCE_SECONDS = 60
OLD = NOW - timedelta(days=40)
NAMES = ("one", "two")

pytestmark = pytest.mark.timeout(900)  # a process for each step: slow on a machine that is busy


@pytest.fixture(scope="module")
def stuck(stripe, template, tmp_path_factory):
    """A ledger with usage of two customers that is too old, worth 4 and 8 USD; and the usage."""
    stripe.reset(NOW, **SWITCHES)
    world = World(template, tmp_path_factory.mktemp("stuck"), stripe)
    world.book("one", HALF_PAST, OLD, tokens=1_000_000)
    world.book("two", ON_THE_HOUR, OLD, tokens=2_000_000)
    world.push()
    world.close()
    return world.settings.warehouse_path, world.usage


@pytest.fixture(scope="module")
def settled(stripe, stuck, tmp_path_factory):
    """That ledger with both on invoices; the usage, and Stripe's items."""
    world = world_as(*stuck, [], tmp_path_factory.mktemp("settled"), stripe)
    world.settle(SettlementKind.INVOICE_ITEM)
    world.close()
    return world.settings.warehouse_path, world.usage, list(stripe.account.book.items.values())


def world_as(ledger, usage, items, folder, stripe):
    stripe.reset(NOW, **SWITCHES)
    for item in items:
        stripe.account.book.add_item(msgspec.structs.replace(item))
    folder.mkdir(exist_ok=True)
    world = World(ledger, folder, stripe)
    world.usage = dict(usage)
    return world


def there(world):
    return sorted(
        (item.customer, item.amount) for item in world.stripe.account.book.items.values() if not item.is_deleted
    )


BOTH = sorted([(HALF_PAST, 400), (ON_THE_HOUR, 800)])


@pytest.mark.parametrize("then", ["push", "settle", "push much later"])
def test_a_settlement_killed_at_any_step_is_finished_by_what_comes_next(stripe, stuck, tmp_path, then):
    for step in count(0 if then == "push" else 2, 1 if then == "push" else 3):
        folder = tmp_path / f"killed-at-{step}"
        world = world_as(*stuck, [], folder, stripe)
        process = start(kill_at_step.settle, world.environment, NOW, step, NAMES)
        process.join(PATIENCE_SECONDS)
        world.check_always()
        begun = {row["customer_id"] for row in world.settlements().values()}
        world.stripe.wait(hours=30 if then == "push much later" else 1)
        if then != "settle":
            assert world.push().problems == ()
            assert {customer for customer, _ in there(world)} == begun, "what was begun is there, nothing else"
            world.check_always()
        world.settle(SettlementKind.INVOICE_ITEM)
        world.check_always()
        world.check_quiet()
        assert there(world) == BOTH, f"killed at step {step}"
        assert {event["sync_status"] for event in world.events().values()} <= {"processed", "confirmed"}
        world.close()
        shutil.rmtree(folder)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert step > 6, "it was killed at fewer steps than it has"


@pytest.mark.parametrize("then", ["push", "take back"])
def test_taking_back_killed_at_any_step_is_finished_by_what_comes_next(stripe, settled, tmp_path, then):
    ledger, usage, items = settled
    for step in count(0 if then == "push" else 1, 1 if then == "push" else 2):
        folder = tmp_path / f"killed-at-{step}"
        world = world_as(ledger, usage, items, folder, stripe)
        ids = sorted(world.settlements())
        process = start(kill_at_step.take_back, world.environment, NOW, step, ids)
        process.join(PATIENCE_SECONDS)
        world.check_always()
        if then == "push":
            assert world.push().problems == ()
            world.check_always()
            assert not {"sending", "taking_back"} & {row["state"] for row in world.settlements().values()}
        for one in ids:
            world.service.stripe.take_back(EVERYONE, one, reason="a test")
        world.check_always()
        world.push()
        world.check_quiet()
        assert there(world) == []
        assert {event["sync_status"] for event in world.events().values()} == {"error"}
        assert set(world.held().values()) == {"too_old"}
        world.close()
        shutil.rmtree(folder)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert step > 4, "it was killed at fewer steps than it has"
