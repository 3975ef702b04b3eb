"""The public types of billing: usage events, the parameters to ask for them, and the responses.

Flat names (`FLAT_FIELDS`) are shared by JSON, CSV, frames, sort parameters and the ledger's columns
(CONTRACT section 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from billing_core.errors import BadParameter

if TYPE_CHECKING:
    import pandas as pd

MAXIMUM_LIMIT = 1000
"""Rows on one page at most."""


FIRST_YEAR, LAST_YEAR = 1970, 2200
"""Nothing was ever used outside; near the ends of the calendar a change of timezone would leave it."""

LAST_PAGE = 10**9
"""Far behind the end of any ledger; beyond it engines' integers end."""


class SyncStatus(StrEnum):
    """The stage an event has reached on its way to Stripe (CONTRACT section 4)."""

    PENDING = "pending"
    SENDING = "sending"
    PROCESSED = "processed"
    CONFIRMED = "confirmed"
    ERROR = "error"
    EXCLUDED = "excluded"


class Flag(StrEnum):
    """A word on an event that says what a person should know before trusting its credits."""

    OWN_KEY = "own_key"
    UNPRICED = "unpriced"
    EXCLUDED_ENVIRONMENT = "excluded_environment"
    NO_CUSTOMER = "no_customer"
    BAD_USAGE = "bad_usage"
    CONFLICTING_ATTRIBUTES = "conflicting_attributes"
    DOUBLE_COUNT_SUSPECT = "double_count_suspect"
    LEGACY_BILLED = "legacy_billed"
    CARRIED = "carried"
    CHANGED_AFTER_SENDING = "changed_after_sending"
    LATE_AFTER_CLOSE = "late_after_close"
    NO_USAGE = "no_usage"
    MAPPED_CUSTOMER = "mapped_customer"
    SENT_ELSEWHERE = "sent_elsewhere"
    INCOMPLETE = "incomplete"
    MISSING_AT_SOURCE = "missing_at_source"
    POLICY_DIFFERS = "policy_differs"
    UNKNOWN_USAGE = "unknown_usage"
    WRITTEN_OFF = "written_off"
    INVOICED_SEPARATELY = "invoiced_separately"


class Attribute(StrEnum):
    """An attribute that a usage event may lack: values of the filter `without`."""

    ORGANIZATION = "organization"
    CUSTOMER = "customer"
    USER = "user"
    SESSION = "session"
    CHATFLOW = "chatflow"
    MODEL = "model"
    ENVIRONMENT = "environment"


class PipelineStage(StrEnum):
    """The stage an event has reached on its way to Stripe. `held` are those a push or a person keeps back; `error`
    those Stripe rejected, and those that cannot be sent and that no push has seen yet: it writes them down as held.
    `billed_before` are those an earlier system billed: nothing from here was accepted by Stripe for them. `settled` are
    those written off or invoiced separately.
    """

    PENDING = "pending"
    SENDING = "sending"
    PROCESSED = "processed"
    CONFIRMED = "confirmed"
    ERROR = "error"
    HELD = "held"
    EXCLUDED = "excluded"
    BILLED_BEFORE = "billed_before"
    SETTLED = "settled"


class CreditType(StrEnum):
    """What credits are charged for; a field of `Credits` each."""

    AI_TOKENS = "ai_tokens"
    COMPUTE = "compute"
    STORAGE = "storage"


def plain_decimal(value: Decimal) -> str:
    """A decimal as exact text without exponent or trailing zeros: `Decimal("1.500E+3")` → `"1500"`."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def utc_text(value: datetime) -> str:
    """A time as ISO 8601 text in UTC with milliseconds and `Z`."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Exact = Annotated[Decimal, PlainSerializer(plain_decimal, return_type=str, when_used="json")]
"""A decimal that leaves as text in JSON, never as a binary float."""

Seconds = Annotated[Decimal, PlainSerializer(float, return_type=float, when_used="json")]

UtcTime = Annotated[datetime, PlainSerializer(utc_text, return_type=str, when_used="json")]


class Credits(BaseModel):
    """Credits by what they pay for; `total` is always the sum of the parts."""

    model_config = ConfigDict(frozen=True)

    ai_tokens: Exact
    compute: Exact
    storage: Exact
    total: Exact

    @model_validator(mode="after")
    def _adds_up(self) -> Credits:
        if self.total != self.ai_tokens + self.compute + self.storage:
            raise ValueError("total is not the sum of ai_tokens, compute and storage")
        return self


class UsageEvent(BaseModel):
    """A usage event: one Langfuse trace, rated. Times are UTC, `latency_seconds` is last end minus first start.

    `None` means unknown, never zero: no tokens were named, no cost is known, nobody is named.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    timestamp: UtcTime
    ended_at: UtcTime
    organization_id: str | None
    customer_id: str | None
    user_id: str | None
    session_id: str | None
    chatflow_id: str | None
    chatflow_name: str | None
    environment: str | None
    models: list[str]
    tokens_in: int | None
    tokens_out: int | None
    tokens_total: int | None
    latency_seconds: Seconds
    storage_gb: Exact | None
    cost_usd: Exact | None
    ai_credentials_ownership: str | None
    credits: Credits
    amount_usd: Exact
    rate_card_version: str
    sync_status: SyncStatus
    sync_error: str | None
    meter_event_identifier: str | None
    synced_at: UtcTime | None
    trace_url: str | None
    flags: list[Flag]


FLAT_FIELDS: tuple[str, ...] = tuple(
    flat
    for name in UsageEvent.model_fields
    for flat in (tuple(f"credits_{part}" for part in Credits.model_fields) if name == "credits" else (name,))
)
"""Column names of every flat form, in their published order."""


def parse_time(value: object) -> datetime:
    """A time from ISO 8601 text or a datetime, from 1970 to 2200; numbers, of unknown unit, are refused."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            value = None
    if isinstance(value, datetime) and FIRST_YEAR <= value.year <= LAST_YEAR:
        return value
    raise ValueError(
        "expected an ISO 8601 time such as 2026-11-01 or 2026-11-01T00:00:00Z, "
        f"between the years {FIRST_YEAR} and {LAST_YEAR}"
    )


def _as_tuple(value: object) -> object:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, (list, set, frozenset)) else value


def _yes_or_no(value: object) -> object:
    said = {"true": True, "false": False, "": None}
    if isinstance(value, str):
        if value.lower() not in said:
            raise ValueError("true or false")
        return said[value.lower()]
    return value


def _without_blank(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("expected text without NUL characters")
    return value


Time = Annotated[datetime, BeforeValidator(parse_time)]
Text = Annotated[str, AfterValidator(_without_nul)]
AnyOf = Annotated[tuple[Annotated[Text, Field(min_length=1)], ...], BeforeValidator(_as_tuple)]
Amount = Annotated[Decimal, Field(allow_inf_nan=False, ge=-(10**12), le=10**12, decimal_places=18)]


PREVIOUS = "previous"
"""What a period is compared with: the equally long one before."""


class GetUsageEventsParams(BaseModel):
    """Parameters of one request for usage events: window, filters, sort, page. Filters are ANDed; several values of one
    filter are ORed.

    Times without an offset are in the reporting timezone; the window is half open, `from` ≤ time < `to`.
    `without` keeps the events that lack everything it names, each null or empty text; a chatflow is lacking without its
    id. `cause` is why events are not in Stripe, as Stripe Sync names it; `held` keeps those held back from Stripe, or,
    if false, all others: both as events stand now. `stage` is the one that Stripe Sync counts them in.
    `credit_type` keeps events with credits of that type other than 0. `amount_min` and `amount_max` are US dollars,
    both inclusive. `as_of` is the `pagination.as_of` of an earlier answer: pages asked with it never repeat or skip a
    row while new data arrives.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="forbid")

    from_: Annotated[Time | None, Field(alias="from")] = None
    to: Time | None = None
    customer: AnyOf = ()
    organization: AnyOf = ()
    user: AnyOf = ()
    chatflow: AnyOf = ()
    model: AnyOf = ()
    environment: AnyOf = ()
    status: Annotated[tuple[SyncStatus, ...], BeforeValidator(_as_tuple)] = ()
    without: Annotated[tuple[Attribute, ...], BeforeValidator(_as_tuple)] = ()
    cause: AnyOf = ()
    held: Annotated[bool | None, BeforeValidator(_yes_or_no)] = None
    stage: Annotated[tuple[PipelineStage, ...], BeforeValidator(_as_tuple)] = ()
    credit_type: Annotated[tuple[CreditType, ...], BeforeValidator(_as_tuple)] = ()
    amount_min: Amount | None = None
    amount_max: Amount | None = None
    search: Annotated[Annotated[Text, Field(max_length=500)] | None, BeforeValidator(_without_blank)] = None
    sort: str = "timestamp"
    order: Literal["asc", "desc"] = "desc"
    page: Annotated[int, Field(ge=1, le=LAST_PAGE)] = 1
    limit: Annotated[int, Field(ge=1, le=MAXIMUM_LIMIT)] = 25
    as_of: Annotated[int | None, Field(ge=0, le=2**62)] = None

    @model_validator(mode="after")
    def _sort_is_a_field(self) -> GetUsageEventsParams:
        if self.sort not in FLAT_FIELDS:
            raise BadParameter("sort", self.sort, "one of " + ", ".join(FLAT_FIELDS))
        return self

    @model_validator(mode="after")
    def _amounts_are_ordered(self) -> GetUsageEventsParams:
        if self.amount_min is not None and self.amount_max is not None and self.amount_min > self.amount_max:
            raise BadParameter("amount_max", str(self.amount_max), f"at least amount_min ({self.amount_min})")
        return self

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> GetUsageEventsParams:
        """Parameters from outside input (command line, query string); raises `BadParameter` naming the wrong one.

        Raises BadParameter: naming the first wrong parameter as the caller wrote it, and what is accepted.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            name = str(first["loc"][0]) if first["loc"] else "parameters"
            name = "from" if name == "from_" else name
            if isinstance(inner := first.get("ctx", {}).get("error"), BadParameter):
                raise inner from None
            if first["type"] == "extra_forbidden":
                known = ", ".join(sorted(f.alias or n for n, f in cls.model_fields.items()))
                raise BadParameter(name, first.get("input"), f"no such parameter, but one of {known}") from None
            text = str(first["msg"]).removeprefix("Value error, ")
            text = text.removeprefix("Input should be ").removeprefix("expected ")
            raise BadParameter(name, first.get("input"), text) from None


class Pagination(BaseModel):
    """Which page of how many this is; `as_of` pins the state of the ledger it was cut from."""

    model_config = ConfigDict(frozen=True)

    page: int
    limit: int
    total_items: int
    total_pages: int
    as_of: int


class Totals(BaseModel):
    """Sums over every row of the filter, not of the page.

    `cost_usd` is the sum of the known costs, `None` where none is known. Token sums likewise.
    """

    model_config = ConfigDict(frozen=True)

    credits: Credits
    amount_usd: Exact
    cost_usd: Exact | None
    tokens_in: int | None
    tokens_out: int | None
    tokens_total: int | None


@dataclass(frozen=True, slots=True)
class UsageEventsResponse:
    """One page of usage events. `frame` has the flat columns, decimals as `Decimal` and times as UTC."""

    events: list[UsageEvent]
    pagination: Pagination
    totals: Totals
    frame: pd.DataFrame

    def to_json(self) -> dict[str, Any]:
        """The published document (CONTRACT section 3, `events`): exact numbers as text."""
        return {
            "events": [event.model_dump(mode="json") for event in self.events],
            "pagination": self.pagination.model_dump(mode="json"),
            "totals": self.totals.model_dump(mode="json"),
        }
