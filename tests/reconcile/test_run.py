"""Reading the three books, what happens when one of them is closed, and in which order they are opened."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from billing_core.errors import BadParameter, NotFound, UpstreamError
from billing_core.langfuse.rollup import DailyTotal
from billing_core.rating.card import builtin_cards
from billing_core.rating.events import Policy
from billing_core.reconcile.run import GIVE_UP_AFTER, reconcile
from billing_core.stripe.model import Subscription, SubscriptionItem, SummaryBucket
from billing_core.values.usage_frame import PullProgress, RejectedRow, Window, whole_hours
from tests.factories import events_table, ledger_at, usage_row, usage_table
from tests.reconcile.literal import causes

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
WINDOW = Window(NOON - timedelta(hours=12), NOON + timedelta(hours=12))
NOW = datetime(2026, 11, 3, tzinfo=UTC)
DAILY = DailyTotal(date(2026, 11, 1), 3, 1000, Decimal("0.01"))


@dataclass
class Reading:
    rows: list
    daily: list = field(default_factory=lambda: [DAILY])
    rejected: list = field(default_factory=list)
    is_discarded: bool = False

    def batches(self):
        for row in self.rows:
            yield usage_table([row])

    def discard(self):
        self.is_discarded = True


class Langfuse:
    """A project with these traces; `fails` with an error instead of being read."""

    def __init__(self, *rows, fails=None, totals=(DAILY,), rejected=()):
        self.reading = Reading(list(rows), rejected=list(rejected))
        self.fails, self.totals = fails, totals
        self.asked = []

    def read(self, window, *, spool, progress=None, ended_since=None):
        self.asked.append((window, ended_since))
        if self.fails:
            raise self.fails
        progress(PullProgress(0.5, 1, "reading observations"))
        return self.reading

    def daily_totals(self, window):
        if isinstance(self.totals, Exception):
            raise self.totals
        return None if self.totals is None else list(self.totals)


class Stripe:
    """An account that counts `counts[customer][hour]`; an error there is raised."""

    is_live = True

    def __init__(self, counts=None, subscriptions=(), on_read=lambda customer: None):
        self.counts, self.found, self.on_read = counts or {}, list(subscriptions), on_read
        self.asked = []

    def summaries(self, meter_id, customer_id, start, end, grouping=None):
        self.asked.append((meter_id, customer_id, start, end, grouping))
        self.on_read(customer_id)
        counted = self.counts.get(customer_id, {})
        if isinstance(counted, Exception):
            raise counted
        return [SummaryBucket(hour, hour + timedelta(hours=1), Decimal(value)) for hour, value in counted.items()]

    def subscriptions(self, customer_id=None):
        if self.found and isinstance(self.found[0], Exception):
            raise self.found[0]
        return self.found

    def invoices(self, status=None, customer_id=None, created_since=None):
        return []


def metered(customer):
    item = SubscriptionItem("si_1", "price_1", None, None, "mtr_1", None, None)
    return Subscription(f"sub_{customer}", customer, "active", (item,), None, None, None, None)


@pytest.fixture
def ledger(tmp_path):
    """One trace of 150 credits, sent and accepted long ago."""
    ledger = ledger_at(tmp_path / "billing.duckdb", [usage_row(id="e1", timestamp=NOON)])
    send(ledger, "m1", answered_at=NOON)
    yield ledger
    ledger.engine.close()


def send(ledger, identifier, *, answered_at, event_id="e1", value=150):
    stamp, credits_ = NOON, Decimal(150)
    with ledger.engine.transaction() as writer:
        writer.insert(
            "intents",
            {
                "identifier": identifier,
                "customer_id": "cus_a",
                "stamp": stamp,
                "value": value,
                "credits": credits_,
                "carried_before": Decimal(0),
                "state": "accepted",
                "answered_at": answered_at,
                "first_attempt_at": answered_at,
            },
        )
        row = {"identifier": identifier, "event_id": event_id, "customer_id": "cus_a", "credits": credits_}
        writer.insert("coverage", row)
        writer.update("events", {"id": event_id, "sync_status": "processed"}, key="id")


def run(ledger, langfuse=None, stripe=None, window=WINDOW, progress=None, clock=lambda: NOW, policy=None):
    return reconcile(
        ledger,
        builtin_cards(),
        policy or Policy(),
        window,
        langfuse=langfuse,
        spool=Path("unused"),
        stripe=stripe,
        meter_id=None if stripe is None else "mtr_1",
        clock=clock,
        progress=progress,
    )


TRACE = usage_row(id="e1", timestamp=NOON)


def test_sent_usage_that_names_no_customer_is_compared_where_it_was_sent_whatever_the_map_says_by_now(tmp_path):
    traces = [usage_row(id=id_, timestamp=NOON, customer_id=None) for id_ in ("e1", "e2")]
    ledger = ledger_at(tmp_path / "billing.duckdb")
    ledger.book(events_table(traces, policy=Policy(customers={"org_a": "cus_a"})), run_id="pull")
    send(ledger, "m1", answered_at=NOON)
    found = run(ledger, Langfuse(*traces), policy=Policy(customers={"org_a": "cus_b"}))
    sums = {row.customer_id: (row.langfuse_credits, row.ledger_credits) for row in found.rows}
    assert sums == {"cus_a": (150, 300), "cus_b": (150, 0)}, "e2 is not sent: it follows the map with the next push"
    ledger.engine.close()


def test_three_books_that_agree(ledger):
    found = run(ledger, Langfuse(TRACE), Stripe({"cus_a": {NOON: 150}}, [metered("cus_a")]))
    [row] = found.rows
    assert (row.langfuse_credits, row.ledger_credits, row.sent_credits, row.stripe_credits) == (150,) * 4
    assert (row.parts, found.findings, found.problems, found.made_at) == ((), (), (), NOW)
    assert (found.cross_check.days, found.cross_check.reason) == ((), None)


def test_the_window_is_widened_to_whole_utc_hours(ledger):
    berlin_like = timedelta(hours=5, minutes=30)
    begin = datetime(2026, 11, 1, 12, 45, tzinfo=UTC).astimezone(tz=None) + berlin_like - berlin_like
    window = Window(begin, datetime(2026, 11, 1, 14, 0, 1, tzinfo=UTC))
    langfuse, stripe = Langfuse(TRACE), Stripe({"cus_a": {NOON: 150}})
    found = run(ledger, langfuse, stripe, window)
    whole = Window(NOON, datetime(2026, 11, 1, 15, tzinfo=UTC))
    assert found.window == whole_hours(window) == whole_hours(whole) == whole
    assert langfuse.asked == [(whole, None)]
    assert stripe.asked == [("mtr_1", "cus_a", whole.start, whole.end, "hour")]


def test_traces_are_rated_as_they_were_booked_and_read_pages_are_given_back(ledger):
    langfuse = Langfuse(TRACE, usage_row(id="e2", timestamp=NOON, customer_id=None, environment="langfuse-eval"))
    found = run(ledger, langfuse)
    assert [(row.customer_id, row.langfuse_credits) for row in found.rows] == [("cus_a", 150), (None, 0)]
    assert langfuse.reading.is_discarded


def test_nothing_in_the_ledger_changes(ledger):
    def everything():
        return [
            ledger.engine.rows(f"SELECT * FROM {table} ORDER BY ALL") for table in ("events", "intents", "coverage")
        ]

    before = everything()
    run(ledger, Langfuse(usage_row(id="e1", timestamp=NOON, latency_seconds=6000)), Stripe({"cus_a": {NOON: 9}}))
    assert everything() == before


@pytest.mark.parametrize(
    "error", [UpstreamError("Langfuse at x: no answer"), BadParameter("from", "2020", "a time since 2026")]
)
def test_a_langfuse_that_cannot_be_read_is_unknown_and_said(ledger, error):
    found = run(ledger, Langfuse(fails=error), Stripe({"cus_a": {NOON: 150}}))
    assert (found.rows[0].langfuse_credits, found.rows[0].stripe_credits) == (None, 150)
    assert (found.problems, found.cross_check.reason) == ((str(error),), "Langfuse could not be read")


def test_without_stripe_the_rest_is_compared(ledger):
    found = run(ledger, Langfuse(usage_row(id="e1", timestamp=NOON, latency_seconds=120)))
    assert found.rows[0].stripe_credits is None
    assert causes(found.rows[0]) == [("langfuse_ledger", "changed_after_sending", 50)]
    assert found.problems == ()


def test_without_langfuse_the_rest_is_compared(ledger):
    found = run(ledger, None, Stripe({"cus_a": {NOON: 149}}))
    assert causes(found.rows[0]) == [("sent_stripe", "lost_at_stripe", 1)]
    assert found.cross_check.reason == "Langfuse is not connected"


def test_rows_that_langfuse_could_not_give_are_said(ledger):
    found = run(ledger, Langfuse(TRACE, rejected=[RejectedRow("obs-1", "no start time"), RejectedRow("obs-2", "x")]))
    assert found.problems == ("Langfuse: 2 rows could not be read, in no sum, the first is obs-1: no start time",)


def test_one_customer_that_cannot_be_read_is_unknown_and_the_others_are_compared(tmp_path):
    rows = [usage_row(id="e1", timestamp=NOON), usage_row(id="e2", timestamp=NOON, customer_id="cus_b")]
    ledger = ledger_at(tmp_path / "billing.duckdb", rows)
    stripe = Stripe({"cus_a": UpstreamError("Stripe: reading failed (HTTP 500)"), "cus_b": {NOON: 3}})
    found = run(ledger, Langfuse(*rows), stripe)
    assert [(row.customer_id, row.stripe_credits) for row in found.rows] == [("cus_a", None), ("cus_b", 3)]
    assert found.problems == ("Stripe: reading failed (HTTP 500); what Stripe counts is unknown for 1 of 2 customers",)
    ledger.engine.close()


def test_a_stripe_out_of_reach_is_not_asked_once_for_every_customer(tmp_path):
    customers = [f"cus_{n:03}" for n in range(60)]
    ledger = ledger_at(tmp_path / "billing.duckdb", [usage_row(id=c, timestamp=NOON, customer_id=c) for c in customers])
    stripe = Stripe(dict.fromkeys(customers, UpstreamError("Stripe: no answer")), [UpstreamError("Stripe: no answer")])
    found = run(ledger, None, stripe)
    assert {row.stripe_credits for row in found.rows} == {None}
    assert len(found.rows) == 60
    assert GIVE_UP_AFTER <= len(stripe.asked) < 30
    assert found.problems[1].endswith("unknown for 60 of 60 customers")
    ledger.engine.close()


def test_a_customer_stripe_does_not_know_has_nothing_counted(ledger):
    found = run(ledger, Langfuse(TRACE), Stripe({"cus_a": NotFound("no such customer: cus_a")}))
    assert found.rows[0].stripe_credits == 0
    assert causes(found.rows[0]) == [("sent_stripe", "lost_at_stripe", 150)]
    assert found.problems == ()


def test_a_subscriber_who_used_nothing_here_is_asked_for_as_well(ledger):
    stripe = Stripe({"cus_a": {NOON: 150}, "cus_x": {NOON: 12}}, [metered("cus_a"), metered("cus_x")])
    found = run(ledger, Langfuse(TRACE), stripe)
    assert [causes(row) for row in found.rows] == [[], [("sent_stripe", "not_ours", -12)]]
    assert found.unexplained_credits == 12


def test_credits_nobody_bills_are_a_finding(ledger):
    found = run(ledger, Langfuse(TRACE), Stripe({"cus_a": {NOON: 150}}))
    assert [(f.kind, f.customer_id, f.credits) for f in found.findings] == [("no_metered_item", "cus_a", 150)]


def test_subscriptions_that_cannot_be_read_are_no_finding(ledger):
    stripe = Stripe({"cus_a": {NOON: 150}}, [UpstreamError("Stripe: subscriptions not readable")])
    found = run(ledger, Langfuse(TRACE), stripe)
    assert (found.findings, found.problems) == ((), ("Stripe: subscriptions not readable",))


def test_what_is_pushed_while_stripe_is_read_is_lag_and_not_somebody_else_s(tmp_path):
    """Stripe is read before the ledger: the meter event is in the ledger, and not in the summary yet."""
    ledger = ledger_at(tmp_path / "billing.duckdb", [TRACE])
    stripe = Stripe(on_read=lambda customer: send(ledger, "m1", answered_at=NOW))
    found = run(ledger, Langfuse(TRACE), stripe)
    assert causes(found.rows[0]) == [("sent_stripe", "summary_lag", 150)]
    assert found.unexplained_credits == 0
    ledger.engine.close()


@pytest.mark.parametrize(
    ("totals", "days", "reason"),
    [
        (None, None, "this Langfuse server offers no daily sums"),
        (UpstreamError("metrics answered 429"), None, "metrics answered 429"),
        ([DAILY], (), None),
    ],
)
def test_the_cross_check_never_fails_a_reconciliation(ledger, totals, days, reason):
    found = run(ledger, Langfuse(TRACE, totals=totals))
    assert (found.cross_check.days, found.cross_check.reason) == (days, reason)


def test_the_cross_check_names_the_days_on_which_langfuse_has_more(ledger):
    more = DailyTotal(DAILY.day, 5, 1200, Decimal("0.03"))
    [day] = run(ledger, Langfuse(TRACE, totals=[more])).cross_check.days
    assert (day.day, day.observations, day.tokens, day.cost_usd) == (DAILY.day, 2, 200, Decimal("0.02"))


def test_progress_grows_from_0_to_1(ledger):
    seen = []
    run(
        ledger,
        Langfuse(TRACE),
        Stripe({"cus_a": {NOON: 150}}),
        progress=lambda share, doing: seen.append((share, doing)),
    )
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.3, 1.0)
    assert [doing for _, doing in seen] == [
        "reading observations",
        "reading subscriptions and invoices",
        "reading what Stripe counts, 1 of 1 customers",
        "reading the ledger",
        "comparing",
        "done",
    ]
