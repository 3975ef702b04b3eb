"""A setting changes what comes, not what was sent: pulls under other policies, with pushes in between."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing_core.ingest.pull import book_rated
from billing_core.rating.events import Policy
from billing_core.rating.policy import fingerprint, policy_from_json, policy_json
from billing_core.values.usage_frame import MetadataNames
from tests.examples import examples
from tests.factories import CARD, EVERYONE, usage_table
from tests.langfuse.fake import PUBLIC_KEY, SECRET_KEY, FakeLangfuse, observation
from tests.stripe_sync.push_world import World, at, use

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
    tokens = {
        "usage": [
            {
                "model": "gpt-5",
                "input": 100,
                "output": 0,
                "cache_read": 0,
                "cache_write": 0,
                "reasoning": 0,
                "other": 0,
                "cost_usd": Decimal(0),
            }
        ]
    }
    return use(
        name,
        at(0, 5),
        amount,
        customer,
        environment=said.get("environment", "production"),
        ai_credentials_ownership=owner,
        **tokens,
    )


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


@settings(max_examples=examples(8))
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
            if all(event in events_sent for event, _ in bills(world)):
                assert stripe_server.sums() == sent_first
        finally:
            world.close()


def bills(world):
    """(event, customer) → credits covered by meter events that count."""
    query = """SELECT c.event_id, c.customer_id, sum(c.credits) FROM coverage c JOIN intents i USING (identifier)
               WHERE i.state NOT IN ('rejected', 'void') GROUP BY ALL HAVING sum(c.credits) <> 0"""
    return {(event, customer): amount for event, customer, amount in world.rows(query)}


# ── what a person does about it ──────────────────────────────────────────────────────────────────


def in_force(world, policy):
    """Let these settings be in force, without reading anything."""
    world.service.rerating._policy = lambda: policy
    return world.service.rerating


def moved(found):
    return {row["customer_id"]: row["delta"] for row in found.to_json()["customers"] if row["delta"] != "0"}


def test_rerate_settings_says_whom_history_would_bill_now_and_changes_nothing(world, stripe):
    pull(world, HOME)
    world.push()
    before = state(world)
    found = in_force(world, OVERRIDE).under_settings(EVERYONE).to_json()
    assert moved(in_force(world, OVERRIDE).under_settings(EVERYONE)) == {
        "cus_a": "-320",
        "cus_b": "-160",
        None: "-160",
        "cus_c": "640",
    }
    assert (found["events"], found["events_changed"], found["delta_credits"]) == (4, 4, "0")
    assert found["to_send"] == {"events": 3, "credits": "0", "customers": 3}
    excluded = in_force(world, NOT_DEV).under_settings(EVERYONE).to_json()
    assert (excluded["delta_credits"], excluded["organizations"][0]["delta"]) == ("-160", "-160")
    assert moved(in_force(world, HOME).under_settings(EVERYONE)) == {}
    assert state(world) == before


@pytest.mark.parametrize("is_pulled", [True, False], ids=["pulled", "not-pulled"])
@pytest.mark.parametrize("policy", [OVERRIDE, NOT_DEV, DEFAULT_B], ids=["override", "excluded", "default"])
def test_what_is_applied_is_what_was_foretold_and_the_next_push_carries_it_out(world, stripe, policy, is_pulled):
    pull(world, DEFAULT_C)
    world.push()
    if is_pulled:
        pull(world, policy)
    foretold = in_force(world, policy).under_settings(EVERYONE)
    assert in_force(world, policy).apply_settings(EVERYONE).customers == foretold.customers
    assert flagged(world) == []
    pull(world, policy)  # between the decision and the push: it stays decided
    assert flagged(world) == []
    world.push()
    paid = {row.customer_id: int(row.new) for row in foretold.customers if row.new and row.customer_id}
    assert {one: value for one, value in stripe.sums().items() if value} == paid
    assert moved(in_force(world, policy).apply_settings(EVERYONE)) == {}
    entry = world.ledger.audit_entries(1)[0]
    assert entry["action"] in {"rerate", "push"}


def test_other_metadata_names_need_a_reading_and_say_so(world, stripe):
    pull(world, HOME)
    world.push()
    found = in_force(world, OTHER_NAMES).under_settings(EVERYONE).to_json()
    assert [(row["reason"], row["events"]) for row in found["not_rerated"]] == [("not_read_again", 4)]
    pull(world, OTHER_NAMES)
    assert flagged(world) == ["dev", "prod"]
    foretold = in_force(world, OTHER_NAMES).under_settings(EVERYONE)
    assert moved(foretold) == {"cus_a": "-320", "cus_b": "160", None: "160"}
    in_force(world, OTHER_NAMES).apply_settings(EVERYONE)
    assert flagged(world) == []
    world.push()
    assert stripe.sums() == {"cus_a": 0, "cus_b": 320, "cus_c": 160}
    pull(world, OTHER_NAMES)
    assert flagged(world) == []


def test_an_event_of_the_earlier_system_stays_with_whom_that_billed(world):
    row = {**read("prod", HOME), "legacy_status": "processed", "legacy_total": Decimal(7)}
    world.ledger.register_cards([CARD], actor="tester")
    book_rated(world.ledger, usage_table([row]), [CARD], HOME, run_id="pull")
    for policy in (OVERRIDE, OTHER_NAMES):
        again = {**row, "customer_id": "cus_b" if policy is OTHER_NAMES else "cus_a"}
        book_rated(world.ledger, usage_table([again]), [CARD], policy, run_id="pull")
        assert (flagged(world), state(world)[0][1:3]) == (["prod"], ("cus_a", Decimal(7)))
        assert moved(in_force(world, policy).apply_settings(EVERYONE)) == {}


# ── the command line ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def langfuse():
    fake = FakeLangfuse()
    facts = {"metadata": {"stripeCustomerId": "cus_a"}, "usageDetails": {"input": 4500}, "costDetails": {"total": 0}}
    fake.rows = [observation("o1", "t1", "2026-11-01T10:00:00.000Z", "2026-11-01T10:00:00.000Z", **facts)]
    yield fake
    fake.close()


def test_the_pull_says_what_the_settings_would_bill_otherwise_and_rerate_books_it(run_command, langfuse, tmp_path):
    path = tmp_path / "billing.duckdb"
    environment = {
        "LANGFUSE_HOST": langfuse.url,
        "LANGFUSE_PUBLIC_KEY": PUBLIC_KEY,
        "LANGFUSE_SECRET_KEY": SECRET_KEY,
        "BILLING_MODE": "live",
        "BILLING_WAREHOUSE_URL": f"duckdb:///{path}",
        "LANGFUSE_API": "v2",
    }
    pull_all = ("pull", "--from", "2026-11-01", "--to", "2026-11-02", "--json")
    code, out, _ = run_command(environment, *pull_all)
    assert (code, json.loads(out)["policy_differs"]) == (0, {"events": 0, "credits": "0"})
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE events SET sync_status = 'confirmed'")
    override = {**environment, "BILLING_DEFAULT_CUSTOMER_ID": "cus_b", "BILLING_OVERRIDE_CUSTOMER_ID": "true"}
    code, out, err = run_command(override, *pull_all)
    assert (code, json.loads(out)["policy_differs"]) == (1, {"events": 1, "credits": "450"})
    with duckdb.connect(str(path)) as connection:
        [(detail,)] = connection.execute(
            "SELECT detail FROM audit WHERE action = 'pull' ORDER BY seq DESC LIMIT 1"
        ).fetchall()
    assert json.loads(detail)["policy_differs"] == 1
    [line] = [line for line in err.splitlines() if "policy_differs" in line]
    assert "1 sent events (450 credits)" in line
    code, out, _ = run_command(override, "events", "--json")
    [event] = json.loads(out)["events"]
    assert (event["customer_id"], event["flags"]) == ("cus_a", ["policy_differs"])
    code, out, _ = run_command(override, "rerate", "--settings", "--json", "--apply")
    found = json.loads(out)
    assert (code, found["delta_credits"], found["events"]) == (0, "0", 1)
    assert found["customers"] == [
        {"customer_id": "cus_a", "old": "450", "new": "0", "delta": "-450"},
        {"customer_id": "cus_b", "old": "0", "new": "450", "delta": "450"},
    ]
    assert run_command(override, *pull_all)[0] == 0
    for words in (("rerate",), ("rerate", "--settings", "--rate-card", "card.yaml")):
        assert run_command(override, *words)[0] == 2
