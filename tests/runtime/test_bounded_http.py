"""No answer of Langfuse or Stripe goes on for ever or fills the memory."""

import gzip
import time
from datetime import UTC, datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from billing_core.errors import UpstreamError
from billing_core.langfuse.client import LangfuseClient, QuestionTooLarge
from billing_core.runtime.bounded_http import AnswerTooLarge, AnswerTooSlow, Unpacking, bounded_client
from billing_core.stripe.wire import Connection, NoResponse
from tests import misbehaving
from tests.addresses import UNREACHABLE
from tests.misbehaving import serving

SECONDS, BYTES = 0.6, 1_000_000
FOREVER = 20.0
"""Seconds that nothing here takes unless it has no end."""


@pytest.fixture
def in_time():
    began = time.monotonic()
    yield
    assert time.monotonic() - began < FOREVER


@pytest.mark.parametrize(
    ("talk", "error"),
    [
        (misbehaving.drip_body, AnswerTooSlow),
        (misbehaving.drip_header, AnswerTooSlow),
        (misbehaving.without_end, AnswerTooLarge),
        (misbehaving.bomb, AnswerTooLarge),
        (misbehaving.bombs_in_a_bomb, httpx.DecodingError),
        (misbehaving.lie, httpx.DecodingError),
        (misbehaving.cut_short, httpx.DecodingError),
        (misbehaving.broken_chunks, httpx.RemoteProtocolError),
    ],
    ids=lambda value: value.__name__,
)
def test_an_answer_of_langfuse_has_an_end_in_time_and_size(talk, error, in_time):
    seconds = SECONDS if error is AnswerTooSlow else FOREVER
    with (
        serving(talk) as url,
        bounded_client(answer_seconds=seconds, answer_bytes=BYTES, timeout=5) as client,
        pytest.raises(error),
    ):
        client.get(url)


@pytest.mark.parametrize(
    "talk",
    [
        misbehaving.drip_body,
        misbehaving.drip_header,
        misbehaving.without_end,
        misbehaving.bomb,
        misbehaving.bombs_in_a_bomb,
        misbehaving.lie,
        misbehaving.cut_short,
        misbehaving.broken_chunks,
    ],
    ids=lambda talk: talk.__name__,
)
@pytest.mark.parametrize("method", ["get", "post"])
def test_an_answer_of_stripe_has_an_end_in_time_and_size_and_what_was_sent_may_have_arrived(talk, method, in_time):
    with serving(talk) as url:
        connection = Connection("sk_test_x", url, (5.0, 5.0), answer_seconds=SECONDS, answer_bytes=BYTES)
        with pytest.raises(NoResponse) as caught:
            connection.call(method, "/v1/customers", {})
        connection.close()
    assert caught.value.was_sent


@pytest.mark.parametrize("talk", [misbehaving.drip_body, misbehaving.lie, misbehaving.broken_chunks])
def test_a_server_of_langfuse_that_goes_on_like_that_is_one_line(talk, in_time):
    with serving(talk) as url:
        client = LangfuseClient(
            url, "pk", SecretStr("sk"), first_backoff_seconds=0.001, answer_seconds=SECONDS, answer_bytes=BYTES
        )
        with pytest.raises(UpstreamError) as caught:
            client.get("projects", {}, bytes)
        client.close()
    assert "check LANGFUSE_HOST" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_answer_that_is_too_large_is_a_reason_to_ask_for_less(in_time):
    with serving(misbehaving.without_end) as url:
        client = LangfuseClient(url, "pk", SecretStr("sk"), answer_bytes=BYTES)
        with pytest.raises(QuestionTooLarge):
            client.get("v2/observations", {}, bytes)
        client.close()


@given(st.binary(max_size=5000), st.integers(1, 64))
def test_what_is_packed_comes_out_as_it_was_in_whatever_pieces(body, size):
    packed = gzip.compress(body)
    unpacking = Unpacking("gzip", 5000)
    out = b"".join(unpacking.feed(packed[i : i + size]) for i in range(0, len(packed), size))
    unpacking.end()
    assert out == body


@given(st.binary(min_size=1, max_size=3000), st.integers(0, 2999), st.booleans())
def test_no_more_comes_out_than_the_limit(body, limit, is_packed):
    unpacking = Unpacking("gzip" if is_packed else "", limit)
    piece = gzip.compress(body) if is_packed else body
    if len(body) <= limit:
        assert unpacking.feed(piece) == body
    else:
        with pytest.raises(AnswerTooLarge):
            unpacking.feed(piece)


# ── Retry-After ──────────────────────────────────────────────────────────────────────────────────

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:40 GMT"}, 40),
        ({"Retry-After": "Sunday, 22-Nov-26 12:00:40 GMT"}, 40),
        ({"Retry-After": "Sun Nov 22 12:00:40 2026"}, 40),
        ({"Retry-After": "Sun, 22 Nov 2026 12:01:00 GMT", "Date": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30),
        ({"Retry-After": "Sun, 22 Nov 2026 11:00:00 GMT"}, 0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Sun, 99 Nov 2026 12:00:40 GMT"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_seconds_or_a_time_by_the_servers_clock(headers, seconds):
    client = LangfuseClient(UNREACHABLE, "pk", SecretStr("sk"), clock=lambda: NOW)
    assert client._retry_after(httpx.Response(429, headers=headers)) == seconds
    client.close()


@pytest.mark.parametrize("value", ["1e300", "Fri, 31 Dec 9999 23:59:59 GMT", "999999999999"])
def test_a_time_beyond_any_calendar_is_one_line(value):
    client = LangfuseClient(UNREACHABLE, "pk", SecretStr("sk"), clock=lambda: NOW)
    with pytest.raises(UpstreamError, match="come back after"):
        client._judge("x", httpx.Response(429, headers={"Retry-After": value}))
    client.close()
