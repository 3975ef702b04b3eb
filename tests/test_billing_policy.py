"""A setting changes what comes, not what was sent: pulls under other policies, with pushes in between."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_core.pulling import book_rated
from billing_core.rating.events import Policy
from billing_core.rating.policy import fingerprint, policy_from_json, policy_json
from billing_core.usage import MetadataNames
from tests.factories import CARD, usage_table
from tests.push_world import World, at, use

HOME = Policy()
OVERRIDE = Policy("cus_c", True)
DEFAULT_B, DEFAULT_C = Policy("cus_b"), Policy("cus_c")
NOT_DEV = Policy(excluded_environments=("dev",))
OTHER_NAMES = Policy(names=MetadataNames(customer=("payer",)))
OWN_KEY_ELSEWHERE = Policy(names=MetadataNames(ai_credentials_ownership=("key",)))
POLICIES = (HOME, OVERRIDE, DEFAULT_B, DEFAULT_C, NOT_DEV, OTHER_NAMES, OWN_KEY_ELSEWHERE)
TRACES = {
    "prod": {"stripeCustomerId": "cus_a", "payer": "cus_b"},
    "dev": {"stripeCustomerId": "cus_a", "environment": "dev"},
    "nobody": {"payer": "cus_c"},
    "whole": {"stripeCustomerId": "cus_b", "payer": "cus_b", "key": "user"},
}
"""What a trace says: metadata, and the environment it ran in."""


def read(name, policy, amount="150"):
    """A trace as a pull reads it with the metadata names of `policy`."""
    said = TRACES[name]
    customer = next((said[key] for key in policy.names.customer if key in said), None)
    owner = next((said[key] for key in policy.names.ai_credentials_ownership if key in said), None)
    tokens = {"usage": [{"model": "gpt-5", "input": 100, "output": 0, "cache_read": 0, "cache_write": 0,
                         "reasoning": 0, "other": 0, "cost_usd": Decimal(0)}]}  # fmt: skip
    return use(
        name, at(0, 5), amount, customer, environment=said.get("environment", "production"),
        ai_credentials_ownership=owner, **tokens,
    )  # fmt: skip


def pull(world, policy, amounts=None, names=tuple(TRACES)):
    """Read all traces under a policy, as a pull books them."""
    rows = [read(name, policy, (amounts or {}).get(name, "150")) for name in names]
    world.ledger.register_cards([CARD], actor="tester")
    return book_rated(world.ledger, usage_table(rows), [CARD] * len(rows), policy, run_id="pull")[0]


def state(world):
    """Everything a person sees of the events."""
    names = "id, customer_id, credits_total, flags, sync_status, sync_error, marks"
    return world.rows(f"SELECT {names} FROM events ORDER BY id")


def flagged(world):
    return [row[0] for row in world.rows("SELECT id FROM events WHERE contains(marks, 'policy_differs') ORDER BY id")]


@pytest.mark.parametrize("policy", POLICIES, ids=[f"policy-{n}" for n in range(len(POLICIES))])
def test_a_policy_is_written_down_so_that_it_can_be_read_again(policy):
    assert policy_from_json(policy_json(policy)) == policy
    assert (fingerprint(policy) == fingerprint(HOME)) == (policy == HOME)


def test_an_override_without_a_default_customer_is_no_other_policy():
    assert fingerprint(Policy(None, True)) == fingerprint(HOME)
    assert fingerprint(Policy(excluded_environments=("b", "a"))) == fingerprint(
        Policy(excluded_environments=("a", "b"))
    )


def test_one_pull_with_the_override_on_moves_nothing_that_was_sent(world, stripe):
    pull(world, HOME, names=("prod", "dev", "whole"))
    world.push()
    sent = stripe.sums()
    rated = pull(world, OVERRIDE, names=("prod", "dev", "whole"))
    assert (int(rated.differs.sum()), sum(rated.at_stake.to_pylist())) == (3, Decimal(480))
    assert flagged(world) == ["dev", "prod", "whole"]
    assert {row[1] for row in state(world)} == {"cus_a", "cus_b"}
    world.push()
    assert stripe.sums() == sent
    pull(world, HOME, names=("prod", "dev", "whole"))
    assert flagged(world) == []
    world.push()
    assert stripe.sums() == sent


def test_a_wrong_excluded_environment_takes_nothing_back_and_decides_about_what_was_not_sent(world, stripe):
    pull(world, HOME, names=("dev",))
    world.push()
    pull(world, NOT_DEV, names=("dev",))
    assert state(world)[0][2] == Decimal(160)
    assert flagged(world) == ["dev"]
    world.push()
    assert stripe.sums() == {"cus_a": 160}


def test_what_was_not_sent_follows_the_settings(world, stripe):
    pull(world, NOT_DEV)
    assert [row[4] for row in state(world)] == ["excluded", "error", "pending", "pending"]
    pull(world, OVERRIDE)
    assert flagged(world) == []
    assert {row[1] for row in state(world)} == {"cus_c"}
    world.push()
    assert stripe.sums() == {"cus_c": 640}


def test_usage_that_grows_under_other_settings_is_billed_to_whom_it_was_sent(world, stripe):
    pull(world, HOME, names=("prod",))
    world.push()
    for policy in (OVERRIDE, OTHER_NAMES):
        pull(world, policy, {"prod": "250"}, names=("prod",))
        assert flagged(world) == ["prod"]
        world.push()
        assert stripe.sums() == {"cus_a": 260}


def test_a_customer_that_the_trace_itself_names_anew_is_a_change_of_the_trace_and_not_of_the_settings(world, stripe):
    pull(world, HOME, names=("prod",))
    world.push()
    row = {**read("prod", NOT_DEV), "customer_id": "cus_b"}
    book_rated(world.ledger, usage_table([row]), [CARD], NOT_DEV, run_id="pull")
    assert flagged(world) == []
    world.push()
    assert stripe.sums() == {"cus_a": 0, "cus_b": 160} or stripe.sums() == {"cus_b": 160}


def test_an_event_booked_before_policies_were_known_stays_as_it_was_sent(world, stripe):
    pull(world, HOME, names=("prod", "whole"))
    world.push()
    with world.ledger.engine.transaction() as writer:
        writer.rows("UPDATE events SET policy = NULL, named_customer_id = NULL")
    pull(world, OVERRIDE, names=("prod", "whole"))
    assert flagged(world) == ["prod", "whole"]
    world.push()
    assert stripe.sums() == {"cus_a": 160, "cus_b": 160}
    pull(world, HOME, names=("prod", "whole"))
    assert flagged(world) == []
    assert world.rows("SELECT DISTINCT policy FROM events") == [(fingerprint(HOME),)]


STEPS = st.lists(st.one_of(st.sampled_from(POLICIES), st.just("push")), min_size=1, max_size=6)


@settings(max_examples=12)
@given(steps=STEPS)
def test_no_pull_moves_what_stripe_has_and_the_first_settings_bring_everything_back(stripe_server, steps):
    """Whatever pulls come in between: of what was sent under the first policy nothing moves, and nothing stays."""
    stripe_server.reset()
    with TemporaryDirectory() as folder:
        world = World(Path(folder), stripe_server)
        try:
            pull(world, HOME)
            world.push()
            first, sent_first = state(world), stripe_server.sums()
            events_sent = {row[0] for row in first if row[4] in {"processed", "confirmed"}}
            for step in steps:
                before = bills(world)
                if step == "push":
                    world.push()
                else:
                    pull(world, step)
                    assert bills(world) == before
                    world.push()
                after = bills(world)
                assert {key: after.get(key) for key in before} == before
            pull(world, HOME)
            world.push()
            now = [row for row in state(world) if row[0] in events_sent]
            assert now == [row for row in first if row[0] in events_sent]
            if not bills(world).keys() - {
                (event, customer) for event, customer in bills(world) if event in events_sent
            }:
                assert stripe_server.sums() == sent_first
        finally:
            world.close()


def bills(world):
    """(event, customer) → credits covered by meter events that count."""
    query = """SELECT c.event_id, c.customer_id, sum(c.credits) FROM coverage c JOIN intents i USING (identifier)
               WHERE i.state NOT IN ('rejected', 'void') GROUP BY ALL HAVING sum(c.credits) <> 0"""
    return {(event, customer): amount for event, customer, amount in world.rows(query)}
