"""The table of usage that a provider gives to rating: one row per trace, facts only, no credits.

Providers fill it, `rating` reads it, the ledger keeps it beside the credits so that every bill can be
explained and re-rated later without asking the provider again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from billing_core.errors import BadParameter

TIME = pa.timestamp("us", tz="UTC")
COST = pa.decimal128(24, 12)
"""US dollars, GB-months, recorded credits: Langfuse stores twelve decimal places and never more."""

LARGEST_COST_USD = 999_999
"""A trace that cost more is a mistake in the usage: its cost counts as unknown and the event is flagged."""

LONGEST_RUN = timedelta(days=30)
"""No run takes longer: such a time is a mistake, its compute is not rated and the event is flagged."""

TOKEN_CLASSES: tuple[str, ...] = ("input", "output", "cache_read", "cache_write", "reasoning", "other")
"""Every token of an observation is in exactly one class; `other` holds what the application did not name."""

MODEL_USAGE = pa.struct(
    [
        pa.field("model", pa.string()),
        *(pa.field(name, pa.int64()) for name in TOKEN_CLASSES),
        pa.field("cost_usd", COST),
    ]
)
"""What one model (null: none named) used within a trace. Token counts are never null; an unknown cost is."""

USAGE_LINE = pa.struct(
    [
        pa.field("model", pa.string()),
        pa.field("name", pa.string()),  # of the observation, as are type and level
        pa.field("type", pa.string()),
        pa.field("level", pa.string()),
        pa.field("key", pa.string()),  # of usageDetails; "": tokens that only a total names; null: the line of the cost
        pa.field("quantity", pa.int64()),
        pa.field("cost_usd", COST),
        pa.field("repeats", pa.bool_()),  # the observation is why the trace is suspected of double counting
        pa.field("unpriced", pa.bool_()),  # the observation has tokens and no cost
    ]
)
"""What observations of one model, name, type and level used, by key: what a card's `exclude`, `token_classes` and
`units` decide by. Tokens by class add up to `MODEL_USAGE`."""

SECONDS = pa.decimal128(18, 6)

USAGE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("project_id", pa.string()),
        pa.field("trace_base", pa.string()),  # trace_url = trace_base + percent-encoded id
        pa.field("timestamp", TIME, nullable=False),  # first start
        pa.field("ended_at", TIME, nullable=False),  # last end, never before timestamp
        pa.field("organization_id", pa.string()),
        pa.field("customer_id", pa.string()),
        pa.field("user_id", pa.string()),
        pa.field("session_id", pa.string()),
        pa.field("chatflow_id", pa.string()),
        pa.field("chatflow_name", pa.string()),
        pa.field("environment", pa.string()),
        pa.field("ai_credentials_ownership", pa.string()),
        pa.field("models", pa.list_(pa.string()), nullable=False),  # distinct, sorted
        pa.field("tokens_in", pa.int64()),
        pa.field("tokens_out", pa.int64()),
        pa.field("tokens_total", pa.int64()),
        pa.field("usage", pa.list_(MODEL_USAGE), nullable=False),  # sorted by model, null first
        pa.field("storage_gb", COST),
        pa.field("cost_usd", COST),
        pa.field("observations", pa.int32(), nullable=False),  # synthetic roots not counted
        pa.field("has_error", pa.bool_()),  # some observation failed (level ERROR); null: not known
        pa.field("unpriced", pa.bool_(), nullable=False),  # some observation has usage and no cost entry
        pa.field("bad_usage", pa.bool_(), nullable=False),
        pa.field("conflicting_attributes", pa.bool_(), nullable=False),
        pa.field("double_count_suspect", pa.bool_(), nullable=False),
        pa.field("problems", pa.list_(pa.string()), nullable=False),  # sentences behind the flags, sorted
        pa.field("legacy_status", pa.string()),  # metadata billing_status of the earlier system
        pa.field("legacy_error", pa.string()),  # metadata stripeError
        pa.field("legacy_ai_tokens", COST),  # metadata billing_details.breakdown.ai_tokens.base_credits
        pa.field("legacy_compute", COST),
        pa.field("legacy_storage", COST),
        pa.field("legacy_total", COST),  # metadata billing_details.total_credits
        pa.field("metadata", pa.string()),  # the logical root's own metadata as JSON text
        pa.field("updated_at", TIME),  # when the newest of its rows was written at the source
        pa.field("incomplete", pa.bool_()),  # a value or a row could not be read; null: no
        pa.field("active_seconds", SECONDS),  # time in which at least one observation ran; null: not known
        pa.field("usage_lines", pa.list_(USAGE_LINE)),  # sorted; null: not known
    ]
)


@dataclass(frozen=True, slots=True)
class Window:
    """A window of time, half open, aware UTC: `start` ≤ time < `end`."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.tzinfo is None or self.end.tzinfo is None:
            raise ValueError("a window needs aware times")
        if self.start >= self.end:
            raise ValueError(
                f"a window must end after it starts: {self.start:%Y-%m-%dT%H:%M} to {self.end:%Y-%m-%dT%H:%M}"
            )


def month_window(month: str, zone: ZoneInfo) -> Window:
    """The window of a month such as `2026-10` in a timezone, aware UTC."""
    year, number = int(month[:4]), int(month[5:])
    start = datetime(year, number, 1, tzinfo=zone)
    end = datetime(year + number // 12, number % 12 + 1, 1, tzinfo=zone)
    return Window(start.astimezone(UTC), end.astimezone(UTC))


HOUR = timedelta(hours=1)


def hour_of(time: datetime) -> datetime:
    """The beginning of the hour a time is in, in the time's own offset."""
    return time.replace(minute=0, second=0, microsecond=0)


def whole_hours(window: Window) -> Window:
    """The window widened to whole UTC hours: Stripe's sums are no finer."""
    start, end = window.start.astimezone(UTC), window.end.astimezone(UTC)
    floor = hour_of(end)
    return Window(hour_of(start), floor if floor == end else floor + HOUR)


def window_in(zone: ZoneInfo, start: datetime, end: datetime) -> Window:
    """The window `[start, end)` in UTC; times without an offset are in `zone`.

    Raises BadParameter: if nothing lies between them.
    """
    start, end = (aware_in(zone, time).astimezone(UTC) for time in (start, end))
    if start >= end:
        raise BadParameter("to", end.isoformat(), f"a time after from ({start.isoformat()})")
    return Window(start, end)


def aware_in(zone: ZoneInfo, time: datetime) -> datetime:
    """The time with an offset: one without is local time of `zone`."""
    return time.replace(tzinfo=zone) if time.tzinfo is None else time


def zone_named(parameter: str, name: str) -> ZoneInfo:
    """The timezone with an IANA name.

    Raises BadParameter: if there is none.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise BadParameter(parameter, name, "an IANA timezone such as Europe/Berlin") from None


@dataclass(frozen=True, slots=True)
class PullProgress:
    """The progress of a read of Langfuse: `fraction` from 0 to 1, rows so far, what is done now."""

    fraction: float
    observations: int
    doing: str


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A Langfuse row that could not be read at all; named so that nothing is dropped without saying why."""

    row: str
    reason: str


class MetadataNames(BaseModel):
    """Which keys of a trace's metadata hold which fact; the first present wins. A dot descends into nested objects.

    This is the `metadata` section of a rate card file; the defaults are CONTRACT section 4.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    customer: tuple[str, ...] = ("stripeCustomerId", "customerId")
    organization: tuple[str, ...] = ("organizationId",)
    user: tuple[str, ...] = ("userId",)
    chatflow_id: tuple[str, ...] = ("chatflowid", "chatflowId")
    chatflow_name: tuple[str, ...] = ("chatflowName",)
    ai_credentials_ownership: tuple[str, ...] = ("aiCredentialsOwnership",)
    storage_gb: tuple[str, ...] = ("storageGb", "storageGB")
    legacy_status: tuple[str, ...] = ("billing_status",)
    legacy_error: tuple[str, ...] = ("stripeError",)
    legacy_details: tuple[str, ...] = ("billing_details",)
