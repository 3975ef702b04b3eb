"""Events that are in a file more than once: corrections of closed months fold, everything else is rejected."""

from __future__ import annotations

from decimal import Decimal

from billing_core.imports.model import MOST_LISTED
from billing_core.imports.stage import StagedRows
from tests.imports.test_validation import checked
from tests.imports.world import line

LATE = '["late_after_close"]'
TAKEN_BACK = {
    "credits_ai_tokens": "-100",
    "credits_compute": "-50",
    "credits_total": "-150",
    "amount_usd": "-0.006",
    "tokens_in": "-600",
    "tokens_out": "-400",
    "tokens_total": "-1000",
    "cost_usd": "-0.01",
    "latency_seconds": "0",
    "flags": LATE,
}
CORRECTED = {
    "credits_ai_tokens": "40",
    "credits_total": "90",
    "amount_usd": "0.0036",
    "tokens_in": "0",
    "tokens_total": "400",
    "user_id": "somebody else",
    "flags": LATE,
}


def staged(*rows):
    """Events that are left, reasons, and how many rows are rejected."""
    stage = StagedRows()
    found = checked(*rows)
    assert found.rejected == []
    stage.add(found.table)
    rejected, count = stage.finish()
    events = [row for table in stage.batches() for row in table.to_pylist()]
    assert stage.rows == len(events)
    return events, [(one.row, one.field) for one in rejected], count


def test_every_event_once_is_left_alone():
    events, rejected, count = staged(line("a"), line("b"))
    assert [one["id"] for one in events] == ["a", "b"]
    assert (rejected, count) == ([], 0)


def test_an_event_that_is_there_again_is_rejected_naming_the_row_it_is_in_already():
    stage = StagedRows()
    stage.add(checked(line("a"), line("b"), line("a"), line("a")).table)
    rejected, count = stage.finish()
    assert [(one.row, one.reason) for one in rejected] == [
        (3, "'a' is already in row 1; list every event once"),
        (4, "'a' is already in row 1; list every event once"),
    ]
    assert count == 2
    assert [row["id"] for table in stage.batches() for row in table.to_pylist()] == ["a", "b"]


def test_a_corrected_event_of_a_closed_month_folds_into_what_it_is_now():
    [event], rejected, _ = staged(line(), line(**TAKEN_BACK), line(**CORRECTED))
    assert rejected == []
    assert event["credits_total"] == Decimal(90)
    assert event["latency_seconds"] == 60
    assert event["user_id"] == "somebody else"


def test_several_corrections_fold_as_well_whatever_their_order():
    smaller = {"credits_ai_tokens": "-40", "credits_total": "-90", "amount_usd": "-0.0036"}
    again = {**TAKEN_BACK, **smaller, "tokens_in": "0", "tokens_total": "-400"}
    last = {**CORRECTED, "credits_ai_tokens": "0", "credits_total": "50", "amount_usd": "0.002", "tokens_total": "400"}
    [event], _, _ = staged(line(**TAKEN_BACK), line(), line(**CORRECTED), line(**again), line(**last))
    assert event["credits_total"] == Decimal(50)


def test_a_correction_of_which_the_state_before_is_missing_is_rejected_whole():
    events, rejected, count = staged(line("b"), line(**TAKEN_BACK), line(**CORRECTED))
    assert [one["id"] for one in events] == ["b"]
    assert rejected == [(2, "id"), (3, "id")]
    assert count == 2


def test_taking_back_alone_is_no_event():
    assert staged(line(**TAKEN_BACK))[1:] == ([(1, "id")], 1)


def test_two_plain_rows_do_not_fold_because_a_third_one_came_late():
    assert staged(line(), line(), line(**TAKEN_BACK))[2] == 3


def test_usage_that_came_after_the_close_is_an_event_like_any_other():
    [event], rejected, _ = staged(line(flags=LATE))
    assert (event["credits_total"], event["flags"], rejected) == (Decimal(150), [], [])


def test_of_very_many_repetitions_the_first_are_listed_and_all_are_counted():
    stage = StagedRows()
    table = checked(line()).table
    for number in range(1, MOST_LISTED + 20):
        stage.add(table.set_column(0, table.schema.field(0), [[number]]))
    rejected, count = stage.finish()
    assert (len(rejected), count) == (MOST_LISTED, MOST_LISTED + 18)


def test_nothing_is_left_on_disk_once_nobody_needs_it():
    stage = StagedRows()
    stage.add(checked(line()).table)
    stage.finish()
    assert stage.exists()
    stage.close()
    assert not stage.exists()
