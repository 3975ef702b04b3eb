"""Formats figures for people. For the eye only: explanation, CSV and API keep the exact values.

Nothing here knows Streamlit. An unknown value is the word `unknown`, never a zero.
"""

from __future__ import annotations

from datetime import datetime
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from zoneinfo import ZoneInfo

from billing_core.values.counts import count_of
from billing_core.values.money import money
from billing_core.values.shown import UNKNOWN as UNKNOWN
from billing_core.values.shown import change as change
from billing_core.values.shown import day_text as day_text
from billing_core.values.shown import short_credits as short_credits
from billing_core.values.shown import short_usd as short_usd

NOTHING_EARLIER = "no earlier data"

SMALL_DIGITS = 3
"""Significant digits shown of an amount below one, so that no amount looks like nothing."""

_SCALES = ((Decimal(10) ** 12, "T"), (Decimal(10) ** 9, "B"), (Decimal(10) ** 6, "M"), (Decimal(10) ** 3, "K"))


def count(value: int | None) -> str:
    """A count with thousands separators: `12345` → `12,345`."""
    return UNKNOWN if value is None else f"{value:,}"


def credits_text(value: Decimal | None) -> str:
    """Credits for people: `1234.5` → `1,234.50`, `0.000042` → `0.000042`, zero → `0`."""
    return UNKNOWN if value is None else _readable(value)


def exact(value: Decimal | int | None) -> str:
    """A decimal with every digit and thousands separators: `1234.500000` → `1,234.5`, `-3` → `−3`."""
    if value is None:
        return UNKNOWN
    size = abs(Decimal(value))
    text = f"{size:,f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "−" + text if value < 0 else text


def rounded(value: Decimal | int | None) -> str:
    """A number for people, with two decimals at most: `1234.567` → `1,234.57`, `3.0` → `3`, `0.001` → `<0.01`."""
    if value is None:
        return UNKNOWN
    shown = Decimal(value).quantize(Decimal("0.01"), ROUND_HALF_EVEN)
    return short_credits(Decimal(value)) if value and not shown else exact(shown)


def signed_rounded(value: Decimal | int | None) -> str:
    """A difference for people, with two decimals at most and its sign: `+1,234.57`, `−3`, `0`, `+<0.01`."""
    return f"+{rounded(value)}" if value is not None and value > 0 else rounded(value)


TENTH = Decimal("0.1")


def percent(share: Decimal | Fraction | None) -> str:
    """A share as percent, one decimal below a hundred: `0.1234` → `12.3 %`, `0.42` → `42 %`, `54.334` → `5,433 %`; what
    is too small to show is not nothing.
    """
    if share is None:
        return UNKNOWN
    value = Decimal(share.numerator) / Decimal(share.denominator) if isinstance(share, Fraction) else share
    return _percent(value * 100, ROUND_HALF_EVEN)


def cut_percent(value: Decimal | None) -> str:
    """A percentage that counts as reached only when it is: cut, not rounded. `99.96` → `99.9 %`."""
    return UNKNOWN if value is None else _percent(value, ROUND_DOWN)


def _percent(value: Decimal, rounding: str) -> str:
    shown = value.quantize(TENTH if abs(value) < 100 else Decimal(1), rounding)
    if shown == 0 and value:
        return "under 0.1 %" if value > 0 else "just below 0 %"
    return f"{'−' if shown < 0 else ''}{f'{abs(shown):,}'.removesuffix('.0')} %"


def signed_usd(value: Decimal) -> str:
    """A difference in US dollars with its sign: `+$0.05`, `−$12.30`, `$0`."""
    return f"+{short_usd(value)}" if value > 0 else short_usd(value)


def minor_units(amount: int | None, currency: str | None) -> str:
    """Money in a currency's smallest unit, as Stripe has it: `(1234, "usd")` → `12.34 USD`, `(5, "jpy")` → `5 JPY`."""
    if amount is None or currency is None:
        return UNKNOWN
    return money(amount, currency)


def usd(value: Decimal | None) -> str:
    """US dollars for people: `1234.5` → `$1,234.50`, `0.00004` → `$0.00004`, zero → `$0`."""
    if value is None:
        return UNKNOWN
    return f"−${_readable(-value)}" if value < 0 else f"${_readable(value)}"


def middle_cut(text: str, most: int) -> str:
    """A name in at most so many characters, cut in the middle: both ends tell ids and addresses apart."""
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}…{text[len(text) - (most - head - 1) :]}"


def _readable(value: Decimal) -> str:
    """Two decimals from one upwards, else as many as its first significant digits need; at least two."""
    if value == 0:
        return "0"
    if value < 0:
        return "−" + _readable(-value)
    if value >= 1:
        return f"{value.quantize(Decimal('0.01'), ROUND_HALF_EVEN):,}"
    places = max(2, SMALL_DIGITS - 1 - value.adjusted())
    text = format(value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN), "f")
    whole, _, fraction = text.partition(".")
    return f"{whole}.{fraction.rstrip('0'):0<2}"


def compact(value: Decimal | int | None, *, prefix: str = "") -> str:
    """A number in three significant digits and a letter, for a tile: `8231255.81` → `8.23M`; `1274.78` → `1,275`."""
    if value is None:
        return UNKNOWN
    sign = "−" if value < 0 else ""
    size = abs(Decimal(value))
    if size < 10_000:
        text = _readable(size) if size < 1_000 and not isinstance(value, int) else f"{round(size):,}"
        return sign + prefix + text
    for position, (scale, letter) in enumerate(_SCALES):
        if size < scale:
            continue
        shown = _three_digits(size / scale)
        if Decimal(shown) >= 1000 and position:  # 999,950 is 1.00M, not 1000K
            shown, letter = "1.00", _SCALES[position - 1][1]
        return f"{sign}{prefix}{shown}{letter}"
    raise AssertionError("every size from 10,000 has a scale")


def _three_digits(value: Decimal) -> str:
    places = max(0, SMALL_DIGITS - 1 - value.adjusted())
    return format(value.quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN), "f")


def duration(seconds: Decimal | None) -> str:
    """A duration in seconds for people: `0.35 s`, `1.2 s`, `2 min 05 s`, `1 h 02 min`."""
    if seconds is None:
        return UNKNOWN
    if seconds == 0:
        return "0 s"
    if seconds < 1:
        return f"{_readable(seconds)} s"
    tenths = seconds.quantize(Decimal("0.1"), ROUND_HALF_EVEN)
    if tenths < 60:
        return f"{tenths} s"
    whole = int(seconds.quantize(Decimal(1), ROUND_HALF_EVEN))
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    minutes = (whole + 30) // 60
    return f"{minutes // 60:,} h {minutes % 60:02} min"


def moment(time: datetime | None, zone: ZoneInfo) -> str:
    """A time in `zone`: `2026-11-22 14:05:09`; sorts as it reads."""
    return UNKNOWN if time is None else f"{time.astimezone(zone):%Y-%m-%d %H:%M:%S}"


def ago(then: datetime, now: datetime) -> str:
    """The time since a moment: `just now`, `3 min ago`, `2 h ago`, `4 days ago`."""
    minutes = int((now - then).total_seconds() // 60)
    if minutes < 1:
        return "just now"
    if minutes < 60:
        return f"{minutes} min ago"
    if minutes < 48 * 60:
        return f"{minutes // 60} h ago"
    return f"{minutes // (24 * 60):,} days ago"


def rows_range(page: int, limit: int, total: int, noun: str = "event") -> str:
    """Which rows of how many are shown: `1–25 of 12,345 events`."""
    if total == 0:
        return f"no {noun}s"
    first = (page - 1) * limit + 1
    if first > total:
        return f"page {page:,} is past the last of {count_of(total, noun)}"
    return f"{first:,}–{min(page * limit, total):,} of {count_of(total, noun)}"
