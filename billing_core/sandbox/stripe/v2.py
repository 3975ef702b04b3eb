"""Routes of v2: single meter events, sessions and the stream, adjustments, and the events that carry error reports."""

from __future__ import annotations

import base64
import binascii
from typing import Any
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from billing_core.sandbox.http import HttpError
from billing_core.sandbox.langfuse.wire import iso
from billing_core.sandbox.stripe.account import Account, Refused
from billing_core.sandbox.stripe.calls import accept_one, creating, reading, too_many
from billing_core.sandbox.stripe.events import LONGEST_TEXT
from billing_core.sandbox.stripe.reports import Report, shown
from billing_core.sandbox.stripe.wire import v2_refusal, v2_time

MOST_EVENTS = 100
MOST_TYPES = 20
DEFAULT_LIMIT = 20
LARGEST_LIMIT = 100
KEPT_MILLISECONDS = 30 * 24 * 3600 * 1000

Content = dict[str, Any]


class Given(msgspec.Struct, forbid_unknown_fields=True):
    """A meter event as v2 takes it: strings only."""

    event_name: str
    payload: dict[str, str]
    identifier: str | None = None
    timestamp: str | None = None


class Batch(msgspec.Struct, forbid_unknown_fields=True):
    """The body of the stream."""

    events: list[Given]


class Cancel(msgspec.Struct):
    """Which event to cancel."""

    identifier: str


class Adjustment(msgspec.Struct):
    """The body of an adjustment."""

    event_name: str
    type: str
    cancel: Cancel


def _decoded(body: bytes, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise v2_refusal(400, "invalid_fields", str(error)) from None


def _checked(given: Given, account: Account) -> int:
    """The timestamp in Unix seconds; what v2 refuses for its form is refused here."""
    for text, name in ((given.event_name, "event_name"), (given.identifier or "", "identifier")):
        if len(text) > LONGEST_TEXT:
            raise v2_refusal(400, "invalid_fields", f"{name}: at most {LONGEST_TEXT} characters")
    return account.now_seconds() if given.timestamp is None else v2_time(given.timestamp, "timestamp") // 1000


async def create_meter_event(request: Request, account: Account) -> Content:
    """Accept or refuse one event at once."""
    given: Given = _decoded(await request.body(), Given)
    timestamp = _checked(given, account)
    try:
        event = await accept_one(
            request, account, given.event_name, given.payload, timestamp, given.identifier, source="v2"
        )
    except Refused as refused:
        code = "duplicate_meter_event" if refused.broken is None else refused.broken.report_code
        raise v2_refusal(400, code, refused.message) from None
    return {
        "object": "v2.billing.meter_event",
        "created": iso(event.received),
        "event_name": event.event_name,
        "identifier": event.identifier,
        "livemode": False,
        "payload": event.payload,
        "timestamp": iso(event.timestamp * 1000),
    }


async def create_session(_: Request, account: Account) -> Content:
    """A token for the stream, good for fifteen minutes."""
    now = account.now()
    token, expires_at = account.open_session()
    return {
        "object": "v2.billing.meter_event_session",
        "id": f"mes_test_{token[-16:]}",
        "authentication_token": token,
        "created": iso(now),
        "expires_at": iso(expires_at),
        "livemode": False,
    }


async def create_stream(request: Request, account: Account) -> Content:
    """Take up to 100 events unseen: bad ones turn up in error reports, duplicates nowhere."""
    _check_session(request, account)
    batch: Batch = _decoded(await request.body(), Batch)
    if not 1 <= len(batch.events) <= MOST_EVENTS:
        raise v2_refusal(400, "invalid_fields", f"events: {len(batch.events)} given; 1 to {MOST_EVENTS} are accepted")
    key = request.headers.get("idempotency-key")
    for given, timestamp in [(given, _checked(given, account)) for given in batch.events]:
        try:
            account.accept(
                given.event_name, given.payload, timestamp, given.identifier, source="stream", idempotency_key=key
            )
        except Refused:  # a duplicate
            continue
    return {}


def _check_session(request: Request, account: Account) -> None:
    token = request.headers.get("authorization", "").partition(" ")[2]
    expires_at = account.sessions.get(token)
    if expires_at is None:
        raise v2_refusal(401, "invalid_token", "The stream takes the token of a meter event session, not an API key.")
    if account.now() >= expires_at:
        code, kind = "billing_meter_event_session_expired", "temporary_session_expired"
        raise v2_refusal(400, code, "The meter event session has expired; create a new one.", kind)
    if not account.may_call():
        raise too_many()


async def create_adjustment(request: Request, account: Account) -> Content:
    """Cancel one event that came within the last 24 hours."""
    given: Adjustment = _decoded(await request.body(), Adjustment)
    identifier = given.cancel.identifier
    if given.type != "cancel":
        raise v2_refusal(400, "invalid_fields", f"type: '{given.type}' is not accepted; expected cancel")
    try:
        account.cancel(given.event_name, identifier)
    except Refused as refused:
        raise v2_refusal(400, "meter_event_cancel_failed", refused.message) from None
    return {
        "object": "v2.billing.meter_event_adjustment",
        "id": f"mtra_test_{account.request_id()[-8:]}",
        "cancel": {"identifier": identifier},
        "created": iso(account.now()),
        "event_name": given.event_name,
        "livemode": False,
        "status": "pending",
        "type": "cancel",
    }


async def list_events(request: Request, account: Account) -> Content:
    """Events of the last 30 days, newest first, of some types and within a window; pages by URL."""
    kept = _selected(request, account)
    limit = _limit(request)
    first = 0
    if (token := request.query_params.get("page")) is not None:
        first = _position_after(token, kept)
    page = kept[first : first + limit]
    more = first + limit < len(kept)
    return {
        "data": [shown(report, account.switches) for report in page],
        "next_page_url": _page_url(request, page[-1].id) if more else None,
        "previous_page_url": None,
    }


def _selected(request: Request, account: Account) -> list[Report]:
    query = request.query_params.multi_items()
    types = {value for name, value in query if name == "types" or name.startswith("types[")}
    if len(types) > MOST_TYPES:
        raise v2_refusal(400, "invalid_fields", f"types: at most {MOST_TYPES}")
    reports = [report for report in account.reports() if account.now() - report.created < KEPT_MILLISECONDS]
    if types:
        reports = [report for report in reports if report.type in types]
    if (about := request.query_params.get("object_id")) is not None:
        reports = [report for report in reports if report.meter_id == about]
    for name, value in query:
        if name.startswith("created["):
            reports = _within(reports, name[len("created[") :].removesuffix("]"), v2_time(value, "created"))
    return reports


def _within(reports: list[Report], bound: str, moment: int) -> list[Report]:
    match bound:
        case "gt":
            return [report for report in reports if report.created > moment]
        case "gte":
            return [report for report in reports if report.created >= moment]
        case "lt":
            return [report for report in reports if report.created < moment]
        case "lte":
            return [report for report in reports if report.created <= moment]
        case _:
            raise v2_refusal(400, "invalid_fields", f"created: '{bound}' is not accepted; expected gt, gte, lt or lte")


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(DEFAULT_LIMIT))
    if not text.isdecimal() or not 1 <= int(text) <= LARGEST_LIMIT:
        raise v2_refusal(400, "invalid_fields", f"limit: {text} is not accepted; expected 1 to {LARGEST_LIMIT}")
    return int(text)


def _page_url(request: Request, last: str) -> str:
    """The same question, onward from the report `last`; new ones above it shift nothing."""
    token = base64.urlsafe_b64encode(last.encode()).decode()
    query = [(name, value) for name, value in request.query_params.multi_items() if name != "page"]
    return f"{request.url.path}?{urlencode([*query, ('page', token)])}"


def _position_after(token: str, reports: list[Report]) -> int:
    try:
        last = base64.urlsafe_b64decode(token).decode()
        return [report.id for report in reports].index(last) + 1
    except (binascii.Error, ValueError):
        raise v2_refusal(400, "invalid_page", "page: take it from next_page_url as it is") from None


async def get_event(request: Request, account: Account) -> Content:
    """One event, data included."""
    for report in account.reports():
        if report.id == request.path_params["id"]:
            return shown(report, account.switches)
    raise _not_found(request.path_params["id"])


def _not_found(id_: str) -> HttpError:
    return v2_refusal(404, "not_found", f"No such event: {id_}")


def routes() -> list[Route]:
    """The routes of this part."""
    return [
        Route("/v2/billing/meter_event_stream", creating(create_stream, checks_key=False), methods=["POST"]),
        Route("/v2/billing/meter_events", creating(create_meter_event), methods=["POST"]),
        Route("/v2/billing/meter_event_session", creating(create_session), methods=["POST"]),
        Route("/v2/billing/meter_event_adjustments", creating(create_adjustment), methods=["POST"]),
        Route("/v2/core/events", reading(list_events)),
        Route("/v2/core/events/{id}", reading(get_event)),
    ]
