"""What keeps a month open, and what a person may accept."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from billing_core.errors import BadParameter
from billing_core.month_close.rules import (
    Acceptance,
    ObstacleGroup,
    UnfinishedEvents,
    from_reconciliation,
    from_unfinished_events,
    judge,
    not_over,
)
from billing_core.reconcile.report import Cause, ComparisonStep, CustomerDay, DifferencePart, Reconciliation
from billing_core.values.usage_frame import Window

START, END = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
SETTLED = datetime(2026, 11, 1, 0, 30, tzinfo=UTC)


def stands(stage, cause=None, *, settled=True, carried=False):
    one = UnfinishedEvents(stage, cause, settled, carried, 2, Decimal("1.5"), Decimal("0.06"), ("b", "a"))
    return [(o.cause, o.group.value, o.events, o.credits, o.event_ids) for o in from_unfinished_events([one])]


@pytest.mark.parametrize(
    ("stage", "cause", "obstacle"),
    [
        ("pending", None, ("unsent", "unsent")),
        ("sending", None, ("unknown_outcome", "unsent")),
        ("held", "on_hold", ("held", "unsent")),
        ("held", "no_customer", ("no_customer", "error")),
        ("held", "too_old", ("too_old", "error")),
        ("held", "closed_period", ("held", "error")),
        ("held", "failed_before", ("held", "error")),
        ("error", "resource_missing", ("rejected", "error")),
        ("correction", None, ("changed_after_sending", "unsent")),
    ],
)
def test_what_got_no_further_stands_against_a_close_by_its_cause(stage, cause, obstacle):
    assert stands(stage, cause) == [(*obstacle, 2, Decimal("1.5"), ("a", "b"))]


def test_an_obstacle_has_its_money_and_the_filter_that_finds_its_events():
    stuck = [
        UnfinishedEvents("error", cause, True, False, 1, Decimal(10), Decimal("0.4"), (cause,))
        for cause in ("resource_missing", "rejected")
    ]
    (rejected,) = from_unfinished_events(stuck)
    assert (rejected.events, rejected.credits, rejected.amount_usd) == (2, Decimal(20), Decimal("0.8"))
    assert rejected.stuck_for == ("rejected", "resource_missing")
    (unsent,) = from_unfinished_events([UnfinishedEvents("pending", None, True, False, 1, Decimal(1), Decimal(1), ())])
    assert unsent.stuck_for == ()


def test_what_may_still_grow_is_unsettled():
    assert stands("pending", settled=False)[0][:2] == ("unsettled", "unsettled")


def test_fractions_that_wait_for_a_whole_credit_are_no_obstacle():
    assert stands("pending", carried=True) == []


@pytest.mark.parametrize("stage", ["processed", "confirmed", "excluded"])
def test_what_arrived_or_is_not_billed_is_no_obstacle(stage):
    assert stands(stage) == []


def compared(*parts):
    row = CustomerDay("cus_a", date(2026, 10, 5), Decimal(1), Decimal(1), Decimal(1), Decimal(1), parts)
    return from_reconciliation(Reconciliation(Window(START, END), END, (row,)))


def part(cause, step=ComparisonStep.SENT_STRIPE, credits_="3", ids=("a",)):
    return DifferencePart(step, cause, Decimal(credits_), ids)


@pytest.mark.parametrize("cause", [Cause.NOT_OURS, Cause.LOST_AT_STRIPE])
def test_what_nobody_can_explain_is_unexplained_whatever_its_sign(cause):
    both = compared(part(cause, credits_="3"), part(cause, credits_="-2", ids=("b",)))
    assert [(o.cause, o.group, o.credits, o.events) for o in both] == [
        (cause.value, ObstacleGroup.UNEXPLAINED, Decimal(5), 2)
    ]


def test_a_contradiction_of_the_ledger_is_unexplained():
    assert [o.cause for o in compared(part(None))] == ["contradiction"]


@pytest.mark.parametrize("cause", [Cause.LATE, Cause.CHANGED_AFTER_SENDING])
def test_what_langfuse_says_otherwise_is_unsettled_until_it_is_pulled(cause):
    assert [(o.cause, o.group) for o in compared(part(cause, ComparisonStep.LANGFUSE_LEDGER))] == [
        (cause.value, ObstacleGroup.UNSETTLED)
    ]


@pytest.mark.parametrize(
    "cause", [Cause.SUMMARY_LAG, Cause.CARRIED_FRACTION, Cause.EXCLUDED, Cause.UNPRICED, Cause.LEGACY_BILLED]
)
def test_explained_differences_are_no_obstacle(cause):
    assert compared(part(cause), part(cause, ComparisonStep.LEDGER_SENT)) == []


def test_a_cause_or_its_group_may_be_accepted_by_somebody_for_a_reason():
    obstacles = [
        *from_unfinished_events([UnfinishedEvents("held", "too_old", True, False, 1, Decimal(1), Decimal("0.04"), ())]),
        *compared(part(None)),
    ]
    for word in ("too_old", "error"):
        standing, accepted = judge(obstacles, Acceptance.parse([word], by="fay", reason=" written  off "))
        assert [o.cause for o in standing] == ["contradiction"]
        assert [(a.obstacle.cause, a.by, a.reason) for a in accepted] == [("too_old", "fay", "written off")]
    assert judge(obstacles, Acceptance.parse(["error,unexplained"], by="fay", reason=""))[0] == []


def test_a_word_that_is_no_cause_is_refused_with_those_that_are():
    with pytest.raises(BadParameter, match=r"accept: 'everything' is not accepted; expected one of .*unexplained"):
        Acceptance.parse(["everything"], by="fay", reason="")


def test_that_a_month_is_not_over_cannot_be_accepted():
    early = not_over("2026-10", END, SETTLED, datetime(2026, 10, 31, 23, 59, tzinfo=UTC))
    assert early is not None
    assert judge([early], Acceptance.parse(["unsettled", "unsent"], by="fay", reason=""))[0] == [early]
    with pytest.raises(BadParameter):
        Acceptance.parse(["not_over"], by="fay", reason="")


def test_a_month_is_over_once_its_last_traces_are_settled():
    soon = not_over("2026-10", END, SETTLED, END)
    assert soon is not None
    assert soon.group is ObstacleGroup.UNSETTLED
    assert not_over("2026-10", END, SETTLED, SETTLED) is None
