"""The command line as people and cron jobs meet it: exit codes, one JSON document, and a process where it matters."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import pytest

from billing_core.sandbox.server import SandboxProcess
from tests.addresses import UNREACHABLE
from tests.factories import NOON, service_over, usage_row

ROOT = os.getcwd()


@dataclass(frozen=True)
class Done:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(run_command):
    """One command in this process, over the ledger of a folder."""

    def run(folder, *arguments, stdin="", **environment):
        variables = {"BILLING_WAREHOUSE_URL": f"duckdb:///{folder}/billing.duckdb", **environment}
        return Done(*run_command(variables, *arguments, stdin=stdin))

    return run


def variables_of(folder, **environment):
    """The environment of a process over the ledger of a folder."""
    base = {k: v for k, v in os.environ.items() if not k.startswith(("LANGFUSE", "BILLING", "STRIPE"))}
    return {**base, "BILLING_WAREHOUSE_URL": f"duckdb:///{folder}/billing.duckdb", **environment}


def document(done, code=0):
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def booked(tmp_path):
    rows = [
        usage_row(
            id=f"t{n}",
            timestamp=NOON + timedelta(hours=n),
            customer_id=None if n == 0 else "cus_a",
            organization_id=f"org_{n % 2}",
        )
        for n in range(5)
    ]
    service_over(tmp_path / "billing.duckdb", rows).close()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["events", "--json"], 0), (["events", "--json", "--limit", "0"], 2), (["explain", "nobody", "--json"], 2)],
    ids=["done", "wrong usage", "unknown event"],
)
def test_a_process_ends_as_its_command_does(booked, run, arguments, code):
    ran = subprocess.run(
        [sys.executable, "-m", "billing_core", *arguments],
        env=variables_of(booked),
        cwd=booked,
        timeout=120,
        capture_output=True,
        text=True,
        check=False,
    )
    here = run(booked, *arguments)
    assert (ran.returncode, ran.stderr) == (code, here.stderr)
    assert json.loads(ran.stdout) == json.loads(here.stdout)


def test_stats_prints_a_row_per_organization_with_the_published_keys(booked, run):
    found = document(run(booked, "stats", "--json"))
    rows = {row["organization_id"]: row for row in found["organizations"]}
    assert set(rows) == {"org_0", "org_1"}
    assert {
        "organization_id",
        "events",
        "chats",
        "messages_sent",
        "messages_generated",
        "users",
        "tokens_total",
        "credits",
        "amount_usd",
        "cost_usd",
    } <= set(rows["org_0"])
    assert rows["org_0"]["credits"] == {"ai_tokens": "300", "compute": "150", "storage": "0", "total": "450"}
    assert (rows["org_0"]["events"], rows["org_0"]["amount_usd"], rows["org_0"]["cost_usd"]) == (3, "0.018", "0.03")
    assert found["totals"]["credits"]["total"] == "750"


def test_stats_takes_a_window_and_organizations(booked, run):
    window = ("--from", "2026-11-01T12:00:00Z", "--to", "2026-11-01T14:00:00Z")
    found = document(run(booked, "stats", "--json", *window, "--organization", "org_1"))
    assert [(row["organization_id"], row["events"]) for row in found["organizations"]] == [("org_1", 1)]
    for_people = run(booked, "stats", *window)
    assert for_people.returncode == 0
    assert [line.split()[0] for line in for_people.stdout.splitlines()] == ["organization", "org_0", "org_1", "all"]


def test_explore_prints_rows_and_totals(booked, run):
    found = document(run(booked, "explore", "--by", "organization,model", "--metric", "amount_usd", "--json"))
    assert found["rows"] == [
        {"organization": "org_0", "model": "gpt-5", "amount_usd": "0.012"},
        {"organization": "org_1", "model": "gpt-5", "amount_usd": "0.008"},
        {"organization": "org_0", "model": None, "amount_usd": "0.006"},
        {"organization": "org_1", "model": None, "amount_usd": "0.004"},
    ]
    assert found["totals"] == {"amount_usd": "0.03"}
    filtered = document(run(booked, "explore", "--by", "credit_type", "--organization", "org_1", "--json"))
    assert filtered["totals"] == {"credits": "300"}


def test_explore_prints_a_table_for_people(booked, run):
    window = ("--from", "2026-11-01", "--to", "2026-11-02", "--grain", "day", "--compare", "previous")
    done = run(booked, "explore", "--by", "customer", "--metric", "users", "--top", "1", *window)
    assert [" ".join(line.split()) for line in done.stdout.splitlines()] == [
        "customer day users previous change",
        "cus_a 2026-11-01 1 – –",
        "1 other 2026-11-01 1 – –",
        "total 1 0 1",
        "the rows do not add up to the total, which is over all events of the filter",
        "days of UTC",
    ]
    assert "USD is unknown" not in run(booked, "explore", "--by", "model", "--metric", "margin_usd").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("--by", "planet"),
        ("--by", "user", "--metric", "profit"),
        ("--by", "token_class", "--metric", "latency"),
        ("--by", "user", "--grain", "hour"),
        ("--by", "user", "--compare", "previous"),
        ("--by", "user", "--compare", "yesterday"),
        ("--by", "user", "--top", "-1"),
        ("--metric", "credits"),
    ],
    ids=lambda words: words[-1],
)
def test_explore_refuses_what_makes_no_sense_in_one_line(booked, run, arguments):
    done = run(booked, "explore", *arguments, "--json")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "error" in json.loads(done.stdout)


def test_events_prints_one_document_with_the_published_keys(booked, run):
    found = document(run(booked, "events", "--json", "--limit", "2"))
    assert set(found) >= {"events", "pagination", "totals"}
    assert found["pagination"] == {"page": 1, "limit": 2, "total_items": 5, "total_pages": 3, "as_of": 1}
    assert found["totals"]["credits"] == {"ai_tokens": "500", "compute": "250", "storage": "0", "total": "750"}
    assert (found["totals"]["amount_usd"], found["totals"]["cost_usd"]) == ("0.03", "0.05")
    event = found["events"][0]
    assert list(event) == [
        "id",
        "timestamp",
        "ended_at",
        "organization_id",
        "customer_id",
        "user_id",
        "session_id",
        "chatflow_id",
        "chatflow_name",
        "environment",
        "models",
        "tokens_in",
        "tokens_out",
        "tokens_total",
        "latency_seconds",
        "storage_gb",
        "cost_usd",
        "ai_credentials_ownership",
        "credits",
        "amount_usd",
        "rate_card_version",
        "sync_status",
        "sync_error",
        "meter_event_identifier",
        "synced_at",
        "trace_url",
        "flags",
    ]
    assert event["credits"]["total"] == "150"
    assert event["latency_seconds"] == 60
    assert event["timestamp"] == "2026-11-01T16:00:00.000Z"


def test_filters_sorting_and_paging_reach_the_ledger(booked, run):
    found = document(
        run(
            booked,
            "events",
            "--json",
            "--organization",
            "org_0",
            "--sort",
            "timestamp",
            "--order",
            "asc",
            "--page",
            "2",
            "--limit",
            "2",
        )
    )
    assert [event["id"] for event in found["events"]] == ["t4"]
    found = document(run(booked, "events", "--json", "--status", "error"))
    assert [event["id"] for event in found["events"]] == ["t0"]


def test_what_events_lack_is_a_filter_of_events_and_lint(booked, run):
    found = document(run(booked, "events", "--json", "--without", "customer"))
    assert [event["id"] for event in found["events"]] == ["t0"]
    assert document(run(booked, "events", "--json", "--without", "customer", "--without", "user"))["events"] == []
    refused = run(booked, "lint", "--without", "name")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "without: 'name' is not accepted" in refused.stderr


def test_why_events_are_not_in_stripe_is_a_filter(booked, run):
    found = document(run(booked, "events", "--json", "--cause", "no_customer", "--no-held"))
    assert [event["id"] for event in found["events"]] == ["t0"]
    assert document(run(booked, "events", "--json", "--held"))["events"] == []
    assert document(run(booked, "events", "--json", "--stage", "billed_before"))["events"] == []
    assert document(run(booked, "events", "--json", "--stage", "pending", "--stage", "error"))["events"]
    assert document(run(booked, "events", "--json", "--credit-type", "storage"))["events"] == []


def test_times_without_an_offset_are_in_the_reporting_timezone(booked, run):
    found = document(run(booked, "events", "--json", "--from", "2026-11-01T16:00", BILLING_TIMEZONE="Europe/Berlin"))
    assert [event["id"] for event in found["events"]] == ["t4", "t3"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["events", "--limit", "0"],
        ["events", "--limit", "1001"],
        ["events", "--page", "0"],
        ["events", "--page", "x"],
        ["events", "--sort", "nothing"],
        ["events", "--order", "up"],
        ["events", "--status", "done"],
        ["events", "--from", "yesterday"],
        ["events", "--from", "0001-01-01T00:00:00+14:00"],
        ["events", "--to", "9999-12-31T23:59:59-12:00"],
        ["events", "--page", "9" * 20],
        ["pull", "--from", "0001-01-01T00:00:00+14:00", "--to", "2026-11-10"],
        ["events", "--nonsense"],
        ["nonsense"],
        [],
        ["explain"],
        ["explain", "no-such-event"],
        ["pull", "--to", "2026-11-01"],
        ["users", "add", "x"],
        ["tokens", "list"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_and_exit_code_2(booked, arguments, run):
    done = run(booked, *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_with_json_a_failure_is_a_document_too(booked, run):
    assert "limit" in document(run(booked, "events", "--json", "--limit", "0"), code=2)["error"]


def test_a_wrong_setting_is_exit_code_2_naming_it(booked, run):
    done = run(booked, "events", BILLING_TIMEZONE="Mars/Base")
    assert (done.returncode, "BILLING_TIMEZONE" in done.stderr) == (2, True)


def test_live_mode_without_keys_names_the_variable(tmp_path, run):
    done = run(tmp_path, "pull", BILLING_MODE="live")
    assert (done.returncode, "LANGFUSE_PUBLIC_KEY" in done.stderr) == (2, True)


def test_an_unreachable_langfuse_is_exit_code_3_in_one_line(tmp_path, run):
    done = run(tmp_path, "pull", LANGFUSE_HOST=UNREACHABLE, LANGFUSE_PUBLIC_KEY="pk", LANGFUSE_SECRET_KEY="sk-hidden")
    assert done.returncode == 3, done.stderr
    assert "127.0.0.1:9" in done.stderr
    assert "sk-hidden" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("chosen", ["legacy", "v2"])
def test_an_api_the_server_does_not_have_is_exit_code_3_in_one_line(tmp_path, chosen, run):
    with SandboxProcess(events=30, mode="v4" if chosen == "legacy" else "v3") as langfuse:
        done = run(tmp_path, "pull", "--json", **langfuse.environment, LANGFUSE_API=chosen)
    assert "LANGFUSE_API" in document(done, code=3)["error"]
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_empty_ledger_says_so_beside_the_empty_page(tmp_path, run):
    done = run(tmp_path, "events", "--json")
    assert document(done)["pagination"]["total_items"] == 0
    assert "is empty: run `pull`" in done.stderr


def test_a_broken_ledger_is_exit_code_3(tmp_path, run):
    (tmp_path / "billing.duckdb").write_text("no ledger" * 1000)
    done = run(tmp_path, "events")
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (3, 1)


def test_explain_prints_event_and_steps(booked, run):
    found = document(run(booked, "explain", "t1", "--json"))
    assert found["event"]["id"] == "t1"
    assert [step["name"] for step in found["steps"]][:4] == ["Read", "Attribute", "Use", "Rate card"]
    assert "100 + 50 + 0 = 150 credits" in run(booked, "explain", "t1").stdout


def test_pull_reads_the_sandbox_and_the_second_pull_changes_nothing(tmp_path, sandbox, run):
    first = document(run(tmp_path, "pull", "--json", **sandbox.environment))
    assert set(first) >= {
        "api",
        "from",
        "to",
        "observations",
        "duplicates",
        "events_new",
        "events_changed",
        "events_unchanged",
        "unpriced",
        "excluded",
    }
    assert (first["api"], first["events_new"]) == ("v2", 600)
    again = run(tmp_path, "pull", "--json", "--from", first["from"], "--to", first["to"], **sandbox.environment)
    assert (document(again)["events_new"], document(again)["events_changed"]) == (0, 0)
    assert document(again)["events_unchanged"] == 600
    events = document(run(tmp_path, "events", "--json", "--limit", "1000"))
    assert sum(Decimal(e["credits"]["total"]) for e in events["events"]) == Decimal(
        events["totals"]["credits"]["total"]
    )


def test_demo_mode_pulls_from_the_built_in_sandbox_without_any_setting(tmp_path, run):
    found = document(run(tmp_path, "pull", "--json", "--from", "2026-11-11"))
    assert found["events_new"] > 1000


def test_demo_data_never_enters_a_live_ledger(tmp_path, sandbox, run):
    document(run(tmp_path, "pull", "--json", **sandbox.environment))
    done = run(tmp_path, "pull")
    assert (done.returncode, "live data" in done.stderr) == (2, True)
    assert document(run(tmp_path, "events", "--json"))["pagination"]["total_items"] == 600


def test_a_pull_that_is_killed_goes_on_where_it_was_and_the_books_are_the_same(tmp_path, sandbox, run):
    variables = variables_of(tmp_path, **sandbox.environment)
    for patience in (0.7, 1.0, 1.4):
        started = subprocess.Popen(
            [sys.executable, "-m", "billing_core", "pull"], env=variables, stderr=subprocess.DEVNULL, cwd=tmp_path
        )
        try:
            started.wait(patience)
        except subprocess.TimeoutExpired:
            started.send_signal(signal.SIGKILL)
        started.wait()
    document(run(tmp_path, "pull", "--json", **sandbox.environment))
    other = tmp_path / "other"
    other.mkdir()
    document(run(other, "pull", "--json", **sandbox.environment))
    killed = document(run(tmp_path, "events", "--json"))
    clean = document(run(other, "events", "--json"))
    assert killed["totals"] == clean["totals"]
    assert killed["pagination"]["total_items"] == clean["pagination"]["total_items"]


def test_users_are_added_from_standard_input_listed_and_removed(tmp_path, run):
    password = "correct horse battery"
    assert (
        run(
            tmp_path, "users", "add", "ada", "--role", "analyst", "--organization", "org_a", stdin=password + "\n"
        ).returncode
        == 0
    )
    listed = run(tmp_path, "users", "list")
    assert listed.stdout == "ada\tanalyst\torg_a\n"
    assert run(tmp_path, "users", "set-password", "ada", stdin="another horse battery\n").returncode == 0
    assert run(tmp_path, "users", "remove", "ada").returncode == 0
    assert run(tmp_path, "users", "list").stdout == ""
    file = (tmp_path / "config" / "credentials.yaml").read_text()
    assert password not in file


def test_a_token_is_printed_once_and_only_its_hash_is_kept(tmp_path, run):
    tokens = {"BILLING_API_TOKENS": str(tmp_path / "tokens.json")}
    secret = document(
        run(tmp_path, "tokens", "add", "ci", "--role", "analyst", "--organization", "org_a", "--json", **tokens)
    )["token"]
    assert len(secret) >= 32
    file = json.loads((tmp_path / "tokens.json").read_text())
    assert set(file["tokens"][0]) == {"name", "sha256", "role", "organizations"}
    assert secret not in json.dumps(file)
    assert document(run(tmp_path, "tokens", "list", "--json", **tokens))["tokens"][0]["name"] == "ci"
    assert run(tmp_path, "tokens", "revoke", "ci", **tokens).returncode == 0
    assert document(run(tmp_path, "tokens", "list", "--json", **tokens))["tokens"] == []


def test_the_sandbox_command_prints_the_environment_to_use(tmp_path):
    base = dict(os.environ)
    started = subprocess.Popen(
        [sys.executable, "-m", "billing_core", "sandbox", "--port", "0", "--events", "50"],
        stdout=subprocess.PIPE,
        text=True,
        env=base,
        cwd=tmp_path,
    )
    try:
        first = started.stdout.readline()
        assert first.startswith("export ")
        assert "=" in first
    finally:
        started.send_signal(signal.SIGINT)
        assert started.wait(20) in {0, 130}
