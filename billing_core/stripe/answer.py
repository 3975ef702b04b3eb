"""A response of Stripe, kept whole: what it says decides whether a meter event may be sent again.

The SDK drops the headers of answers it cannot read (an HTML page with `Retry-After`, a broken 500 that was a
replay), so answers are judged from here and not from its exceptions.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any

LONGEST_TEXT = 300
"""Characters of a foreign message that are worth showing."""

LIMIT_CODES = frozenset({"rate_limit", "lock_timeout"})

REDIRECTS = frozenset({301, 302, 303, 307, 308})


def one_line(text: object) -> str:
    """A text from outside without line breaks or runs of blanks, cut to a readable length."""
    return " ".join(str(text).split())[:LONGEST_TEXT]


@dataclass(frozen=True)
class StripeResponse:
    """A response of Stripe: status, headers (case-blind), body, and when it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    at: datetime

    @cached_property
    def document(self) -> dict[str, Any] | None:
        """The body as a JSON object with exact numbers; `None` if it is anything else."""
        try:
            found = json.loads(self.body, parse_float=Decimal, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx, whatever the body."""
        return 200 <= self.status < 300

    @property
    def error(self) -> dict[str, Any]:
        """Stripe's error object; empty if this is no error response of Stripe's API."""
        found = (self.document or {}).get("error")
        return found if isinstance(found, dict) else {}

    def of_error(self, key: str) -> str | None:
        """A text of Stripe's error object (`type`, `code`, `param`); `None` if it has none."""
        found = self.error.get(key)
        return found if isinstance(found, str) else None

    @property
    def is_rate_limit(self) -> bool:
        """Whether Stripe refused the call for its rate limit before any work; formerly a 400 with a code."""
        return self.status == 429 or (not self.is_success and self.of_error("code") in LIMIT_CODES)

    @property
    def limit_reason(self) -> str | None:
        """The name of the limit that was met; without one it is usually a lock on one object."""
        return self.headers.get("stripe-rate-limited-reason")

    @property
    def is_replay(self) -> bool:
        """Whether this is the stored response to an earlier request with the same idempotency key."""
        return self.headers.get("idempotent-replayed", "").lower() == "true"

    @property
    def request_id(self) -> str | None:
        """Stripe's id of the request, which its support asks for."""
        return self.headers.get("request-id")

    @property
    def retry_after_seconds(self) -> float | None:
        """The seconds that the response asks to wait; it may give seconds or a date."""
        text = self.headers.get("retry-after", "").strip()
        if text.replace(".", "", 1).isdecimal():
            return float(text)
        with contextlib.suppress(ValueError):
            when = parsedate_to_datetime(text)
            return max(0.0, (when.astimezone(UTC) - self.at).total_seconds())
        return None

    @property
    def message(self) -> str:
        """The error's reason in Stripe's words, or what came instead of them."""
        if isinstance(text := self.error.get("message"), str) and text.strip():
            return one_line(text)
        if self.status in REDIRECTS:
            return one_line(f"it redirects to {self.headers.get('location', 'nowhere')}, which is not followed")
        kind = self.headers.get("content-type", "").partition(";")[0].strip()
        return one_line(f"the answer is not what Stripe's API sends ({kind or 'no content type'})")


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not a number")
