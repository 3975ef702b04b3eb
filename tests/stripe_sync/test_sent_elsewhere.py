"""What is kept back because Stripe's hourly sums are not what this ledger sent."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from billing_core.ledger.sent_elsewhere import Billed, Difference, DifferingHour
from billing_core.stripe_sync.sent_elsewhere import Owed, differences, events_to_keep_back, reason_of

HOUR = datetime(2026, 11, 3, 9, tzinfo=UTC)
CREDITS = st.decimals(0, 1000, places=6)


def owed(credits_):
    return [
        Owed(name, "cus_a", HOUR + timedelta(hours=hours), Decimal(credits_))
        for name, hours in (("before", -2), ("within", 0), ("after", 1))
    ]


def kept(counted, least, most, credits_, before=(), decided=None):
    new = differences("cus_a", {HOUR: counted}, {HOUR: Billed(least, most)}, before)
    return list(
        events_to_keep_back(owed(credits_), [*before, *(DifferingHour(one, HOUR, False) for one in new)], decided or {})
    )


@given(CREDITS, CREDITS, CREDITS)
def test_usage_is_kept_back_exactly_when_stripe_counts_a_whole_credit_more_than_it_may(least, more, counted):
    most = least + more
    assert kept(counted, least, most, 1) == (["before", "within"] if counted - most >= 1 else [])


@given(CREDITS, CREDITS, CREDITS)
def test_corrections_are_kept_back_exactly_when_stripe_counts_a_whole_credit_less_than_it_must(least, more, counted):
    most = least + more
    assert kept(counted, least, most, -1) == (["before", "within"] if least - counted >= 1 else [])


@given(CREDITS, CREDITS)
def test_what_was_found_and_decided_keeps_nothing_back_until_stripe_counts_something_else_again(billed, counted):
    first = differences("cus_a", {HOUR: counted}, {HOUR: Billed(billed, billed)}, [])
    before = [DifferingHour(one, HOUR, is_decided=True) for one in first]
    for credits_ in (1, -1):
        assert kept(counted, billed, billed, credits_, before) == []
    if counted - billed >= 1:
        assert kept(counted + 1, billed, billed, 1, before) == ["before", "within"]
    if billed - counted >= 1:
        assert kept(counted - 1, billed, billed, -1, before) == ["before", "within"]


@given(st.lists(st.sampled_from([-3, -1, 2, 5]), max_size=6), st.sampled_from([-4, 4]))
def test_what_one_meter_event_may_have_carried_together_is_kept_back_together(amounts, credits_):
    rows = [Owed(str(number), "cus_a", HOUR, Decimal(amount)) for number, amount in enumerate(amounts)]
    found = [DifferingHour(Difference("cus_a", HOUR, Decimal(10 + credits_), Decimal(10)), HOUR, is_decided=False)]
    is_explained = any(amount * credits_ > 0 for amount in amounts)
    assert set(events_to_keep_back(rows, found, {})) == ({row.event_id for row in rows} if is_explained else set())


def test_the_reason_names_both_figures_and_whose_hour_it_is():
    more = Difference("cus_a", HOUR, Decimal("1250"), Decimal("1000.4"))
    less = Difference("cus_a", HOUR, Decimal("0"), Decimal("1000"))
    assert "counts 1,250 credits in the hour from 2026-11-03 09:00 UTC, of which 1,000.4 are known" in reason_of(more)
    assert "counts 0 credits in the hour from 2026-11-03 09:00 UTC, of which this ledger sent 1,000" in reason_of(less)
    assert "of cus_a, where this usage was before" in reason_of(more, of_another=True)
