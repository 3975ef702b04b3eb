"""The columns of the Usage Events table: which field, which label, how it is written for people. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias
from zoneinfo import ZoneInfo

from billing_core.access import Principal
from billing_core.types import FLAT_FIELDS, UsageEvent
from components.shared.data_grid import Column
from components.shared.formats import (
    UNKNOWN,
    count,
    credits_text,
    duration,
    middle_cut,
    moment,
    short_credits,
    short_usd,
)

EMPTY = ""
"""What a cell shows for a detail that is not there; whose the event is and what it used says "unknown" instead."""


EventColumn: TypeAlias = Column[Callable[[UsageEvent, ZoneInfo], str | None]]
"""A column of the table; its field is the published one, by which the engine sorts."""


def _words(items: list[str]) -> str:
    return ", ".join(item.replace("_", " ") for item in items)


LONGEST_NAME = 24
"""Characters of an id or an address in a cell; the drawer has the whole."""


def _name(value: str | None, missing: str = EMPTY) -> str:
    return middle_cut(value, LONGEST_NAME) if value else missing


COLUMNS = (
    EventColumn(
        "sync_status",
        "Status",
        lambda e, _: e.sync_status.value,
        110,
        help="How far the event has got on its way to Stripe.",
    ),
    EventColumn("timestamp", "Time", lambda e, zone: moment(e.timestamp, zone), 145, help="Start of the trace."),
    EventColumn("organization_id", "Organization", lambda e, _: _name(e.organization_id, UNKNOWN), 120),
    EventColumn("chatflow_name", "Chatflow", lambda e, _: e.chatflow_name or _name(e.chatflow_id), 165),
    EventColumn("user_id", "User", lambda e, _: _name(e.user_id, UNKNOWN), 185),
    EventColumn("tokens_total", "Tokens", lambda e, _: count(e.tokens_total), 80, "right"),
    EventColumn("credits_total", "Credits", lambda e, _: short_credits(e.credits.total), 95, "right"),
    EventColumn(
        "amount_usd", "Amount", lambda e, _: short_usd(e.amount_usd), 85, "right", "US dollars: credits × credit price."
    ),
    EventColumn(
        "customer_id",
        "Customer",
        lambda e, _: _name(e.customer_id, UNKNOWN),
        150,
        help="The Stripe customer that is billed.",
    ),
    EventColumn("models", "Models", lambda e, _: ", ".join(e.models), 140),
    EventColumn("tokens_in", "Tokens in", lambda e, _: count(e.tokens_in), 95, "right"),
    EventColumn("tokens_out", "Tokens out", lambda e, _: count(e.tokens_out), 95, "right"),
    EventColumn(
        "latency_seconds",
        "Latency",
        lambda e, _: duration(e.latency_seconds),
        100,
        "right",
        "From the first start to the last end.",
    ),
    EventColumn("credits_ai_tokens", "AI credits", lambda e, _: short_credits(e.credits.ai_tokens), 95, "right"),
    EventColumn("credits_compute", "Compute credits", lambda e, _: short_credits(e.credits.compute), 125, "right"),
    EventColumn("credits_storage", "Storage credits", lambda e, _: short_credits(e.credits.storage), 120, "right"),
    EventColumn(
        "flags",
        "Flags",
        lambda e, _: _words([flag.value for flag in e.flags]),
        150,
        help="What to know about this event.",
    ),
    EventColumn("sync_error", "Error", lambda e, _: e.sync_error, 240, help="Why it was not sent."),
    EventColumn("trace_url", "Langfuse", lambda e, _: e.trace_url, 80, help="The trace in Langfuse."),
    EventColumn("id", "Event id", lambda e, _: _name(e.id), 195),
    EventColumn("session_id", "Session", lambda e, _: _name(e.session_id), 195),
    EventColumn("chatflow_id", "Chatflow id", lambda e, _: _name(e.chatflow_id), 195),
    EventColumn("environment", "Environment", lambda e, _: e.environment, 110),
    EventColumn("storage_gb", "Storage (GB-months)", lambda e, _: _optional(credits_text, e.storage_gb), 150, "right"),
    EventColumn(
        "cost_usd",
        "Langfuse cost",
        lambda e, _: short_usd(e.cost_usd),
        115,
        "right",
        "US dollars, as reported by Langfuse.",
    ),
    EventColumn("ai_credentials_ownership", "AI key owner", lambda e, _: e.ai_credentials_ownership, 100),
    EventColumn("rate_card_version", "Rate card", lambda e, _: e.rate_card_version, 130),
    EventColumn(
        "ended_at",
        "End",
        lambda e, zone: moment(e.ended_at, zone),
        160,
        help="When the last observation of the trace ended.",
    ),
    EventColumn("meter_event_identifier", "Meter event", lambda e, _: _name(e.meter_event_identifier), 195),
    EventColumn("synced_at", "Synced at", lambda e, zone: _moment_or_none(e, zone), 160),
)

DEFAULT_COLUMNS = tuple(column.field for column in COLUMNS[:8])
"""Shown until somebody chooses: what fits a screen of 1440 pixels without scrolling sideways."""

COST = "cost_usd"
"""The one field that says what usage costs us: not for accounts limited to organizations."""

_BY_FIELD = {column.field: column for column in COLUMNS}

SORT_FIELDS = tuple(column.field for column in COLUMNS if column.field in FLAT_FIELDS)


def _optional(write: Callable[..., str], value: object) -> str:
    return EMPTY if value is None else write(value)


def _moment_or_none(event: UsageEvent, zone: ZoneInfo) -> str:
    return EMPTY if event.synced_at is None else moment(event.synced_at, zone)


def columns_for(principal: Principal) -> list[EventColumn]:
    """The columns that a principal may see, in the table's order."""
    return [column for column in COLUMNS if column.field != COST or principal.sees_costs]


def sort_fields_for(principal: Principal) -> list[str]:
    """The fields that a principal may sort by."""
    return [field for field in SORT_FIELDS if field != COST or principal.sees_costs]


def column_of(field: str) -> EventColumn:
    """The column with a published field."""
    return _BY_FIELD[field]


def cells(events: list[UsageEvent], columns: list[EventColumn], zone: ZoneInfo) -> dict[str, list[str]]:
    """The table's cells: field → one text per event."""
    return {column.field: [column.text(event, zone) or EMPTY for event in events] for column in columns}
