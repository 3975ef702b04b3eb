from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from billing_core.exports.model import FORMATS, Dataset, ExportPreview, ExportProgress, ExportResult, Format, Grain
from components.exports import texts
from components.exports.texts import (
    DATASET_WORDS,
    FORMAT_WORDS,
    GRAIN_WORDS,
    column_pixels,
    compared_rows,
    differing,
    note,
    nothing_text,
    preview_rows,
    progress_fraction,
    progress_text,
    size_text,
    totals_text,
)

TOTALS = {"credits_total": Decimal("1234.5"), "amount_usd": Decimal("0.04938"), "cost_usd": None, "tokens_total": 4000}


def preview(rows=(("e1", "100"), ("e2", None)), total_rows=1200, **totals) -> ExportPreview:
    return ExportPreview(
        ("id", "tokens_total"), rows, total_rows, {**TOTALS, **totals}, 7, datetime(2026, 11, 1, tzinfo=UTC)
    )


def result(rows=1200, size=1536, **totals) -> ExportResult:
    return ExportResult("usage-events.csv", rows, size, "ab" * 32, {**TOTALS, **totals}, {})


@pytest.mark.parametrize(
    ("size", "says"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1,023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (102_400, "100 KiB"),
        (1_048_575, "1 MiB"),
        (5 * 1024**2, "5 MiB"),
        (3 * 1024**3, "3 GiB"),
        (2000 * 1024**3, "2,000 GiB"),
    ],
)
def test_sizes_have_a_unit_people_know(size, says):
    assert size_text(size) == says


def test_totals_are_exact_and_have_units():
    assert totals_text(1200, TOTALS) == "1,200 rows · 1,234.5 credits · $0.05"
    assert totals_text(1, {}) == "1 row"


def test_an_empty_cell_stays_empty():
    assert preview_rows(preview()) == {"id": ["e1", "e2"], "tokens_total": ["100", ""]}


def test_preview_and_file_stand_beside_each_other_with_every_digit():
    assert compared_rows(preview(), result(some_thing=3)) == {
        "Total": ["Rows", "Credits", "Amount (USD)", "Langfuse cost (USD)", "Tokens", "Some thing"],
        "Preview": ["1,200", "1,234.5", "0.04938", "unknown", "4,000", ""],
        "File": ["1,200", "1,234.5", "0.04938", "unknown", "4,000", "3"],
    }
    assert list(compared_rows(None, result())) == ["Total", "File"]


def test_a_file_that_is_not_what_was_shown_is_named():
    assert differing(preview(), result()) == []
    assert differing(preview(), result(rows=1199, credits_total=Decimal("1234.500001"))) == ["Rows", "Credits"]
    assert differing(preview(cost_usd=Decimal(0)), result()) == ["Langfuse cost (USD)"]


def test_progress_is_told_as_far_as_it_is_known():
    assert progress_text(ExportProgress(120_000, 1_234_567, "Writing")) == "Writing: 120,000 of 1,234,567 rows"
    assert progress_text(ExportProgress(0, None, "Comparing the books")) == "Comparing the books"
    assert progress_text(ExportProgress(1, None, "Writing")) == "Writing: 1 row"
    assert progress_fraction(ExportProgress(50, 200, "")) == 0.25
    assert progress_fraction(ExportProgress(50, None, "")) == progress_fraction(ExportProgress(0, 0, "")) == 0.0


def test_everything_that_can_be_chosen_has_words():
    assert set(DATASET_WORDS) == set(FORMATS) == set(Dataset)
    assert set(FORMAT_WORDS) == set(Format)
    assert set(GRAIN_WORDS) == set(Grain)
    assert all(nothing_text(dataset) for dataset in Dataset)
    for dataset, forms in FORMATS.items():
        assert all(note(dataset, form, grain) for form in (forms or (None,)) for grain in Grain)


def test_rows_are_described_as_they_are_in_the_file():
    events = Dataset.USAGE_EVENTS
    described, forms = texts.DATASET_NOTES, texts.FORMAT_NOTES
    assert note(events, Format.XLSX, Grain.EVENT) == f"{described[events]} {forms[Format.XLSX]}"
    assert note(events, Format.CSV, Grain.DAY) == f"{texts.BY_DAY} {forms[Format.CSV]}"
    assert note(events, Format.JOURNAL, Grain.EVENT) == forms[Format.JOURNAL]
    assert note(Dataset.BUNDLE, None, Grain.EVENT) == described[Dataset.BUNDLE]


def test_a_column_has_room_for_its_longest_figure():
    assert column_pixels("debit", ["", "64.493600548460"]) == 24 + 8 * 15
    assert column_pixels("organization_id", []) == 24 + 8 * 15
    assert column_pixels("causes", ["x" * 5000]) == 400


def test_bookings_show_debit_and_credit_and_what_they_leave_out():
    totals = {
        "debit_usd": Decimal("1234.50"),
        "credit_usd": Decimal("1234.50"),
        "without_customer_usd": Decimal("0.003"),
    }
    assert totals_text(9, totals) == "9 rows · debit $1,234.50 = credit $1,234.50 · $0.0030 left out: no customer"
    assert totals_text(9, {**totals, "without_customer_usd": Decimal(0)}).endswith("credit $1,234.50")
