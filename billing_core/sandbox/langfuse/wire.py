"""The v2 wire form of a row: one JSON object whose keys stand in a fixed order, field group by field group.

Rows are written once, in the form that asks for everything a billing client reads (all groups but `io`, `prompt`
and `metrics`). Other field selections are cut out of that text, because every group is one contiguous piece.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from billing_core.sandbox.data.catalog import PROJECT_ID
from billing_core.sandbox.data.plan import ObservationData, TracePlan, moment

GROUPS = ("core", "basic", "time", "io", "metadata", "model", "usage", "prompt", "metrics", "trace_context")
STORED_GROUPS = frozenset({"core", "basic", "time", "model", "usage", "metadata", "trace_context"})
"""What the stored text holds; asking for exactly these needs no work at all."""

CUT_LENGTH = 200
"""Characters of a metadata value that the server gives away unless asked to expand."""

SECONDS_OF_DAY = [f"T{s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d}." for s in range(86_400)]

OTEL_METADATA = (
    '"scope.name":"langfuse-sdk","scope.version":"5.0.4",'
    '"resourceAttributes.service.name":"chat-api","resourceAttributes.telemetry.sdk.language":"python"'
)
"""What every OpenTelemetry row drags along beside the application's own metadata."""

SHAPE: tuple[tuple[str, Mapping[str, Any]], ...] = (
    (
        "core",
        {
            "id": "",
            "traceId": "",
            "startTime": "",
            "endTime": None,
            "projectId": PROJECT_ID,
            "parentObservationId": None,
            "type": "SPAN",
            "latency": None,
        },
    ),
    ("first_token", {"timeToFirstToken": None}),
    (
        "basic",
        {
            "isRootObservation": False,
            "name": "",
            "level": "DEFAULT",
            "statusMessage": "",
            "version": "",
            "environment": "default",
            "bookmarked": False,
            "public": False,
            "userId": "",
            "sessionId": "",
        },
    ),
    ("time", {"completionStartTime": None, "createdAt": "", "updatedAt": ""}),
    (
        "model",
        {
            "model": "",
            "internalModelId": "",
            "modelParameters": {},
            "modelId": None,
            "inputPrice": None,
            "outputPrice": None,
            "totalPrice": None,
        },
    ),
    (
        "usage",
        {
            "usageDetails": {},
            "costDetails": {},
            "totalCost": None,
            "usagePricingTierName": None,
            "usagePricingTierId": None,
        },
    ),
    ("metadata", {"metadata": {}}),
    ("trace_context", {"traceName": None, "tags": [], "release": ""}),
)
"""Every key of a stored row with its value where nothing is known, in wire order (reference, section 1.2)."""

WITHOUT_MODEL = b',"modelId":null,"inputPrice":null,"outputPrice":null,"totalPrice":null'
PROMPT = b',"promptId":"","promptName":"","promptVersion":null'
UNESCAPED = re.compile(r'[\\"\x00-\x1f]')


@lru_cache(maxsize=4096)
def _date(day: int) -> str:
    return moment(day * 86_400_000).strftime("%Y-%m-%d")


def iso(time: int) -> str:
    """Milliseconds since 1970 as the API writes times."""
    day, rest = divmod(time, 86_400_000)
    second, fraction = divmod(rest, 1000)
    return f"{_date(day)}{SECONDS_OF_DAY[second]}{fraction:03d}Z"


def milliseconds(text: str) -> int:
    """The reverse of `iso`, for any ISO 8601 time with an offset.

    Raises
    ------
    ValueError
        If the text is no time, or names no offset: the API refuses local times.
    """
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("time without offset")
    return int((time - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000 + 0.5)


def _text(value: str) -> str:
    """A JSON string; catalogue texts need no escaping and take the short way."""
    if value.isascii() and not UNESCAPED.search(value):
        return f'"{value}"'
    return msgspec.json.encode(value).decode()


@lru_cache(maxsize=65_536)
def _cached_text(value: str) -> str:
    return _text(value)


def _number(units: int) -> str:
    """USD × 10⁻¹² as a JSON number, the way the server prints a double."""
    whole = units / 10**12
    return str(int(whole)) if whole.is_integer() else repr(whole)


def cut_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the server shows without `expandMetadata`: stored texts cut to 200 characters, then decoded if possible."""
    shown = {}
    for key, value in metadata.items():
        stored = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        shown[key] = value if len(stored) <= CUT_LENGTH else stored[:CUT_LENGTH]
    return shown


@lru_cache(maxsize=64)
def _model_piece(name: str, id_: str, input_price: int | None, output_price: int | None) -> str:
    prices = [None if price is None else f"{price / 10**12:.12f}".rstrip("0") for price in (input_price, output_price)]
    piece: dict[str, Any] = {"model": name, "internalModelId": id_, "modelParameters": {}, "modelId": id_ or None}
    piece |= {"inputPrice": prices[0], "outputPrice": prices[1], "totalPrice": None}
    return "," + msgspec.json.encode(piece).decode()[1:-1]


NO_MODEL = (
    ',"model":"","internalModelId":"","modelParameters":{},"modelId":null,"inputPrice":null,"outputPrice":null,'
    '"totalPrice":null'
)
NO_USAGE = (
    ',"usageDetails":{},"costDetails":{},"totalCost":%s,"usagePricingTierName":null,"usagePricingTierId":null'
    ',"metadata":{'
)


def encode_plan(plan: TracePlan) -> Iterator[tuple[ObservationData, bytes, bytes | None]]:
    """Every row with its stored text and, where metadata is cut in it, the text with whole metadata."""
    trace_id = plan.trace_id
    name = _cached_text(plan.name)
    environment = f'"environment":{_cached_text(plan.environment)},"bookmarked":false,"public":false,"userId":'
    carried_user = _cached_text("" if plan.user is None or plan.user_in_metadata else plan.user)
    session = _cached_text(plan.session or "")
    whole = msgspec.json.encode(plan.metadata).decode()[1:-1]
    is_cut = len(whole) > CUT_LENGTH and cut_metadata(plan.metadata) != plan.metadata
    shown = msgspec.json.encode(cut_metadata(plan.metadata)).decode()[1:-1] if is_cut else whole
    with_name = f'}},"traceName":{name},"tags":["chat"],"release":""}}'
    without_name = '},"traceName":null,"tags":[],"release":""}'
    no_total = int(trace_id[:2], 16) % 2  # servers up to v4.16 say 0, newer ones null
    for row in plan.rows:
        start = row.start
        parent = "null" if row.parent is None else f'"{row.parent}"'
        if row.end is None:
            end = latency = "null"
        else:
            end, latency = f'"{iso(row.end)}"', str((row.end - start) / 1000)
        if row.first_token is None:
            waited = completion_start = "null"
        else:
            waited, completion_start = str((row.first_token - start) / 1000), f'"{iso(row.first_token)}"'
        if row.carries:
            user, its_session = carried_user, session
            trace = with_name
        else:
            user = its_session = '""'
            # a root lends its own name to the trace
            trace = f'}},"traceName":{name},"tags":[],"release":""}}' if row.is_root else without_name
        if row.user is not None:
            user = _text(row.user)
        written = iso(row.written)
        if row.model is None:
            model = NO_MODEL
        else:
            prices = row.model.prices
            model = _model_piece(row.model.name, row.model.id, prices.get("input"), prices.get("output"))
        if row.usage:
            units = ",".join([f'"{key}":{tokens}' for key, tokens in row.usage.items()])
            costs = ",".join([f'"{key}":{_number(cost)}' for key, cost in row.cost.items()])
            total = _number(row.cost["total"]) if "total" in row.cost else "null" if no_total else "0"
            tier = '"Standard"' if row.cost else "null"
            usage = (
                f',"usageDetails":{{{units}}},"costDetails":{{{costs}}},"totalCost":{total}'
                f',"usagePricingTierName":{tier},"usagePricingTierId":null,"metadata":{{'
            )
        else:
            usage = NO_USAGE % ("null" if no_total else "0")
        head = (
            f'{{"id":"{row.id}","traceId":"{trace_id}","startTime":"{iso(start)}","endTime":{end},'
            f'"projectId":"{PROJECT_ID}","parentObservationId":{parent},"type":"{row.type}","latency":{latency}'
            f',"timeToFirstToken":{waited}'
            f',"isRootObservation":{"true" if row.is_root else "false"},"name":{_cached_text(row.name)},'
            f'"level":"{row.level}","statusMessage":{_cached_text(row.status)},"version":"",{environment}{user},"sessionId":{its_session}'
            f',"completionStartTime":{completion_start},"createdAt":"{written}","updatedAt":"{written}"{model}{usage}'
        )
        if row.carries:
            yield (
                row,
                f"{head}{shown},{OTEL_METADATA}{trace}".encode(),
                f"{head}{whole},{OTEL_METADATA}{trace}".encode() if is_cut else None,
            )
        else:
            yield row, f"{head}{OTEL_METADATA}{trace}".encode(), None


def encode_mapping(row: Mapping[str, Any]) -> tuple[bytes, bytes | None]:
    """A row given as a mapping of wire keys in its stored text, and with whole metadata where that differs.

    Missing keys get the value the API shows where nothing is known; unknown keys are left out.
    """
    pieces: dict[str, Any] = {key: row.get(key, default) for _, group in SHAPE for key, default in group.items()}
    whole = msgspec.json.encode(pieces)
    if not isinstance(pieces["metadata"], dict):
        return whole, None
    shown = cut_metadata(pieces["metadata"])
    if shown == pieces["metadata"]:
        return whole, None
    return msgspec.json.encode({**pieces, "metadata": shown}), whole


def _boundaries(text: bytes) -> list[int]:
    """Where the groups of a stored row begin.

    A key's text cannot occur inside a string, whose quotes are escaped; metadata may hold any key, hence the
    search from both ends.
    """
    marks = [0]
    for key in (
        b"timeToFirstToken",
        b"isRootObservation",
        b"completionStartTime",
        b"model",
        b"usageDetails",
        b"metadata",
    ):
        marks.append(text.index(b',"' + key + b'":', marks[-1]))
    marks.append(text.rindex(b',"traceName":'))
    marks.append(len(text) - 1)
    return marks


def select_groups(text: bytes, groups: frozenset[str]) -> bytes:
    """The stored row cut to the field groups asked for, with the keys that are always sent."""
    marks = _boundaries(text)
    piece = {name: text[marks[i] : marks[i + 1]] for i, (name, _) in enumerate(SHAPE)}
    knows_first_token = groups & {"time", "metrics"}
    parts = [piece["core"], piece["first_token"] if knows_first_token else b',"timeToFirstToken":null']
    parts += [piece[name] for name in ("basic", "time") if name in groups]
    parts.append(piece["model"] if "model" in groups else WITHOUT_MODEL)
    parts += [piece[name] for name in ("usage", "metadata", "trace_context") if name in groups]
    if "prompt" in groups:
        parts.append(PROMPT)
    if "io" in groups:
        parts.append(_made_up_io(piece["core"]))
    return b"".join([*parts, b"}"])


def _made_up_io(core: bytes) -> bytes:
    """Texts that a billing client has no business to see; made up from the row's own bytes."""
    word = hashlib.sha256(core).hexdigest()[:12]
    return f',"input":"question {word}","output":"answer {word}"'.encode()
