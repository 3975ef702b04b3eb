"""The document, its way back, and the waterfall."""

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal

from billing_core.reconcile.report import (
    Cause,
    ComparisonStep,
    CrossCheck,
    CustomerDay,
    DayDifference,
    DifferencePart,
    Reconciliation,
    UnbilledFinding,
    waterfall,
)
from billing_core.values.usage_frame import Window

D = Decimal
DAY = date(2026, 11, 1)
WINDOW = Window(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC))
MADE_AT = datetime(2026, 11, 3, 4, 5, 6, tzinfo=UTC)

LATE = DifferencePart(ComparisonStep.LANGFUSE_LEDGER, Cause.LATE, D("20.500000"), ("e2",))
CARRIED = DifferencePart(ComparisonStep.LEDGER_SENT, Cause.CARRIED_FRACTION, D("0.25"))
FOREIGN = DifferencePart(ComparisonStep.SENT_STRIPE, Cause.NOT_OURS, D(-7))
ROW = CustomerDay("cus_a", DAY, D("120.75"), D("100.25"), D(100), D(107), (LATE, CARRIED, FOREIGN))


def report(*rows, **more):
    return Reconciliation(WINDOW, MADE_AT, rows, **more)


def test_the_document_is_what_the_contract_says():
    document = report(ROW).to_json()
    assert (document["from"], document["to"]) == ("2026-11-01T00:00:00.000Z", "2026-11-02T00:00:00.000Z")
    assert (document["made_at"], document["unexplained_credits"]) == ("2026-11-03T04:05:06.000Z", "7")
    [row] = document["rows"]
    books = {n: row[n] for n in ("langfuse_credits", "ledger_credits", "sent_credits", "stripe_credits")}
    assert books == {
        "langfuse_credits": "120.75",
        "ledger_credits": "100.25",
        "sent_credits": "100",
        "stripe_credits": "107",
    }
    assert (row["customer_id"], row["day"], row["unexplained_credits"]) == ("cus_a", "2026-11-01", "7")
    assert [(c["cause"], c["credits"], c["event_ids"]) for c in row["causes"]] == [
        ("late", "20.5", ["e2"]),
        ("carried_fraction", "0.25", []),
        ("not_ours", "-7", []),
    ]


def test_unknown_credits_are_null_and_not_0():
    row = replace(ROW, langfuse_credits=None, stripe_credits=None, parts=(CARRIED,))
    [shown] = report(row).to_json()["rows"]
    assert (shown["langfuse_credits"], shown["stripe_credits"]) == (None, None)


def test_a_contradiction_is_no_cause_but_stands_beside_them():
    part = DifferencePart(ComparisonStep.LEDGER_SENT, None, D(3), ("e9",), ("m9",))
    row = CustomerDay("cus_a", DAY, D(3), D(3), D(0), D(0), (part,))
    [shown] = report(row).to_json()["rows"]
    assert (shown["causes"], shown["unexplained_credits"]) == ([], "3")
    assert shown["contradictions"][0]["event_ids"] == ["e9"]


def test_a_stored_document_can_be_read_back():
    found = report(
        replace(ROW, parts=(*ROW.parts, DifferencePart(ComparisonStep.SENT_STRIPE, None, D(-1), (), ("m1",)))),
        CustomerDay(
            None,
            DAY,
            None,
            D(5),
            D(0),
            None,
            (DifferencePart(ComparisonStep.LEDGER_SENT, Cause.NO_CUSTOMER, D(5), ("e1",)),),
        ),
        findings=(UnbilledFinding("no_metered_item", "cus_a", D("7.5"), "nobody bills it", ("m1",)),),
        cross_check=CrossCheck((DayDifference(DAY, 2, 100, D("0.000004")),)),
        problems=("Stripe: no answer",),
    )
    ordered = replace(
        found, rows=tuple(replace(r, parts=tuple(sorted(r.parts, key=lambda p: p.sort_key))) for r in found.rows)
    )
    assert Reconciliation.from_json(found.to_json()) == ordered


def test_rows_that_agree_are_no_differences():
    same = CustomerDay(
        "cus_b",
        DAY,
        D(5),
        D("5.000000"),
        D(5),
        D(5),
        (DifferencePart(ComparisonStep.LEDGER_SENT, Cause.EXCLUDED, D(0), ("x",)),),
    )
    unknown = CustomerDay("cus_c", DAY, None, D(5), D(5), None)
    assert report(same, unknown, ROW).only_differences().rows == (ROW,)


def test_books_that_agree_by_opposite_errors_are_differences():
    lost, foreign = (
        DifferencePart(ComparisonStep.SENT_STRIPE, Cause.LOST_AT_STRIPE, D(5)),
        DifferencePart(ComparisonStep.SENT_STRIPE, Cause.NOT_OURS, D(-5)),
    )
    row = CustomerDay("cus_a", DAY, D(9), D(9), D(9), D(9), (lost, foreign))
    assert (row.differs, row.unexplained_credits) == (True, 10)


def test_the_waterfall_steps_from_langfuse_to_stripe():
    assert waterfall(report(ROW)) == [
        ("langfuse", D("120.75")),
        ("late", D("-20.5")),
        ("carried_fraction", D("-0.25")),
        ("not_ours", D(7)),
        ("stripe", D(107)),
    ]


def test_a_cause_that_works_both_ways_is_two_steps_of_the_waterfall():
    more, less = (
        DifferencePart(ComparisonStep.LANGFUSE_LEDGER, Cause.LATE, D(5)),
        DifferencePart(ComparisonStep.LANGFUSE_LEDGER, Cause.LATE, D(-2)),
    )
    rows = (
        CustomerDay("cus_a", DAY, D(5), D(0), D(0), D(0), (more,)),
        CustomerDay("cus_b", DAY, D(0), D(2), D(2), D(2), (less,)),
    )
    assert waterfall(report(*rows)) == [("langfuse", 5), ("late −", -5), ("late +", 2), ("stripe", 2)]


def test_fractions_carried_out_of_one_day_and_into_another_are_one_step():
    out, into = (
        DifferencePart(ComparisonStep.LEDGER_SENT, Cause.CARRIED_FRACTION, D("0.75")),
        DifferencePart(ComparisonStep.LEDGER_SENT, Cause.CARRIED_FRACTION, D("-0.5")),
    )
    rows = (
        CustomerDay("cus_a", DAY, D("1.75"), D("1.75"), D(1), D(1), (out,)),
        CustomerDay("cus_b", DAY, D("1.5"), D("1.5"), D(2), D(2), (into,)),
    )
    assert waterfall(report(*rows)) == [("langfuse", D("3.25")), ("carried_fraction", D("-0.25")), ("stripe", 3)]


def test_the_waterfall_starts_and_ends_where_every_row_is_known():
    blind = replace(ROW, langfuse_credits=None, stripe_credits=None, parts=(CARRIED,))
    assert waterfall(report(blind)) == [("ledger", D("100.25")), ("carried_fraction", D("-0.25")), ("sent", D(100))]
    half = replace(ROW, stripe_credits=None, parts=(LATE, CARRIED))
    assert waterfall(report(half, ROW))[-1] == ("sent", D(200))


def test_the_waterfall_of_nothing_is_nothing():
    assert waterfall(report()) == [("langfuse", 0), ("stripe", 0)]
