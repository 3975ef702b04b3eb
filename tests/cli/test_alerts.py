"""`alerts` as cron and people meet it: one document, exit codes, once across processes and a crash, no secret."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.alerts.world import AlertWorld, used
from tests.notify.mail_server import MailServer
from tests.notify.receiver import Receiver


@pytest.fixture
def receiver():
    with Receiver(b"") as running:
        yield running


@pytest.fixture
def world(tmp_path):
    """A day in which two organizations passed a rule's limit; nobody has the ledger open."""
    from billing_core.runtime import clock

    world = AlertWorld(tmp_path)
    world.now = clock.now()
    rule = world.rule()
    world.rule_id = rule.id
    for number, organization in enumerate(("org_a", "org_b")):
        world.book({**used(f"{number}", 150, organization=organization), "timestamp": world.now, "ended_at": world.now})
    world.service.close()
    return world


@pytest.fixture
def run(world, run_command, monkeypatch):
    monkeypatch.setattr("billing_core.notify.delivery.PAUSES_SECONDS", (0.0, 0.0))

    def command(*words, **environment):
        code, out, err = run_command({**world.environment, **environment}, "alerts", *words)
        assert "in-the-address" not in out + err
        return code, out, err

    return command


def test_rules_are_added_listed_changed_muted_and_removed(run):
    code, out, _ = run("add", "--name", "Big", "--kind", "threshold", "--above", "99.5", "--days", "7", "--json")
    added = json.loads(out)
    assert (code, added["above"], added["days"], added["alerts_now"], added["subjects"]) == (0, "99.5", 7, 0, 2)
    assert run("edit", added["id"], "--above", "10", "--name", "Bigger")[0] == 0
    assert run("mute", added["id"], "--until", "2999-01-01", "--reason", "x")[0] == 2
    found = {one["name"]: one for one in json.loads(run("list", "--json")[1])["alerts"]}
    assert set(found) == {"the rule", "Bigger"}
    assert (found["Bigger"]["above"], found["Bigger"]["days"]) == ("10", 7)
    assert found["Bigger"]["watches"] == "Any organization uses more than $10.00 in 7 days"
    assert run("remove", added["id"])[0] == 0
    assert "1 rule; alerts go to nobody: set BILLING_NOTIFY_URLS" in run("list")[1]
    code, _, err = run("remove", added["id"])
    assert (code, err.count("\n")) == (2, 1)


def test_a_dry_run_saves_nothing_and_says_what_the_rule_would_tell(run):
    code, out, err = run("add", "--name", "x", "--kind", "threshold", "--above", "0", "--dry-run")
    assert (code, err) == (0, "nothing saved; the rule would send 2 alerts now and watches 2 subjects\n")
    assert len(out.splitlines()) == 2
    assert len(json.loads(run("list", "--json")[1])["alerts"]) == 1


def test_a_check_prints_one_document_and_names_what_was_not_delivered(run, receiver):
    receiver.answers[:] = [500] * 3
    urls = {"BILLING_NOTIFY_URLS": receiver.url.replace("http:", "json:")}
    code, out, err = run("check", "--json", **urls)
    found = json.loads(out)
    assert (code, len(found["alerts"]), found["delivered"], len(found["failed"])) == (1, 2, 0, 1)
    assert err.endswith("): json://127…: the receiver answered 500\n")
    assert err.count("\n") == 1
    assert found["alerts"][0]["delivery"]["addresses"][0]["address"] == "json://127…"
    again = json.loads(run("check", "--json")[1])
    assert (again["alerts"], again["failed"]) == ([], [])
    assert len(json.loads(run("history", "--json")[1])["alerts"]) == 2


@pytest.mark.parametrize("words", [("check",), ("list",), ("test",)])
def test_a_wrong_address_is_exit_2_in_one_line_without_it(run, words):
    code, out, err = run(*words, BILLING_NOTIFY_URLS="slack://in-the-address")
    assert (code, out) == (2, "")
    assert err.startswith("error: BILLING_NOTIFY_URLS: address 1 is none that Apprise understands; expected ")
    assert err.count("\n") == 1


def test_the_test_reaches_mail_and_webhook_and_is_exit_1_if_one_refuses(run, receiver):
    receiver.answers[:] = [403]
    with MailServer() as mail:
        urls = f"{receiver.url.replace('http:', 'json:')},{mail.address}"
        code, out, err = run("test", BILLING_NOTIFY_URLS=urls)
        assert (code, out, err) == (1, "mailto://127…: delivered\n", "json://127…: the receiver answered 403\n")
        (arrived,) = mail.messages
    assert arrived["subject"] == "Test of billing alerts"


def test_a_report_of_a_week_without_usage_or_that_is_none_is_one_line(run):
    code, _, err = run("report", "--organization", "org_a", "--week", "2020-W10")
    assert (code, err) == (2, "error: 'org_a' has no usage in week 2020-W10\n")
    assert run("report", "--organization", "org_a", "--week", "2026-W60")[0] == 2


# ── other processes ──────────────────────────────────────────────────────────────────────────────


def start(world, *words, code=None, **environment):
    command = [sys.executable, "-c", code] if code else [sys.executable, "-m", "billing_core", *words]
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("BILLING", "STRIPE", "LANGFUSE"))
    }
    variables = {**clean, **world.environment, **environment}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=variables, cwd=world.path.parent, **pipes)


DIES_BEFORE_SENDING = """
import os, signal
from billing_core.notify.outbox import Outbox
from billing_core.cli.main import main
Outbox.deliver = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
main(["alerts", "check"])
"""


@pytest.mark.slow
def test_mail_and_webhook_get_each_alert_once_across_two_processes_a_crash_and_a_restart(world, run, receiver):
    with MailServer() as mail:
        urls = {"BILLING_NOTIFY_URLS": f"{receiver.url.replace('http:', 'json:')},{mail.address}"}
        killed = start(world, code=DIES_BEFORE_SENDING, **urls)
        killed.communicate(timeout=120)
        assert killed.returncode == -signal.SIGKILL
        assert (receiver.calls, mail.messages) == ([], [])
        both = [start(world, "alerts", "check", "--json", **urls) for _ in range(2)]
        said = [json.loads(one.communicate(timeout=120)[0]) for one in both]
        assert [one.returncode for one in both] == [0, 0]
        assert sum(one["delivered"] for one in said) == 4
        code, out, _ = run("check", "--json", **urls)
        assert (code, json.loads(out)["delivered"]) == (0, 0)
        titles = sorted(json.loads(body)["title"] for _, body, _ in receiver.calls)
        assert titles == sorted(one["subject"] for one in mail.messages)
        assert [title.split()[0] for title in titles] == ["org_a", "org_b"]


@pytest.mark.slow
def test_a_process_that_dies_while_it_sends_sends_the_same_again(world, run, receiver):
    receiver.answers[:] = ["hang"]
    urls = {"BILLING_NOTIFY_URLS": receiver.url.replace("http:", "json:")}
    process = start(world, "alerts", "check", **urls)
    while not receiver.calls:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=60)
    assert json.loads(run("check", "--json", **urls)[1])["delivered"] == 2
    titles = [json.loads(body)["title"] for _, body, _ in receiver.calls]
    assert len(titles) == 3
    assert titles.count(titles[0]) == 2
