from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from billing_core.imports.model import (
    FileKind,
    ImportOutcome,
    ImportPlan,
    ImportRecord,
    ImportResult,
    OrganizationEffect,
    RejectedLine,
    UndoResult,
)
from components.imports import texts
from components.imports.texts import (
    KIND_WORDS,
    applied_text,
    confirm_label,
    counts_text,
    effect_rows,
    effect_text,
    file_text,
    nothing_to_do_text,
    part_rows,
    record_label,
    record_rows,
    rejected_rows,
    rejected_text,
    undo_text,
    undone_text,
)

BERLIN = ZoneInfo("Europe/Berlin")
EFFECTS = (
    OrganizationEffect("org_a", 2, Decimal("300"), Decimal("0.012")),
    OrganizationEffect(None, -1, Decimal("-1150.5"), Decimal("-0.04602")),
)
PLAN = ImportPlan(
    FileKind.USAGE_EVENTS,
    "october.csv",
    "ab" * 32,
    1536,
    1204,
    ImportOutcome(1200, 3, 1, EFFECTS),
    columns=("id", "timestamp"),
)
RECORD = ImportRecord(
    "imp_1",
    FileKind.USAGE_EVENTS,
    "october.csv",
    "ab" * 32,
    1200,
    1,
    0,
    2,
    datetime(2026, 11, 1, 12, tzinfo=UTC),
    "ada",
)


def with_outcome(new: int, changed: int, kind: FileKind = FileKind.USAGE_EVENTS) -> ImportPlan:
    return replace(PLAN, kind=kind, outcome=ImportOutcome(new, changed))


def test_a_file_is_named_with_what_it_is():
    assert file_text(PLAN) == "october.csv: usage events, 1,204 rows, 1.5 KiB"
    assert set(KIND_WORDS) == set(FileKind)


def test_what_happens_to_its_rows_is_counted():
    assert counts_text(1200, 3, 1, 0) == "1,200 new, 3 changed, 1 unchanged"
    assert counts_text(0, 0, 7, 2) == "0 new, 0 changed, 7 unchanged, 2 rejected"


def test_the_effect_is_signed_exact_and_has_units():
    assert (
        effect_text(EFFECTS) == "Totals change by +1 event, −850.5 credits, −$0.03 across 2 organizations."
    )  # 300 - 1150.5, 0.012 - 0.04602
    assert effect_text(()) == effect_text([OrganizationEffect("org_a", 0, Decimal(0), Decimal(0))]) == texts.NO_EFFECT
    assert effect_rows(EFFECTS) == {
        "Organization": ["No organization", "org_a"],
        "Events": ["−1", "+2"],
        "Credits": ["−1,150.5", "+300"],
        "Amount (USD)": ["−$0.05", "+$0.01"],
    }


def test_rejections_name_row_field_and_reason():
    assert rejected_rows([RejectedLine(1204, "id", "twice"), RejectedLine(0, "", "no header")]) == {
        "Row": ["1,204", "file"],
        "Field": ["id", ""],
        "Reason": ["twice", "no header"],
    }


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rejected_rows": 1}, f"1 row is {texts.NOT_UNTIL_CORRECTED}"),
        ({"rejected_rows": 2, "skip_bad_rows": True}, f"2 rows are {texts.WOULD_BE_SKIPPED}"),
        ({"rejected_rows": 1, "is_whole": False}, texts.UNUSABLE),
    ],
)
def test_what_rejections_mean_for_the_file_is_said(changes, says):
    assert rejected_text(replace(PLAN, **changes)) == says


def test_the_confirmation_says_how_many_of_what():
    assert confirm_label(PLAN) == "Import 1,200 new and 3 changed events"
    assert confirm_label(with_outcome(1, 0)) == "Import 1 new event"
    assert confirm_label(with_outcome(0, 2, FileKind.CUSTOMERS)) == "Import 2 changed organizations"
    assert confirm_label(with_outcome(1, 1, FileKind.BUNDLE)) == "Import 1 new and 1 changed rows"
    assert confirm_label(with_outcome(1, 0, FileKind.RATE_CARD)) == "Import 1 new card"


def test_the_files_of_a_bundle_are_listed_in_their_order():
    part = replace(
        PLAN, file_name="rate-card.json", kind=FileKind.RATE_CARD, rejected_rows=2, outcome=ImportOutcome(1, 0, 4)
    )
    assert part_rows([part, PLAN]) == {
        "File": ["rate-card.json", "october.csv"],
        "Kind": ["rate cards", "usage events"],
        "New": ["1", "1,200"],
        "Changed": ["0", "3"],
        "Unchanged": ["4", "1"],
        "Rejected": ["2", "0"],
    }


def test_what_an_import_did_is_told():
    assert applied_text(ImportResult(PLAN, PLAN.outcome, ("imp_1",))) == (
        "Imported october.csv: 1,200 new, 3 changed, 1 unchanged. It can be undone below."
    )
    assert applied_text(ImportResult(PLAN, ImportOutcome(0, 0, 9), ())).endswith(texts.NOTHING_HAPPENED)
    empty = replace(PLAN, rows=0, outcome=ImportOutcome())
    assert nothing_to_do_text(empty) == texts.NO_ROWS
    assert "no rows" in applied_text(ImportResult(empty, ImportOutcome(), ()))
    assert nothing_to_do_text(PLAN) == texts.NOTHING_NEW
    assert nothing_to_do_text(replace(PLAN, rejected_rows=1)) == texts.NO_USABLE_ROWS


def test_earlier_imports_are_told_on_the_clocks_of_the_reporting_timezone():
    undone = replace(RECORD, undone_at=datetime(2026, 11, 2, 8, tzinfo=UTC), undone_by="bob")
    rows = record_rows([RECORD, undone], BERLIN)
    assert rows["Imported (Europe/Berlin)"] == ["2026-11-01 13:00:00"] * 2
    assert rows["Undone"] == ["", "2026-11-02 09:00:00 by bob"]
    assert record_label(RECORD, BERLIN) == "october.csv, 2026-11-01 13:00:00: 1,200 new, 1 changed"


def test_an_undo_says_what_it_takes_back_before_and_after():
    assert undo_text(RECORD) == (
        f"1,200 events added by it would be removed and 1 event it changed would be restored. {texts.ALL_OR_NOTHING}"
    )
    assert undo_text(replace(RECORD, new=0, changed=0)).startswith("Nothing would change.")
    assert undone_text(UndoResult("imp_1", FileKind.USAGE_EVENTS, 1200, 1), "october.csv") == (
        "Undone october.csv: 1,200 events removed, 1 event restored. History keeps their earlier state."
    )
