"""Figures of the Stripe Sync page: every digit, with its sign or its currency."""

from __future__ import annotations

from decimal import Decimal

import pytest

from components.shared.formats import exact, minor_units, signed_rounded


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Decimal("1234567.500000"), "1,234,567.5"),
        (Decimal("0E-6"), "0"),
        (Decimal("-0.000001"), "−0.000001"),
        (1000, "1,000"),
        (Decimal("1E+3"), "1,000"),
        (None, "unknown"),
    ],
)
def test_every_digit_is_shown(value, said):
    assert exact(value) == said


@pytest.mark.parametrize(("value", "said"), [(Decimal("1.50"), "+1.5"), (-3, "−3"), (0, "0"), (None, "unknown")])
def test_a_difference_carries_its_sign(value, said):
    assert signed_rounded(value) == said


@pytest.mark.parametrize(
    ("amount", "currency", "said"),
    [
        (123456, "usd", "1,234.56 USD"),
        (-5, "eur", "−0.05 EUR"),
        (500, "jpy", "500 JPY"),
        (1234, "kwd", "1.234 KWD"),
        (0, "usd", "0.00 USD"),
        (None, "usd", "unknown"),
        (5, None, "unknown"),
    ],
)
def test_money_in_smallest_units_reads_in_its_currency(amount, currency, said):
    assert minor_units(amount, currency) == said
