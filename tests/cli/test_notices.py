"""`notices` as cron jobs meet it: raises, delivers, lists; exit codes, one document, no secret."""

from __future__ import annotations

import json

import pytest

from tests.notify.receiver import Receiver
from tests.stripe_sync.push_world import World, at, use

SECRET = "a-secret-of-enough-characters"
MANY = 1_000


@pytest.fixture
def receiver():
    with Receiver(SECRET.encode()) as running:
        yield running


@pytest.fixture
def world(tmp_path, stripe):
    """A customer on the Free plan that used 95 % of it; nobody has the ledger open."""
    stripe.switch(profiles={"cus_a": "free"})
    world = World(tmp_path, stripe)
    world.book(use("1", at(0), "9500.5"))
    world.close()
    return world


@pytest.fixture
def run(world, run_command, monkeypatch):
    """One command in this process: (exit code, standard output, standard error)."""
    monkeypatch.setattr("billing_core.notify.delivery.PAUSES_SECONDS", (0.0, 0.0))

    def command(*words, **environment):
        code, out, err = run_command({**world.environment, **environment}, *words)
        for secret in (SECRET, "in-the-address"):
            assert secret not in out + err
        return code, out, err

    return command


def test_notices_are_raised_and_listed_with_exact_numbers(run):
    code, out, err = run("notices", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert (found["raised"], found["delivered"], found["failed"], found["problem"]) == (2, 0, [], None)
    first = found["notices"][0]
    assert (first["customer_id"], first["plan"], first["threshold"]) == ("cus_a", "Free", 90)
    assert (first["percent_used"], first["credits"]) == ("95", {"included": "10000", "used": "9500.5"})
    assert first["delivery"]["state"] == "not_sent"
    again = json.loads(run("notices", "--json")[1])
    assert (again["raised"], again["notices"]) == (0, found["notices"])


def test_people_get_a_table(run):
    code, out, _ = run("notices")
    assert code == 0
    assert out.splitlines()[-1] == "2 open notices, 2 raised now, 0 delivered now"
    assert "90 %" in out
    assert "9500.5" in out


def test_a_delivery_that_fails_is_exit_1_and_named(run, receiver):
    receiver.answers[:] = [500, 500, 500]
    hook = {"BILLING_WEBHOOK_URL": receiver.url, "BILLING_WEBHOOK_SECRET": SECRET}
    code, out, err = run("notices", "--json", **hook)
    found = json.loads(out)
    assert (code, found["delivered"], len(found["failed"])) == (1, 0, 1)
    assert err == found["failed"][0] + "\n"
    assert "cus_a, 90 %" in err
    assert err.endswith("the receiver answered 500\n")


def test_a_delivery_that_arrives_is_exit_0(run, receiver):
    hook = {"BILLING_WEBHOOK_URL": receiver.url, "BILLING_WEBHOOK_SECRET": SECRET}
    code, out, _ = run("notices", "--json", **hook)
    assert (code, json.loads(out)["delivered"]) == (0, 1)
    assert [document["data"]["threshold"] for document in receiver.verified()] == [90]


def test_plans_that_cannot_be_read_are_exit_3_and_the_old_ones_still_serve(run, world, stripe):
    assert run("notices")[0] == 0
    world.reopen()
    world.book(use("2", at(1), "600"))
    with world.ledger.engine.transaction() as writer:
        writer.rows("UPDATE stripe_objects SET read_at = read_at - INTERVAL 2 HOUR WHERE kind = 'picture'")
    world.close()
    stripe.fault("403", path_prefix="/v1/subscriptions", times=MANY)
    code, out, err = run("notices", "--json")
    found = json.loads(out)
    assert (code, found["raised"]) == (3, 1)
    assert found["problem"].startswith("Stripe: ")
    assert err.count("\n") == 1
    code, out, _ = run("notices", "--json")  # nobody asks again so soon, and what is missing is still missing
    assert (code, json.loads(out)["problem"]) == (3, found["problem"])


def test_without_a_stripe_key_nothing_is_known_and_that_is_said(run):
    code, out, err = run("notices", "--json", STRIPE_API_KEY="")
    found = json.loads(out)
    assert (code, found["notices"], found["plans_read_at"]) == (2, [], None)
    assert err == "Stripe is not connected: STRIPE_API_KEY is not set.\n"


def test_a_wrong_webhook_setting_is_exit_2_in_one_line(run):
    code, _, err = run("notices", BILLING_WEBHOOK_URL="https://example.test/in-the-address")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: BILLING_WEBHOOK_SECRET: missing")


def test_every_address_gets_a_notice_once_and_one_that_refuses_is_named(run, receiver):
    receiver.answers[:] = [500, 500, 500]
    urls = {"BILLING_NOTIFY_URLS": receiver.url.replace("http:", "json:"), "BILLING_PUBLIC_URL": "https://b.example"}
    code, out, err = run("notices", "--json", **urls)
    assert (code, json.loads(out)["delivered"]) == (1, 0)
    assert err.endswith(": json://127…: the receiver answered 500\n")
    assert json.loads(out)["notices"][0]["delivery"]["state"] == "failed"
    hook = {"BILLING_WEBHOOK_URL": receiver.url, "BILLING_WEBHOOK_SECRET": SECRET}
    code, out, _ = run("notices", "--json", **hook)
    assert (code, json.loads(out)["delivered"]) == (0, 1)
    assert run("notices", "--json", **urls)[0] == 0
    assert len(receiver.calls) == 4
    told = json.loads(receiver.calls[0][1])
    assert told["title"] == "org_a has used 90 % of its credits"
    assert "9500.5 of 10,000 credits" in told["message"]
    assert "https://b.example/organization_stats?view=Plans+and+limits" in told["message"]
