"""An observation as the v2 API sends it: its fields in the order of the wire, field group by field group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from billing_core.sandbox.data.catalog import PROJECT_ID
from billing_core.sandbox.data.plan import ObservationData, TracePlan, moment

CUT_LENGTH = 200
"""Characters of a metadata value that the server gives away unless asked to expand."""

OTEL_METADATA = {
    "scope.name": "langfuse-sdk",
    "scope.version": "5.0.4",
    "resourceAttributes.service.name": "chat-api",
    "resourceAttributes.telemetry.sdk.language": "python",
}
"""What every OpenTelemetry row drags along beside the application's own metadata."""


class Observation(msgspec.Struct, kw_only=True, rename="camel", gc=False):
    """One row; the defaults are what the API shows where nothing is known (reference, section 1.2).

    Test rows may hold values of other types: nothing is checked, and they are served as they came.
    """

    id: str
    trace_id: str
    start_time: str
    end_time: str | None = None
    project_id: str = PROJECT_ID
    parent_observation_id: str | None = None
    type: str = "SPAN"
    latency: float | None = None
    time_to_first_token: float | None = None
    is_root_observation: bool = False
    name: str = ""
    level: str = "DEFAULT"
    status_message: str = ""
    version: str = ""
    environment: str = "default"
    bookmarked: bool = False
    public: bool = False
    user_id: str = ""
    session_id: str = ""
    completion_start_time: str | None = None
    created_at: str = ""
    updated_at: str = ""
    model: str = ""
    internal_model_id: str = ""
    model_parameters: Mapping[str, Any] = {}
    model_id: str | None = None
    input_price: str | None = None
    output_price: str | None = None
    total_price: str | None = None
    usage_details: Mapping[str, int] = {}
    cost_details: Mapping[str, float] = {}
    total_cost: float | None = None
    usage_pricing_tier_name: str | None = None
    usage_pricing_tier_id: str | None = None
    metadata: Mapping[str, Any] = {}
    trace_name: str | None = None
    tags: tuple[str, ...] = ()
    release: str = ""


ATTRIBUTES = {field.encode_name: field.name for field in msgspec.structs.fields(Observation)}
"""Names on the wire → names here, in the order of the wire."""

_FIRST_OF_GROUP = {
    "id": "core",
    "isRootObservation": "basic",
    "completionStartTime": "time",
    "model": "model",
    "usageDetails": "usage",
    "metadata": "metadata",
    "traceName": "trace_context",
}
STORED_GROUPS = frozenset(_FIRST_OF_GROUP.values())
"""The field groups that make up a whole `Observation`."""

GROUPS = STORED_GROUPS | {"io", "prompt", "metrics"}
ALWAYS_SENT = frozenset({"timeToFirstToken", "modelId", "inputPrice", "outputPrice", "totalPrice"})
"""Null until their group is asked for."""


def _keys_of_groups() -> dict[str, str]:
    group, found = "", {}
    for key in ATTRIBUTES:
        group = found[key] = _FIRST_OF_GROUP.get(key, group)
    return found


_GROUP_OF = _keys_of_groups()


def select_groups(row: Observation, groups: frozenset[str]) -> dict[str, Any]:
    """The keys of the field groups asked for, and those that are always sent."""
    wanted = {key for key, group in _GROUP_OF.items() if group in groups} - {"timeToFirstToken"}
    if groups & {"time", "metrics"}:
        wanted.add("timeToFirstToken")
    shown = {
        key: value if key in wanted else None
        for key, value in msgspec.to_builtins(row).items()
        if key in wanted or key in ALWAYS_SENT
    }
    if "prompt" in groups:
        shown |= {"promptId": "", "promptName": "", "promptVersion": None}
    if "io" in groups:
        shown |= {"input": f"question of {row.id}", "output": f"answer of {row.id}"}
    return shown


def iso(time: int) -> str:
    """Milliseconds since 1970 as the API writes times."""
    return moment(time).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(text: str) -> int:
    """The reverse of `iso`, for any ISO 8601 time with an offset.

    Raises ValueError: if the text is no time, or names no offset: the API refuses local times.
    """
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("time without offset")
    return int((time - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000 + 0.5)


def stored_text(value: object) -> str:
    """How Langfuse keeps a metadata value: texts as they are, everything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def mapping(value: object) -> Mapping[str, Any]:
    """`value` if it is an object; what should be one and is not (odd test rows) is empty."""
    return value if isinstance(value, dict) else {}


def cut_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the server shows without `expandMetadata`: values whose stored text is too long as its beginning."""
    return {
        key: value if len(text := stored_text(value)) <= CUT_LENGTH else text[:CUT_LENGTH]
        for key, value in metadata.items()
    }


def with_cut_metadata(row: Observation) -> Observation:
    """The row as it is sent without `expandMetadata`: itself unless something is cut."""
    if not isinstance(row.metadata, dict) or (shown := cut_metadata(row.metadata)) == row.metadata:
        return row
    return msgspec.structs.replace(row, metadata=shown)


def from_mapping(row: Mapping[str, Any]) -> Observation:
    """A row given by its wire keys; unknown keys are left out."""
    return Observation(**{name: row[key] for key, name in ATTRIBUTES.items() if key in row})


def _usd(units: int) -> float:
    """USD × 10⁻¹² as the number the server prints: a whole one without decimals."""
    whole = units / 10**12
    return int(whole) if whole.is_integer() else whole


@lru_cache(maxsize=64)
def _price(units: int | None) -> str | None:
    return None if units is None else f"{units / 10**12:.12f}".rstrip("0")


def observations_of(plan: TracePlan) -> Iterator[tuple[ObservationData, Observation]]:
    """Every row of a trace beside its wire form."""
    trace_id = plan.trace_id
    no_total = None if int(trace_id[:2], 16) % 2 else 0  # servers up to v4.16 say 0, newer ones null
    metadata = plan.metadata | OTEL_METADATA
    user = "" if plan.user is None or plan.user_in_metadata else plan.user
    for row in plan.rows:
        start, carries = row.start, row.carries
        written = iso(row.written)
        found = Observation(
            id=row.id,
            trace_id=trace_id,
            start_time=iso(start),
            parent_observation_id=row.parent,
            type=row.type,
            is_root_observation=row.is_root,
            name=row.name,
            level=row.level,
            status_message=row.status,
            environment=plan.environment,
            user_id=row.user if row.user is not None else user if carries else "",
            session_id=(plan.session or "") if carries else "",
            created_at=written,
            updated_at=written,
            total_cost=no_total,
            metadata=metadata if carries else OTEL_METADATA,
            trace_name=plan.name if carries or row.is_root else None,  # a root lends its own name to the trace
            tags=("chat",) if carries else (),
        )
        if row.end is not None:
            found.end_time, found.latency = iso(row.end), (row.end - start) / 1000
        if row.first_token is not None:
            found.completion_start_time = iso(row.first_token)
            found.time_to_first_token = (row.first_token - start) / 1000
        if row.model is not None:
            found.model, found.internal_model_id, found.model_id = row.model.name, row.model.id, row.model.id or None
            found.input_price = _price(row.model.prices.get("input"))
            found.output_price = _price(row.model.prices.get("output"))
        if row.usage:
            found.usage_details = row.usage
            found.cost_details = {key: _usd(cost) for key, cost in row.cost.items()}
            found.total_cost = found.cost_details.get("total", no_total)
            found.usage_pricing_tier_name = "Standard" if row.cost else None
        yield row, found
