"""What an answer of Stripe says, whatever it looks like."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from requests.structures import CaseInsensitiveDict

from billing_core.stripe.answer import StripeResponse, one_line

NOON = datetime(2026, 6, 17, 12, tzinfo=UTC)


def answer(status=200, body=b"{}", **headers):
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return StripeResponse(status, CaseInsensitiveDict(named), body, NOON)


@pytest.mark.parametrize(
    ("text", "seconds"), [("7", 7.0), ("0.25", 0.25), ("0", 0.0), ("-1", None), ("soon", None), ("", None)]
)
def test_seconds_to_wait(text, seconds):
    assert answer(429, Retry_After=text).retry_after_seconds == seconds


def test_a_date_to_wait_for():
    soon = format_datetime(NOON + timedelta(minutes=10), usegmt=True)
    assert answer(429, Retry_After=soon).retry_after_seconds == 600
    assert answer(429, Retry_After="Sun, 01 Jan 2023 00:00:00 GMT").retry_after_seconds == 0


def test_nothing_to_wait_for():
    assert answer(429).retry_after_seconds is None


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'{"a": NaN}', b"[" * 100_000, b"\xff\xfe"])
def test_what_is_no_json_object_is_no_document(body):
    assert answer(body=body).document is None
    assert answer(500, body).error == {}


def test_an_error_object_of_another_shape_is_none_of_stripes():
    assert answer(400, b'{"error": "invalid_grant"}').error == {}
    assert answer(400, b'{"error": {"code": 7}}').of_error("code") is None


@pytest.mark.parametrize(
    ("status", "code", "is_limit"),
    [
        (429, "", True),
        (400, "rate_limit", True),
        (400, "lock_timeout", True),
        (400, "else", False),
        (200, "rate_limit", False),
    ],
)
def test_a_rate_limit_shows_in_the_status_or_the_code(status, code, is_limit):
    assert answer(status, b'{"error": {"code": "%s"}}' % code.encode()).is_rate_limit is is_limit


def test_foreign_words_become_one_readable_line():
    assert one_line(" a\n b\t\tc ") == "a b c"
    assert len(one_line("x" * 5000)) == 300
