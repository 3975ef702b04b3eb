"""Langfuse shows what the ledger says about billing, if asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from billing_core.ledger.journal import Ledger
from billing_core.sandbox.server import SandboxProcess
from billing_core.settings import Settings, load_settings
from billing_core.stripe_sync.langfuse_scores import WriteBack, write_back
from tests.factories import NOON, ledger_at, usage_row
from tests.langfuse.scores_server import ScoresServer

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SCORES = "/api/public/scores"


@pytest.fixture(scope="module")
def own_sandbox() -> Iterator[SandboxProcess]:
    """Of this module, because it writes; every test has traces of its own."""
    with SandboxProcess(events=20, days=2) as running:
        yield running


@pytest.fixture
def sandbox(own_sandbox: SandboxProcess) -> Iterator[SandboxProcess]:
    yield own_sandbox
    httpx.delete(own_sandbox.url + "/_sandbox/faults")
    httpx.delete(own_sandbox.url + "/_sandbox/requests")


@pytest.fixture
def server() -> Iterator[ScoresServer]:
    scripted = ScoresServer()
    yield scripted
    scripted.close()


@pytest.fixture
def ledger_of(tmp_path: Path) -> Iterator[Callable[..., Ledger]]:
    """Make a ledger whose events (ids in time order, a minute apart) have got as far as said."""
    made: list[Ledger] = []

    def ledger_of(statuses: dict[str, str], **facts: Any) -> Ledger:
        ledger = ledger_at(
            tmp_path / "ledger.duckdb",
            [
                usage_row(id=event_id, timestamp=NOON + timedelta(minutes=minute), **facts)
                for minute, event_id in enumerate(statuses)
            ],
        )
        made.append(ledger)
        for event_id, status in statuses.items():
            progress(ledger, event_id, status)
        return ledger

    yield ledger_of
    for ledger in made:
        ledger.engine.close()


def progress(ledger: Ledger, event_id: str, status: str, identifier: str | None = None, why: str | None = None) -> None:
    """What a push would note about an event."""
    with ledger.engine.transaction() as writer:
        writer.rows(
            "UPDATE events SET sync_status = ?, meter_event_identifier = ?, sync_error = ? WHERE id = ?",
            [status, identifier, why, event_id],
        )


def settings_for(sandbox: SandboxProcess, **more: str) -> Settings:
    return load_settings({**sandbox.environment, "BILLING_WRITE_BACK": "true", **more}, env_file=None)


def settings_at(url: str, **more: str) -> Settings:
    keys = {"LANGFUSE_HOST": url, "LANGFUSE_PUBLIC_KEY": "pk-lf-test", "LANGFUSE_SECRET_KEY": "sk-lf-test-secret"}
    return load_settings({**keys, "BILLING_WRITE_BACK": "true", **more}, env_file=None)


def run(ledger: Ledger, settings: Settings, now: datetime = NOW) -> WriteBack:
    return write_back(ledger.engine, settings, now=now)


def shown(sandbox: SandboxProcess, *traces: str) -> dict[str, list[tuple[str, str | None]]]:
    """Trace → value and comment of each of its scores."""
    keys = sandbox.environment
    answer = httpx.get(
        sandbox.url + "/api/public/v3/scores",
        params={"traceId": ",".join(traces), "fields": "details,subject", "limit": 100},
        auth=(keys["LANGFUSE_PUBLIC_KEY"], keys["LANGFUSE_SECRET_KEY"]),
    )
    found: dict[str, list[tuple[str, str | None]]] = {}
    for score in answer.json()["data"]:
        found.setdefault(score["subject"]["id"], []).append((score["value"], score["comment"]))
    return found


def plant(sandbox: SandboxProcess, kind: str, **more: Any) -> None:
    httpx.post(sandbox.url + "/_sandbox/faults", json={"path_prefix": SCORES, "kind": kind, **more}).raise_for_status()


def requests_to(sandbox: SandboxProcess) -> int:
    made = httpx.get(sandbox.url + "/_sandbox/requests").json()
    return sum(request["path"] == SCORES for request in made)


def test_nothing_is_written_unless_asked_for(sandbox: SandboxProcess, ledger_of: Callable[..., Ledger]) -> None:
    off = load_settings(sandbox.environment, env_file=None)
    assert run(ledger_of({"off": "processed"}), off) == WriteBack(0, 0, None)
    assert requests_to(sandbox) == 0


def test_nothing_is_written_without_langfuse_keys(ledger_of: Callable[..., Ledger]) -> None:
    keyless = load_settings({"BILLING_WRITE_BACK": "true"}, env_file=None)
    assert run(ledger_of({"keyless": "processed"}), keyless) == WriteBack(0, 0, None)


def test_only_events_that_got_somewhere_are_written(sandbox: SandboxProcess, ledger_of: Callable[..., Ledger]) -> None:
    every = ("pending", "sending", "processed", "confirmed", "error", "excluded")
    ledger = ledger_of({f"only-{status}": status for status in every})
    assert run(ledger, settings_for(sandbox)) == WriteBack(3, 0, None)
    assert shown(sandbox, *(f"only-{status}" for status in every)) == {
        "only-processed": [("processed", None)],
        "only-confirmed": [("confirmed", None)],
        "only-error": [("error", None)],
    }


def test_the_comment_is_the_meter_event_or_what_went_wrong(
    sandbox: SandboxProcess, ledger_of: Callable[..., Ledger]
) -> None:
    ledger = ledger_of({"said-sent": "pending", "said-wrong": "pending"})
    progress(ledger, "said-sent", "processed", "bd1_hour_7", why="a correction waits")
    progress(ledger, "said-wrong", "error", "bd1_hour_8", why="Stripe rejected it: no such customer")
    run(ledger, settings_for(sandbox))
    assert shown(sandbox, "said-sent", "said-wrong") == {
        "said-sent": [("processed", "bd1_hour_7")],
        "said-wrong": [("error", "Stripe rejected it: no such customer")],
    }


def test_what_the_earlier_system_billed_says_so(sandbox: SandboxProcess, ledger_of: Callable[..., Ledger]) -> None:
    ledger = ledger_of({"before": "processed"}, legacy_status="processed")
    run(ledger, settings_for(sandbox))
    assert shown(sandbox, "before") == {"before": [("processed", "billed by the earlier system")]}


def test_no_secret_leaves_in_a_comment(sandbox: SandboxProcess, ledger_of: Callable[..., Ledger]) -> None:
    ledger = ledger_of({"secret": "pending"})
    keys = sandbox.environment
    why = f"{keys['STRIPE_API_KEY']} is no key, {keys['LANGFUSE_SECRET_KEY']} neither"
    progress(ledger, "secret", "error", why=why)
    run(ledger, settings_for(sandbox))
    assert shown(sandbox, "secret") == {"secret": [("error", "*** is no key, *** neither")]}


def test_a_second_run_has_nothing_to_write(sandbox: SandboxProcess, ledger_of: Callable[..., Ledger]) -> None:
    ledger = ledger_of({"twice-a": "processed", "twice-b": "error"})
    assert run(ledger, settings_for(sandbox)) == WriteBack(2, 0, None)
    assert run(ledger, settings_for(sandbox)) == WriteBack(0, 0, None)
    assert requests_to(sandbox) == 1


def test_a_new_status_replaces_the_one_shown_even_on_another_day(
    sandbox: SandboxProcess, ledger_of: Callable[..., Ledger]
) -> None:
    ledger = ledger_of({"onward": "processed", "resting": "processed"})
    run(ledger, settings_for(sandbox))
    progress(ledger, "onward", "confirmed", "bd1_hour_7")
    assert run(ledger, settings_for(sandbox), NOW + timedelta(days=1)) == WriteBack(1, 0, None)
    assert shown(sandbox, "onward", "resting") == {
        "onward": [("confirmed", "bd1_hour_7")],
        "resting": [("processed", None)],
    }


def test_a_status_that_came_back_is_written_again(sandbox: SandboxProcess, ledger_of: Callable[..., Ledger]) -> None:
    ledger = ledger_of({"corrected": "pending"})
    for status in ("confirmed", "processed", "confirmed"):
        progress(ledger, "corrected", status)
        assert run(ledger, settings_for(sandbox)) == WriteBack(1, 0, None)
        assert shown(sandbox, "corrected") == {"corrected": [(status, None)]}


def test_five_hundred_events_per_run_the_oldest_first(
    sandbox: SandboxProcess, ledger_of: Callable[..., Ledger]
) -> None:
    statuses = {f"many-{number:03d}": "processed" for number in range(503)}
    ledger = ledger_of(dict.fromkeys(statuses, "pending"))
    with ledger.engine.transaction() as writer:
        writer.rows("UPDATE events SET sync_status = 'processed'")
    newest = ("many-500", "many-501", "many-502")
    assert run(ledger, settings_for(sandbox)) == WriteBack(500, 0, None)
    assert (requests_to(sandbox), shown(sandbox, *newest)) == (34, {})
    assert run(ledger, settings_for(sandbox)) == WriteBack(3, 0, None)
    assert set(shown(sandbox, *newest)) == set(newest)


def test_what_was_written_before_a_failure_is_not_written_again(
    sandbox: SandboxProcess, ledger_of: Callable[..., Ledger]
) -> None:
    ledger = ledger_of({f"broken-{number:02d}": "processed" for number in range(20)})
    plant(sandbox, "503", body_contains="broken-15")
    broken = run(ledger, settings_for(sandbox))
    assert (broken.written, broken.rejected) == (15, 0)
    assert broken.problem is not None
    assert "answered 503 (Database unavailable); the push is not affected" in broken.problem
    assert run(ledger, settings_for(sandbox)) == WriteBack(5, 0, None)


@pytest.mark.parametrize("kind", ["after_success_cut", "after_success_500"])
def test_scores_whose_answer_was_lost_are_written_again_without_a_second_one(
    sandbox: SandboxProcess, ledger_of: Callable[..., Ledger], kind: str
) -> None:
    ledger = ledger_of({f"lost-{kind}": "processed"})
    plant(sandbox, kind)
    lost = run(ledger, settings_for(sandbox))
    assert (lost.written, shown(sandbox, f"lost-{kind}")) == (0, {f"lost-{kind}": [("processed", None)]})
    assert run(ledger, settings_for(sandbox), NOW + timedelta(days=1)) == WriteBack(1, 0, None)
    assert shown(sandbox, f"lost-{kind}") == {f"lost-{kind}": [("processed", None)]}


def test_a_langfuse_that_cannot_be_reached_is_a_problem_and_no_error(
    server: ScoresServer, ledger_of: Callable[..., Ledger]
) -> None:
    server.close()
    gone = run(ledger_of({"unreachable": "processed"}), settings_at(server.url))
    assert (gone.written, gone.rejected) == (0, 0)
    assert gone.problem is not None
    assert "failed (ConnectError); check LANGFUSE_HOST" in gone.problem


def test_rejected_scores_are_counted_and_not_offered_again(
    server: ScoresServer, ledger_of: Callable[..., Ledger]
) -> None:
    ledger = ledger_of({"odd-a": "processed", "odd-b": "processed", "odd-c": "processed"})
    server.script.append((207, {"accepted": 1, "rejected": 2, "errors": [{"message": "Invalid trace"}]}))
    assert run(ledger, settings_at(server.url)) == WriteBack(
        1, 2, "Langfuse rejected 2 billing_status scores: Invalid trace"
    )
    assert run(ledger, settings_at(server.url)) == WriteBack(0, 0, None)
    assert len(server.bodies) == 1


def test_an_older_langfuse_gets_the_same_statuses_one_by_one(
    server: ScoresServer, ledger_of: Callable[..., Ledger]
) -> None:
    ledger = ledger_of({"old-a": "processed", "old-b": "error", "old-c": "confirmed"})
    assert run(ledger, settings_at(server.url)) == WriteBack(3, 0, None)
    assert [(body["traceId"], body["value"]) for body in server.bodies[1:]] == [
        ("old-a", "processed"),
        ("old-b", "error"),
        ("old-c", "confirmed"),
    ]
    assert run(ledger, settings_at(server.url)) == WriteBack(0, 0, None)


def test_the_score_carries_the_trace_s_start_project_and_environment(
    server: ScoresServer, ledger_of: Callable[..., Ledger]
) -> None:
    server.script.append((202, {"message": "Accepted"}))
    run(ledger_of({"trace-1": "processed"}, project_id="p1", environment="staging"), settings_at(server.url))
    [[sent]] = server.bodies
    assert (sent["id"], sent["timestamp"], sent["environment"]) == (
        "8094e20595c98930a6da2edf25b13869071435c8a795e82e4ed4b198beef3184",
        "2026-11-01T12:00:00Z",
        "staging",
    )
