"""The billing status of a trace as a score in Langfuse."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from billing_core.errors import UpstreamError
from billing_core.langfuse.scores import Answered, ScoreWriter, StatusScore
from billing_core.sandbox.server import SandboxProcess
from tests.langfuse.scores_server import ScoresServer

START = datetime(2026, 11, 1, 12, 0, 0, 250000, tzinfo=UTC)
SECRET = "sk-lf-test-secret"
SCORES = "/api/public/scores"


def score(trace: str = "trace-1", status: str = "processed", **more: Any) -> StatusScore:
    return StatusScore("p1", trace, status, START, **more)


def scores(count: int, prefix: str = "trace") -> list[StatusScore]:
    return [score(f"{prefix}-{number}") for number in range(count)]


@pytest.fixture(scope="module")
def own_sandbox() -> Iterator[SandboxProcess]:
    """Of this module, because it writes."""
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


def written_to_sandbox(sandbox: SandboxProcess, given: list[StatusScore], **options: Any) -> list[Answered]:
    keys = sandbox.environment
    secret = SecretStr(keys["LANGFUSE_SECRET_KEY"])
    with ScoreWriter(sandbox.url, keys["LANGFUSE_PUBLIC_KEY"], secret, **options) as writer:
        return list(writer.write(given))


def written_to(server: ScoresServer, given: list[StatusScore], **options: Any) -> list[Answered]:
    with ScoreWriter(server.url, "pk-lf-test", SecretStr(SECRET), **options) as writer:
        return list(writer.write(given))


def shown(sandbox: SandboxProcess, trace: str) -> list[dict[str, Any]]:
    keys = sandbox.environment
    answer = httpx.get(
        sandbox.url + "/api/public/v3/scores",
        params={"traceId": trace, "fields": "details,subject"},
        auth=(keys["LANGFUSE_PUBLIC_KEY"], keys["LANGFUSE_SECRET_KEY"]),
    )
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def plant(sandbox: SandboxProcess, kind: str, **more: Any) -> None:
    httpx.post(sandbox.url + "/_sandbox/faults", json={"path_prefix": SCORES, "kind": kind, **more}).raise_for_status()


def requests_to(sandbox: SandboxProcess) -> int:
    made = httpx.get(sandbox.url + "/_sandbox/requests").json()
    return sum(request["method"] == "POST" and request["path"] == SCORES for request in made)


def test_a_trace_has_one_score_id_whatever_its_status() -> None:
    same = "8094e20595c98930a6da2edf25b13869071435c8a795e82e4ed4b198beef3184"
    assert (score(status="processed").id, score(status="error").id) == (same, same)


def test_other_traces_and_other_projects_have_other_score_ids() -> None:
    given = [score("trace-1"), score("trace-2"), StatusScore("p2", "trace-1", "error", START)]
    assert len({each.id for each in [*given, StatusScore(None, "trace-1", "error", START)]}) == 4


def test_a_score_says_everything_in_one_request(server: ScoresServer) -> None:
    server.script.append((202, {"message": "Accepted"}))
    given = score(comment="bd1_hour_7", environment="production")
    assert written_to(server, [given]) == [Answered((given,))]
    assert server.bodies == [
        [
            {
                "id": given.id,
                "traceId": "trace-1",
                "name": "billing_status",
                "value": "processed",
                "dataType": "CATEGORICAL",
                "timestamp": "2026-11-01T12:00:00.250000Z",
                "comment": "bd1_hour_7",
                "environment": "production",
            }
        ]
    ]


@pytest.mark.parametrize("environment", ["langfuse-evaluation", "Production", "a b", "x" * 41, "", None])
def test_an_environment_that_no_score_may_have_is_left_out(environment: str | None) -> None:
    assert score(environment=environment).request().environment is None


def test_a_long_comment_is_cut() -> None:
    assert score(comment="x" * 2000).request().comment == "x" * 500


def test_scores_can_be_read_back(sandbox: SandboxProcess) -> None:
    written_to_sandbox(sandbox, [score("read-back", "error", comment="no customer", environment="staging")])
    [found] = shown(sandbox, "read-back")
    assert {
        name: found[name] for name in ("id", "name", "value", "dataType", "timestamp", "comment", "environment")
    } == {
        "id": score("read-back").id,
        "name": "billing_status",
        "value": "error",
        "dataType": "CATEGORICAL",
        "timestamp": "2026-11-01T12:00:00.250Z",
        "comment": "no customer",
        "environment": "staging",
    }
    assert found["subject"] == {"kind": "trace", "id": "read-back"}


def test_a_new_status_replaces_the_former_one(sandbox: SandboxProcess) -> None:
    for status in ("processed", "confirmed", "confirmed"):
        written_to_sandbox(sandbox, [score("replaced", status)])
    assert [found["value"] for found in shown(sandbox, "replaced")] == ["confirmed"]


def test_fifteen_scores_travel_in_one_request(sandbox: SandboxProcess) -> None:
    given = scores(32)
    assert written_to_sandbox(sandbox, given) == [
        Answered(tuple(given[:15])),
        Answered(tuple(given[15:30])),
        Answered(tuple(given[30:])),
    ]
    assert requests_to(sandbox) == 3


def test_an_older_server_that_refuses_a_list_gets_single_scores_from_then_on(server: ScoresServer) -> None:
    given = scores(17)
    assert written_to(server, given) == [Answered(tuple(given[:15])), Answered(tuple(given[15:]))]
    assert [len(body) if isinstance(body, list) else body["traceId"] for body in server.bodies] == [
        15,
        *(f"trace-{number}" for number in range(17)),
    ]


def test_a_score_an_older_server_refuses_is_named_and_the_others_are_written(server: ScoresServer) -> None:
    server.refused = {"trace-0", "trace-2"}
    first, second, third, fourth = given = scores(4)
    assert written_to(server, given) == [
        Answered((second, fourth, first, third), 2, "Invalid request data: trace-2 is odd")
    ]


def test_a_server_that_refuses_every_score_has_another_problem_than_the_scores(server: ScoresServer) -> None:
    server.refused = {"trace-0", "trace-1"}
    with pytest.raises(UpstreamError, match=r"refuses every score .*trace-1 is odd.* the push is not affected"):
        written_to(server, scores(2))


def test_a_list_taken_in_part_is_counted_and_not_sent_again(server: ScoresServer) -> None:
    errors = [{"message": "Invalid trace"}, {"message": "Invalid trace"}]
    server.script.append((207, {"accepted": 1, "rejected": 2, "errors": errors}))
    given = scores(3)
    assert written_to(server, given) == [Answered(tuple(given), 2, "Invalid trace")]
    assert len(server.bodies) == 1


def test_a_rate_limit_is_obeyed(sandbox: SandboxProcess) -> None:
    plant(sandbox, "429", times=2, retry_after=7)
    pauses: list[float] = []
    given = scores(1)
    assert written_to_sandbox(sandbox, given, wait=pauses.append) == [Answered(tuple(given))]
    assert pauses == [7.0, 7.0]


def test_a_pause_longer_than_a_score_is_worth_ends_the_writing(sandbox: SandboxProcess) -> None:
    plant(sandbox, "429", times=None, retry_after=31)
    pauses: list[float] = []
    with pytest.raises(UpstreamError, match="answered 429 and asks to wait 31 s"):
        written_to_sandbox(sandbox, scores(1), wait=pauses.append)
    assert (pauses, requests_to(sandbox)) == ([], 1)


def test_pauses_add_up_to_half_a_minute_at_most(sandbox: SandboxProcess) -> None:
    plant(sandbox, "429", times=None, retry_after=12)
    pauses: list[float] = []
    with pytest.raises(UpstreamError, match="asks to wait 12 s"):
        written_to_sandbox(sandbox, scores(1), wait=pauses.append)
    assert pauses == [12.0, 12.0]


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({}, {"message": "slow down", "details": {"retryAfterSeconds": 4}}, 4.0),
        ({}, {"message": "slow down"}, 30.0),
        ({"Retry-After": "soon"}, b"<html>", 30.0),
        ({"Retry-After": "nan"}, {}, 30.0),
        ({"Retry-After": "0"}, {}, 1.0),
    ],
)
def test_the_pause_is_what_the_server_names(
    server: ScoresServer, headers: dict[str, str], body: Any, seconds: float
) -> None:
    server.headers = headers
    server.script.extend([(429, body), (202, {"message": "Accepted"})])
    pauses: list[float] = []
    written_to(server, scores(1), wait=pauses.append)
    assert pauses == [seconds]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("401", "answered 401 .*check LANGFUSE_PUBLIC_KEY"),
        ("403", "answered 403 .*a project's key that may write is needed"),
        ("404_html", r"answered 404 \(not JSON\)"),
        ("503", r"answered 503 \(Database unavailable\)"),
        ("504_html", "answered 504"),
        ("html", r"answered 200 \(not JSON\)"),
        ("reset", "failed .*check LANGFUSE_HOST and the network"),
        ("after_success_cut", "failed .*check LANGFUSE_HOST and the network"),
    ],
)
def test_any_other_failure_is_one_line_at_once(sandbox: SandboxProcess, kind: str, text: str) -> None:
    plant(sandbox, kind, times=None)
    with pytest.raises(UpstreamError, match=text) as caught:
        written_to_sandbox(sandbox, scores(20))
    assert "\n" not in str(caught.value)
    assert requests_to(sandbox) == 1


def test_a_server_that_does_not_answer_in_time_is_a_failure(sandbox: SandboxProcess) -> None:
    plant(sandbox, "slow", seconds=1.0)
    with pytest.raises(UpstreamError, match=r"failed \(ReadTimeout\)"):
        written_to_sandbox(sandbox, scores(1), timeout_seconds=0.1)


@pytest.mark.parametrize("body", [[], "yes", {"message": "Maybe"}])
def test_an_answer_of_another_kind_is_no_success(server: ScoresServer, body: Any) -> None:
    server.script.append((200, body))
    with pytest.raises(UpstreamError, match="answered something unexpected"):
        written_to(server, scores(1))


def test_a_server_that_echoes_the_secret_key_is_not_quoted(server: ScoresServer) -> None:
    server.script.append((500, {"message": f"bad\n{SECRET}", "error": "X"}))
    with pytest.raises(UpstreamError, match=r"answered 500 \(bad \*\*\*: X\)"):
        written_to(server, scores(1))


def written_until_failure(server: ScoresServer, given: list[StatusScore]) -> list[Answered]:
    taken: list[Answered] = []

    def write() -> None:
        with ScoreWriter(server.url, "pk-lf-test", SecretStr(SECRET)) as writer:
            for answered in writer.write(given):
                taken.append(answered)  # noqa: PERF402  -- `extend` need not keep what came before the failure

    with pytest.raises(UpstreamError, match="answered 500"):
        write()
    return taken


def test_what_was_taken_before_a_failure_is_known(server: ScoresServer) -> None:
    server.script.extend([(202, {"message": "Accepted"}), (500, {})])
    given = scores(16)
    assert written_until_failure(server, given) == [Answered(tuple(given[:15]))]


def test_what_an_older_server_took_before_a_failure_is_known(server: ScoresServer) -> None:
    server.script.extend([(400, {}), (200, {"id": "a"}), (400, {"message": "odd"}), (200, {"id": "c"}), (500, {})])
    first, second, third, *_ = given = scores(5)
    assert written_until_failure(server, given) == [Answered((first, third, second), 1, "odd")]


def test_an_older_server_that_fails_before_it_took_anything_took_nothing(server: ScoresServer) -> None:
    server.script.extend([(400, {}), (400, {"message": "odd"}), (500, {})])
    assert written_until_failure(server, scores(3)) == []
