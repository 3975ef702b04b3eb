"""Money that Stripe counts but no invoice bills."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from billing_core.reconcile.findings import after_finalization, billed_lines, no_metered_item
from billing_core.stripe.model import Invoice, InvoiceLine, Subscription, SubscriptionItem
from billing_core.values.usage_frame import Window

D = Decimal
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
NOW = datetime(2026, 11, 20, tzinfo=UTC)
OCTOBER, NOVEMBER = datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)
WINDOW = Window(datetime(2026, 10, 25, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC))


def subscription(meter="mtr_1", status="active", started_at=OCTOBER, ended_at=None, customer="cus_a"):
    item = SubscriptionItem("si_1", "price_1", None, None, meter, None, None)
    return Subscription("sub_1", customer, status, (item,), started_at, ended_at, None, None)


def unbilled(subscriptions, counted=None):
    counted = counted or {("cus_a", NOON): D(40), ("cus_a", NOON + timedelta(hours=1)): D("2.5")}
    return [(f.kind, f.customer_id, f.credits) for f in no_metered_item(counted, subscriptions, "mtr_1", NOW)]


NOBODY_BILLS = [("no_metered_item", "cus_a", D("42.5"))]


def test_a_metered_subscription_bills_what_stripe_counts():
    assert unbilled([subscription()]) == []
    assert unbilled([subscription(started_at=None)]) == []


def test_without_a_subscription_or_an_item_on_the_meter_nobody_bills_it():
    assert unbilled([]) == NOBODY_BILLS
    assert unbilled([subscription(meter=None)]) == NOBODY_BILLS
    assert unbilled([subscription(meter="mtr_other")]) == NOBODY_BILLS
    assert unbilled([subscription(customer="cus_b")]) == NOBODY_BILLS


def test_a_subscription_bills_only_its_own_time():
    assert unbilled([subscription(status="canceled", ended_at=NOON)]) == NOBODY_BILLS
    assert unbilled([subscription(status="canceled", ended_at=NOON + timedelta(hours=2))]) == []
    assert unbilled([subscription(status="canceled", ended_at=NOON + timedelta(minutes=30))]) == [
        ("no_metered_item", "cus_a", D("2.5"))
    ]
    assert unbilled([subscription(started_at=NOON + timedelta(minutes=30))]) == []
    assert unbilled([subscription(started_at=NOON + timedelta(days=1))]) == NOBODY_BILLS


def test_a_paused_or_never_begun_subscription_makes_no_invoice():
    assert unbilled([subscription(status="paused")]) == NOBODY_BILLS
    assert unbilled([subscription(status="incomplete_expired")]) == NOBODY_BILLS


def test_a_canceled_subscription_that_does_not_say_when_bills_nothing_from_now_on():
    later = {("cus_a", NOW + timedelta(hours=1)): D(5)}
    assert unbilled([subscription(status="canceled")], later) == [("no_metered_item", "cus_a", 5)]
    assert unbilled([subscription(status="canceled")]) == []


def test_a_customer_who_still_owes_is_billed():
    assert unbilled([subscription(status="past_due")]) == []


def test_the_finding_says_who_and_how_much():
    [finding] = no_metered_item({("cus_a", NOON): D("42.5")}, [], "mtr_1", NOW)
    assert finding.says == ("Stripe counts 42.5 credits of cus_a that no invoice bills: no subscription has the meter")


def line(quantity="100", price="price_1", start=OCTOBER, end=NOVEMBER):
    return InvoiceLine(None, price, None if quantity is None else D(quantity), None, start, end)


def invoice(*lines, status="paid", invoice_id="in_1"):
    return Invoice(invoice_id, "cus_a", "sub_1", status, None, None, None, None, None, lines)


def lines_of(*invoices):
    found = billed_lines(invoices, [subscription()], "mtr_1", WINDOW)
    return [(row.customer_id, row.start, row.end, row.invoice_ids, row.quantity) for row in found]


def test_final_invoices_billed_their_metered_lines():
    tiers = invoice(line("100"), line("20.5"), line("1", price="price_base"))
    assert lines_of(tiers) == [("cus_a", OCTOBER, NOVEMBER, ("in_1",), D("120.5"))]


def test_drafts_and_void_invoices_billed_nothing_yet():
    assert lines_of(invoice(line(), status="draft"), invoice(line(), status="void")) == []


def test_periods_that_do_not_touch_the_window_are_left_out():
    september = datetime(2026, 9, 1, tzinfo=UTC)
    assert lines_of(invoice(line(start=september, end=OCTOBER))) == []


def test_a_line_without_a_quantity_or_period_says_nothing():
    assert lines_of(invoice(line(None)), invoice(line(end=None))) == []


def intent(identifier, value, tried, stamp=NOVEMBER - timedelta(hours=2), customer="cus_a"):
    return {
        "identifier": identifier,
        "customer_id": customer,
        "stamp": stamp,
        "value": value,
        "first_attempt_at": tried,
    }


def too_late(late, sent, quantity="100"):
    lines = billed_lines([invoice(line(quantity))], [subscription()], "mtr_1", WINDOW)
    found = after_finalization(lines, late, lambda customer, start, end: sent)
    return [(f.kind, f.customer_id, f.credits, f.meter_events) for f in found]


AFTER = NOVEMBER + timedelta(hours=5)


def test_usage_sent_after_its_invoice_was_final_is_billed_by_none():
    assert too_late([intent("m1", 30, AFTER)], sent=130) == [("after_finalization", "cus_a", 30, ("m1",))]


def test_late_usage_that_came_while_the_invoice_was_a_draft_is_billed():
    assert too_late([intent("m1", 30, AFTER)], sent=100) == []
    assert too_late([intent("m1", 30, AFTER), intent("m2", 20, AFTER)], sent=120) == [
        ("after_finalization", "cus_a", 20, ("m1", "m2"))
    ]


def test_credits_missing_from_an_invoice_beyond_the_late_ones_are_another_matter():
    assert too_late([intent("m1", 30, AFTER)], sent=150) == [("after_finalization", "cus_a", 30, ("m1",))]


def test_credits_given_back_late_are_no_money_lost():
    assert too_late([intent("m1", 30, AFTER), intent("m2", -10, AFTER)], sent=130) == [
        ("after_finalization", "cus_a", 30, ("m1",))
    ]


def test_usage_sent_within_its_period_was_in_time_whatever_the_invoice_says():
    assert too_late([intent("m1", 30, NOVEMBER - timedelta(hours=1))], sent=130) == []


def test_usage_of_the_next_period_or_another_customer_is_not_late_for_this_one():
    assert too_late([intent("m1", 30, AFTER, stamp=NOVEMBER)], sent=130) == []
    assert too_late([intent("m1", 30, AFTER, customer="cus_b")], sent=130) == []


def test_the_late_finding_names_invoice_credits_and_period():
    lines = billed_lines([invoice(line())], [subscription()], "mtr_1", WINDOW)
    [finding] = after_finalization(lines, [intent("m1", 30, AFTER)], lambda *_: 130)
    assert finding.says == (
        "in_1 billed 100 of the 130 credits sent to cus_a for 2026-10-01 00:00 to 2026-11-01 00:00 UTC: "
        "30 came after it was final"
    )
