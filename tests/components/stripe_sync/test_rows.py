"""Tables of the Stripe Sync page: books side by side, exact and never netted."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest

from billing_core.ledger.push_log import PushRun
from billing_core.reconcile.report import (
    Cause,
    ComparisonStep,
    CrossCheck,
    CustomerDay,
    DayDifference,
    DifferencePart,
    Reconciliation,
)
from billing_core.stripe.bodies import v1_body, v2_body
from billing_core.stripe.model import MeterEvent
from billing_core.values.usage_frame import Window
from components.stripe_sync.rows import (
    Measure,
    book_totals,
    cause_rows,
    cross_check_rows,
    difference,
    difference_rows,
    heat_grid,
    push_log_rows,
    requests_of,
    rows_with_differences,
    waterfall_rows,
)

MONDAY = date(2026, 11, 16)
START = datetime(2026, 11, 16, tzinfo=UTC)
LOST = DifferencePart(ComparisonStep.SENT_STRIPE, Cause.LOST_AT_STRIPE, Decimal(5))
FOREIGN = DifferencePart(ComparisonStep.SENT_STRIPE, Cause.NOT_OURS, Decimal(-5))


def row(customer, langfuse, ledger, sent, stripe, *parts, day=MONDAY) -> CustomerDay:
    books = [None if value is None else Decimal(value) for value in (langfuse, ledger, sent, stripe)]
    return CustomerDay(customer, day, *books, parts)


def found(*rows: CustomerDay, days: int = 3) -> Reconciliation:
    return Reconciliation(Window(START, START + timedelta(days=days)), START, rows)


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        (Measure.LANGFUSE_STRIPE, Decimal("6.5")),
        (Measure.LANGFUSE_LEDGER, Decimal(1)),
        (Measure.LEDGER_SENT, Decimal("0.5")),
        (Measure.SENT_STRIPE, Decimal(5)),
        (Measure.UNEXPLAINED, Decimal(5)),
    ],
)
def test_a_difference_is_what_the_earlier_book_has_more(measure, expected):
    assert difference(row("cus_a", "10.5", "9.5", "9", "4", LOST), measure) == expected


def test_a_difference_to_an_unknown_book_is_unknown():
    assert difference(row("cus_a", None, "9", "9", "9"), Measure.LANGFUSE_STRIPE) is None
    assert difference(row("cus_a", "9", "9", "9", None), Measure.SENT_STRIPE) is None


def test_a_book_that_is_unknown_for_one_customer_has_no_total():
    totals = book_totals(found(row("cus_a", "1.5", "1", "1", None), row("cus_b", "2", "2", "2", "2")))
    assert totals == {"Langfuse": Decimal("3.5"), "Ledger": Decimal(3), "Sent": Decimal(3), "Stripe": None}


def test_the_map_begins_with_who_differs_most_and_opposite_differences_do_not_cancel():
    rows = [
        row("cus_a", "1", "1", "1", "1"),
        row("cus_b", "10", "10", "10", "5", LOST),
        row("cus_b", "5", "5", "5", "10", FOREIGN, day=MONDAY + timedelta(days=1)),
        row("cus_c", "9", "9", "9", "0"),
        row(None, "2", "2", "0", "0"),
    ]
    grid = heat_grid(found(*rows), Measure.LANGFUSE_STRIPE, shown=3)
    assert grid.customers == ("cus_b", "cus_c", None)
    assert grid.left_out == 1
    assert grid.days == (MONDAY, MONDAY + timedelta(days=1), MONDAY + timedelta(days=2))
    assert ("cus_a", MONDAY) not in grid.rows


def test_what_nobody_can_explain_is_looked_at_first():
    rows = [
        row("cus_a", "1000", "1000", "0", "0"),
        row("cus_b", "10", "10", "10", "5", LOST),
        row("cus_c", "7", "7", "7", "7"),
    ]
    differing = rows_with_differences(found(*rows), Measure.LANGFUSE_STRIPE)
    assert [one.customer_id for one in differing] == ["cus_b", "cus_a"]


def test_the_table_has_every_book_in_two_decimals_and_the_causes():
    table = difference_rows([row(None, "1234.567891", "1234", "0", None, LOST, FOREIGN)])
    assert {name: column[0] for name, column in table.items()} == {
        "Customer": "no customer",
        "Day (UTC)": "2026-11-16",
        "Langfuse": "1,234.57",
        "Ledger": "1,234",
        "Sent": "0",
        "Stripe": "unknown",
        "Langfuse − Stripe": "unknown",
        "Unexplained": "10",
        "Causes": "Lost at Stripe, Not ours",
    }


def test_a_contradiction_of_the_ledger_has_a_name_of_its_own():
    rows = cause_rows(
        row("cus_a", "1", "1", "0", "0", DifferencePart(ComparisonStep.LEDGER_SENT, None, Decimal(1), ("e1",)))
    )
    assert (rows["Cause"], rows["Credits"], rows["Events"]) == (["Contradiction"], ["+1"], ["1"])


def test_a_waterfall_as_a_table_signs_its_steps_and_not_its_totals():
    steps = [("langfuse", Decimal("10.5")), ("late −", Decimal(-4)), ("late +", Decimal(1)), ("stripe", Decimal("7.5"))]
    assert waterfall_rows(steps) == {
        "Step": ["Langfuse", "Late (−)", "Late (+)", "Stripe"],
        "Credits": ["10.5", "−4", "+1", "7.5"],
    }


def test_the_cross_check_lists_the_days_that_differ():
    same, other = DayDifference(MONDAY, 0, 0, Decimal(0)), DayDifference(MONDAY, 2, -1500, Decimal("0.5"))
    assert cross_check_rows(CrossCheck((same, other))) == {
        "Day (UTC)": ["2026-11-16"],
        "Observations": ["+2"],
        "Tokens": ["−1,500"],
        "Cost (USD)": ["+0.5"],
    }


@pytest.mark.parametrize(("body", "path"), [(v1_body, "/v1"), (lambda e: {"events": [v2_body(e)]}, "/v2")])
def test_requests_of_either_api_read_the_same(body, path):
    event = MeterEvent("usage_1", "credits", "cus_a", -7, datetime(2026, 11, 16, 9, tzinfo=UTC))
    (one,) = requests_of([{"method": "POST", "path": path, "idempotency_key": "k", "body": body(event)}])
    assert (one.identifier, one.customer_id, one.credits, one.path) == ("usage_1", "cus_a", -7, path)
    assert one.time.startswith("2026-11-16T09:00:00")


def test_the_push_log_is_on_our_clocks_and_a_long_list_of_problems_is_cut():
    start = datetime(2026, 11, 16, 9, tzinfo=UTC)
    failures = {"sent": 1, "credits_sent": "5", "failures": ["a", "b", "c"], "problems": ["p"]}
    runs = [
        PushRun("2", start, None, "ada", "running", {}, None),
        PushRun("1", start, start + timedelta(seconds=90), "ada", "failed", failures, "Stripe cannot be reached"),
    ]
    log = push_log_rows(runs, ZoneInfo("Europe/Berlin"), is_pushing=True)
    assert log["Started (Europe/Berlin)"][0] == "2026-11-16 10:00:00"
    assert log["Outcome"] == ["↑ running", "✕ failed"]
    assert log["Took"] == ["unknown", "1 min 30 s"]
    assert log["Sent"] == ["unknown", "1"]
    assert log["Problem"] == ["", "Stripe cannot be reached · p · and 3 more"]
