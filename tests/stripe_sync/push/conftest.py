"""Stripe on a clock of the test's own, and ledgers to push from."""

from __future__ import annotations

import pytest

from tests.stripe_sync.push.stripe_server import serving
from tests.stripe_sync.push.world import START, SWITCHES, World, template_at


@pytest.fixture(scope="module")
def stripe():
    with serving(START) as running:
        yield running


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return template_at(tmp_path_factory.mktemp("pushing") / "empty.duckdb")


@pytest.fixture
def world(stripe, template, tmp_path):
    """An empty ledger, and a Stripe that has received nothing."""
    stripe.reset(START, **SWITCHES)
    made = World(template, tmp_path, stripe)
    yield made
    made.check_always()
    made.check_nothing_came_too_late()
    made.close()
