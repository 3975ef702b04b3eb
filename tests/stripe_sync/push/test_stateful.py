"""Whatever happens in whatever order, Stripe counts what the ledger says was sent, and that is what is owed; also when
the ledger is lost or restored from an old copy, as far as Stripe's sums can tell."""

from __future__ import annotations

from collections import defaultdict
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from billing_core.stripe_sync.pipeline import Action
from billing_core.stripe_sync.settlement_rules import SettlementKind
from tests.stripe_sync.push.machine import (
    AGES,
    MICROSECONDS,
    PAYING,
    RECENT,
    TIMEOUT,
    TOKENS,
    UNANSWERED,
    WAITS,
    WHO,
    Machine,
    search,
)
from tests.stripe_sync.push.stripe_server import at
from tests.stripe_sync.push.world import FLAT, HALF_PAST, ON_THE_HOUR, VOID

READS = st.sampled_from(["/v1/billing/meters", "/v1/subscriptions", "/v1/invoices", "/v1/customers", "/v2/core/events"])
SUMS = "/v1/billing/meters/"
ITEMS = "/v1/invoiceitems"

KIND = st.sampled_from(SettlementKind)
MUCH = st.sampled_from([1_234_567, 2_000_001])
STUCK = st.sampled_from([timedelta(days=36), timedelta(days=40), timedelta(days=34, hours=23)])


class Pushing(Machine):
    """Usage comes and changes, who pays for it too."""

    # ── usage ────────────────────────────────────────────────────────────────────────────────────

    @rule(customer=WHO, age=AGES, tokens=TOKENS, microseconds=MICROSECONDS)
    def use(self, customer, age, tokens, microseconds):
        self.book_new(customer, age, tokens, microseconds)

    @rule(customer=PAYING, tokens=TOKENS, microseconds=st.sampled_from([-1_000_000, -1, 0, 1, 600_000_000]))
    def use_around_the_edge_of_the_period(self, customer, tokens, microseconds):
        edge = at("2026-11-16T00:00:00") if customer == ON_THE_HOUR else at("2026-11-15T10:20:30")
        time = edge + timedelta(microseconds=microseconds)
        if time <= self.stripe.now:
            self.book_new(customer, self.stripe.now - time, tokens, 0)

    @precondition(lambda self: self.world.usage)
    @rule(data=st.data(), tokens=st.one_of(st.just(0), TOKENS))
    def grow_or_shrink(self, data, tokens):
        name, usage = self.one(data)
        self.world.book(name, usage.customer, usage.timestamp, tokens, 0, as_pulled=True)

    @precondition(lambda self: self.world.usage)
    @rule(data=st.data(), customer=WHO)
    def change_customer(self, data, customer):
        name, usage = self.one(data)
        self.world.book(name, customer, usage.timestamp, usage.tokens, usage.microseconds)

    @precondition(lambda self: self.world.usage)
    @rule(data=st.data(), age=AGES, customer=WHO)
    def change_time(self, data, age, customer):
        name, usage = self.one(data)
        self.world.book(name, customer, self.stripe.now - age, usage.tokens + 1, usage.microseconds)

    # ── pushes ───────────────────────────────────────────────────────────────────────────────────

    @rule(path=READS, kind=st.sampled_from(["503", "html", "403", "reset"]))
    def push_while_reading_fails(self, path, kind):
        self.stripe.fault(kind, path, times=None)
        self.world.push()
        self.stripe.heal()

    @rule(customer=PAYING, delay=st.sampled_from([0.0, 60.0, 7200.0]), steps=st.integers(3, 10))
    def push_what_stripe_takes_back_later(self, customer, delay, steps):
        self.something_to_send(customer)
        self.stripe.switch(async_errors={customer: "meter_event_invalid_value"}, async_error_delay_seconds=delay)
        self.world.push()
        self.stripe.switch(async_errors={})
        self.stripe.wait(seconds=delay)
        self.world.push_and_die(steps)

    # ── people ───────────────────────────────────────────────────────────────────────────────────

    @rule(customer=st.sampled_from([HALF_PAST, ON_THE_HOUR, "cus_unknown", None]))
    def map_organization(self, customer):
        self.world.map_to(customer)

    @rule(action=st.sampled_from(Action), customer=PAYING)
    def decide(self, action, customer):
        self.world.decide(action, customer)

    # ── settlements ──────────────────────────────────────────────────────────────────────────────

    @rule(customer=PAYING, age=STUCK, tokens=MUCH)
    def use_so_much_that_it_can_be_invoiced(self, customer, age, tokens):
        self.book_new(customer, age, tokens)
        self.world.push()

    @rule(customer=PAYING, tokens=MUCH)
    def use_much_and_hold_it(self, customer, tokens):
        self.book_new(customer, timedelta(hours=1), tokens)
        self.world.decide(Action.HOLD, customer)

    @rule(kind=KIND, customer=st.sampled_from([HALF_PAST, ON_THE_HOUR, FLAT, None]))
    def settle(self, kind, customer):
        self.world.settle(kind, customer)

    @rule(kind=UNANSWERED, times=st.sampled_from([1, 2, None]), customer=PAYING, tokens=MUCH, then=WAITS)
    def invoice_without_an_answer(self, kind, times, customer, tokens, then):
        self.use_so_much_that_it_can_be_invoiced(customer, timedelta(days=36), tokens)
        self.stripe.fault(kind, ITEMS, times=times)
        self.world.settle(SettlementKind.INVOICE_ITEM, customer)
        self.stripe.heal()
        self.later(then)

    @rule(steps=st.integers(0, 14), kind=KIND, customer=PAYING, tokens=MUCH, then=WAITS)
    def settle_and_die(self, steps, kind, customer, tokens, then):
        self.use_so_much_that_it_can_be_invoiced(customer, timedelta(days=36), tokens)
        self.world.until_the_end(lambda: self.world.settle(kind, customer), steps)
        self.later(then)

    @precondition(lambda self: self.world.settlements())
    @rule(data=st.data(), steps=st.sampled_from([None, None, 0, 1, 2, 3, 4, 5]), kind=st.one_of(st.none(), UNANSWERED))
    def take_back(self, data, steps, kind):
        one = data.draw(st.sampled_from(sorted(self.world.settlements())))
        if kind is not None:
            self.stripe.fault(kind, ITEMS, times=2)
        if steps is None:
            self.world.take_back(one)
        else:
            self.world.until_the_end(lambda: self.world.take_back(one), steps)
        self.stripe.heal()

    # ── time ─────────────────────────────────────────────────────────────────────────────────────

    def later(self, duration):
        self.world.check_always()
        super().later(duration)

    @rule(seconds=st.sampled_from([0.0, 600.0, 3600.0]))
    def summaries_lag(self, seconds):
        self.stripe.switch(summary_lag_seconds=seconds)

    # ── truth ────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def stripe_counts_what_the_ledger_says(self):
        self.world.check_always()
        self.world.check_nothing_came_too_late()

    def teardown(self) -> None:
        try:
            self.world.come_to_rest()
            self.world.check_always()
            self.world.check_quiet()
            self.world.decide(Action.RELEASE)
            self.world.decide(Action.RETRY)
            self.world.push()
            self.world.come_to_rest()
            self.world.check_always()
            self.world.check_quiet()
        finally:
            self.close()


class Forgetting(Machine):
    """Usage comes, changes and moves; and the ledger is restored from an old copy, or lost and pulled anew."""

    def __init__(self):
        super().__init__()
        self.most = defaultdict(dict)
        """Customer → event → the most it ever cost there."""
        self.sent_as = defaultdict(set)
        """Event → customers and hours that any ledger tried to send it for."""
        self.untold = set()
        """Customers of usage that moved after it was sent, of which a ledger that was lost took the knowledge along."""

    # ── usage ────────────────────────────────────────────────────────────────────────────────────

    @rule(customer=PAYING, age=AGES, tokens=TOKENS)
    def use(self, customer, age, tokens):
        self.book_new(customer, age, tokens)

    @precondition(lambda self: self.world.usage)
    @rule(data=st.data(), tokens=st.one_of(st.just(0), TOKENS))
    def grow_or_shrink(self, data, tokens):
        name, usage = self.one(data)
        self.world.book(name, usage.customer, usage.timestamp, tokens, as_pulled=True)

    @precondition(lambda self: self.world.usage)
    @rule(data=st.data(), customer=PAYING)
    def change_customer(self, data, customer):
        name, usage = self.one(data)
        self.world.book(name, customer, usage.timestamp, usage.tokens, as_pulled=True)

    @precondition(lambda self: self.world.usage)
    @rule(data=st.data(), age=RECENT)
    def change_time(self, data, age):
        name, usage = self.one(data)
        self.world.book(name, usage.customer, self.stripe.now - age, usage.tokens, as_pulled=True)

    # ── pushes, people ───────────────────────────────────────────────────────────────────────────

    @rule(times=st.sampled_from([2, None]))
    def push_while_sums_cannot_be_read(self, times):
        self.stripe.fault("503", SUMS, times=times)
        self.world.push()
        self.stripe.heal()

    @rule()
    def retry(self):
        self.world.decide(Action.RETRY)

    @rule(customer=PAYING, tokens=MUCH)
    def hold_much_and_invoice_it(self, customer, tokens):
        self.book_new(customer, timedelta(hours=1), tokens)
        self.world.decide(Action.HOLD, customer)
        self.world.settle(SettlementKind.INVOICE_ITEM, customer)

    # ── a ledger that forgets ────────────────────────────────────────────────────────────────────

    @rule()
    def back_up(self):
        self.world.back_up()

    @rule(then=WAITS)
    def restore(self, then):
        self.world.restore()
        self._note_what_is_not_known()
        self.later(then)

    @rule(then=WAITS)
    def lose_the_ledger_and_pull_anew(self, then):
        self.world.lose()
        self._note_what_is_not_known()
        self.later(then)

    def _note_what_is_not_known(self):
        known = defaultdict(set)
        for row in self.world.table(
            """SELECT id, customer_id, date_trunc('hour', "timestamp") AS hour FROM events
               UNION SELECT id, customer_id, date_trunc('hour', "timestamp") FROM event_revisions"""
        ):
            known[row["id"]].add((row["customer_id"], row["hour"]))
        for name, places in self.sent_as.items():
            if places - known[name]:
                self.untold |= {customer for customer, _ in places | known[name]}

    # ── truth ────────────────────────────────────────────────────────────────────────────────────

    @invariant()
    def stripe_never_counts_more_than_was_used_at_any_time(self):
        intents = self.world.intents()
        for row in self.world.coverage():
            intent = intents[row["identifier"]]
            if intent["state"] not in {"open", *VOID}:
                hour = intent["stamp"].replace(minute=0, second=0)
                self.sent_as[row["event_id"]].add((row["customer_id"], hour))
        for name, usage in self.world.usage.items():
            most = self.most[usage.customer]
            most[name] = max(most.get(name, 0), usage.tokens)
        invoiced = defaultdict(Decimal)
        for item in self.stripe.account.book.items.values():
            if not item.is_deleted:
                invoiced[item.customer] += Decimal(item.metadata["billing_credits"])
        for customer in {*self.stripe.sums, *invoiced}:
            counted, used = self.stripe.sums.get(customer, 0), sum(self.most[customer].values())
            told = f"{customer} used {used / 10} at most, billed {counted}, invoiced {invoiced[customer]}"
            assert counted + invoiced[customer] <= Decimal(used) / 10, told

    def teardown(self):
        try:
            self.world.come_to_rest()
            self.stripe_never_counts_more_than_was_used_at_any_time()
            self._everything_is_sent_or_kept_back()
        finally:
            self.close()

    def _everything_is_sent_or_kept_back(self):
        """Stripe counts what was used, unless somebody is told why not."""
        held, events = self.world.held(), self.world.events()
        told, used = set(self.untold), defaultdict(int)
        for name, usage in self.world.usage.items():
            event = events[name]
            used[usage.customer] += usage.tokens
            if event["sync_status"] == "pending":
                assert name in held or "carried" in event["marks"], event
            if name in held or event["sync_status"] == "error":
                told |= {usage.customer, *(customer for customer, _ in self.sent_as[name])}
        for customer in {*used, *self.stripe.sums} - told:
            items = [i for i in self.stripe.account.book.items.values() if i.customer == customer and not i.is_deleted]
            counted, owed = self.stripe.sums.get(customer, 0), Decimal(used[customer]) / 10
            owed -= sum((Decimal(item.metadata["billing_credits"]) for item in items), Decimal(0))
            assert -1 < counted - owed <= 0, f"{customer} used {owed}, billed {counted}"


@pytest.mark.timeout(TIMEOUT)
@pytest.mark.parametrize("granularity", ["hour", "event"])
@pytest.mark.parametrize("machine", [Pushing, Forgetting])
def test_stripe_counts_what_is_owed_whatever_happens(stripe, template, machine, granularity):
    search(machine, stripe, template, granularity)
