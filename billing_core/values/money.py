"""Money in a currency's smallest unit, as Stripe counts it."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

from billing_core.values.decimals import EXACT

WHOLE_CURRENCIES = frozenset(
    ("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF")
)
THOUSANDTHS = frozenset(("BHD", "JOD", "KWD", "OMR", "TND"))
"""Currencies whose smallest unit at Stripe is not a hundredth."""


def places_of(currency: str) -> int:
    """Decimal places of a currency's smallest unit at Stripe: 2 for `usd`, 0 for `jpy`, 3 for `kwd`."""
    code = currency.upper()
    return 0 if code in WHOLE_CURRENCIES else 3 if code in THOUSANDTHS else 2


def in_minor_units(amount: Decimal, currency: str) -> int:
    """An exact amount in a currency's smallest unit, rounded once, half-even: `(Decimal("12.345"), "usd")` → `1234`."""
    return int(EXACT.scaleb(amount, places_of(currency)).to_integral_value(ROUND_HALF_EVEN, EXACT))


def from_minor_units(amount: int, currency: str) -> Decimal:
    """The exact amount of so many of a currency's smallest unit: `(1234, "usd")` → `Decimal("12.34")`."""
    return Decimal(amount).scaleb(-places_of(currency))


def money(amount: int, currency: str) -> str:
    """Money for people: `(1234, "usd")` → `12.34 USD`, `(5, "jpy")` → `5 JPY`."""
    places = places_of(currency)
    size = Decimal(abs(amount)).scaleb(-places)
    return f"{'−' if amount < 0 else ''}{size:,.{places}f} {currency.upper()}"


def rounding_of(amount_usd: Decimal, amount: int) -> Decimal:
    """What rounding to cents added to an exact amount of US dollars."""
    return EXACT.subtract(from_minor_units(amount, "usd"), amount_usd)
