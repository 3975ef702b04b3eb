"""Which usage an invoice will still bill."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.stripe.model import Invoice, InvoiceLine, Subscription, SubscriptionItem
from billing_core.stripe.periods import calendar_of, choose

METER = "mtr_1"
SECOND = timedelta(seconds=1)


def at(*moment):
    return datetime(*moment, tzinfo=UTC)


STARTED, EDGE, NEXT_EDGE = at(2026, 1, 5, 9, 30, 12), at(2026, 11, 5, 9, 30, 12), at(2026, 12, 5, 9, 30, 12)
LAST_EDGE = at(2026, 10, 5, 9, 30, 12)
NOW = at(2026, 11, 22, 12)


def item(id_="si_1", meter_id=METER, start=EDGE, end=NEXT_EDGE, price="price_pro"):
    return SubscriptionItem(id_, price, None, None, meter_id, start, end)


def subscription(id_="sub_1", *items, status="active", started=STARTED, ended=None):
    return Subscription(id_, "cus_1", status, items or (item(),), started, ended, None, None)


def draft(finalizes=None, *lines, id_="in_1", of="sub_1", start=LAST_EDGE, end=EDGE, status="draft"):
    return Invoice(id_, "cus_1", of, status, 6, "usd", start, end, finalizes, lines)


def line(start, end, price="price_pro"):
    return InvoiceLine(None, price, None, 6, start, end)


def closed(moment, *subscriptions, drafts=(), now=NOW):
    return calendar_of(subscriptions, drafts, METER, now).closed(moment)


class TestUsageOfTheCurrentPeriod:
    @pytest.mark.parametrize("moment", [EDGE, EDGE + SECOND, NOW, NEXT_EDGE - SECOND])
    def test_is_open(self, moment):
        assert closed(moment, subscription()) is None

    def test_at_exactly_the_end_belongs_to_the_next_one_and_is_open(self):
        assert closed(NEXT_EDGE, subscription()) is None

    def test_is_open_if_it_is_current_for_any_item_on_the_meter(self):
        weekly = item("si_2", start=at(2026, 11, 19), end=at(2026, 11, 26))
        assert closed(at(2026, 11, 10), subscription("sub_1", weekly, item())) is None
        assert closed(at(2026, 11, 10), subscription("sub_1", weekly)) is not None

    @pytest.mark.parametrize("status", ["trialing", "active", "past_due", "unpaid", "paused", "hibernating"])
    def test_is_open_whatever_the_state_of_payment(self, status):
        assert closed(NOW, subscription(status=status)) is None


class TestUsageOfAnEarlierPeriod:
    def test_is_closed_in_words(self):
        assert closed(EDGE - SECOND, subscription()) == (
            "the billing period ended by 2026-11-05 09:30 UTC and its invoice is final"
        )

    def test_is_closed_also_where_nobody_knows_when_the_subscription_began(self):
        assert closed(at(2020, 1, 1), subscription(started=None)) is not None

    def test_before_the_subscription_began_is_open_because_nothing_bills_it(self):
        assert closed(STARTED - SECOND, subscription()) is None
        assert closed(STARTED, subscription()) is not None

    def test_is_open_while_its_invoice_is_a_draft(self):
        now = EDGE + timedelta(minutes=20)
        drafts = [draft(EDGE + timedelta(hours=1))]
        assert closed(EDGE - SECOND, subscription(), drafts=drafts, now=now) is None
        assert closed(LAST_EDGE, subscription(), drafts=drafts, now=now) is None
        assert closed(LAST_EDGE - SECOND, subscription(), drafts=drafts, now=now) is not None

    @pytest.mark.parametrize(("minutes", "is_open"), [(11, True), (10, False), (1, False), (-5, False)])
    def test_is_closed_ten_minutes_before_its_invoice_becomes_final(self, minutes, is_open):
        drafts = [draft(NOW + timedelta(minutes=minutes))]
        reason = closed(EDGE - SECOND, subscription(), drafts=drafts)
        assert (reason is None) is is_open
        assert is_open or "invoice in_1 becomes final at 2026-11-22 " in reason

    def test_is_open_while_nobody_knows_when_the_draft_becomes_final(self):
        assert closed(EDGE - SECOND, subscription(), drafts=[draft(None)]) is None

    def test_is_closed_if_the_draft_is_of_another_subscription_or_final(self):
        for other in (draft(None, of="sub_2"), draft(None, of=None), draft(None, status="open")):
            assert closed(EDGE - SECOND, subscription(), drafts=[other]) is not None

    def test_is_open_if_only_the_lines_of_the_draft_cover_it(self):
        described_as_next = draft(None, line(LAST_EDGE, EDGE), start=EDGE, end=NEXT_EDGE)
        assert closed(EDGE - SECOND, subscription(), drafts=[described_as_next]) is None

    def test_is_not_reopened_by_a_line_of_another_price(self):
        yearly_seat = line(at(2026, 1, 1), at(2027, 1, 1), "price_seat")
        drafts = [draft(None, yearly_seat, line(LAST_EDGE, EDGE))]
        assert closed(LAST_EDGE - SECOND, subscription(), drafts=drafts) is not None


class TestAnEndedSubscription:
    ENDED = at(2026, 11, 15, 7)

    def ended(self, **changes):
        return subscription(**{"status": "canceled", "ended": self.ENDED, **changes})

    def test_takes_no_more_usage_of_its_time(self):
        reason = closed(self.ENDED - SECOND, self.ended())
        assert reason == "subscription sub_1 ended at 2026-11-15 07:00 UTC and its last invoice is final"

    def test_takes_it_while_its_last_invoice_is_a_draft(self):
        drafts = [draft(NOW + timedelta(hours=1), start=EDGE, end=self.ENDED)]
        assert closed(self.ENDED - SECOND, self.ended(), drafts=drafts) is None

    def test_does_not_concern_usage_after_its_end(self):
        calendar = calendar_of([self.ended()], [], METER, NOW)
        assert calendar.closed(self.ENDED) is None
        assert (calendar.billed_by_invoice, calendar.period) == (False, None)

    def test_without_a_known_end_takes_nothing_up_to_now(self):
        assert closed(NOW - SECOND, self.ended(ended=None)) is not None

    def test_gives_way_to_the_one_that_followed(self):
        following = subscription("sub_2", item(start=self.ENDED, end=at(2026, 12, 15, 7)), started=self.ENDED)
        assert closed(self.ENDED, self.ended(), following) is None
        assert closed(self.ENDED - SECOND, self.ended(), following) is not None

    def test_beside_it_a_flat_one_decides_nothing(self):
        flat = subscription("sub_2", item(meter_id=None), started=at(2025, 1, 1))
        metered = subscription(started=EDGE)
        assert closed(EDGE - SECOND, flat, metered) is None
        assert closed(self.ENDED - SECOND, flat, self.ended()) is not None

    def test_does_not_close_what_another_one_still_bills(self):
        assert closed(self.ENDED - SECOND, self.ended(), subscription("sub_2")) is None


class TestCustomersNoInvoiceBills:
    def test_without_a_subscription_everything_is_open(self):
        calendar = calendar_of([], [], METER, NOW)
        assert (calendar.closed(at(2020, 1, 1)), calendar.billed_by_invoice) == (None, False)
        assert (calendar.edges(STARTED, NOW), calendar.period, calendar.deadline) == ((), None, None)

    def test_with_a_flat_plan_only_nothing_closes_but_edges_remain(self):
        flat = item(meter_id=None)
        calendar = calendar_of([subscription("sub_1", flat)], [draft(NOW + timedelta(hours=1))], METER, NOW)
        assert (calendar.closed(EDGE - SECOND), calendar.billed_by_invoice, calendar.deadline) == (None, False, None)
        assert calendar.edges(EDGE - SECOND, EDGE + SECOND) == (EDGE,)
        assert calendar.period == (EDGE, NEXT_EDGE)

    def test_of_another_meter_are_not_billed_either(self):
        assert not calendar_of([subscription("sub_1", item(meter_id="mtr_2"))], [], METER, NOW).billed_by_invoice

    def test_a_subscription_that_never_began_does_not_count(self):
        never = subscription(status="incomplete_expired")
        calendar = calendar_of([never], [], METER, NOW)
        assert (calendar.closed(EDGE - SECOND), calendar.billed_by_invoice) == (None, False)
        assert calendar.edges(STARTED, NEXT_EDGE + SECOND) == ()

    @pytest.mark.parametrize(
        ("status", "billed"),
        [("active", True), ("past_due", True), ("unpaid", True), ("hibernating", True), ("paused", False)],
    )
    def test_a_paused_subscription_writes_no_invoices(self, status, billed):
        assert calendar_of([subscription(status=status)], [], METER, NOW).billed_by_invoice is billed


class TestEdges:
    def test_lie_strictly_within(self):
        calendar = calendar_of([subscription()], [], METER, NOW)
        assert calendar.edges(EDGE - SECOND, NEXT_EDGE + SECOND) == (EDGE, NEXT_EDGE)
        assert calendar.edges(EDGE, NEXT_EDGE) == ()

    def test_are_those_of_the_items_on_the_meter(self):
        seat = item("si_2", None, at(2026, 11, 1), at(2027, 11, 1))
        assert calendar_of([subscription("sub_1", seat, item())], [], METER, NOW).edges(LAST_EDGE, NEXT_EDGE) == (EDGE,)

    def test_of_drafts_count_because_older_periods_end_there(self):
        calendar = calendar_of([subscription()], [draft(None)], METER, NOW)
        assert calendar.edges(LAST_EDGE - SECOND, NOW) == (LAST_EDGE, EDGE)


class TestTheDeadline:
    def test_is_the_next_draft_that_still_takes_usage(self):
        times = [NOW + timedelta(minutes=m) for m in (-60, 9, 30, 90)]
        drafts = [draft(moment, id_=f"in_{n}") for n, moment in enumerate([*times, None])]
        assert calendar_of([subscription()], drafts, METER, NOW).deadline == NOW + timedelta(minutes=30)

    def test_is_unknown_without_a_draft(self):
        assert calendar_of([subscription()], [draft(NOW, of="sub_9")], METER, NOW).deadline is None

    def test_and_the_end_of_the_period_say_when_to_read_again(self):
        drafts = [draft(NOW + timedelta(hours=1))]
        assert calendar_of([subscription()], [], METER, NOW).valid_until == NEXT_EDGE
        assert calendar_of([subscription()], drafts, METER, NOW).valid_until == NOW + timedelta(minutes=50)
        assert calendar_of([], [], METER, NOW).valid_until is None
        assert calendar_of([subscription()], [], METER, NEXT_EDGE + SECOND).valid_until is None


class TestChoosing:
    def chosen(self, *subscriptions, meter_id=METER):
        found = choose(subscriptions, meter_id)
        return found and found.id

    def test_a_live_one_comes_before_an_ended_one(self):
        assert self.chosen(subscription("a", status="canceled"), subscription("b", item(meter_id=None))) == "b"

    def test_a_metered_one_comes_first(self):
        assert self.chosen(subscription("a", item(meter_id=None)), subscription("b", status="past_due")) == "b"

    def test_without_a_meter_the_status_decides(self):
        flat = item(meter_id=None)
        both = subscription("a", flat, status="unpaid"), subscription("b", flat)
        assert self.chosen(*both, meter_id=None) == "b"

    def test_the_newest_of_equals_is_meant(self):
        assert self.chosen(subscription("a"), subscription("b", started=NOW), subscription("c", started=None)) == "b"

    def test_an_ended_one_is_better_than_one_that_never_began_and_none_is_none(self):
        never = subscription("a", status="incomplete_expired")
        assert self.chosen(never, subscription("b", status="canceled")) == "b"
        assert self.chosen(never) == "a"
        assert self.chosen() is None


def spans():
    return st.tuples(moments, moments).map(sorted).filter(lambda pair: pair[0] < pair[1])


moments = st.integers(0, 60).map(lambda n: at(2026, 11, 20) + timedelta(hours=n, minutes=n % 3, seconds=n))
items = st.builds(
    lambda meter_id, span, price: item("si_1", meter_id, *span, price),
    st.sampled_from([METER, METER, None]),
    spans(),
    st.sampled_from(["p1", "p2"]),
)
some_subscriptions = st.lists(
    st.builds(
        lambda id_, found, status, started, ended: subscription(
            id_, *found, status=status, started=started, ended=ended
        ),
        st.sampled_from(["sub_1", "sub_2"]),
        st.lists(items, min_size=1, max_size=3),
        st.sampled_from(["active", "canceled", "past_due", "incomplete_expired", "new"]),
        st.none() | moments,
        st.none() | moments,
    ),
    max_size=3,
)
some_drafts = st.lists(
    st.builds(
        lambda final, span, lines, of: draft(final, *lines, of=of, start=span[0], end=span[1]),
        st.none() | moments,
        spans(),
        st.lists(st.builds(lambda span, price: line(*span, price), spans(), st.sampled_from(["p1", "p3"])), max_size=2),
        st.sampled_from(["sub_1", "sub_2"]),
    ),
    max_size=3,
)


@given(some_subscriptions, some_drafts, moments, st.lists(moments, min_size=2, max_size=2))
def test_between_two_edges_usage_is_all_open_or_all_closed(subscriptions, drafts, now, window):
    """So a meter event that does not straddle an edge is sent or held as a whole."""
    calendar = calendar_of(subscriptions, drafts, METER, now)
    start, end = min(window), max(window) + timedelta(hours=1)
    cuts = [start, *calendar.edges(start, end), end]
    for left, right in itertools.pairwise(cuts):
        inside = [left + (right - left) * step / 7 for step in range(7)] + [right - timedelta(microseconds=1)]
        assert len({calendar.closed(moment) is None for moment in inside}) == 1


@given(some_subscriptions, some_drafts, moments, moments)
def test_a_reason_is_one_line_and_only_metered_customers_get_one(subscriptions, drafts, now, moment):
    calendar = calendar_of(subscriptions, drafts, METER, now)
    reason = calendar.closed(moment)
    has_meter = any(i.meter_id for s in subscriptions if s.status != "incomplete_expired" for i in s.items)
    assert reason is None or (has_meter and reason and "\n" not in reason)


@given(some_subscriptions, some_drafts, moments, moments, st.integers(0, 5))
def test_what_is_closed_stays_closed_as_time_goes_by(subscriptions, drafts, now, moment, hours):
    later = now + timedelta(hours=hours)
    begun = [s for s in subscriptions if s.ended_at is None or s.ended_at <= now]
    before = calendar_of(begun, drafts, METER, now).closed(moment)
    after = calendar_of(begun, drafts, METER, later).closed(moment)
    assert before is None or after is not None


class TestAnItemOfWhichStripeDoesNotSayHowItIsMetered:
    """It may be on the meter: usage of a final period is not sent on the chance that it is not."""

    unsaid = SubscriptionItem("si_1", "price_x", None, None, None, EDGE, NEXT_EDGE, is_unsaid=True)

    def test_closes_like_one_on_the_meter(self):
        assert closed(EDGE - SECOND, subscription("sub_1", self.unsaid)) is not None
        assert closed(EDGE, subscription("sub_1", self.unsaid)) is None

    def test_a_flat_fee_never_closes_because_it_never_bills_usage(self):
        assert closed(EDGE - SECOND, subscription("sub_1", item(meter_id=None))) is None
