"""Numbers of the Organization Stats page as text: credits of a range, shares, percentages, time left."""

from __future__ import annotations

from datetime import timedelta
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal

from billing_core.organizations.anomalies import UsualRange
from components.shared.formats import UNKNOWN, exact, short_credits

CENT, TENTH, WHOLE = Decimal("0.01"), Decimal("0.1"), Decimal(1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def amount(value: Decimal) -> str:
    """Credits of a range or a part as text: two decimals are enough for people, the CSV has every digit."""
    return short_credits(value if abs(value) < 1 else value.quantize(CENT, ROUND_HALF_EVEN))


def signed_amount(value: Decimal) -> str:
    """A part of a difference in credits as text, with its sign."""
    return f"+{amount(value)}" if value > 0 else amount(value)


def range_text(expected: UsualRange) -> str:
    """A usual range as text: `7,500.00 – 12,500.00`."""
    return f"{amount(expected.low)} – {amount(expected.high)}"


def cut(value: Decimal | int | None) -> str:
    """Credits of a limit, cut, not rounded, to two decimals: `999.999` of 1,000 is not all of it."""
    return UNKNOWN if value is None else exact(Decimal(value).quantize(CENT, ROUND_DOWN))


def left_text(left: timedelta | None) -> str:
    """The time left in a period: `12 days`, `5 h`, `9 min`, `over`; whole units, cut."""
    if left is None:
        return UNKNOWN
    if left <= timedelta():
        return "over"
    if left >= 2 * DAY:
        return f"{left // DAY:,} days"
    return f"{left // HOUR} h" if left >= HOUR else f"{left // timedelta(minutes=1)} min"
