"""`/_sandbox/stripe`: the switches, and what only an onlooker sees: every event received, exact sums, losses."""

from __future__ import annotations

import hashlib
from decimal import Decimal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from billing_core.sandbox.data.catalog import METER_EVENT_NAME
from billing_core.sandbox.http import HttpError, json_response
from billing_core.sandbox.stripe.calls import account_of
from billing_core.sandbox.stripe.events import NUMBER, ReceivedEvent
from billing_core.sandbox.stripe.switches import patched
from billing_core.sandbox.stripe.wire import decimal_text


class Plant(msgspec.Struct, forbid_unknown_fields=True):
    """An event somebody else sent. `timestamp` and `received` are Unix seconds; without them it is this moment."""

    customer: str
    value: str
    timestamp: int | None = None
    identifier: str | None = None
    event_name: str = METER_EVENT_NAME
    received: int | None = None


async def get_switches(request: Request) -> Response:
    """All switches."""
    return json_response(account_of(request).switches)


async def set_switches(request: Request) -> Response:
    """Set some switches; the others stay."""
    account = account_of(request)
    try:
        account.switch(patched(account.switches, await request.body()))
    except msgspec.MsgspecError as error:
        raise HttpError(400, {"message": f"no switch: {error}"}) from None
    return json_response(account.switches)


async def reset(request: Request) -> Response:
    """Forget events, keys and switches."""
    account = account_of(request)
    account.clear()
    return json_response(account.switches)


async def list_events(request: Request) -> Response:
    """Every event received, in order, optionally of one `customer` or `identifier`."""
    account = account_of(request)
    wanted = {name: request.query_params.get(name) for name in ("customer", "identifier")}
    found = [
        event
        for event in account.book.events
        if all(value is None or getattr(event, name) == value for name, value in wanted.items())
    ]
    return json_response(found)


async def plant_events(request: Request) -> Response:
    """Book one event or a list of them as received, unchecked."""
    account = account_of(request)
    try:
        given = msgspec.json.decode(await request.body(), type=Plant | list[Plant])
        planted = [_event(plant, number, account.now()) for number, plant in enumerate(_listed(given))]
    except (msgspec.MsgspecError, ValueError) as error:
        raise HttpError(400, {"message": f"no event: {error}"}) from None
    for event in planted:
        account.book.add(event)
    return json_response(planted)


def _listed(given: Plant | list[Plant]) -> list[Plant]:
    return given if isinstance(given, list) else [given]


def _event(plant: Plant, number: int, now: int) -> ReceivedEvent:
    if not NUMBER.fullmatch(plant.value):
        raise ValueError(f"value: {plant.value!r} is not a number")
    made_up = hashlib.sha256(f"planted/{now}/{number}/{plant.customer}".encode()).hexdigest()[:32]
    return ReceivedEvent(
        identifier=plant.identifier or made_up,
        event_name=plant.event_name,
        payload={"stripe_customer_id": plant.customer, "value": plant.value},
        customer=plant.customer,
        amount=Decimal(plant.value),
        timestamp=now // 1000 if plant.timestamp is None else plant.timestamp,
        received=now if plant.received is None else plant.received * 1000,
        source="planted",
    )


async def lose_event(request: Request) -> Response:
    """Lose the latest event of an identifier, as if it had never counted; its identifier stays refused."""
    account, identifier = account_of(request), request.path_params["identifier"]
    event = account.book.find(identifier)
    if event is None:
        raise HttpError(404, {"message": f"no event with identifier {identifier}"})
    account.book.drop(event)
    return json_response(event)


async def sums(request: Request) -> Response:
    """By customer, exactly: what was accepted and neither rejected, cancelled nor lost since; lag plays no part."""
    account = account_of(request)
    return json_response(
        {customer: decimal_text(total) for customer, total in account.book.sums(account.now()).items()}
    )


def routes() -> list[Route]:
    """The routes of this part."""
    return [
        Route("/_sandbox/stripe", get_switches, methods=["GET"]),
        Route("/_sandbox/stripe", set_switches, methods=["PATCH"]),
        Route("/_sandbox/stripe", reset, methods=["DELETE"]),
        Route("/_sandbox/stripe/events", list_events, methods=["GET"]),
        Route("/_sandbox/stripe/events", plant_events, methods=["POST"]),
        Route("/_sandbox/stripe/events/{identifier:path}", lose_event, methods=["DELETE"]),
        Route("/_sandbox/stripe/sums", sums, methods=["GET"]),
    ]
