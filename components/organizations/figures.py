"""The figures of an organization for people: names, formats, whether a rise is bad news. Pure.

Tiles, table, comparison and sort box all read from here; what each figure means stands in `MEANINGS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from billing_core.organizations.figures import MEANINGS, Figures, Statistics
from billing_core.organizations.table import Value, figure, margin_share
from components.shared.formats import (
    UNKNOWN,
    change,
    compact,
    count,
    duration,
    exact,
    percent,
    short_credits,
    short_usd,
)

TENTH = Decimal("0.1")

MINUTE, HOUR = Decimal(60), Decimal(3600)
"""Seconds."""


def points(now: Value, before: Value) -> str:
    """How a share moved against the period before, in percentage points: `+1.2 pp`."""
    if now is None or before is None:
        return UNKNOWN
    if now == before:
        return "unchanged"
    moved = ((Decimal(now) - Decimal(before)) * 100).quantize(TENTH, ROUND_HALF_EVEN)
    if moved == 0:
        return "less than ±0.1 pp"
    return f"{'+' if moved > 0 else '−'}{abs(moved):,} pp"


def short_duration(seconds: Decimal | None) -> str:
    """A duration in one unit: `5.4 min`, `1.2 h`. A tile has no room for two."""
    if seconds is None or seconds < MINUTE:
        return duration(seconds)
    unit, size = ("h", HOUR) if seconds >= HOUR else ("min", MINUTE)
    return f"{(seconds / size).quantize(TENTH, ROUND_HALF_EVEN):,} {unit}"


def _exact_percent(part: Decimal | None) -> str:
    return UNKNOWN if part is None else f"{exact((part * 100).quantize(Decimal('0.000001'), ROUND_HALF_EVEN))} %"


def _exact_seconds(seconds: Decimal | None) -> str:
    return UNKNOWN if seconds is None else f"{exact(seconds)} seconds"


def _in_words(noun: str) -> Callable[[Any], str]:
    return lambda value: UNKNOWN if value is None else f"{count(value)} {noun}"


def _exact_credits(value: Decimal | None) -> str:
    return UNKNOWN if value is None else f"{exact(value)} credits"


def _exact_dollars(value: Decimal | None) -> str:
    return UNKNOWN if value is None else f"{exact(value)} US dollars"


def _dollars(value: Value) -> str:
    return short_usd(value) if isinstance(value, Decimal) and abs(value) < 1 else compact(value, prefix="$")


@dataclass(frozen=True, slots=True)
class FigureKind:
    """One kind of figure: published field, name, formats for a cell, a tile and the help text, meaning."""

    field: str
    label: str
    value: Callable[[Figures], Value]
    cell: Callable[[Any], str]
    tile: Callable[[Any], str]
    exact: Callable[[Any], str]
    meaning: str
    width: int
    growth_is_bad: bool = False

    def moved(self, now: Value, before: Value) -> str:
        """How the figure moved against the period before: in percent, shares in percentage points."""
        return points(now, before) if self.cell is percent else change(now, before)


Writers = tuple[Callable[[Any], str], Callable[[Any], str], Callable[[Any], str]]
"""How a cell, a tile and the help text write a value."""


def _kind(
    field: str,
    label: str,
    writers: Writers,
    width: int,
    meaning: str = "",
    *,
    growth_is_bad: bool = False,
    value: Callable[[Figures], Value] | None = None,
) -> FigureKind:
    """`meaning` only where `MEANINGS` has none of that field."""
    cell, tile, whole = writers
    read = value or (lambda figures: figure(figures, field))
    return FigureKind(field, label, read, cell, tile, whole, meaning or MEANINGS[field], width, growth_is_bad)


CREDITS = (short_credits, compact, _exact_credits)
DOLLARS = (short_usd, _dollars, _exact_dollars)
SECONDS = (duration, short_duration, _exact_seconds)
PART = (percent, percent, _exact_percent)


def _counts(noun: str) -> Writers:
    return count, compact, _in_words(noun)


TOKENS = _counts("tokens")

KINDS = (
    _kind("credits_total", "Credits", CREDITS, 105, MEANINGS["credits"]),
    _kind("credits_ai_tokens", "AI credits", CREDITS, 100, "Credits for AI tokens."),
    _kind("credits_compute", "Compute credits", CREDITS, 125, "Credits for the time that traces took."),
    _kind("credits_storage", "Storage credits", CREDITS, 120, "Credits for storage."),
    _kind("amount_usd", "Amount", DOLLARS, 95),
    _kind("cost_usd", "Langfuse cost", DOLLARS, 110),
    _kind("margin_usd", "Margin", DOLLARS, 95),
    _kind(
        "margin_share",
        "Margin %",
        PART,
        90,
        f"Margin as a share of the amount. {MEANINGS['margin_usd']}",
        value=margin_share,
    ),
    _kind("events", "Events", _counts("events"), 85),
    _kind("chats", "Chats", _counts("chats"), 80),
    _kind("messages_sent", "Messages sent", _counts("messages"), 115),
    _kind(
        "messages_generated",
        "Answers",
        _counts("messages"),
        90,
        f"Messages generated. {MEANINGS['messages_generated']}",
    ),
    _kind("users", "Active users", _counts("users"), 95),
    _kind("tokens_total", "Tokens", TOKENS, 95),
    _kind("tokens_input", "Input tokens", TOKENS, 100, MEANINGS["tokens_total"]),
    _kind("tokens_output", "Output tokens", TOKENS, 110, MEANINGS["tokens_total"]),
    _kind("tokens_cache_read", "Cache reads", TOKENS, 100, f"Tokens. {MEANINGS['tokens_total']}"),
    _kind("tokens_cache_write", "Cache writes", TOKENS, 100, f"Tokens. {MEANINGS['tokens_total']}"),
    _kind("tokens_reasoning", "Reasoning tokens", TOKENS, 130, MEANINGS["tokens_total"]),
    _kind("tokens_other", "Other tokens", TOKENS, 105, MEANINGS["tokens_total"]),
    _kind("chatflows", "Chatflows", _counts("chatflows"), 90),
    _kind("models", "Models", _counts("models"), 80),
    _kind("latency_seconds_average", "Average latency", SECONDS, 120, f"Average. {MEANINGS['latency_seconds']}"),
    _kind(
        "latency_seconds_p95",
        "p95 latency",
        SECONDS,
        100,
        f"95 % of the events took at most this long. {MEANINGS['latency_seconds']}",
    ),
    _kind("error_share", "Error share", PART, 95, growth_is_bad=True),
    _kind("unsynced_credits", "Not yet in Stripe", CREDITS, 105, growth_is_bad=True),
    _kind("failed_credits", "Failed", CREDITS, 105, growth_is_bad=True),
)
"""Every figure, in the order of tiles, columns and comparisons."""

FIRST = ("amount_usd", "cost_usd", "margin_usd", "unsynced_credits")
"""The figures that stand above everything; customers at risk, which no event counts, stand beside them."""

MORE = (
    "credits_total",
    "margin_share",
    "events",
    "chats",
    "messages_sent",
    "messages_generated",
    "users",
    "tokens_total",
    "latency_seconds_average",
    "latency_seconds_p95",
    "error_share",
    "failed_credits",
)
"""The figures behind "More figures"."""

COSTS = frozenset({"cost_usd", "margin_usd", "margin_share"})
"""The figures that say what usage costs us: not for accounts limited to organizations."""


def fields_for(fields: Iterable[str], statistics: Statistics) -> list[str]:
    """Those of some figures that are for who asked for the statistics."""
    return [field for field in fields if statistics.has_costs or field not in COSTS]


_BY_FIELD = {kind.field: kind for kind in KINDS}


def kind_of(field: str) -> FigureKind:
    """The kind of figure with a published field name."""
    return _BY_FIELD[field]
