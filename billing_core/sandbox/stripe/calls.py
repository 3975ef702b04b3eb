"""What every call to Stripe's face goes through: key, rate limit, idempotency, request id."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from copy import deepcopy
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from billing_core.sandbox.data.catalog import STRIPE_KEY
from billing_core.sandbox.http import HttpError, json_response
from billing_core.sandbox.planted import Planted
from billing_core.sandbox.stripe.account import Account
from billing_core.sandbox.stripe.answers import SentResponse
from billing_core.sandbox.stripe.catalog import PRICES, PRODUCTS
from billing_core.sandbox.stripe.events import ReceivedEvent, Source
from billing_core.sandbox.stripe.wire import expansions, invalid, v2_refusal

Endpoint = Callable[[Request], Awaitable[Response]]
Work = Callable[[Request, Account], Awaitable[object]]
"""The content of a good answer; anything else is a `HttpError`."""


def account_of(request: Request) -> Account:
    """The account the application serves, up to date."""
    account: Account = request.app.state.stripe
    account.book.catch_up()
    return account


def reading(work: Work) -> Endpoint:
    """A GET."""

    async def endpoint(request: Request) -> Response:
        account = account_of(request)
        try:
            _admit(request, account)
            content = await work(request, account)
            if paths := expansions(request):
                content = deepcopy(content)
                for path in paths:
                    _expand(content, path.split("."), account)
        except HttpError as refusal:
            return _refused(refusal, account)
        return json_response(content, headers={"Request-Id": account.request_id()})

    return endpoint


def creating(work: Work, *, checks_key: bool = True) -> Endpoint:
    """A POST; `checks_key=False` leaves the key to `work` (streams come with a session's token).

    v1 repeats the kept first answer word for word; v2 only does not repeat work that succeeded.
    """

    async def endpoint(request: Request) -> Response:
        account = account_of(request)
        try:
            if checks_key:
                _admit(request, account)
            answer = await _worked(request, account, work)
        except HttpError as refusal:
            return _refused(refusal, account)
        return Response(answer.body, answer.status, answer.headers, "application/json")

    return endpoint


def deleting(work: Work) -> Endpoint:
    """A DELETE, which needs no key: a second one finds nothing."""

    async def endpoint(request: Request) -> Response:
        account = account_of(request)
        try:
            _admit(request, account)
            answer = await _attempt(request, account, work)
        except HttpError as refusal:
            return _refused(refusal, account)
        return Response(answer.body, answer.status, answer.headers, "application/json")

    return endpoint


async def _worked(request: Request, account: Account, work: Work) -> SentResponse:
    key, path = request.headers.get("idempotency-key"), request.url.path
    if key is None:
        return await _attempt(request, account, work)
    kept = account.answers.begin(key, path, await request.body(), account.now())
    if kept is not None:
        if path.startswith("/v2/"):
            return kept
        return SentResponse(kept.status, kept.body, {**kept.headers, "Idempotent-Replayed": "true"})
    try:
        answer = await _attempt(request, account, work)
    except BaseException:
        account.answers.forget(key)  # refusals and conflicts are not kept
        raise
    if answer.status == 500 and path.startswith("/v2/"):
        account.answers.forget(key)
    else:
        account.answers.keep(key, answer)
    return answer


async def _attempt(request: Request, account: Account, work: Work) -> SentResponse:
    """Do the work, or fail before or after it as planted."""
    planted: Planted | None = request.scope.get(Planted.KEY)
    headers = {"Request-Id": account.request_id()}
    if planted is not None and not planted.works:
        return SentResponse(planted.status, planted.body, headers)
    content = await work(request, account)
    if planted is not None:
        return SentResponse(planted.status, planted.body, headers)
    return SentResponse(200, content if isinstance(content, bytes) else msgspec.json.encode(content), headers)


def _admit(request: Request, account: Account) -> None:
    """Those who hold the key, and not too many of them."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or key != STRIPE_KEY:
        raise invalid("Invalid API Key provided.", status=401)
    if not account.may_call():
        raise too_many()


def too_many() -> HttpError:
    """429, which the SDK never tries again by itself."""
    headers = {"Stripe-Rate-Limited-Reason": "global-rate"}
    return invalid("Request rate limit exceeded.", code="rate_limit", headers=headers, status=429)


def flight(path: str) -> HttpError:
    """409 for a second call at a time for one customer and meter."""
    code, message = "too_many_concurrent_requests", "Another call for this customer and meter is in flight."
    return v2_refusal(409, code, message) if path.startswith("/v2/") else invalid(message, code=code, status=409)


def _refused(refusal: HttpError, account: Account) -> Response:
    return json_response(refusal.body, refusal.status, {**(refusal.headers or {}), "Request-Id": account.request_id()})


def _expand(content: Any, path: list[str], account: Account) -> None:
    """Put objects in place of ids along one path; what cannot be expanded stays an id."""
    if isinstance(content, list):
        for one in content:
            _expand(one, path, account)
    elif isinstance(content, dict) and path[0] in content:
        value = content[path[0]]
        if isinstance(value, str):
            value = content[path[0]] = deepcopy(_object(value, account) or value)
        if len(path) > 1:
            _expand(value, path[1:], account)


def _object(id_: str, account: Account) -> dict[str, Any] | None:
    if id_.startswith("cus_"):
        return account.customer(id_)
    return PRICES.get(id_) or PRODUCTS.get(id_)


async def accept_one(
    request: Request,
    account: Account,
    event_name: str,
    payload: dict[str, str],
    timestamp: int,
    identifier: str | None,
    *,
    source: Source,
) -> ReceivedEvent:
    """Accept one meter event (`timestamp` in Unix seconds) as slowly as the switches say, one call at a time per
    customer.

    Raises HttpError: while another call of the customer is under way. Refused: as `Account.accept`.
    """
    try:
        with account.one_in_flight(event_name, payload):
            key = request.headers.get("idempotency-key")
            event = account.accept(event_name, payload, timestamp, identifier, source=source, idempotency_key=key)
            if account.switches.meter_event_latency_seconds:
                await asyncio.sleep(account.switches.meter_event_latency_seconds)
    except BlockingIOError:
        raise flight(request.url.path) from None
    return event
