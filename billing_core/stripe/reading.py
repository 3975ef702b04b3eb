"""Reads from Stripe: repeats, rate limits, pages, and one line for whatever goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from billing_core.errors import UpstreamError
from billing_core.stripe.answer import StripeResponse
from billing_core.stripe.limits import RetryLimits
from billing_core.stripe.wire import Connection, NoResponse

PAGE = 100
"""Objects per page; Stripe's own default is 10 and reads are rationed."""

PASSING = frozenset({408, 409, 425})


class ReadFailed(UpstreamError):
    """A read from Stripe was refused or not answered.

    status: HTTP status, `None` without an answer.
    code, param: As Stripe's error names them.
    """

    def __init__(self, text: str, answer: StripeResponse | None = None) -> None:
        super().__init__(text)
        self.status = answer.status if answer else None
        self.code = answer.of_error("code") if answer else None
        self.param = answer.of_error("param") if answer else None


class JsonReader:
    """Reads JSON objects from Stripe; every number is exact. `what` names the thing in errors: "customers"."""

    def __init__(self, connection: Connection, patience: RetryLimits | None = None) -> None:
        self._connection = connection
        self._patience = patience or RetryLimits()
        self._closed = threading.Event()

    def close(self) -> None:
        """End every wait of reads under way."""
        self._closed.set()

    def one(
        self, what: str, path: str, params: Mapping[str, Any] | None = None, *, method: Literal["get", "post"] = "get"
    ) -> dict[str, Any]:
        """One object of Stripe's API. `method` is `post` for previews, which change nothing.

        Raises ReadFailed: in one line.
        """
        failures = limits = 0
        limited_seconds = 0.0
        while True:
            answer: StripeResponse | None = None
            silence = ""
            try:
                answer = self._connection.call(method, path, params or {})
            except NoResponse as error:
                silence = str(error)
            if answer and answer.is_success and (found := answer.document) is not None and not answer.error:
                return found
            if answer and answer.is_rate_limit:
                limits += 1
                wait = answer.retry_after_seconds or self._patience.backoff_seconds(limits)
                limited_seconds += wait
                if limited_seconds > self._patience.limited_read_seconds:
                    raise self._failed(what, answer, silence)
            else:
                failures += 1
                if failures >= self._patience.read_tries or not _may_pass(answer):
                    raise self._failed(what, answer, silence)
                wait = self._patience.backoff_seconds(failures)
            if self._closed.wait(wait):
                raise self._failed(what, answer, silence)

    def pages(self, what: str, path: str, params: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Every object of a v1 list, page by page. Raises `ReadFailed`."""
        after: dict[str, str] = {}
        while True:
            page = self.one(what, path, {**(params or {}), "limit": PAGE, **after})
            rows = self.rows(what, page)
            yield from rows
            if not page.get("has_more") or not rows:
                return
            last = rows[-1].get("id")
            if not isinstance(last, str) or after.get("starting_after") == last:
                raise ReadFailed(f"Stripe: reading {what} failed: a page does not say where the next one begins")
            after = {"starting_after": last}

    def v2_pages(self, what: str, path: str, params: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Every object of a v2 list, page by page. Raises `ReadFailed`."""
        seen: set[str] = set()
        page = self.one(what, path, {**params, "limit": PAGE})
        while True:
            yield from self.rows(what, page)
            following = page.get("next_page_url")
            if not isinstance(following, str) or not following:
                return
            if following in seen:
                raise ReadFailed(f"Stripe: reading {what} failed: the pages go round in a circle")
            seen.add(following)
            # Only path and query: the host stays the one that was configured.
            parts = urlsplit(following)
            page = self.one(what, f"{parts.path}?{parts.query}")

    def rows(self, what: str, page: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The objects of one page, also of a list inside an object. Raises `ReadFailed`."""
        rows = page.get("data")
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ReadFailed(f"Stripe: reading {what} failed: the answer is not a list of objects")
        return rows

    def _failed(self, what: str, answer: StripeResponse | None, silence: str) -> ReadFailed:
        status = f"HTTP {answer.status}" if answer else "no answer"
        request = f", request {answer.request_id}" if answer and answer.request_id else ""
        reason = _stripe_reason(answer) or silence
        text = f"Stripe: reading {what} failed ({status}{request}): {reason}{_advice(answer)}"
        return ReadFailed(self._connection.without_key(text), answer)


def _stripe_reason(answer: StripeResponse | None) -> str | None:
    if answer is None:
        return None
    if not answer.is_rate_limit:
        return answer.message
    return f"rate limit {answer.limit_reason or 'without a reason'}: {answer.message}"


def _may_pass(answer: StripeResponse | None) -> bool:
    """Whether the same question may be answered a moment later. Stripe's own opinion comes first."""
    if answer is None or answer.is_success:
        return True  # silence, or a broken body
    opinion = answer.headers.get("stripe-should-retry", "").lower()
    if opinion in {"true", "false"}:
        return opinion == "true"
    return answer.status >= 500 or answer.status in PASSING


def _advice(answer: StripeResponse | None) -> str:
    status = answer.status if answer else None
    if status is None:
        return "; check the network and STRIPE_API_BASE"
    if status == 401:
        return "; check STRIPE_API_KEY"
    if status == 403:
        return "; give the restricted key in STRIPE_API_KEY this permission"
    return ""
