"""`hold`, `release`, `retry` and `settle` as people and cron jobs meet them: exit codes and one document."""

from __future__ import annotations

import json

import pytest

from tests.stripe_sync.push_world import World, at, use

OLD = -24 * 40
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def world(tmp_path, stripe):
    """Two events that wait, and three that are too old, one of them of nobody; nobody has the ledger open."""
    world = World(tmp_path, stripe)
    world.book(use("old", at(OLD), "1000000"), use("older", at(OLD - 1), "500000"), use("nobody's", at(OLD), "5", None))
    world.push()
    world.book(use("1", at(0, 10)), use("2", at(0, 20)))
    world.close()
    return world


@pytest.fixture
def run(world, run_command):
    """One command: (exit code, its one document or `None`, standard error)."""

    def command(*words, **environment):
        code, out, err = run_command({**world.environment, **environment}, *words, "--json")
        return code, json.loads(out), err

    return command


def skipped(document):
    return {one["id"]: one["reason"] for one in document["skipped"]}


def test_hold_release_and_retry_change_what_can_be_changed_and_name_the_rest(run):
    code, done, _ = run("hold", "1", "2", "old", "none", "--reason", "dispute")
    assert (code, done["events"], done["credits"]) == (1, 2, "300")
    assert skipped(done) == {"none": "no event has this id", "old": "held back by a rule already (too_old)"}
    assert run("hold", "1", "--reason", "dispute")[:2] == (
        0,
        {
            "action": "hold",
            "dry_run": False,
            "events": 0,
            "credits": "0",
            "skipped": [{"id": "1", "reason": "on hold already"}],
        },
    )
    assert run("release", "1")[1]["events"] == 1
    assert run("hold", "1")[1]["events"] == 1
    code, done, _ = run("release", "--cause", "on_hold", "--dry-run")
    assert (code, done["events"], done["dry_run"]) == (0, 2, True)
    assert run("release", "--cause", "on_hold", "--customer", "cus_a")[1]["events"] == 2
    assert run("release", "--cause", "on_hold")[1]["events"] == 0
    code, done, _ = run("retry", "--cause", "too_old")
    assert (code, done["events"]) == (0, 2)
    assert skipped(run("retry", "nobody's")[1]) == {"nobody's": "it names no customer: map its organization to one"}


def test_settle_writes_off_without_a_stripe_key(run):
    words = ("settle", "--cause", "too_old", "--as", "write-off", "--reason", "agreed with Acme")
    code, preview, _ = run(*words, "--dry-run", STRIPE_API_KEY="")
    assert code == 0
    code, done, _ = run(*words, STRIPE_API_KEY="")
    assert (code, done["events"], done["credits"], done["amount_usd"]) == (0, 2, "1500000", "60")
    assert {k: preview[k] for k in ("events", "credits", "amount_usd", "invoice_items", "skipped")} == {
        k: done[k] for k in ("events", "credits", "amount_usd", "invoice_items", "skipped")
    }
    code, again, _ = run(*words, STRIPE_API_KEY="")
    assert (code, again["events"], again["skipped"]) == (0, 0, [])
    code, found, _ = run("events", "--cause", "written_off")
    assert {event["id"] for event in found["events"]} == {"old", "older"}
    assert {event["sync_status"] for event in found["events"]} == {"excluded"}


def test_settle_makes_one_invoice_item_and_takes_it_back(run):
    code, done, _ = run("settle", "old", "older", "nobody's", "--as", "invoice-item", "--reason", "late")
    assert code == 1
    (item,) = done["invoice_items"]
    assert (item["customer_id"], item["id"], item["amount"], item["currency"]) == (
        "cus_a",
        "ii_test_000001",
        6000,
        "usd",
    )
    assert "nobody to invoice" in skipped(done)["nobody's"]
    (listed,) = run("settle", "--list")[1]["settlements"]
    assert (listed["id"], listed["state"], listed["event_ids"]) == (item["settlement"], "settled", ["old", "older"])
    code, back, _ = run("settle", "--take-back", item["settlement"], "--reason", "wrong month")
    assert (code, back["state"], back["taken_back_reason"]) == (0, "taken_back", "wrong month")
    assert run("settle", "old", "--as", "write-off", "--reason", "x")[1]["events"] == 1


@pytest.mark.parametrize(
    ("words", "environment", "says"),
    [
        (("settle", "old", "--reason", "x"), {}, "as: '' is not accepted; expected write-off or invoice-item"),
        (("settle", "old", "--as", "gift", "--reason", "x"), {}, "expected write-off or invoice-item"),
        (("settle", "old", "--as", "write-off"), {}, "reason: ''"),
        (("settle", "--as", "write-off", "--reason", "x"), {}, "the ids of events, or --cause"),
        (("settle", "--customer", "cus_a", "--as", "write-off", "--reason", "x"), {}, "or --cause"),
        (("settle", "--cause", "bad", "--as", "write-off", "--reason", "x"), {}, "expected one of archived_meter"),
        (("settle", "old", "--cause", "too_old", "--as", "write-off", "--reason", "x"), {}, "not both"),
        (("settle", "old", "--as", "invoice-item", "--reason", "x"), {"STRIPE_API_KEY": ""}, "STRIPE_API_KEY: not set"),
        (("settle", "--take-back", "set_none", "--reason", "x"), {}, "settlement 'set_none'"),
        (("settle", "--take-back", "set_none"), {}, "reason: ''"),
        (("retry",), {}, "the ids of events, or --cause"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(run, words, environment, says):
    code, document, err = run(*words, **environment)
    assert code == 2
    assert says in document["error"]
    assert err.count("\n") == 1


def test_a_stripe_out_of_reach_is_exit_code_3_and_settles_nothing(run):
    code, document, _ = run("settle", "old", "--as", "invoice-item", "--reason", "x", STRIPE_API_BASE=NOWHERE)
    assert code == 3
    assert "error" in document
    assert run("settle", "--list")[1] == {"settlements": []}


def test_people_read_what_was_done(world, run_command):
    code, out, err = run_command(world.environment, "settle", "old", "none", "--as", "invoice-item", "--reason", "x")
    assert code == 1
    assert out.startswith("invoiced separately: 1 event, 1000000 credits, 40 USD\n")
    assert "40.00 USD" in out
    assert err == "none: no event has this id\n"
    code, out, _ = run_command(world.environment, "settle", "--list")
    assert (code, "invoice_item" in out) == (0, True)
