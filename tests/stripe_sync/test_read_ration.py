"""Stripe's reads are rationed: what was read is counted over all processes, and spared when a month's share is used."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing_core.access import Principal, Role
from billing_core.errors import UpstreamError
from billing_core.stripe_sync.read_ration import MONTHLY_READS, OTHER_READS, SUM_READS_A_DAY, other_reads_are_due
from tests.stripe_sync.push_world import at, use

ADMIN = Principal("ada", Role.ADMIN)
SWEEP = ("/v1/customers", "/v1/subscriptions", "/v1/invoices")


@pytest.fixture
def read(stripe):
    """Paths that were read since the last call."""

    def paths():
        found = [call["path"] for call in stripe.control("GET", "/_sandbox/requests") if call["method"] == "GET"]
        stripe.control("DELETE", "/_sandbox/requests")
        return found

    return paths


def looks(paths):
    return sum("event_summaries" in path for path in paths)


def spend(world, reads):
    """As if so many reads had been made this month."""
    world.rows("DELETE FROM stripe_objects WHERE kind = 'reads'")
    now = world.stripe.now()
    query = "INSERT INTO stripe_objects VALUES ('reads', ?, NULL, ?, ?)"
    world.ledger.engine.rows(query, [f"{now:%Y-%m}", str(reads), now])


def test_four_pushes_in_half_a_minute_look_at_a_customer_once_and_sweep_once(world, stripe, read):
    stripe.switch(summary_lag_seconds=600)
    world.book(use("1", at(0, 10)))
    world.push()
    first = read()
    assert all(first.count(path) == 1 for path in SWEEP)
    for amount in ("160", "170", "180"):
        world.book(use("1", at(0, 10), amount))
        world.push()
    later = read()
    assert (looks(later), [path for path in SWEEP if path in later]) == (0, [])
    assert stripe.sums() == {"cus_a": 180}


def test_an_hour_later_a_customer_is_looked_at_again(world, stripe, read):
    stripe.switch(summary_lag_seconds=600)
    world.book(use("1", at(0, 10)))
    world.push()
    world.wait(minutes=59)
    read()
    world.push()
    assert looks(read()) == 0
    world.wait(minutes=1)
    assert world.push().confirmed == 1
    assert looks(read()) == 1


def test_every_read_of_every_command_is_counted_and_the_count_outlives_the_process(world, stripe, read):
    world.book(use("1", at(0, 10)))
    read()
    result = world.push()
    count = len(read())
    assert (result.reads_this_month, result.to_json()["reads_this_month"]) == (count, count)
    world.reopen()
    world.desk.status(ADMIN, "cus_a")
    count += len(read())
    assert world.desk.reads_this_month(ADMIN) == count
    world.desk.read_plans(ADMIN)
    world.desk.reconcile(ADMIN, at(-2), at(2))
    assert world.desk.reads_this_month(ADMIN) == count + len(read())


def test_while_reads_are_spared_the_account_is_read_once_an_hour_and_usage_is_sent_all_the_same(world, stripe, read):
    if (stripe.now() + timedelta(hours=2)).month != stripe.now().month:  # what is read is counted by the month
        world.wait(minutes=120)
    world.book(use("1", at(0, 10)))
    world.push()
    spend(world, OTHER_READS)
    read()
    for minute in range(5):
        world.wait(minutes=10)
        world.book(use("1", at(0, 10), str(160 + minute)))
        world.push()
    assert read() == []
    assert stripe.sums() == {"cus_a": 164}
    world.wait(minutes=11)
    world.book(use("1", at(0, 10), "200"))
    world.push()
    assert set(SWEEP) <= set(read())


def test_another_key_is_checked_however_much_was_read(world):
    world.book(use("1", at(0, 10)))
    world.push()
    spend(world, OTHER_READS)
    world.reopen(STRIPE_API_KEY="rk_test_another")
    with pytest.raises(UpstreamError, match="check STRIPE_API_KEY"):
        world.push()


moments = st.datetimes(datetime(2024, 1, 1), datetime(2028, 12, 31, 23, 59), timezones=st.just(UTC))


@given(moments)
def test_a_month_never_grants_more_than_stripe_does(now):
    assert OTHER_READS + 31 * SUM_READS_A_DAY <= MONTHLY_READS
    assert not other_reads_are_due(OTHER_READS, now)


@given(moments, st.integers(0, OTHER_READS), st.integers(1, 600))
def test_what_is_granted_grows_with_the_month(now, used, minutes):
    later = now + timedelta(minutes=minutes)
    if now.month == later.month and other_reads_are_due(used, now):
        assert other_reads_are_due(used, later)
