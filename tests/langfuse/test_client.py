"""What a status code means, and how often to ask again."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from billing_core.errors import UpstreamError
from billing_core.langfuse.client import TRIES, BrokenBody, LangfuseClient, NotOffered, QuestionTooLarge
from tests.langfuse.fake import PUBLIC_KEY, SECRET_KEY, Answer, FakeLangfuse

PATH = "v2/observations"


def decode(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise BrokenBody(str(error)) from None


@pytest.fixture
def client(langfuse: FakeLangfuse) -> LangfuseClient:
    return LangfuseClient(
        langfuse.url, PUBLIC_KEY, SecretStr(SECRET_KEY), timeout_seconds=5, first_backoff_seconds=0.001
    )


@pytest.fixture
def ask(langfuse: FakeLangfuse, client: LangfuseClient) -> Callable[..., Any]:
    def ask(*answers: Answer) -> Any:
        queue = list(answers)
        langfuse.scripts.append(lambda request: queue.pop(0) if queue else Answer(body={"ok": True}))
        return client.get(PATH, {}, decode)

    return ask


@pytest.mark.parametrize(
    "fault",
    [
        Answer(500, {"message": "oops"}),
        Answer(502, b"<html>"),
        Answer(503, {"message": "database unavailable"}),
        Answer(200, {"ok": "x" * 1000}, cut=True),
        Answer(200, b'{"ok": tru'),
        Answer(200, b'{"ok": true}', {"Content-Encoding": "gzip"}),  # it is not packed
    ],
)
def test_a_passing_fault_is_asked_again(ask: Callable[..., Any], langfuse: FakeLangfuse, fault: Answer) -> None:
    assert ask(fault, fault) == {"ok": True}
    assert len(langfuse.requests) == 3


def test_a_fault_that_does_not_pass_is_one_line_with_what_to_do(
    ask: Callable[..., Any], langfuse: FakeLangfuse
) -> None:
    with pytest.raises(UpstreamError) as caught:
        ask(*[Answer(503, {"message": "database\nunavailable"})] * TRIES)
    text = str(caught.value)
    assert "GET /api/public/v2/observations answered 503 (database unavailable), tried 5 times" in text
    assert "check LANGFUSE_HOST" in text
    assert "\n" not in text
    assert len(langfuse.requests) == TRIES


@pytest.mark.parametrize(
    "answer",
    [
        Answer(422, {"message": "Request timed out", "error": "x"}),
        Answer(500, {"message": "Timeout error", "error": "x"}),
        Answer(504, b"<html>"),
        Answer(524, b"<html>"),
        Answer(414, b""),
    ],
)
def test_an_overloaded_server_is_not_asked_the_same_again(
    ask: Callable[..., Any], langfuse: FakeLangfuse, answer: Answer
) -> None:
    with pytest.raises(QuestionTooLarge):
        ask(answer)
    assert len(langfuse.requests) == 1


@pytest.mark.parametrize("status", [404, 410, 501])
def test_a_missing_route_is_not_offered(ask: Callable[..., Any], status: int) -> None:
    with pytest.raises(NotOffered):
        ask(Answer(status, b"<html>"))


@pytest.mark.parametrize(
    ("status", "advice"), [(400, "report"), (401, "LANGFUSE_PUBLIC_KEY"), (403, "project's key"), (302, "redirects")]
)
def test_a_refusal_stops_at_once_and_says_what_to_check(
    ask: Callable[..., Any], langfuse: FakeLangfuse, status: int, advice: str
) -> None:
    with pytest.raises(UpstreamError, match=advice):
        ask(Answer(status, {"message": "no"}))
    assert len(langfuse.requests) == 1


def test_the_secret_is_not_shown_even_if_the_server_echoes_it(ask: Callable[..., Any]) -> None:
    with pytest.raises(UpstreamError) as caught:
        ask(Answer(401, {"message": f"bad key {SECRET_KEY}"}))
    assert SECRET_KEY not in str(caught.value)
    assert "bad key ***" in str(caught.value)


@pytest.mark.parametrize(
    "limited",
    [
        Answer(429, {"message": "slow"}, {"Retry-After": "1", "X-RateLimit-Reset": "Sun Nov 22 2026 12:00:00 GMT"}),
        Answer(429, {"message": "slow", "details": {"retryAfterSeconds": 1}}),
    ],
)
def test_a_rate_limit_is_waited_for(
    ask: Callable[..., Any], client: LangfuseClient, monkeypatch: pytest.MonkeyPatch, limited: Answer
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(client.limiter, "pause", pauses.append)
    assert ask(limited, limited) == {"ok": True}
    assert pauses == [1.0, 1.0]


def test_a_rate_limit_of_minutes_is_obeyed_in_full(
    ask: Callable[..., Any], client: LangfuseClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(client.limiter, "pause", pauses.append)
    ask(Answer(429, {}, {"Retry-After": "1800"}))
    assert pauses == [1800.0]


def test_a_daily_quota_is_reported_with_the_time_to_come_back(ask: Callable[..., Any]) -> None:
    with pytest.raises(UpstreamError, match=r"come back after 20\d\d-\d\d-\d\d \d\d:\d\d UTC"):
        ask(Answer(429, {}, {"Retry-After": "40000"}))


def test_a_host_that_is_not_there_is_named_without_its_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    client = LangfuseClient(
        "http://user:pw@127.0.0.1:9", PUBLIC_KEY, SecretStr(SECRET_KEY), first_backoff_seconds=0.001
    )
    with pytest.raises(UpstreamError) as caught:
        client.get(PATH, {}, decode)
    assert "Langfuse at 127.0.0.1:9" in str(caught.value)
    assert "could not be reached" in str(caught.value)
    assert "pw" not in str(caught.value)
