"""How Stripe's answers look: refusals, form encoding, v1 pages. Nothing here knows what the account holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from starlette.requests import Request

from billing_core.sandbox.http import HttpError
from billing_core.sandbox.langfuse.wire import milliseconds

DEFAULT_LIMIT = 10
LARGEST_LIMIT = 100

Item = TypeVar("Item")

Page = dict[str, Any]
"""A v1 list object."""


def invalid(
    message: str,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    status: int = 400,
    kind: str = "invalid_request_error",
) -> HttpError:
    """An error in v1's words; `param` and `code` are left out where Stripe leaves them out."""
    error = {"type": kind, "message": message, "param": param, "code": code}
    return HttpError(status, {"error": {key: value for key, value in error.items() if value is not None}}, headers)


def missing(what: str, id_: object, param: str = "id") -> HttpError:
    """404 for an id in the path that nobody has."""
    return invalid(f"No such {what}: '{id_}'", param, "resource_missing", status=404)


def v2_refusal(status: int, code: str, message: str, kind: str | None = None) -> HttpError:
    """An error in v2's words: a code and a message, a type only where the SDK maps one to a class."""
    error = {"code": code, "message": message}
    return HttpError(status, {"error": error if kind is None else {"type": kind, **error}})


def unflatten(body: str) -> dict[str, Any]:
    """Stripe's form encoding: `payload[value]=5` becomes `{"payload": {"value": "5"}}`, one level deep."""
    result: dict[str, Any] = {}
    for name, value in parse_qsl(body, keep_blank_values=True):
        outer, bracket, rest = name.partition("[")
        if bracket:
            inner = result.setdefault(outer, {})
            if isinstance(inner, dict):
                inner[rest.removesuffix("]")] = value
        else:
            result[outer] = value
    return result


async def form(request: Request) -> dict[str, Any]:
    """The form fields of a v1 POST."""
    return unflatten((await request.body()).decode(errors="replace"))


def decimal_text(value: Decimal) -> str:
    """Without exponent and without zeros at the end, as `*_decimal` fields are written."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def unix_parameter(request: Request, name: str) -> int:
    """A required integer query parameter in Unix seconds.

    Raises Refusal: 400 naming the parameter.
    """
    text = request.query_params.get(name)
    if text is None:
        raise invalid(f"Missing required param: {name}.", name, "parameter_missing")
    if not text.isdecimal():
        raise invalid(f"Invalid integer: {text}", name, "parameter_invalid_integer")
    return int(text)


def v2_time(text: object, name: str) -> int:
    """RFC 3339 text in milliseconds since 1970.

    Raises Refusal: 400 for anything else; v2 takes no Unix seconds.
    """
    if isinstance(text, str):
        try:
            return milliseconds(text)
        except ValueError:
            pass
    message = f"{name}: {text!r} is not an RFC 3339 time such as 2026-11-01T00:00:00.000Z"
    raise v2_refusal(400, "invalid_fields", message)


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(DEFAULT_LIMIT))
    if not text.isdecimal() or not 1 <= int(text) <= LARGEST_LIMIT:
        raise invalid(f"Invalid limit: must be between 1 and {LARGEST_LIMIT}.", "limit")
    return int(text)


def page(request: Request, items: Sequence[Item], shown: Callable[[Item], Mapping[str, Any]] | None = None) -> Page:
    """One page of a v1 list: `limit` 1–100 (default 10), onward with `starting_after`, back with `ending_before`.

    Items are objects as they are answered, or have an `id`, and `shown` turns those of this page into such.

    Raises Refusal: 400 for a limit outside, or an id that is not in the list.
    """
    limit = _limit(request)
    after, before = (request.query_params.get(name) for name in ("starting_after", "ending_before"))
    if before is not None:
        end = _position(items, before, "ending_before")
        first = max(end - limit, 0)
        more = first > 0
    else:
        first = 0 if after is None else _position(items, after, "starting_after") + 1
        end = min(first + limit, len(items))
        more = end < len(items)
    data = items[first:end] if shown is None else [shown(item) for item in items[first:end]]
    return {"object": "list", "url": request.url.path, "has_more": more, "data": list(data)}


def _position(items: Sequence[Any], id_: str, param: str) -> int:
    for position, item in enumerate(items):
        if (item["id"] if isinstance(item, Mapping) else item.id) == id_:
            return position
    raise invalid(f"No such object: '{id_}'", param, "resource_missing")


def expansions(request: Request) -> list[str]:
    """The paths of `expand[]`, `expand[0]`, …"""
    return [value for name, value in request.query_params.multi_items() if name.startswith("expand[")]
