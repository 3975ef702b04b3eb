"""`push`, `status`, `explain` as people and cron jobs meet them: exit codes, one document, and never the key."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta

import pytest

from billing_core.sandbox.data.catalog import ORGANIZATIONS, STRIPE_KEY
from tests.stripe_sync.push_world import METER_EVENTS, World, at, use

ROOT = os.getcwd()
MANY = 1_000
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def world(tmp_path, stripe):
    """A ledger with two billable events of one hour; nobody has it open."""
    world = World(tmp_path, stripe)
    world.book(use("1", at(0, 10), "150.5"), use("2", at(0, 20), "20"))
    world.close()
    return world


@pytest.fixture
def run(world, run_command):
    """One command in this process: (exit code, standard output, standard error). The key is in none of them."""

    def command(*words, **environment):
        return run_command({**world.environment, **environment}, *words)

    return command


def document(found, code=0):
    """The one document on standard output."""
    assert found[0] == code, found
    return json.loads(found[1])


def one_line(found, code):
    """The error of a command that said nothing else."""
    exit_code, out, err = found
    assert (exit_code, out) == (code, ""), found
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    return err


# ── push ─────────────────────────────────────────────────────────────────────────────────────────


def test_push_prints_one_document_with_the_published_keys(run, stripe):
    found = run("push", "--json")
    pushed = document(found)
    assert pushed.pop("reads_this_month") > 0
    assert pushed == {
        "intents": 1,
        "sent": 1,
        "duplicates": 0,
        "rejected": 0,
        "held": 0,
        "newly_held": 0,
        "held_corrections": 0,
        "unknown": 0,
        "waiting": 0,
        "confirmed": 1,
        "credits_sent": "170",
        "failures": [],
        "problems": [],
    }
    assert found[2] == ""
    assert stripe.sums() == {"cus_a": 170}
    assert document(run("push", "--json"))["intents"] == 0


def test_push_says_in_words_what_it_did(run):
    code, out, err = run("push")
    assert (code, err) == (0, "")
    assert out == (
        "1 meter event: 1 sent, 0 there already, 0 rejected, 0 with unknown outcome, 0 not tried\n"
        "170 credits delivered; 0 events held, 0 of them newly; 1 meter event confirmed\n"
    )


def test_a_rejected_meter_event_is_exit_1_and_named_on_standard_error(run, stripe):
    stripe.switch(extra_customers=[])
    found = run("push", "--json")
    assert document(found, 1)["rejected"] == 1
    assert "No such customer: 'cus_a'" in found[2]
    assert document(run("push", "--json"))["rejected"] == 0


def test_what_is_newly_held_is_exit_1_once(run, world):
    world.book(use("nobody's", at(0), customer=None), use("old", at(0) - timedelta(days=40)))
    world.close()
    found = document(run("push", "--json"), 1)
    assert (found["held"], found["newly_held"], found["sent"]) == (2, 2, 1)
    found = document(run("push", "--json"), 0)
    assert (found["held"], found["newly_held"]) == (2, 0)


def test_a_rejection_that_comes_later_is_exit_1_of_the_push_that_hears_of_it(run, stripe):
    stripe.switch(async_errors={"cus_a": "meter_event_customer_not_found"})
    assert run("push")[0] == 0
    code, _, err = run("push")
    assert code == 1
    assert "meter_event_customer_not_found" in err


@pytest.mark.parametrize("as_json", [False, True])
def test_without_a_key_push_is_exit_2_in_one_line(run, as_json):
    words = ["push", "--json"] if as_json else ["push"]
    code, out, err = run(*words, STRIPE_API_KEY="")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: STRIPE_API_KEY: not set")
    assert bool(out) == as_json
    assert not as_json or json.loads(out)["error"].startswith("STRIPE_API_KEY: not set")


def test_a_wrong_meter_is_exit_2_in_one_line_and_nothing_is_sent(run, stripe):
    stripe.switch(meters=[{"event_time_window": "hour"}])
    assert "overwrite each other" in one_line(run("push"), 2)
    assert stripe.posts() == 0


def test_a_key_for_another_account_is_exit_2_in_one_line(run, stripe):
    run("push")
    stripe.switch(meters=[{"id": "mtr_other"}])
    assert "mtr_other" in one_line(run("push"), 2)


def test_a_ledger_of_demo_data_is_never_pushed_in_live_mode(run, world, stripe):
    from billing_core.settings import Mode

    world.ledger.claim(Mode.DEMO)
    world.close()
    assert "this ledger holds demo data" in one_line(run("push"), 2)
    assert stripe.posts() == 0


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("401", "check STRIPE_API_KEY"),
        ("403", "give the restricted key in STRIPE_API_KEY this permission"),
        ("html", "not what Stripe's API sends (text/html)"),
        ("504_html", "HTTP 504"),
    ],
)
def test_a_stripe_that_refuses_or_answers_nonsense_is_exit_3_in_one_line(run, stripe, kind, says):
    stripe.fault(kind, path_prefix="/v1/billing/meters", times=MANY)
    assert says in one_line(run("push"), 3)


def test_a_wrong_key_is_exit_3_and_shown_nowhere(run):
    wrong = "rk_test_wrong_key_of_somebody"
    err = one_line(run("push", STRIPE_API_KEY=wrong), 3)
    assert wrong not in err
    assert "HTTP 401" in err


def test_a_stripe_that_cannot_be_reached_is_exit_3_in_one_line(run):
    assert "could not be reached" in one_line(run("push", STRIPE_API_BASE=NOWHERE), 3)


def test_an_unknown_outcome_is_exit_3_and_resolved_by_the_next_push(run, stripe):
    stripe.fault("after_success_500", times=MANY)
    found = document(run("push", "--json"), 3)
    assert (found["unknown"], found["sent"], found["credits_sent"]) == (1, 0, "0")
    stripe.no_faults()
    found = document(run("push", "--json"), 0)
    assert (found["unknown"], found["sent"] + found["duplicates"], found["credits_sent"]) == (0, 1, "170")
    assert stripe.sums() == {"cus_a": 170}


def test_what_was_not_tried_is_exit_3(run, stripe):
    stripe.fault("403", path_prefix=METER_EVENTS, times=MANY)
    found = document(run("push", "--json"), 3)
    assert (found["waiting"], found["unknown"]) == (1, 0)


def test_a_rejection_weighs_more_than_an_outage(run, world, stripe):
    world.book(use("bad", at(0), customer="cus_typo"))
    world.close()
    stripe.fault("reset", path_prefix=METER_EVENTS, times=MANY, body_contains="cus_a")
    found = document(run("push", "--json"), 1)
    assert (found["rejected"], found["unknown"]) == (1, 1)


# ── push --dry-run ───────────────────────────────────────────────────────────────────────────────


def test_a_dry_run_prints_the_exact_requests_and_changes_nothing(run, world, stripe):
    before = world.content()
    world.close()
    found = document(run("push", "--dry-run", "--json"))
    (request,) = found["requests"]
    assert request["idempotency_key"] == request["body"]["identifier"]
    assert request == {
        "method": "POST",
        "path": "/v1/billing/meter_events",
        "idempotency_key": request["idempotency_key"],
        "body": {
            "event_name": "credits",
            "identifier": request["idempotency_key"],
            "timestamp": int(at(0).timestamp()),
            "payload": {"stripe_customer_id": "cus_a", "value": "170"},
        },
    }
    assert (found["intents"], found["sent"], found["credits_sent"]) == (1, 0, "0")
    assert (world.content(), stripe.posts()) == (before, 0)
    world.close()
    run("push")
    (event,) = stripe.received()
    assert {name: event[name] for name in request["body"]} == request["body"]


def test_a_dry_run_in_words_prints_one_request_per_line(run):
    code, out, err = run("push", "--dry-run")
    assert code == 0
    assert json.loads(out)["body"]["payload"]["value"] == "170"
    assert err == "1 request would be made; nothing was sent or stored\n"


def test_a_dry_run_that_would_hold_something_is_exit_0(run, world):
    world.book(use("nobody's", at(0), customer=None))
    world.close()
    assert document(run("push", "--dry-run", "--json"))["newly_held"] == 1


def test_a_dry_run_refuses_what_a_push_would_refuse(run, stripe):
    stripe.switch(meters=[])
    assert "no meter" in one_line(run("push", "--dry-run"), 2)
    assert "HTTP 401" in one_line(run("push", "--dry-run", STRIPE_API_KEY="rk_test_wrong"), 3)


# ── status ───────────────────────────────────────────────────────────────────────────────────────


def test_status_prints_one_document_with_the_published_keys(run):
    run("push")
    found = document(run("status", "cus_a", "--json"))
    assert set(found) >= {"customer_id", "state", "plan", "period", "credits", "upcoming_invoice", "read_at"}
    assert (found["customer_id"], found["state"], found["plan"]) == ("cus_a", "active", "Pro")
    assert found["credits"] == {"included": "500000", "used": "170"}
    assert set(found["period"]) == {"start", "end"}
    assert set(found["upcoming_invoice"]) == {"amount_due", "currency"}


@pytest.mark.parametrize(
    ("profile", "state"), [("past_due", "past_due"), ("canceled", "canceled"), ("no_subscription", "none")]
)
def test_a_state_stripe_tells_is_exit_0_whatever_it_is(run, stripe, profile, state):
    stripe.switch(profiles={"cus_a": profile})
    assert document(run("status", "cus_a", "--json"))["state"] == state


def test_an_unknown_price_is_an_unknown_plan_and_not_the_free_one(run, stripe):
    stripe.switch(profiles={"cus_a": "unknown_price"})
    found = document(run("status", "cus_a", "--json"))
    assert (found["state"], found["plan"], found["credits"]["included"]) == ("active", None, None)
    assert "plan: unknown" in run("status", "cus_a")[1]


def test_a_status_that_cannot_be_read_is_unknown_and_exit_3_with_the_last_reading(run):
    good = document(run("status", "cus_a", "--json"))
    found = run("status", "cus_a", "--json", STRIPE_API_BASE=NOWHERE)
    shown = document(found, 3)
    assert (shown["state"], shown["plan"], shown["read_at"]) == ("unknown", good["plan"], good["read_at"])
    assert "could not be reached" in found[2]
    code, out, _ = run("status", "cus_a", STRIPE_API_BASE=NOWHERE)
    assert code == 3
    assert "cus_a: unknown" in out
    assert f"read at {good['read_at']}" in out


def test_a_status_never_read_before_is_unknown_throughout(run):
    found = document(run("status", "cus_a", "--json", STRIPE_API_BASE=NOWHERE), 3)
    assert (found["state"], found["plan"], found["read_at"], found["upcoming_invoice"]) == ("unknown", None, None, None)


def test_a_customer_stripe_does_not_know_is_exit_2_in_one_line(run):
    assert "cus_typo" in one_line(run("status", "cus_typo"), 2)


def test_status_without_a_key_is_exit_2(run):
    assert one_line(run("status", "cus_a", STRIPE_API_KEY=""), 2).startswith("error: STRIPE_API_KEY")


def test_in_demo_mode_status_needs_no_key(run):
    acme = ORGANIZATIONS[0].customer
    demo = {"BILLING_MODE": "demo", "STRIPE_API_KEY": "", "STRIPE_API_BASE": ""}
    found = document(run("status", acme, "--json", **demo))
    assert (found["customer_id"], found["state"]) == (acme, "active")


# ── explain ──────────────────────────────────────────────────────────────────────────────────────


def test_explain_tells_an_events_way_to_stripe(run):
    run("push")
    steps = {step["name"]: step for step in document(run("explain", "1", "--json"))["steps"]}
    assert steps["Stripe"]["summary"] == "confirmed: Accepted, and Stripe's own summary agrees."
    told = "\n".join(steps["Stripe"]["lines"])
    for words in ("meter event usage_", "revision 1", "1 attempt", "request req_test_", "Stripe counts 170 credits"):
        assert words in told


# ── secrets, processes ───────────────────────────────────────────────────────────────────────────


def test_the_key_is_in_no_file_whatever_happened(run, stripe, tmp_path):
    for kind in ("401", "403", "html", "500_timeout"):
        stripe.fault(kind, path_prefix="/v1/subscriptions")
        run("push")
        run("status", "cus_a")
        stripe.no_faults()
    run("push")
    run("status", "cus_a", "--json")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert tmp_path / "billing.duckdb" in files
    assert not [path for path in files if STRIPE_KEY.encode() in path.read_bytes()]


def test_as_a_process_push_writes_one_document_to_standard_output_and_nothing_else(world, tmp_path, stripe):
    base = {k: v for k, v in os.environ.items() if not k.startswith(("LANGFUSE", "BILLING", "STRIPE"))}
    done = subprocess.run(
        [sys.executable, "-m", "billing_core", "push", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
        check=False,
        env={**base, **world.environment},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["credits_sent"] == "170"
    assert stripe.sums() == {"cus_a": 170}
    assert STRIPE_KEY not in done.stdout
