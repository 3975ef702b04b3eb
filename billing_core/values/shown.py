"""Amounts and dates as people read them, on screens and in messages. For the eye only: files get exact values."""

from __future__ import annotations

from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal

UNKNOWN = "unknown"


def short_credits(value: Decimal | None) -> str:
    """Credits for a list, two decimals: `1234.567` → `1,234.57`, zero → `0`, less than shows → `<0.01`."""
    return UNKNOWN if value is None else _to_places(value, "", 2)


def short_usd(value: Decimal | None) -> str:
    """US dollars for a list, two decimals, four below a cent: `0.0736` → `$0.07`, `0.00056` → `$0.0006`."""
    if value is None:
        return UNKNOWN
    return _to_places(value, "$", 2 if abs(value) >= Decimal("0.01") else 4)


def _to_places(value: Decimal, prefix: str, places: int) -> str:
    if value == 0:
        return f"{prefix}0"
    sign, smallest = "−" if value < 0 else "", Decimal(1).scaleb(-places)
    shown = abs(value).quantize(smallest, ROUND_HALF_EVEN)
    return f"{sign}{prefix}{shown:,}" if shown else f"{sign}<{prefix}{smallest}"


def change(now: Decimal | int | None, before: Decimal | int | None) -> str:
    """How a figure moved against the period before: `+12.3 %`, `−4 %`, `unchanged`, or why there is no percentage."""
    if now is None or before is None:
        return UNKNOWN
    if now == before:
        return "unchanged"
    if before == 0:
        return "none before"
    percent = (Decimal(now) - Decimal(before)) * 100 / abs(Decimal(before))
    places = Decimal("0.1") if abs(percent) < 100 else Decimal(1)
    shown = percent.quantize(places, ROUND_HALF_EVEN)
    if shown == 0:
        return "less than ±0.1 %"
    return f"{'+' if shown > 0 else '−'}{f'{abs(shown):,}'.removesuffix('.0')} %"


def day_text(day: date) -> str:
    """A date for people: `22 Nov 2026`."""
    return f"{day.day} {day:%b %Y}"
