"""The lines of "Checklist for correct status reads" in the Stripe notes that reading from Stripe has to keep."""

import dataclasses
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path

import pytest

from billing_core.errors import BadParameter, UpstreamError
from billing_core.runtime import clock
from tests.stripe import objects
from tests.stripe.fake import Reply, error, page, stripe_that

DAY = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC)

READS = {
    "customers": lambda p: p.customers(),
    "one customer": lambda p: p.customer("cus_1"),
    "subscriptions": lambda p: p.subscriptions(),
    "invoices": lambda p: p.invoices(),
    "the upcoming invoice": lambda p: p.upcoming("cus_1", "sub_1"),
    "summaries": lambda p: p.summaries("mtr_1", "cus_1", *DAY),
    "error reports": lambda p: p.error_reports(clock.now()),
}
LISTS = {
    "customers": (READS["customers"], lambda n: {"id": f"cus_{n}"}),
    "subscriptions": (READS["subscriptions"], lambda n: objects.subscription(f"sub_{n}")),
    "invoices": (READS["invoices"], lambda n: objects.invoice(f"in_{n}")),
    "summaries": (READS["summaries"], lambda n: objects.summary(n * 60, n, id_=f"mtrusg_{n}")),
}


def read(answer, call):
    with stripe_that(answer if callable(answer) else lambda asked: answer) as fake:
        return call(fake.provider()), fake.asked


def test_periods_come_from_every_item_and_the_items_are_paginated():
    raw = objects.subscription(
        items=[objects.item("si_0")], has_more=True, current_period_start=1, current_period_end=2
    )
    more = [objects.item(f"si_{n}", current_period_end=objects.seconds(2027, 1, n + 1)) for n in range(12)]

    def answer(asked):
        return page(raw) if asked.path == "/v1/subscriptions" else page(*more)

    (found,), _ = read(answer, READS["subscriptions"])
    assert [i.period_end for i in found.items] == [datetime(2027, 1, n + 1, tzinfo=UTC) for n in range(12)]


@pytest.mark.parametrize(
    "status",
    ["active", "trialing", "past_due", "unpaid", "paused", "incomplete", "incomplete_expired", "canceled", "brand_new"],
)
def test_every_status_is_asked_for_and_arrives_as_stripe_spells_it(status):
    (found,), asked = read(page(objects.subscription(status=status)), READS["subscriptions"])
    assert (asked[0].query["status"], found.status) == ("all", status)


@pytest.mark.parametrize("fault", [error(500), error(401), error(403), Reply(reset=True), Reply(body=b"<html>")])
@pytest.mark.parametrize("call", READS.values(), ids=READS)
def test_a_failed_read_is_an_error_and_never_an_empty_answer(call, fault):
    with pytest.raises(UpstreamError):
        read(fault, call)


@pytest.mark.parametrize(("call", "row"), LISTS.values(), ids=LISTS)
def test_every_list_is_read_to_its_end_in_pages_of_a_hundred(call, row):
    rows = [row(number) for number in range(250)]

    def answer(asked):
        after = asked.query.get("starting_after")
        first = 0 if after is None else [r["id"] for r in rows].index(after) + 1
        limit = int(asked.query["limit"])
        return page(*rows[first : first + limit], has_more=first + limit < len(rows))

    found, asked = read(answer, call)
    assert (len(found), len(asked)) == (250, 3)


def test_summaries_are_aligned_in_utc_and_every_row_counts_exactly():
    with pytest.raises(BadParameter):
        read(page(), lambda p: p.summaries("mtr_1", "cus_1", DAY[0] + timedelta(hours=1), DAY[1], "day"))
    body = b'{"has_more": false, "data": [%s]}' % b",".join(
        b'{"id": "s%d", "start_time": %d, "end_time": %d, "aggregated_value": 90071992547409.93}'
        % (n, n * 3600, n * 3600 + 3600)
        for n in range(24)
    )
    found, _ = read(Reply(body=body), lambda p: p.summaries("mtr_1", "cus_1", *DAY, "hour"))
    assert sum(bucket.value for bucket in found) == 24 * Decimal("90071992547409.93")


def test_invoice_quantities_are_decimals_and_subscription_and_price_come_from_the_current_paths():
    (found,), _ = read(
        page(objects.invoice(subscription="sub_old", lines=[objects.line(price="price_x")])), READS["invoices"]
    )
    assert (found.subscription_id, found.lines[0].price_id) == ("sub_1", "price_x")
    assert found.lines[0].quantity == Decimal("1500.250000000001")


def test_a_draft_tells_when_it_becomes_final_and_a_final_invoice_does_not():
    draft, final = objects.invoice(), objects.invoice("in_2", status="paid", automatically_finalizes_at=None)
    found, _ = read(page(draft, final), READS["invoices"])
    assert [i.finalizes_at for i in found] == [datetime(2026, 11, 3, 1, tzinfo=UTC), None]


def test_billing_credits_which_are_money_are_never_read():
    sources = "".join(path.read_text() for path in Path("billing_core/stripe").glob("*.py"))
    assert "credit_grant" not in sources
    assert "credit_balance" not in sources


def test_one_sweep_reads_the_subscriptions_of_all_customers_and_calls_are_counted():
    rows = [objects.subscription(f"sub_{n}", customer=f"cus_{n}") for n in range(90)]

    def call(provider):
        return len({s.customer_id for s in provider.subscriptions()}), provider.calls

    assert read(page(*rows), call)[0] == (90, 1)


def test_the_reason_of_a_rate_limit_is_told():
    limit = error(429, headers={"Retry-After": "99", "Stripe-Rate-Limited-Reason": "endpoint-rate"})
    with pytest.raises(UpstreamError, match="rate limit endpoint-rate"):
        read(limit, READS["customers"])


def test_events_are_deduplicated_by_id_and_never_asked_for_beyond_thirty_days():
    body = {"data": [objects.report(), objects.report(), objects.report("evt_2")], "next_page_url": None}
    found, asked = read(Reply(body=body), lambda p: p.error_reports(datetime(2020, 1, 1, tzinfo=UTC)))
    assert [r.id for r in found] == ["evt_1", "evt_2"]
    oldest = datetime.fromisoformat(asked[0].query["created"]["gte"])
    assert clock.now() - oldest < timedelta(days=30, minutes=1)


def plain(value):
    """Whether nothing inside is of the SDK."""
    if dataclasses.is_dataclass(value):
        return all(plain(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, (list, tuple)):
        return all(plain(inner) for inner in value)
    return value is None or isinstance(value, (str, int, bool, Decimal, datetime, Enum))


def test_no_object_of_the_sdk_leaves_the_boundary():
    for rows, call in [
        (page(objects.subscription()), READS["subscriptions"]),
        (page(objects.invoice()), READS["invoices"]),
        (page({"id": "cus_1"}), READS["customers"]),
        (page(objects.summary(0, 1)), READS["summaries"]),
        (page(objects.meter()), lambda p: [p.preflight()]),
        (Reply(body={"data": [objects.report()]}), READS["error reports"]),
    ]:
        found, _ = read(rows, call)
        assert found
        assert plain(found)
