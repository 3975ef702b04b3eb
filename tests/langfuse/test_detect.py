"""Which API a server offers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from billing_core.errors import UpstreamError
from billing_core.langfuse.provider import LangfuseProvider
from billing_core.settings import ApiChoice
from tests.langfuse.fake import Answer, FakeLangfuse, observation

Connect = Callable[..., LangfuseProvider]


def test_cloud_and_version_4_are_read_through_observations(langfuse: FakeLangfuse, connect: Connect) -> None:
    langfuse.rows = [observation("a", "t", "2026-11-22T10:00:00.000Z")]
    assert connect().api() == "v2"


@pytest.mark.parametrize("status", [404, 410, 501])
def test_version_3_is_read_through_the_legacy_api(langfuse: FakeLangfuse, connect: Connect, status: int) -> None:
    langfuse.offers_legacy = True
    langfuse.answer_times(9, Answer(status, b"<html>not found</html>"))
    assert connect().api() == "legacy"


def test_a_500_means_not_offered_only_on_version_3(langfuse: FakeLangfuse, connect: Connect) -> None:
    langfuse.offers_legacy = True
    langfuse.answer_times(99, Answer(500, {"message": "oops"}))
    with pytest.raises(UpstreamError):
        connect().api()
    langfuse.version = "3.140.2"
    assert connect().api() == "legacy"


def test_an_outage_of_version_3_is_an_outage(langfuse: FakeLangfuse, connect: Connect) -> None:
    langfuse.offers_legacy, langfuse.version = True, "3.140.2"
    langfuse.answer_times(99, Answer(503, {"message": "database unavailable"}))
    with pytest.raises(UpstreamError, match="503"):
        connect().api()


def test_an_empty_v2_beside_legacy_traces_is_a_server_in_legacy_write_mode(
    langfuse: FakeLangfuse, connect: Connect
) -> None:
    langfuse.offers_legacy = True
    assert connect().api() == "v2"
    langfuse.traces = [{"id": "t", "timestamp": "2099-01-01T00:00:00.000Z"}]
    assert connect().api() == "legacy"


def test_a_server_that_offers_neither_is_named(langfuse: FakeLangfuse, connect: Connect) -> None:
    langfuse.offers_v2 = False
    with pytest.raises(UpstreamError, match="is not offered either"):
        connect().api()


def test_the_answer_is_kept(langfuse: FakeLangfuse, connect: Connect) -> None:
    provider = connect()
    assert provider.api() == provider.api()
    assert len([r for r in langfuse.requests if r.path == "v2/observations"]) == 1


@pytest.mark.parametrize(("choice", "api"), [(ApiChoice.V2, "v2"), (ApiChoice.LEGACY, "legacy")])
def test_the_setting_decides_without_asking(
    langfuse: FakeLangfuse, connect: Connect, choice: ApiChoice, api: str
) -> None:
    assert connect(api=choice).api() == api
    assert {r.path for r in langfuse.requests} == {"projects"}
