from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.shared import formats


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0", "0"),
        ("0.000001", "0.000001"),
        ("0.00004", "0.00004"),
        ("0.0012345", "0.00123"),
        ("0.5", "0.50"),
        ("0.999999", "1.00"),
        ("1", "1.00"),
        ("150", "150.00"),
        ("8231255.81", "8,231,255.81"),
        ("-3.5", "−3.50"),
    ],
)
def test_credits_read_with_two_decimals_and_small_ones_with_as_many_as_they_need(value, text):
    assert formats.credits_text(Decimal(value)) == text


@pytest.mark.parametrize(
    ("value", "text"), [("0.006", "$0.006"), ("0.00000001", "$0.00000001"), ("1234.5", "$1,234.50"), ("-2", "−$2.00")]
)
def test_amounts_carry_their_currency(value, text):
    assert formats.usd(Decimal(value)) == text


@given(st.decimals(min_value="0.000000000001", max_value="1000000", places=12))
def test_no_amount_above_zero_ever_looks_like_nothing(value):
    assert any(digit in formats.usd(value) for digit in "123456789")


@given(st.decimals(min_value="0.01", max_value="1000000000", places=6))
def test_what_is_shown_is_never_more_than_half_a_percent_off(value):
    shown = Decimal(formats.credits_text(value).replace(",", ""))
    assert abs(shown - value) <= value * Decimal("0.005")


@pytest.mark.parametrize("write", [formats.credits_text, formats.usd, formats.count, formats.compact, formats.duration])
def test_an_unknown_value_is_the_word_and_never_a_zero(write):
    assert write(None) == "unknown"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (2016, "2,016"),
        (9_999, "9,999"),
        (10_000, "10.0K"),
        (99_574, "99.6K"),
        (999_949, "1.00M"),
        (999_499, "999K"),
        (Decimal("8231255.81"), "8.23M"),
        (Decimal("1274.78"), "1,275"),
        (Decimal("80.6"), "80.60"),
        (Decimal("0.0042"), "0.0042"),
        (Decimal(7) * 10**9, "7.00B"),
        (Decimal(5) * 10**15, "5000T"),
        (-12_345, "−12.3K"),
    ],
)
def test_tiles_hold_three_digits_and_a_letter(value, text):
    assert formats.compact(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        ("0", "0 s"),
        ("0.35", "0.35 s"),
        ("1.234", "1.2 s"),
        ("59.94", "59.9 s"),
        ("59.96", "1 min 00 s"),
        ("125", "2 min 05 s"),
        ("3599.6", "1 h 00 min"),
        ("3720", "1 h 02 min"),
    ],
)
def test_latency_reads_in_seconds_minutes_and_hours(seconds, text):
    assert formats.duration(Decimal(seconds)) == text


def test_times_are_those_of_the_reporting_timezone():
    time = datetime(2026, 11, 22, 23, 30, 9, tzinfo=UTC)
    assert formats.moment(time, ZoneInfo("Europe/Berlin")) == "2026-11-23 00:30:09"
    assert formats.moment(None, ZoneInfo("UTC")) == "unknown"
    assert formats.day_text(date(2026, 11, 2)) == "2 Nov 2026"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "just now"), (180, "3 min ago"), (7200, "2 h ago"), (47 * 3600, "47 h ago"), (4 * 86400, "4 days ago")],
)
def test_age_reads_in_the_largest_fitting_unit(seconds, text):
    now = datetime(2026, 11, 22, tzinfo=UTC)
    assert formats.ago(now - timedelta(seconds=seconds), now) == text


@pytest.mark.parametrize(
    ("now", "before", "text"),
    [
        (110, 100, "+10 %"),
        (96, 100, "−4 %"),
        (100, 100, "unchanged"),
        (5, 0, "none before"),
        (Decimal("1057"), Decimal("100"), "+957 %"),
        (100_001, 100_000, "less than ±0.1 %"),
        (None, 4, "unknown"),
        (4, None, "unknown"),
    ],
)
def test_a_change_never_divides_by_nothing(now, before, text):
    assert formats.change(now, before) == text


@pytest.mark.parametrize(
    ("page", "limit", "total", "text"),
    [
        (1, 25, 12_345, "1–25 of 12,345 events"),
        (494, 25, 12_345, "12,326–12,345 of 12,345 events"),
        (1, 25, 1, "1–1 of 1 event"),
        (1, 25, 0, "no events"),
        (9, 25, 30, "page 9 is past the last of 30 events"),
    ],
)
def test_the_rows_of_a_page_are_counted_for_people(page, limit, total, text):
    assert formats.rows_range(page, limit, total) == text


@pytest.mark.parametrize(
    ("value", "credits_", "dollars"),
    [
        (None, "unknown", "unknown"),
        (Decimal(0), "0", "$0"),
        (Decimal("1234.567"), "1,234.57", "$1,234.57"),
        (Decimal("0.0736"), "0.07", "$0.07"),
        (Decimal("0.000563"), "<0.01", "$0.0006"),
        (Decimal("-0.000563"), "−<0.01", "−$0.0006"),
        (Decimal("0.00000008"), "<0.01", "<$0.0001"),
        (Decimal("-3.1"), "−3.10", "−$3.10"),
    ],
)
def test_figures_of_a_list_have_few_decimals_and_none_looks_like_nothing(value, credits_, dollars):
    assert (formats.short_credits(value), formats.short_usd(value)) == (credits_, dollars)
